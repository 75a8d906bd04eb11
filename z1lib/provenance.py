"""What a result was made by: the commit, the machine, the versions; noted beside it."""

import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "pandas", "math-verify")
VECTOR_UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")  # as the kernel names them
CPUINFO = Path("/proc/cpuinfo")


def commit() -> str:
    """The commit of the code, "-dirty" if tracked files differ from it; "unknown" outside a checkout.

    The figures and the tables of the benchmarks do not count: a run writes them anew.
    """
    git = ["git", "-C", str(Path(__file__).parent.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "-uno", "--", ".", ":!figures", ":!benchmarks/*.csv"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def processor() -> str:
    """The processor's model and the vector units that decide how fast it trains and how it rounds."""
    flags = _cpuinfo("flags") or _cpuinfo("Features") or ""
    units = [name for name in VECTOR_UNITS if name in flags.split()]
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{name} ({', '.join(units) or 'no vector units known'})"


def _cpuinfo(key: str) -> str | None:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), None)


def environment() -> dict:
    """Hardware and versions that numbers depend on. A stage that has not loaded torch has used no other device."""
    torch = sys.modules.get("torch")
    device = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else "CPU"
    hardware = {"device": device, "processor": processor(), "machine": platform.machine(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in PACKAGES}
    return {"hardware": hardware, "versions": {"python": platform.python_version(), **versions}}


def peak_memory() -> float:
    """GiB of main memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)

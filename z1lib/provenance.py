"""What a result was made by: the commit, the code, the machine, the versions; noted beside it."""

import ast
import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "pandas", "math-verify")
VECTOR_UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve")  # as the kernel names them
PACKAGE = Path(__file__).parent
CPUINFO = Path("/proc/cpuinfo")


def commit() -> str:
    """The commit of the code, "-dirty" if tracked files differ from it; "unknown" outside a checkout.

    The figures and the tables of the benchmarks do not count: a run writes them anew.
    """
    git = ["git", "-C", str(PACKAGE.parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        status = [*git, "status", "--porcelain", "-uno", "--", ".", ":!figures", ":!benchmarks/*.csv"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def hash_code(source: str) -> str:
    """A hash of a source and of all of this package that it uses: what it imports, by way of others too, and the whole
    folder of it, since engines and benchmarks are loaded by name.

    Of what runs: comments, docstrings and layout do not count, and every Python gives the same.
    """
    seen, todo = set(), [source]
    digest = hashlib.sha256()
    while todo:
        tree = ast.parse(todo.pop())
        found = {file for name in _imports(tree) for file in _files_of(name)} - seen
        seen |= found
        todo += [file.read_text(encoding="utf-8") for file in sorted(found)]
        digest.update(repr(_what_runs(tree)).encode())
    return digest.hexdigest()[:16]


def hash_notebook(notebook: Path) -> str:
    """`hash_code` of a notebook's code cells."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return hash_code("\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _files_of(module: str) -> list[Path]:
    """The file of a module on the ground, or all of the folder it is in. `pages` shows results and decides none."""
    root, _, rest = module.partition(".")
    folder = PACKAGE / rest.partition(".")[0]
    if root != PACKAGE.name or not rest or folder.name == "pages":
        return []
    return list(folder.glob("*.py")) + [file for file in [folder.with_suffix(".py")] if file.exists()]


def _what_runs(tree: ast.AST) -> list:
    """The nodes of a tree and their plain values, without docstrings."""
    scopes = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, scopes) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    plain = (str, int, float, complex, bytes, bool, type(None), type(...))
    return [
        (type(node).__name__, [value for _, value in ast.iter_fields(node) if isinstance(value, plain)])
        for node in ast.walk(tree)
    ]


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

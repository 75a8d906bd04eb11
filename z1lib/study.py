"""One run of the study on disk: `runs/<profile>/`, what each stage needs from the one before, and its provenance."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from z1lib.models import hash_files, link_released
from z1lib.profile import PROFILES, Profile, load_profile
from z1lib.records import written_whole

STAGES = ("01_curation", "02_sft", "03_windowed_inference", "04_analysis")
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "pandas")
VECTOR_UNITS = ("avx2", "avx512", "avx512_f", "avx512_bf16", "amx_bf16", "neon", "sve")
PACKAGES += ("math-verify", "reasoning-gym")


class MissingArtifact(FileNotFoundError):
    """A stage's input is not there; the message says which notebook makes it."""


class MissingHardware(RuntimeError):
    """The profile wants a GPU that is not here; the message says which, and which profile runs here."""


def check_hardware(profile: Profile) -> None:
    """Raises MissingHardware, in one line, unless this machine has the GPUs the profile wants."""
    has, wanted = _large_gpus(profile), profile.gpus // profile.machines
    if has < wanted:
        raise MissingHardware(
            f"profile {profile.name} wants {wanted} GPU(s) of {profile.gpu_memory_gib} GiB, this machine has {has}; "
            f"{say_smaller(profile)}"
        )


def say_smaller(profile: Profile) -> str:
    """Which profile to try where this one does not fit."""
    smaller = smaller_profile(profile)
    if smaller is None:
        return "no smaller profile runs on the GPUs of this machine"
    return f"the next smaller profile for this machine's GPUs is {smaller}: `make reproduce PROFILE={smaller}`"


def smaller_profile(profile: Profile) -> str | None:
    """The largest profile below this one for which this machine has the GPUs. Its memory 02 checks before it trains.

    Profiles of several trainings, and those that train nothing, are no substitute for one that trains a model.
    """
    others = [load_profile(file) for file in sorted(PROFILES.glob("*.yaml"))]
    others = [other for other in others if not other.subsets and set(other.runs) & set(other.models)]
    fitting = [other for other in others if _size(other) < _size(profile) and _large_gpus(other) >= other.gpus]
    return max(fitting, key=_size).name if fitting else None


def _size(profile: Profile) -> tuple[int, int, int]:
    return profile.gpus, profile.gpu_memory_gib, profile.response_token_budget


def _large_gpus(profile: Profile) -> int:
    sizes = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]
    return sum(size > 0.95 * profile.gpu_memory_gib for size in sizes)  # a card's usable memory is a little less


@dataclass
class Study:
    """Paths and provenance of one profile's run. Opening it makes the folder and starts the stage's clock."""

    profile: Profile
    runs_dir: Path
    started: float = field(default_factory=time.time)
    reads_committed: bool = False  # see `fall_back`

    def __post_init__(self):
        self.folder = Path(self.runs_dir) / self.profile.name
        self.models = self.folder / "models"
        self.committed = Path(self.runs_dir).parent / "figures" / self.profile.name
        self.models.mkdir(parents=True, exist_ok=True)

    @property
    def figures(self) -> Path:
        """Where figures and tables go: committed results are not overwritten by a look at them."""
        return self.folder / "figures" if self.reads_committed else self.committed

    def fall_back(self, *needed: str) -> str:
        """Where this run lacks one of `needed`, take the committed artifacts from here on, if the repository has them.

        Returns the note that says so, "" where the run's own are read. The committed figures are then left alone.
        """
        lacking = [name for name in needed if not self.path(name).exists()]
        self.reads_committed = bool(lacking) and (self.committed / "artifacts").is_dir()
        if not self.reads_committed:
            return ""
        notes = json.loads((self.committed / "provenance.json").read_text())
        made = notes["stages"]["03_windowed_inference"]["commit"]
        return (
            f"> **Not made here yet: {', '.join(f'`{name}`' for name in lacking)}.** What you see comes from the "
            f"committed artifacts of profile `{self.profile.name}` ({self.committed / 'artifacts'}, made at commit "
            f"`{made}`). `make reproduce PROFILE={self.profile.name}` makes your own."
        )

    def path(self, name: str) -> Path:
        return self.folder / name

    def need(self, name: str, stage: str) -> Path:
        """The path of an artifact, the committed one after `fall_back`.

        Raises MissingArtifact saying that `stage` makes it.
        """
        path = self.path(name)
        committed = self.committed / "artifacts" / f"{name}.gz"
        if self.reads_committed and committed.exists():
            return committed
        if not path.exists():
            make = f"make only NB={stage} PROFILE={self.profile.name}"
            raise MissingArtifact(
                f"{path} is missing: notebook {stage} makes it (`{make}`, or `make reproduce`; on Colab, run {stage} "
                f"in this runtime first: `%run {stage}.ipynb`)"
            )
        return path

    def model(self, name: str) -> str:
        """The folder of a model: 01 made the base, 02 the runs; released weights are linked there when asked for.

        Raises MissingArtifact, or ModelUnavailable where released weights cannot be had.
        """
        released = self.profile.released_models.get(name)
        if released:
            link_released(self.models / name, released)
        return str(self.need(f"models/{name}", "01_curation" if name == "base" else "02_sft"))

    @staticmethod
    def peak_memory() -> float:
        """GiB of main memory that this process has held at most."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)

    def finish(self, stage: str, artifacts: list[str]) -> pd.DataFrame:
        """Note in provenance.json when and with what `stage` was run and the hashes of what it made.

        Returns the stages so far, to be shown. `seconds` are those of this time: a stage that went on from what a
        killed one had finished took longer in all.
        """
        file = self.path("provenance.json")
        notes = json.loads(file.read_text()) if file.exists() else {"stages": {}}
        seconds = round(time.time() - self.started, 1)
        hashes = {name: hash_path(self.path(name)) for name in artifacts}
        notes |= {"profile": self.profile.name, "seed": self.profile.seed}
        measured = {"seconds": seconds, "peak_memory_gib": round(self.peak_memory(), 2)}
        notes["stages"][stage] = {**measured, "commit": commit(), "sha256": hashes, **environment()}
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(notes, indent=1))
        return pd.DataFrame(notes["stages"]).T[["seconds", "peak_memory_gib", "commit"]]


def hash_path(path: Path) -> str:
    """sha256 of a file, or of the weight files in a folder."""
    return hash_files(sorted(path.glob("*.safetensors")) if path.is_dir() else [path])


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
    """The processor's model and the vector units that decide how fast it trains."""
    units = [name for name, has in torch.cpu.get_capabilities().items() if has is True and name in VECTOR_UNITS]
    return f"{cpu_name() or platform.processor() or platform.machine()} ({', '.join(units) or 'no AVX2'})"


def cpu_name() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def environment() -> dict:
    """Hardware and versions that numbers depend on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    hardware = {"device": device, "processor": processor(), "machine": platform.machine(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in PACKAGES}
    return {"hardware": hardware, "versions": {"python": platform.python_version(), **versions}}

"""One run of the study on disk: `runs/<profile>/`, what each stage needs from the one before, and its provenance."""

import hashlib
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

import torch

from z1lib.profile import Profile

STAGES = ("01_curation", "02_sft", "03_windowed_inference", "04_analysis")
PACKAGES = ("torch", "transformers", "trl", "datasets", "accelerate", "numpy", "pandas", "math-verify", "reasoning-gym")


class MissingArtifact(FileNotFoundError):
    """A stage's input is not there; the message says which notebook makes it."""


class MissingHardware(RuntimeError):
    """The profile wants a GPU that is not here; the message says which, and which profile runs here."""


def check_hardware(profile: Profile) -> None:
    """Raises MissingHardware, in one line, unless this machine has the GPUs the profile wants."""
    sizes = [torch.cuda.get_device_properties(i).total_memory / 2**30 for i in range(torch.cuda.device_count())]
    large = [size for size in sizes if size > 0.95 * profile.gpu_memory_gib]  # a card's usable memory is a little less
    if len(large) < profile.gpus:
        raise MissingHardware(
            f"profile {profile.name} wants {profile.gpus} GPU(s) of {profile.gpu_memory_gib} GiB, this machine has "
            f"{len(large)}; the default profile mini runs here: `make reproduce PROFILE=mini`"
        )


@dataclass
class Study:
    """Paths and provenance of one profile's run. Opening it makes the folder and starts the stage's clock."""

    profile: Profile
    runs_dir: Path
    started: float = field(default_factory=time.time)

    def __post_init__(self):
        self.folder = Path(self.runs_dir) / self.profile.name
        self.models = self.folder / "models"
        self.figures = Path(self.runs_dir).parent / "figures" / self.profile.name
        self.models.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        return self.folder / name

    def need(self, name: str, stage: str) -> Path:
        """The path of an artifact, or MissingArtifact saying that `stage` makes it."""
        path = self.path(name)
        if not path.exists():
            make = f"make only NB={stage} PROFILE={self.profile.name}"
            raise MissingArtifact(f"{path} is missing: notebook {stage} makes it (`{make}`, or `make reproduce`)")
        return path

    def model(self, name: str) -> str:
        """Where a model of the study is: the released weights the profile names, else the folder that 02 made."""
        stage = "01_curation" if name == "base" else "02_sft"
        return self.profile.released_models.get(name) or str(self.need(f"models/{name}", stage))

    def finish(self, stage: str, artifacts: list[str]) -> dict:
        """Note in provenance.json when and with what `stage` was run and the hashes of what it made."""
        file = self.path("provenance.json")
        notes = json.loads(file.read_text()) if file.exists() else {"stages": {}}
        seconds = round(time.time() - self.started, 1)
        hashes = {name: hash_path(self.path(name)) for name in artifacts}
        notes |= {"profile": self.profile.name, "seed": self.profile.seed, **environment()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
        measured = {"seconds": seconds, "peak_memory_gib": round(peak, 2)}
        notes["stages"][stage] = {**measured, "commit": commit(), "sha256": hashes}
        unfinished = file.with_suffix(".writing")
        unfinished.write_text(json.dumps(notes, indent=1))
        os.replace(unfinished, file)
        return notes


def hash_path(path: Path) -> str:
    """sha256 of a file, or of the weight files in a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with open(file, "rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()


def commit() -> str:
    """The commit of the code, "-dirty" if tracked files differ from it; "unknown" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def environment() -> dict:
    """Hardware and versions that numbers depend on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    hardware = {"device": device, "machine": platform.machine(), "cores": os.cpu_count()}
    versions = {name: version(name) for name in PACKAGES}
    return {"hardware": hardware, "versions": {"python": platform.python_version(), **versions}}

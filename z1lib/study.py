"""One run of the study on disk: `runs/<profile>/`, what each stage needs from the one before, and its provenance."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from z1lib.chat import TODAY
from z1lib.files import hash_path, written_whole
from z1lib.profile import Profile
from z1lib.provenance import PACKAGE, commit, environment, hash_code, peak_memory, read_notebook

NOTEBOOKS = PACKAGE.parent / "notebooks"
STAGES = ("01_curation", "02_sft", "03_windowed_inference", "04_analysis", "05_selection")


class MissingArtifact(FileNotFoundError):
    """A stage's input is not there; the message says which notebook makes it."""


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
        self.figures = self.folder / "figures"
        self.committed = Path(self.runs_dir).parent / "figures" / self.profile.name
        self.models.mkdir(parents=True, exist_ok=True)
        self.read: set[str] = set()  # artifacts that this stage took from those before it

    def fall_back(self, *needed: str) -> str:
        """Where this run lacks one of `needed`, take the committed artifacts from here on, if the repository has them.

        Returns the note that says so, "" where the run's own are read.
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

    def offers(self, name: str) -> bool:
        """Whether this run has an artifact with anything in it, or the repository has it."""
        own = self.path(name)
        return (own.exists() and own.stat().st_size > 0) or any(self._kept(name))

    def say_missing(self) -> str:
        """The note that stands where neither this run nor the repository has what is to be shown."""
        return f"> **Not run yet.** `make reproduce PROFILE={self.profile.name}` makes what this section shows."

    def _kept(self, name: str) -> list[Path]:
        """The committed files of an artifact, one a training seed."""
        return list((self.committed / "artifacts").glob(f"{Path(name).stem}*.jsonl.gz"))

    def need(self, name: str, stage: str) -> Path:
        """The path of an artifact, the committed one after `fall_back`.

        Raises MissingArtifact saying that `stage` makes it.
        """
        self.read.add(name)
        path = self.path(name)
        if self.reads_committed and self._kept(name):
            return self.committed / "artifacts" / f"{Path(name).stem}*.jsonl.gz"
        if not path.exists():
            make = f"make only NB={stage} PROFILE={self.profile.name}"
            raise MissingArtifact(
                f"{path} is missing: notebook {stage} makes it (`{make}`, or `make reproduce`; on Colab, run {stage} "
                f"in this runtime first: `%run {stage}.ipynb`)"
            )
        return path

    def data_commit(self) -> str:
        """The commit at which what is shown was decoded, where this stage read completions; else today's."""
        if "completions.jsonl" not in self.read:
            return commit()
        notes = json.loads(((self.committed if self.reads_committed else self.folder) / "provenance.json").read_text())
        return notes["stages"]["03_windowed_inference"]["commit"]

    def model(self, name: str) -> str:
        """The folder of a model: 01 made the base, 02 the runs; released weights are linked there when asked for.

        Raises MissingArtifact, or ModelUnavailable where released weights cannot be had.
        """
        released = self.profile.model.released.get(name)
        if released:
            from z1lib.models import link_released  # torch, which the analysis does without

            link_released(self.models / name, released)
        return str(self.need(f"models/{name}", "01_curation" if name == "base" else "02_sft"))

    def finish(self, stage: str, artifacts: list[str], keeps: bool = False) -> pd.DataFrame:
        """Note in provenance.json when and with what `stage` was run and the hashes of what it made.

        Returns the stages so far, to be shown. A stage that `keeps` what it once made leaves its note as it was where
        every artifact is the same: the models or rows are of the code and the time of then. `seconds` are those of one
        time: a stage that went on from what a killed one had finished took longer in all.
        """
        file = self.path("provenance.json")
        notes = json.loads(file.read_text()) if file.exists() else {"stages": {}}
        hashes = {name: hash_path(self.path(name)) for name in artifacts}
        if not keeps or notes["stages"].get(stage, {}).get("sha256") != hashes:
            seconds = round(time.time() - self.started, 1)
            code = hash_code(read_notebook(NOTEBOOKS / f"{stage}.ipynb"))
            made = {"seconds": seconds, "peak_memory_gib": round(peak_memory(), 2), "commit": commit(), "code": code}
            notes["stages"][stage] = {**made, "sha256": hashes, **environment()}
        notes |= {"profile": self.profile.name, "seed": self.profile.seed, "date_in_prompts": TODAY.isoformat()}
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(notes, indent=1))
        return pd.DataFrame(notes["stages"]).T[["seconds", "peak_memory_gib", "commit"]]

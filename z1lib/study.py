"""One run of the study on disk: `runs/<profile>/`, what each stage needs from the one before, and its provenance.

`python -m z1lib.study run 03_windowed_inference mini` executes one notebook, as `make reproduce` does in order.
"""

import argparse
import difflib
import json
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from z1lib.files import hash_path, written_whole
from z1lib.profile import BadProfile, Profile, load_profile
from z1lib.provenance import PACKAGE, commit, environment, hash_code, peak_memory, read_notebook

NOTEBOOKS = PACKAGE.parent / "notebooks"
STAGES = ("01_curation", "02_sft", "03_windowed_inference", "04_analysis")


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

    def need(self, name: str, stage: str) -> Path:
        """The path of an artifact, the committed one after `fall_back`.

        Raises MissingArtifact saying that `stage` makes it.
        """
        path = self.path(name)
        kept = self.committed / "artifacts" / f"{Path(name).stem}*.jsonl.gz"
        if self.reads_committed and any(kept.parent.glob(kept.name)):
            return kept
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
        notes |= {"profile": self.profile.name, "seed": self.profile.seed}
        with written_whole(file) as unfinished:
            unfinished.write_text(json.dumps(notes, indent=1))
        return pd.DataFrame(notes["stages"]).T[["seconds", "peak_memory_gib", "commit"]]


class StageFailed(RuntimeError):
    """A notebook did not run to its end; the message names the cell, the error, the log and what goes on from here."""


def run_stage(stage: str, profile: Profile, runs_dir: Path = Path("runs")) -> Path:
    """Execute a notebook by papermill into `runs/<profile>/`, where it appears when it has run to its end.

    What it prints goes to the terminal and to a log beside it. Raises StageFailed. KeyboardInterrupt leaves nothing
    half-written, and the next call goes on from what the stage has kept.
    """
    folder = runs_dir / profile.name
    folder.mkdir(parents=True, exist_ok=True)
    done, log, running, failed, before = (
        folder / f"{stage}.{kind}" for kind in ("ipynb", "log", "running.ipynb", "failed.ipynb", "before.ipynb")
    )
    command = ["papermill", f"notebooks/{stage}.ipynb", str(running), "--cwd", "notebooks", "-k", "python3"]
    command += ["--log-output", "-p", "profile", profile.name, "-p", "runs_dir", "../runs"]
    print(f"== {stage} ({profile.name}), log in {log}\n{shlex.join(command)}", flush=True)
    if is_of_older_layout(folder / "provenance.json"):
        print(f"{folder} was made by an older version: its notebooks run again, what it trained and decoded is kept "
              "where its inputs are the same; to start anew, move the folder away")  # fmt: skip
    failed.unlink(missing_ok=True)
    if done.exists():  # a run that fails must not look finished
        done.rename(before)
    try:
        code = _tee([sys.executable, "-m", *command], log)
    except KeyboardInterrupt:
        running.unlink(missing_ok=True)
        raise
    if code:
        if running.exists():
            running.rename(failed)
        raise StageFailed(_explain_failure(stage, profile, log, failed))
    before.unlink(missing_ok=True)
    return running.rename(done)


def is_of_older_layout(provenance: Path) -> bool:
    """Whether a run has stages whose code was not hashed yet."""
    stages = json.loads(provenance.read_text())["stages"] if provenance.exists() else {}
    return any("code" not in stage for stage in stages.values())


def _tee(command: list[str], log: Path) -> int:
    """Run a command, its output to the terminal and to a file; its exit code."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process, open(log, "w", encoding="utf-8") as file:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                file.write(line)
        except KeyboardInterrupt:
            process.communicate()  # the same Ctrl-C ends papermill, which ends its kernel
            raise
    return process.returncode


def _explain_failure(stage: str, profile: Profile, log: Path, notebook: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    where = next((line for line in lines if "Exception encountered at" in line), "before its first cell")
    return (
        f"{stage} failed: {where.strip()}\n  {lines[-1] if lines else 'no output'}\n  log: {log}, notebook up to "
        f"there: {notebook}; `make reproduce PROFILE={profile.name}` goes on from here"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m z1lib.study", description="Run one notebook of the study.")
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("stage", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("profile", nargs="?", default="mini")
    given = parser.parse_args(arguments)
    if given.stage not in STAGES:
        [nearest] = difflib.get_close_matches(given.stage, STAGES, 1, 0)
        print(f"no notebook {given.stage!r}, did you mean {nearest}? NB is one of {', '.join(STAGES)}")
        return 2
    try:
        run_stage(given.stage, load_profile(given.profile))
    except (BadProfile, StageFailed) as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; `make reproduce PROFILE={given.profile}` goes on from what is kept")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How a notebook is executed, and what the terminal shows of it.

`python -m z1lib.pages.terminal 03_windowed_inference mini` executes one, as `make reproduce` does in order.
"""

import argparse
import difflib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from z1lib.files import Busy, exclusive
from z1lib.profile import BadProfile, Profile, load_profile
from z1lib.progress import MARK, SECONDS
from z1lib.provenance import PACKAGE
from z1lib.study import STAGES

PROGRESS_SECONDS, LINE_SECONDS = 5, 60  # between two looks at a stage: on a terminal, and elsewhere


class StageFailed(RuntimeError):
    """A notebook did not run to its end; the message names the cell, the error, the log and what goes on from here."""


def run_stage(stage: str, profile: Profile, runs_dir: Path = Path("runs"), verbose: bool = False) -> Path:
    """Execute a notebook by papermill into `runs/<profile>/`, where it appears when it has run to its end.

    What it prints goes to a log beside it; the terminal shows how far it is, or all of it. Raises StageFailed, and Busy
    where another process runs the same stage. KeyboardInterrupt leaves nothing half-written, and the next call goes on
    from what the stage has kept.
    """
    folder = runs_dir / profile.name
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / stage):  # another run of it would write the same log
        return _run(stage, profile, runs_dir, verbose)


def _run(stage: str, profile: Profile, runs_dir: Path, verbose: bool) -> Path:
    folder = runs_dir / profile.name
    done, log, running, failed, before = (
        folder / f"{stage}.{kind}" for kind in ("ipynb", "log", "running.ipynb", "failed.ipynb", "before.ipynb")
    )
    print(f"== {stage} ({profile.name}){say_expected(stage, profile)}; log: {log}", flush=True)
    if is_of_older_layout(folder / "provenance.json"):
        print(f"{folder} was made by an older version: its notebooks run again, what it trained and decoded is kept "
              "where its inputs are the same; to start anew, move the folder away")  # fmt: skip
    failed.unlink(missing_ok=True)
    if done.exists():  # a run that fails must not look finished
        done.rename(before)
    try:
        code = _tee(_papermill(stage, running, profile, runs_dir), log, Terminal(stage, verbose))
    except KeyboardInterrupt:
        running.unlink(missing_ok=True)
        raise
    if code:
        if running.exists():
            running.rename(failed)
        raise StageFailed(_explain_failure(stage, profile, log, failed))
    before.unlink(missing_ok=True)
    return running.rename(done)


def _papermill(stage: str, running: Path, profile: Profile, runs_dir: Path) -> list[str]:
    command = [sys.executable, "-m", "papermill", f"notebooks/{stage}.ipynb", str(running), "--cwd", "notebooks"]
    command += ["-k", "python3", "--log-output", "-p", "profile", profile.name]
    return [*command, "-p", "runs_dir", os.path.relpath(runs_dir, "notebooks")]


def say_expected(stage: str, profile: Profile) -> str:
    """What the stage took when its profile was published, and where; nothing if it never was."""
    file = PACKAGE.parent / "figures" / profile.name / "provenance.json"
    made = json.loads(file.read_text())["stages"].get(stage) if file.exists() else None
    if made is None:
        return ""
    took = f"{made['seconds'] / 60:.1f} min and {made['peak_memory_gib']:.1f} GiB"
    return f", {took} when it was published, on {made['hardware']['cores']} cores"


def is_of_older_layout(provenance: Path) -> bool:
    """Whether a run has stages whose code was not hashed yet."""
    stages = json.loads(provenance.read_text())["stages"] if provenance.exists() else {}
    return any("code" not in stage for stage in stages.values())


class Terminal:
    """What is seen of a stage while it runs: how far it is, in one line that is written over; every line if `verbose`.

    Where output is no terminal there is a line a minute instead.
    """

    def __init__(self, stage: str, verbose: bool = False):
        self.stage, self.verbose = stage, verbose
        self.living = sys.stdout.isatty()
        self.shown, self.width = -LINE_SECONDS, 0

    def show(self, line: str) -> None:
        if self.verbose:
            print(line, end="", flush=True)
        elif line.startswith(MARK) and (self.living or time.monotonic() - self.shown > LINE_SECONDS):
            text = f"{self.stage}: {line.removeprefix(MARK).strip()}"
            print(f"\r{text.ljust(self.width)}" if self.living else text, end="" if self.living else "\n", flush=True)
            self.shown, self.width = time.monotonic(), len(text)

    def close(self) -> None:
        if self.living and self.width:
            print()


def _tee(command: list[str], log: Path, terminal: Terminal) -> int:
    """Run a command, its output to a file and the terminal; its exit code."""
    asked = os.environ | {SECONDS: str(PROGRESS_SECONDS)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=asked)
    with process, open(log, "w", encoding="utf-8") as file:
        try:
            for line in process.stdout:
                terminal.show(line)
                file.write(line)
                file.flush()
        except KeyboardInterrupt:
            process.communicate()  # the same Ctrl-C ends papermill, which ends its kernel
            raise
        finally:
            terminal.close()
    return process.returncode


def say_kept(folder: Path) -> str:
    """What an interrupted run has on disk of the stage that it was at, "" if nothing."""
    steps = [
        (int(file.name.split("-")[-1]), file.parent.name) for file in folder.glob("models/*.checkpoints-*/checkpoint-*")
    ]
    if steps:
        step, model = max(steps)
        return f"{model.partition('.')[0]}: step {step} is kept"
    journal = folder / "completions.partial.jsonl"
    if journal.exists() and not (folder / "completions.jsonl").exists():
        with open(journal, "rb") as rows:
            return f"{sum(1 for _ in rows):,} completions are kept"
    return ""


def _explain_failure(stage: str, profile: Profile, log: Path, notebook: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    where = next((line for line in lines if "Exception encountered at" in line), "before its first cell")
    return (
        f"{stage} failed: {where.strip()}\n  {lines[-1] if lines else 'no output'}\n  log: {log}, notebook up to "
        f"there: {notebook}; `make reproduce PROFILE={profile.name}` goes on from here"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m z1lib.pages.terminal", description="Run one notebook of the study."
    )
    parser.add_argument("stage", metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("profile", nargs="?", default="mini")
    parser.add_argument("--verbose", action="store_true", help="show everything, not only how far it is")
    given = parser.parse_args(arguments)
    if given.stage not in STAGES:
        [nearest] = difflib.get_close_matches(given.stage, STAGES, 1, 0)
        print(f"no notebook {given.stage!r}, did you mean {nearest}? NB is one of {', '.join(STAGES)}")
        return 2
    try:
        run_stage(given.stage, load_profile(given.profile), verbose=given.verbose)
    except (BadProfile, Busy, StageFailed) as error:
        print(error)
        return 1
    except KeyboardInterrupt:
        kept = say_kept(Path("runs") / given.profile)
        print(f"\nstopped; `make reproduce PROFILE={given.profile}` goes on" + (f" ({kept})" if kept else ""))
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

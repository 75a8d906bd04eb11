"""A killed `make reproduce` goes on where it stopped and ends with the numbers of an undisturbed run (slow)."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.test_notebooks import clone_project, environment_of, make

pytestmark = pytest.mark.slow


def kill_when(folder: Path, ready, seconds: int = 300) -> None:
    """Start the chain, kill it with all its children as soon as `ready()`."""
    command = ["make", "-o", "own", "reproduce", "PROFILE=smoke"]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, process_group=0,
        env=environment_of(folder),
    )  # fmt: skip
    deadline = time.time() + seconds
    while not ready():
        assert process.poll() is None, "the chain ended before it could be killed"
        assert time.time() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_chain_killed_in_02_and_in_03_ends_with_the_same_summary(tmp_path):
    undisturbed, killed = clone_project(tmp_path / "undisturbed"), clone_project(tmp_path / "killed")
    assert make(undisturbed, "-o", "own", "reproduce", "PROFILE=smoke").returncode == 0
    run = killed / "runs/smoke"
    kill_when(killed, lambda: any(run.glob("models/*.checkpoints-*/checkpoint-*/trainer_state.json")))
    assert not (run / "02_sft.ipynb").exists()
    journal = run / "completions.partial.jsonl"
    kill_when(killed, lambda: journal.exists() and journal.stat().st_size > 0)
    assert (run / "02_sft.ipynb").exists()
    assert not (run / "03_windowed_inference.ipynb").exists()
    assert make(killed, "-o", "own", "reproduce", "PROFILE=smoke").returncode == 0
    assert (run / "summary.csv").read_text() == (undisturbed / "runs/smoke/summary.csv").read_text()

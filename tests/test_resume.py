"""A killed `make reproduce` goes on where it stopped and ends with the numbers of an undisturbed run (slow)."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.test_notebooks import clone_project, environment_of, make
from z1lib.study import STAGES

pytestmark = pytest.mark.slow


def stop_when(folder: Path, ready, by: signal.Signals = signal.SIGKILL, seconds: int = 300) -> str:
    """Start the chain, send a signal to it and all its children as soon as `ready()`; what it had printed."""
    command = ["make", "-o", "own", "reproduce", "PROFILE=smoke"]
    printed = folder / "printed.txt"
    with open(printed, "w") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, process_group=0, env=environment_of(folder),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
        )  # fmt: skip
    deadline = time.time() + seconds
    while not ready():
        assert process.poll() is None, "the chain ended before it could be stopped"
        assert time.time() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, by)
    process.wait()
    return printed.read_text()


@pytest.mark.parametrize("stage", STAGES[:3])
def test_ctrl_c_says_in_one_line_what_goes_on_and_leaves_nothing_half_written(tmp_path, stage):
    folder = clone_project(tmp_path / "clone")
    run = folder / "runs/smoke"
    printed = stop_when(folder, (run / f"{stage}.running.ipynb").exists, signal.SIGINT)
    assert "stopped; `make reproduce PROFILE=smoke` goes on" in printed
    assert "Traceback" not in printed
    assert not list(run.glob("*.running.ipynb")) + list(run.glob("*.failed.ipynb")) + list(run.glob("*.writing"))
    assert make(folder, "-o", "own", "reproduce", "PROFILE=smoke").returncode == 0


def test_a_chain_killed_in_02_and_in_03_ends_with_the_same_summary(tmp_path):
    undisturbed, killed = clone_project(tmp_path / "undisturbed"), clone_project(tmp_path / "killed")
    assert make(undisturbed, "-o", "own", "reproduce", "PROFILE=smoke").returncode == 0
    run = killed / "runs/smoke"
    stop_when(killed, lambda: any(run.glob("models/*.checkpoints-*/checkpoint-*/trainer_state.json")))
    assert not (run / "02_sft.ipynb").exists()
    journal = run / "completions.partial.jsonl"
    stop_when(killed, lambda: journal.exists() and journal.stat().st_size > 0)
    assert (run / "02_sft.ipynb").exists()
    assert not (run / "03_windowed_inference.ipynb").exists()
    assert make(killed, "-o", "own", "reproduce", "PROFILE=smoke").returncode == 0
    assert (run / "summary.csv").read_text() == (undisturbed / "runs/smoke/summary.csv").read_text()

"""All that one card must show, in one command and in order of worth: each part by itself, with a limit of time.

`python benchmarks/gpu.py [--toy]`. What is done at this commit on this card is not done again; how each part ended
stands in gpu.csv, its numbers in the part's own tables. `--toy` runs the same on a CPU at sizes that mean nothing.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from paired import COMMIT, device_name

PYTHON, HERE = sys.executable, Path(__file__).parent
# part -> (command, what it becomes at toy size, seconds): 40 minutes in all
PARTS = {
    "tests": (f"{PYTHON} -m pytest -m gpu -rs", f"{PYTHON} -m pytest -m gpu -rs -q", 300),
    "decoding": (f"{PYTHON} {HERE}/gpu_decoding.py", f"{PYTHON} {HERE}/gpu_decoding.py --toy", 420),
    "sweep": (
        f"{PYTHON} {HERE}/windowed_inference.py --prompts 256 --repeats 3",
        f"{PYTHON} {HERE}/windowed_inference.py --prompts 2 --repeats 1",
        300,
    ),
    "sparse": (
        f"{PYTHON} {HERE}/sparse_decoding.py",
        f"{PYTHON} {HERE}/sparse_decoding.py --contexts 100 --steps 2",
        300,
    ),
    "training": (f"{PYTHON} {HERE}/gpu_training.py", f"{PYTHON} {HERE}/gpu_training.py --help", 480),
    "mini": ("make reproduce PROFILE=mini", "make reproduce PROFILE=smoke", 600),
}


def run_part(command: str, limit_s: int) -> tuple[str, float]:
    """How a part ended, and after how many seconds. What it started is stopped with it."""
    start = time.perf_counter()
    try:
        code = subprocess.run(["timeout", "--kill-after=10", str(limit_s), "sh", "-c", command]).returncode
    except KeyboardInterrupt:
        return "interrupted", time.perf_counter() - start
    ended = {0: "done", 124: f"stopped after {limit_s} s", 137: f"stopped after {limit_s} s"}.get(
        code, f"failed ({code})"
    )
    return ended, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--toy", action="store_true")
    toy = parser.parse_args().toy
    card = device_name()
    if not toy and not torch.cuda.is_available():
        raise SystemExit("there is no CUDA device here: `python benchmarks/gpu.py --toy` shows that the script runs")
    file = HERE / ("gpu_toy.csv" if toy else "gpu.csv")
    table = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["part", "ended", "seconds", "on", "commit"])
    for part, (command, small, limit_s) in PARTS.items():
        same = table[(table.part == part) & (table.on == card) & (table.commit == COMMIT) & (table.ended == "done")]
        if len(same):
            print(f"{part}: done before")
            continue
        ended, seconds = run_part(small if toy else command, limit_s)
        row = {"part": part, "ended": ended, "seconds": round(seconds, 1), "on": card, "commit": COMMIT}
        table = pd.concat([table[(table.part != part) | (table.on != card)], pd.DataFrame([row])], ignore_index=True)
        table.to_csv(file, index=False)
        print(f"{part}: {ended} ({seconds:.0f} s)", flush=True)
        if ended == "interrupted":
            raise SystemExit("the same command goes on with this part")


if __name__ == "__main__":
    main()

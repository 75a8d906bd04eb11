"""Paired timings: two ways to the same result, taken in turns in one process, what the pairs say, and their table."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import nnls

from z1lib.provenance import commit, processor

COMMIT = commit()  # at the start: the code may be edited while this runs


def device_name() -> str:
    """The card where there is one, else the processor."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


@dataclass
class Way:
    """One way to do it: `run` gives the outputs, `work` says what it cost in tokens (prefilled, decoded)."""

    name: str
    run: Callable[[], list]
    work: Callable[[], tuple[int, int]]
    seconds: list[float] = field(default_factory=list)
    outputs: list = field(default_factory=list)
    tokens: tuple[int, int] = (0, 0)

    def time(self) -> None:
        before = self.work()
        start = time.perf_counter()
        self.outputs = self.run()
        self.seconds.append(time.perf_counter() - start)
        self.tokens = tuple(after - was for after, was in zip(self.work(), before))


def compare(ours: Way, peer: Way, repeats: int, same_outputs: bool = True) -> dict:
    """Run both `repeats` times, taking turns to go first, and return one row of the printed table (see `speed_up`)."""
    for turn in range(repeats):
        for way in (ours, peer) if turn % 2 else (peer, ours):
            way.time()
    return {
        "ours": ours.name,
        "peer": peer.name,
        "ours s": np.median(ours.seconds),
        "peer s": np.median(peer.seconds),
        **speed_up([(ours, peer)]),
        "ours prefilled / decoded": "{} / {}".format(*ours.tokens),
        "peer prefilled / decoded": "{} / {}".format(*peer.tokens),
        "outputs that differ": count_differing(ours, peer) if same_outputs else "not the same task",
    }


def speed_up(tasks: list[tuple[Way, Way]]) -> dict[str, float]:
    """The median over tasks of the median over pairs of peer / ours, and its 95% bootstrap interval over pairs."""
    rng, draws = np.random.default_rng(0), 10_000
    ratios = [np.array(peer.seconds) / np.array(ours.seconds) for ours, peer in tasks]
    drawn = [np.median(rng.choice(row, size=(draws, len(row))), axis=1) for row in ratios]
    low, high = np.percentile(np.median(drawn, axis=0), [2.5, 97.5])
    return {"speed-up": np.median([np.median(row) for row in ratios]), "low": low, "high": high}


def count_differing(ours: Way, peer: Way) -> str:
    differing = sum(a != b for a, b in zip(ours.outputs, peer.outputs))
    return f"{differing} of {len(ours.outputs)}"


def price_tokens(ways: list[Way]) -> np.ndarray:
    """Seconds a prefilled and a decoded token took, by least squares over the median times of these ways."""
    tokens = np.array([way.tokens for way in ways], dtype=float)
    return nnls(tokens, np.array([np.median(way.seconds) for way in ways]))[0]


def write_table(rows: list[dict], file: Path) -> None:
    """Write the table beside the script as CSV, with the commit and the processor it was measured on; show it."""
    frame = pd.DataFrame(rows).assign(commit=COMMIT, processor=processor())
    frame.to_csv(file.with_suffix(".csv"), index=False, float_format="%.4f")
    print(frame.round(3).to_markdown(index=False), flush=True)


def print_bounds(bounds: list[tuple[str, bool]]) -> None:
    """What was measured against what it should keep to: (in words, whether it does)."""
    print(*(f"  {'holds' if held else 'FAILS'}: {text}" for text, held in bounds), sep="\n", flush=True)

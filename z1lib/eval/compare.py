"""Two evaluated runs on the same problems: the difference at every window, paired, and the tokens at equal accuracy."""

import json
from pathlib import Path

import pandas as pd

from z1lib.analysis import tables
from z1lib.eval.evaluate import RESAMPLES, read_frame
from z1lib.stats import iso_accuracy_ratio, paired_bootstrap, paired_tests

COLUMNS = ["window", "n", "accuracy", "other", "difference", "low", "high", "p", "test"]


def compare(out: Path, other: Path) -> pd.DataFrame:
    """A row for each window that both runs have: COLUMNS, the p-values Holm-corrected over the windows.

    Raises FileNotFoundError for a folder without a finished run, ValueError for other problems or no window in both.
    """
    ours, theirs = (_read(folder) for folder in (out, other))
    if apart := ours.index.symmetric_difference(theirs.index).tolist():
        raise ValueError(f"{out} and {other} hold other problems: {len(apart)} are in one alone, such as {apart[0]!r}")
    windows = [window for window in ours.columns if window in theirs.columns]
    if not windows:
        raise ValueError(f"{out} has the windows {list(ours.columns)}, {other} {list(theirs.columns)}: none in both")
    pairs = [(ours[window].to_numpy(), theirs.loc[ours.index, window].to_numpy()) for window in windows]
    rows = []
    for window, (one, reference), p in zip(windows, pairs, paired_tests(pairs)):
        gain = paired_bootstrap(one, reference, RESAMPLES)
        test = "McNemar, Holm" if set(one) | set(reference) <= {0.0, 1.0} else "paired bootstrap, Holm"
        means = (one.mean(), reference.mean(), one.mean() - reference.mean())
        rows.append((window, len(one), *means, gain.low, gain.high, p, test))
    return pd.DataFrame(rows, columns=COLUMNS)


def say_ratio(out: Path, other: Path) -> str:
    """All tokens of the first run over those of the other at the highest accuracy that both reach."""
    curves = []
    for folder in (out, other):
        frame = _own(folder)
        curve = frame.groupby("window")[["total_tokens", "correct"]].mean()
        curves.append(list(zip(curve.total_tokens, curve.correct)))
    reached = min(max(accuracy for _, accuracy in curve) for curve in curves)
    ratio = iso_accuracy_ratio(*curves, reached) if reached else None
    if ratio is None:
        return "No accuracy above 0 that both reach: no ratio of tokens."
    return (
        f"At {reached:.2f}, the highest accuracy that both reach, {out} takes {ratio:.2f} times the tokens of {other}."
    )


def _own(folder: Path) -> pd.DataFrame:
    if not (folder / "grades.jsonl").exists():
        raise FileNotFoundError(f"{folder} holds no finished run: `python -m z1lib.eval ... --out {folder}` makes one")
    asked = json.loads((folder / "asked.json").read_text())
    frame = read_frame(folder)
    return frame[frame.policy == asked["policy"]]


def _read(folder: Path) -> pd.DataFrame:
    """Problems x windows: the share of samples that are right."""
    frame = _own(folder)
    [model], [policy] = frame.model.unique(), frame.policy.unique()
    return tables.problem_table(frame, model, policy, "correct")

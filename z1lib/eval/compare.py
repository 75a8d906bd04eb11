"""Two evaluated runs on the same problems: the difference at every window, paired, and the tokens at equal accuracy."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from z1lib.analysis import tables
from z1lib.eval.evaluate import RESAMPLES
from z1lib.files import read_jsonl
from z1lib.records import ARTIFACTS
from z1lib.stats import iso_accuracy_ratio, paired_bootstrap, paired_tests

COLUMNS = ["window", "n", "accuracy", "other", "difference", "low", "high", "p", "test"]


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, and the rows of its policy without those of a rule."""

    folder: Path
    frame: pd.DataFrame

    def by_problem(self) -> pd.DataFrame:
        """Problems x windows: the share of samples that are right."""
        [model], [policy] = self.frame.model.unique(), self.frame.policy.unique()
        return tables.problem_table(self.frame, model, policy, "correct")

    def curve(self) -> list[tuple[float, float]]:
        """(all tokens, accuracy) by window."""
        means = self.frame.groupby("window")[["total_tokens", "correct"]].mean()
        return list(zip(means.total_tokens, means.correct))


def read_run(folder: Path) -> Finished:
    """Raises FileNotFoundError for a folder that holds no finished run."""
    if not (folder / "grades.jsonl").exists():
        raise FileNotFoundError(f"{folder} holds no finished run: `python -m z1lib.eval ... --out {folder}` makes one")
    return Finished(
        folder, tables.join(*(read_jsonl(folder / f"{name}.jsonl", cls) for name, cls in ARTIFACTS.items()))
    )


def compare(run: Finished, other: Finished) -> pd.DataFrame:
    """A row for each window that both runs have: COLUMNS, the p-values Holm-corrected over the windows.

    Raises ValueError for other problems, or no window in both.
    """
    ours, theirs = run.by_problem(), other.by_problem()
    named = f"{run.folder} and {other.folder}"
    if apart := ours.index.symmetric_difference(theirs.index).tolist():
        raise ValueError(f"{named} hold other problems: {len(apart)} are in one alone, such as {apart[0]!r}")
    windows = [window for window in ours.columns if window in theirs.columns]
    if not windows:
        raise ValueError(f"{named} have the windows {list(ours.columns)} and {list(theirs.columns)}: none in both")
    pairs = [(ours[window].to_numpy(), theirs.loc[ours.index, window].to_numpy()) for window in windows]
    rows = []
    for window, (one, reference), p in zip(windows, pairs, paired_tests(pairs)):
        gain = paired_bootstrap(one, reference, RESAMPLES)
        test = "McNemar, Holm" if set(one) | set(reference) <= {0.0, 1.0} else "paired bootstrap, Holm"
        means = (one.mean(), reference.mean(), one.mean() - reference.mean())
        rows.append((window, len(one), *means, gain.low, gain.high, p, test))
    return pd.DataFrame(rows, columns=COLUMNS)


def say_ratio(run: Finished, other: Finished) -> str:
    """All tokens of the first run over those of the other at the highest accuracy that both reach."""
    curves = [run.curve(), other.curve()]
    reached = min(max(accuracy for _, accuracy in curve) for curve in curves)
    ratio = iso_accuracy_ratio(*curves, reached) if reached else None
    if ratio is None:
        return "No accuracy above 0 that both reach: no ratio of tokens."
    return (
        f"At {reached:.2f}, the highest accuracy that both reach, {run.folder} takes {ratio:.2f} times the tokens of "
        f"{other.folder}."
    )

"""What each claim of the plan measures: from the frame to one estimate a training, with its draws over problems.

Every measure is a function of means over problems, taken training by training, so one bootstrap of problems, shared by
all trainings, serves them all. Trainings with the same seed are blocks: subject and reference are compared within them.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from z1lib.profile import UNTRAINED, Profile
from z1lib.stats import BadAnalysis, bootstrap_means, demean_within, mean_log_ratio

PLAN = Path(__file__).with_name("plan.csv")
CELLS = ("z1", "z1_think", "r1_plain", "r1")  # delimiters (none, <think>) x trajectories (short and long, always long)


@dataclass(frozen=True)
class Claim:
    """A row of the plan, which is committed before the runs that decide it (docs/CLAIMS.md has it as a table).

    `subject`, `reference`: a run and its policy. `windows`: empty (all that there are) or the first and the last.
    `supported`, `refuted`: a side and a bound of the estimate as shown, such as "> 0". `family`: which claims are
    corrected together, "" for none. `needs`: the claim without which this one does not count.
    """

    id: str
    claim: str
    estimand: str
    measure: str
    profile: str
    problem_sets: str
    n: int
    seeds: int
    subject: str
    reference: str
    windows: str
    supported: str
    refuted: str
    family: str
    needs: str

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(run, policy) of the subject and, if there is one, of the reference."""
        return [tuple(one.split()) for one in (self.subject, self.reference) if one]

    @property
    def limits(self) -> tuple[int, int] | None:
        first, _, last = self.windows.partition(" ")
        return (int(first), int(last)) if first else None

    def bound(self, name: str) -> tuple[str, float]:
        """(side, value) of "supported" or "refuted", on the scale of the estimates."""
        side, value = getattr(self, name).split()
        return side, float(np.log(float(value)) if self.measure == "log ratio" else float(value))

    def show(self, value: float) -> float:
        """An estimate as it is shown: ratios are estimated as logarithms."""
        return float(np.exp(value)) if self.measure == "log ratio" else float(value)


@dataclass(frozen=True)
class Measured:
    """A claim's estimates: one a training (trainings,), and each anew over draws of problems (trainings x resamples).

    NaN where it does not exist: nothing is right, so there is no equal accuracy.
    """

    n: int
    seeds: list[int]
    by_training: np.ndarray
    drawn: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """The standard error over problems of each training's estimate."""
        return np.nanstd(self.drawn, axis=1, ddof=1)


@cache
def read_plan() -> tuple[Claim, ...]:
    return tuple(Claim(**row) for row in pd.read_csv(PLAN, keep_default_na=False).to_dict("records"))


def measure(frame: pd.DataFrame, profile: Profile) -> dict[str, Measured | str]:
    """The estimates of every claim of the plan by its id; in their place a text where the frame has no run for it.

    `frame`: rows of `tables.make_frame`. Raises BadAnalysis for a factorial that lacks a cell, a run trained twice with
    one seed, trainings that are compared and have other seeds, problems or windows: it says which.
    """
    check_cells(frame)
    return {claim.id: _measure(frame, claim, profile.analysis.resamples, profile.seed) for claim in read_plan()}


def check_cells(frame: pd.DataFrame) -> None:
    """Raises BadAnalysis if three of the four cells are there, or cells with other seeds: fewer of the same will do."""
    seeds = {cell: sorted(frame[frame.run == cell].training_seed.unique().tolist()) for cell in CELLS}
    lacking = [cell for cell in CELLS if not seeds[cell]]
    if len(lacking) == 1:  # of two cells, or one, no factorial was meant
        raise BadAnalysis(f"the factorial lacks the cell {lacking[0]}: no completions of it")
    here = {cell: of for cell, of in seeds.items() if of}
    most = set(max(here.values(), key=len, default=()))
    if any(not set(of) <= most for of in here.values()):
        raise BadAnalysis(f"the cells of the factorial have other seeds: {here}")


def _measure(frame: pd.DataFrame, claim: Claim, resamples: int, seed: int) -> Measured | str:
    parts = [frame[frame.problem_set == name] for name in claim.problem_sets.split()]
    for name, part in zip(claim.problem_sets.split(), parts):
        for run, policy in claim.pairs:
            if part[(part.run == run) & (part.policy == policy)].empty:
                return f"no completions of {run} under {policy} on {name}"
    if lacking := _lacking_windows(parts, claim):
        return lacking
    columns, statistic = MEASURES[claim.measure]
    values = [columns(part, claim) for part in parts]
    if len({one.shape[1:] for one in values}) > 1:
        raise BadAnalysis(f"{claim.id}: {claim.problem_sets} have other seeds or windows")
    means = sum(one.mean(axis=0) for one in values) / len(values)
    drawn = sum(
        bootstrap_means(one.reshape(len(one), -1), resamples, seed + i).reshape(-1, *means.shape)
        for i, one in enumerate(values)
    ) / len(values)
    every = statistic(drawn.reshape(-1, means.shape[1])).reshape(len(drawn), len(means)).T
    run, policy = claim.pairs[0]
    seeds = sorted(parts[0][(parts[0].run == run) & (parts[0].policy == policy)].training_seed.unique().tolist())
    return Measured(sum(map(len, values)), seeds, statistic(means), every[:, ~np.isnan(every).any(axis=0)])


def _lacking_windows(parts: list[pd.DataFrame], claim: Claim) -> str:
    run, policy = claim.pairs[0]
    for part in parts:
        windows = set(part[(part.run == run) & (part.policy == policy)].window)
        if claim.measure == "gain":
            lacking = not set(claim.limits) <= windows
        else:
            lacking = not any(_within(window, claim) for window in windows)
        if lacking:
            return f"no completions of {run} under {policy} at the windows {claim.windows}"
    return ""


def _within(window: int, claim: Claim) -> bool:
    return claim.limits is None or claim.limits[0] <= window <= claim.limits[1]


def _tables(part: pd.DataFrame, claim: Claim, column: str) -> list[pd.DataFrame]:
    """Problems x (training seed, window) of subject and reference, the same problems, seeds and windows in both."""
    found = [_table(part, run, policy, column) for run, policy in claim.pairs]
    found = [table.loc[:, [_within(window, claim) for window in table.columns.get_level_values(1)]] for table in found]
    for (run, _), table in zip(claim.pairs[1:], found[1:]):
        _check_alike(claim, found[0], table, run)
    return found


def _table(part: pd.DataFrame, run: str, policy: str, column: str) -> pd.DataFrame:
    rows = part[(part.run == run) & (part.policy == policy)]
    named = rows.groupby("training_seed").model.unique()
    for seed, models in named.items():
        if len(models) > 1:
            raise BadAnalysis(f"{run} was trained twice with seed {seed}: {', '.join(models)}")
    means = rows.groupby(["problem_id", "training_seed", "window"])[column].mean()  # over samples
    table = means.astype(float).unstack(["training_seed", "window"])
    table = table.reindex(columns=pd.MultiIndex.from_product([level.sort_values() for level in table.columns.levels]))
    if table.isna().any().any():
        seed, window = table.columns[table.isna().any()][0]
        problems = table.index[table[seed, window].isna()]
        which = f"{named[seed][0]}, {policy} {window}, on {part.problem_set.iloc[0]}"
        raise BadAnalysis(f"{which} lacks {len(problems)} problems that another seed or window has: {problems[0]!r}")
    return table


def _check_alike(claim: Claim, subject: pd.DataFrame, reference: pd.DataFrame, run: str) -> None:
    other = subject.index.symmetric_difference(reference.index)
    if len(other):
        where = f"{claim.pairs[0][0]} and {run} answered other problems"
        raise BadAnalysis(f"{claim.id}: {where}, {len(other)} are of one alone: {other[0]!r}")
    seeds = [sorted(set(table.columns.get_level_values(0))) for table in (subject, reference)]
    if run != UNTRAINED and seeds[0] != seeds[1]:
        raise BadAnalysis(f"{claim.id}: {claim.pairs[0][0]} has the seeds {seeds[0]}, {run} {seeds[1]}")
    windows = [sorted(set(table.columns.get_level_values(1))) for table in (subject, reference)]
    if windows[0] != windows[1] and max(map(len, windows)) > 1:  # left alone, each has the one window it was given
        raise BadAnalysis(f"{claim.id}: {claim.pairs[0][0]} has the windows {windows[0]}, {run} {windows[1]}")


def _cube(table: pd.DataFrame) -> np.ndarray:
    """Problems x trainings x windows."""
    return table.to_numpy().reshape(len(table), table.columns.levshape[0], -1)


def _gain(part: pd.DataFrame, claim: Claim) -> np.ndarray:
    correct = _cube(_tables(part, claim, "correct")[0])
    return correct[:, :, -1:] - correct[:, :, :1]


def _difference(part: pd.DataFrame, claim: Claim) -> np.ndarray:
    ours, other = (_cube(table).mean(axis=2, keepdims=True) for table in _tables(part, claim, "correct"))
    return ours - other


def _curves(part: pd.DataFrame, claim: Claim) -> np.ndarray:
    """Tokens and accuracy of the subject by window, then of the reference."""
    tokens, correct = (map(_cube, _tables(part, claim, column)) for column in ("total_tokens", "correct"))
    return np.concatenate([cube for pair in zip(tokens, correct) for cube in pair], axis=2)


def _moments(part: pd.DataFrame, claim: Claim) -> np.ndarray:
    """Length needed times tokens produced by each, and needed squared, all logarithms and within levels."""
    produced = _tables(part, claim, "total_tokens")
    of = part.drop_duplicates("problem_id").set_index("problem_id").loc[produced[0].index]
    if not (of.needed > 0).all():
        raise BadAnalysis(f"{claim.id}: no interpreter told {of.problem_set.iloc[0]}, so no length is needed")
    needed = demean_within(np.log(of.needed), of.level)[:, None]
    if np.allclose(needed, 0):
        raise BadAnalysis(f"{claim.id}: within a level all problems of {of.problem_set.iloc[0]} need the same length")
    tokens = [np.log(_cube(table).mean(axis=2).clip(min=1)) for table in produced]
    products = [needed * np.apply_along_axis(demean_within, 0, one, of.level) for one in tokens]
    return np.stack([*products, np.broadcast_to(needed**2, products[0].shape)], axis=2)


def _only(means: np.ndarray) -> np.ndarray:
    return means[:, 0]


MEASURES = {  # columns of a problem and training, and the number that their means give
    "gain": (_gain, _only),
    "difference": (_difference, _only),
    "log ratio": (_curves, lambda means: mean_log_ratio(*np.split(means, 4, axis=1))),
    "slope": (_moments, lambda means: (means[:, 0] - means[:, 1]) / means[:, 2]),
}

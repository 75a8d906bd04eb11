"""Which (model, policy) pair spends its tokens better: area under the curve, tokens per answer, front."""

import numpy as np
import pandas as pd

from z1lib.analysis.tables import problem_table
from z1lib.stats import (
    BadAnalysis,
    Interval,
    area_under_curve,
    bootstrap_interval,
    bootstrap_means,
    pareto_front,
    percentile_interval,
)


def compare_efficiency(
    frame: pd.DataFrame, subject: tuple[str, str], rivals: list[tuple[str, str]], tokens: str, resamples: int, seed: int
) -> pd.DataFrame:
    """How well a (model, policy) pair spends tokens on one problem set, beside each rival: a row a rival.

    Each row is on the problems both answered (`n`). `area`: mean accuracy over the logarithm of tokens, on the range
    that both curves cover (`from`, `to`), and its paired difference; none where a rival has one window or the ranges
    do not meet. `tokens per correct`: tokens of the best window over its right answers. Raises BadAnalysis if two have
    no problem in common.
    """
    rows = []
    for rival in rivals:
        values, ends = _paired_columns(frame, subject, rival, tokens)
        ours, right, theirs, their_right = np.split(values.mean(axis=0), ends)
        low, high = max(ours.min(), theirs.min()), min(ours.max(), theirs.max())
        row = {"model": rival[0], "policy": rival[1], "n": len(values)}
        if min(len(ours), len(theirs)) > 1 and 0 < low < high:
            areas = _area_intervals(values, ends, low, high, resamples, seed)
            row |= {"from": low, "to": high, **dict(zip(("area", "area of the subject", "difference"), areas))}
        costs = [_per_correct(values, ends, which, resamples, seed) for which in (2, 0)]
        rows.append(row | {"tokens per correct": costs[0], "of the subject": costs[1]})
    columns = ["model", "policy", "n", "from", "to", "area", "area of the subject", "difference"]
    return pd.DataFrame(rows, columns=[*columns, "tokens per correct", "of the subject"]).fillna("")


def _paired_columns(
    frame: pd.DataFrame, subject: tuple[str, str], rival: tuple[str, str], tokens: str
) -> tuple[np.ndarray, np.ndarray]:
    """Problems both answered x (tokens, correct, the rival's tokens, its correct) by window; where to split them."""
    tables = [problem_table(frame, *which, column) for which in (subject, rival) for column in (tokens, "correct")]
    shared = tables[0].index.intersection(tables[2].index)
    if not len(shared):
        raise BadAnalysis(f"{subject} and {rival} have no problem in common")
    values = np.column_stack([table.loc[shared].to_numpy() for table in tables])
    return values, np.cumsum([table.shape[1] for table in tables])[:-1]


def _area_intervals(values, ends, low: float, high: float, resamples: int, seed: int) -> list[Interval]:
    """The areas of rival and subject, and the subject's minus the rival's, all from the same resamples."""

    def areas(means: np.ndarray) -> np.ndarray:
        ours, right, theirs, their_right = np.split(means, ends, axis=1)
        pairs = [(theirs, their_right), (ours, right)]
        both = [[area_under_curve(list(zip(*point)), low, high) for point in zip(*pair)] for pair in pairs]
        return np.array([*both, np.subtract(both[1], both[0])])

    drawn = areas(bootstrap_means(values, resamples, seed))
    return [percentile_interval(one[0], many) for one, many in zip(areas(values.mean(axis=0)[None]), drawn)]


def _per_correct(values, ends, which: int, resamples: int, seed: int) -> Interval:
    """Tokens per right answer at the window that gets most right, which is chosen once, not in every draw."""
    tokens, correct = np.split(values, ends, axis=1)[which : which + 2]
    best = correct.mean(axis=0).argmax()
    both = np.column_stack([tokens[:, best], correct[:, best]])

    def ratio(means: np.ndarray) -> np.ndarray:
        spent, right = means.T
        return np.divide(spent, right, out=np.full_like(spent, np.nan), where=right > 0)

    return bootstrap_interval(both, ratio, resamples, seed)


def front(frame: pd.DataFrame, pairs: list[tuple[str, str]], tokens: str) -> pd.DataFrame:
    """The (model, policy, window) points that no other beats in tokens without losing accuracy, by rising tokens.

    Only pairs that answered every problem of the set are compared: means over other problems are another question.
    """
    problems = frame.problem_id.nunique()
    tables = {pair: [problem_table(frame, *pair, column) for column in (tokens, "correct")] for pair in pairs}
    points = [
        (*pair, window, table[window].mean(), correct[window].mean())
        for pair, (table, correct) in tables.items()
        if len(table) == problems
        for window in table
    ]
    best = [points[i] for i in pareto_front([point[3:] for point in points])]
    columns = ["model", "policy", "window", tokens, "accuracy"]
    return pd.DataFrame(best, columns=columns).sort_values(tokens, ignore_index=True).assign(n=problems)

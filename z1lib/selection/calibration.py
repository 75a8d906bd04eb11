"""Which threshold? Set on problems that are then not tested: for a cost, or for a risk.

A rule with a threshold stops early where it is reached. Lower thresholds stop earlier: they cost less and err more.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import beta

from z1lib.selection.pool import replay
from z1lib.selection.rules import AdaptiveVote, FirstConfident, Vote
from z1lib.stats import BadAnalysis

LEVELS = np.linspace(0, 1, 201)
NEVER = 2.0  # a threshold that nothing reaches

Tuned = FirstConfident | AdaptiveVote


def calibrate(
    pool: pd.DataFrame,
    rule: Tuned,
    problems: Collection[str],
    spend: float,
    along: str = "sample",
    orders: int = 1,
    seed: int = 0,
) -> Tuned:
    """The rule with the highest threshold at which `problems` take at most `spend` decoded tokens each, on average.

    `pool`, `along`, `orders` and `seed` as in `replay`, which then refuses these problems. Raises BadAnalysis where
    even the lowest threshold costs more.
    """
    held = _hold(pool, problems)
    levels = levels_of(held, rule)
    low, high = 0, len(levels)  # the cost does not fall with the threshold
    while low < high:
        middle = (low + high) // 2
        rows = replay(held, replace(rule, **{rule.tuned: levels[middle]}), along, orders, seed)
        low, high = (middle + 1, high) if rows.decoded_tokens.mean() <= spend else (low, middle)
    if not low:
        raise BadAnalysis(f"{rule} costs more than {spend:,.0f} tokens a problem at every {rule.tuned}")
    return replace(rule, **{rule.tuned: levels[low - 1]}, fitted_on=frozenset(held.problem_id))


def limit_risk(
    pool: pd.DataFrame,
    rule: Tuned,
    problems: Collection[str],
    risk: float,
    confidence: float = 0.95,
    along: str = "sample",
) -> Tuned:
    """The rule with the lowest threshold found safe: of all problems, at most a share `risk` stops early on a wrong
    answer, and for a share `confidence` of such sets of problems that holds.

    Thresholds are tried from the highest down, each with an exact binomial bound, and the first that fails ends it, so
    that trying many costs no confidence (fixed-sequence testing, arXiv 2110.01052). Raises BadAnalysis where there are
    too few problems to show anything.
    """
    held = _hold(pool, problems)
    levels = levels_of(held, rule)[::-1]
    stops = count_wrong_stops(held, rule, levels, along)
    safe = find_safe(stops, risk, confidence)
    if not safe:
        raise BadAnalysis(f"{stops.shape[1]} problems cannot show a risk of {risk} with confidence {confidence}")
    return replace(rule, **{rule.tuned: levels[safe - 1]}, fitted_on=frozenset(held.problem_id))


def count_wrong_stops(pool: pd.DataFrame, rule: Tuned, levels: np.ndarray, along: str = "sample") -> np.ndarray:
    """Whether a problem stops early on a wrong answer: (levels, rows of the replay), in the stored order."""
    whole = replay(pool, Vote(rule.budget), along).decoded_tokens
    stops = []
    for level in levels:
        rows = replay(pool, replace(rule, **{rule.tuned: level}), along)
        stops.append((rows.decoded_tokens < whole) & ~rows.correct.astype(bool))
    return np.array(stops)


def find_safe(stops: np.ndarray, risk: float, confidence: float) -> int:
    """How many of the levels (levels, problems), from the first, are shown to keep the risk."""
    count = stops.shape[1]
    bounds = beta.ppf(confidence, stops.sum(axis=1) + 1, count - stops.sum(axis=1))  # Clopper-Pearson, one-sided
    failing = np.flatnonzero(~(bounds <= risk))
    return int(failing[0]) if len(failing) else len(stops)


def levels_of(held: pd.DataFrame, rule: Tuned) -> np.ndarray:
    """The thresholds worth trying, rising: the scores that occur, or a grid of shares, and one nothing reaches."""
    return np.append(np.unique(held.score) if rule.tuned == "threshold" and "score" in held else LEVELS, NEVER)


def _hold(pool: pd.DataFrame, problems: Collection[str]) -> pd.DataFrame:
    held = pool[pool.problem_id.isin(problems)]
    if missing := sorted(set(problems) - set(held.problem_id)):
        raise BadAnalysis(f"{len(missing)} problems are not in the pool, such as {missing[0]}")
    return held

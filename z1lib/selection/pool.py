"""Replay: what a rule gives from a stored pool of answers, for every problem, without decoding a token.

The candidates are the longer windows of one trace, or more samples: *longer* and *wider* are two axes of one pool.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from z1lib.cost import Cost
from z1lib.grading.equivalence import is_same_text
from z1lib.selection.rules import Candidate, Rule, group_answers, is_same_answer
from z1lib.stats import BadAnalysis

# Answers are compared as their kind is graded; letters and programs as written.
SAME = {"math": is_same_answer, "text": is_same_text}
AXES = {"window": "sample", "sample": "window"}
MEANS = ["correct", "thinking_tokens", "total_tokens", "overran", "no_answer"]


def replay(pool: pd.DataFrame, rule: Rule, along: str = "window", orders: int = 1, seed: int = 0) -> pd.DataFrame:
    """A row a problem and sample (along windows), or a problem and order (along samples), with the pool's columns.

    `pool` is a frame of `analysis.tables.join`: one model under one policy, along samples at one window. `policy` is
    the rule's name, `decoded_tokens` counts everything drawn (a trace that windows share once), `window` is that of the
    last candidate there might have been, `sample` the number of the order. Order 0 is the stored one, `orders - 1` more
    are drawn by `seed`. A column `score` is what rules go by; without one no candidate has a score. Raises BadAnalysis,
    a ValueError, for a pool that is no such thing, smaller than the budget, without some of its scores, or with
    problems on which the rule was fitted.
    """
    budget = _check(pool, rule, along, orders)
    changes = {name: value for name, value in (("budget", budget), ("same", operator.eq)) if hasattr(rule, name)}
    rule = replace(rule, **changes)  # answers come to it sorted by the equality of their kind
    rng = np.random.default_rng(seed)
    ordered = pool.sort_values(along, kind="stable").reset_index(drop=True)
    settled: list[Settled] = []
    for _, part in ordered.groupby(["problem_id", AXES[along]], sort=False):
        drawn, decoded = _to_candidates(part, along)
        correct, index, first = part.correct.tolist(), part.index.tolist(), np.arange(len(part))
        shuffled = rng.random((orders - 1, len(part))).argsort(axis=1)
        for places in np.vstack([first, shuffled])[:, :budget].tolist():
            picked, count = _settle(rule, [drawn[i] for i in places], [correct[i] for i in places])
            spent = sum([decoded[i] for i in places[:count]])
            settled.append(([index[places[i]] for i in picked], index[places[-1]], spent))
    return _to_rows(ordered, settled, rule, along, orders)


def _check(pool: pd.DataFrame, rule: Rule, along: str, orders: int) -> int:
    if along not in AXES or orders < 1 or (along == "window" and orders > 1):
        raise BadAnalysis(f"no {orders} orders along {along!r}: it is 'window', in its one order, or 'sample'")
    for column in ("model", "policy", "temperature", "top_p", *["window"] * (along == "sample")):
        if column in pool and pool[column].nunique() != 1:
            raise BadAnalysis(f"a pool has one {column}, this one has {sorted(pool[column].unique())}")
    if pool.duplicated(["problem_id", "sample", "window"]).any():
        raise BadAnalysis("a pool has one row a problem, sample and window, this one has some twice")
    if "score" in pool and not pool.score.between(0, 1).all():
        strange = pool[~pool.score.between(0, 1)].iloc[0]
        raise BadAnalysis(f"a score is from 0 to 1, that of {strange.problem_id} is {strange.score}")
    if seen := getattr(rule, "fitted_on", frozenset()) & set(pool.problem_id):
        raise BadAnalysis(f"{rule} was fitted on {len(seen)} of these problems, such as {min(seen)}")
    sizes = pool.groupby(["problem_id", AXES[along]]).size()
    budget = rule.budget or sizes.max()
    if budget > sizes.min():
        raise BadAnalysis(f"{rule} needs {budget} candidates, {sizes.idxmin()} has {sizes.min()} along {along}")
    return int(budget)


Settled = tuple[Sequence[int], int, int]  # places in the pool of what was picked and of the last candidate; the cost


def _to_candidates(part: pd.DataFrame, along: str) -> tuple[list[Candidate], list[int]]:
    """The candidates of one problem, and what each decoded. Equal answers are spelled alike, which compares fast."""
    answers = [None if pd.isna(answer) else answer for answer in part.answer]
    groups = group_answers(answers, SAME.get(part.kind.iloc[0], operator.eq))
    costs = price(list(zip(part.window, part.total_tokens, part.overran)), along)
    scores = part.score if "score" in part else [None] * len(part)
    drawn = [Candidate(None if i is None else answers[i], *one) for i, *one in zip(groups, scores, costs)]
    return drawn, [cost.decoded for cost in costs]


def _settle(rule: Rule, drawn: list[Candidate], correct: list[bool]) -> tuple[Sequence[int], int]:
    """What the rule picks, and after how many candidates, of those that come in this order."""
    if hasattr(rule, "pick"):  # a bound knows what is right
        return rule.pick(correct), len(drawn)
    for count in range(1, len(drawn) + 1):
        if (choice := rule.choose(drawn[:count])) is not None:
            return [choice], count
    raise ValueError(f"{rule} chose none of {len(drawn)} candidates")


def _to_rows(ordered: pd.DataFrame, settled: list[Settled], rule: Rule, along: str, orders: int) -> pd.DataFrame:
    """The rows of the pool that were picked, the mean of several, as rows of the rule."""
    picked, last, spent = zip(*settled)
    rows = ordered.iloc[[places[0] for places in picked]].reset_index(drop=True)
    rows["policy"], rows["decoded_tokens"] = rule.name, spent
    rows["window"] = ordered.window.to_numpy()[list(last)]
    if along == "sample":
        rows["sample"] = list(range(orders)) * (len(rows) // orders)
    if max(map(len, picked)) > 1:
        values = ordered[MEANS].to_numpy(dtype=float)
        rows[MEANS] = [values[list(places)].mean(axis=0) for places in picked]
    return rows


def price(drawn: Sequence[tuple[int, int, bool]], along: str) -> list[Cost]:
    """What each candidate adds, from (window, total tokens, overran) of each in the order in which they are drawn.

    Samples are decoded whole. A longer window goes on behind the trace of the one before; where that had ended by
    itself it is the same completion, for nothing. `decoded` and `depth` count forced tokens, as the rows do; what was
    prefilled or attended is not known from them.
    """
    totals = [total for _, total, _ in drawn]
    if along == "window":
        shared = [(window if overran else total) for window, total, overran in drawn]
        totals = [total - before for total, before in zip(totals, [0, *shared])]
    return [Cost(None, total, None, None, 0, 0.0, total) for total in totals]

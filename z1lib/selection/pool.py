"""Replay: what a rule gives from a stored pool of answers, for every problem, without decoding a token.

The candidates are the longer windows of one trace, or more samples: *longer* and *wider* are two axes of one pool.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

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
    rows = []
    for _, part in pool.sort_values(along, kind="stable").groupby(["problem_id", AXES[along]], sort=False):
        stored = part.to_dict("records")
        for order in range(orders):
            places = rng.permutation(len(stored)) if order else range(len(stored))
            row = _settle([stored[i] for i in places], rule, along)
            rows.append(row | ({"sample": order} if along == "sample" else {}))
    return pd.DataFrame(rows, columns=pool.columns)


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


def _settle(rows: list[dict], rule: Rule, along: str) -> dict:
    """What the rule gives for one problem, from its rows in the order in which they are drawn."""
    rows = rows[: rule.budget]
    answers = [None if pd.isna(row["answer"]) else row["answer"] for row in rows]
    groups = group_answers(answers, SAME.get(rows[0]["kind"], operator.eq))
    costs = price([(row["window"], row["total_tokens"], row["overran"]) for row in rows], along)
    scores = [row.get("score") for row in rows]
    drawn = [Candidate(None if i is None else answers[i], *one) for i, *one in zip(groups, scores, costs)]
    if hasattr(rule, "pick"):  # a bound knows what is right
        picked, count = rule.pick([row["correct"] for row in rows]), len(rows)
    else:
        choices = ((rule.choose(drawn[:count]), count) for count in range(1, len(drawn) + 1))
        choice, count = next(pair for pair in choices if pair[0] is not None)
        picked = [choice]
    row = dict(rows[picked[0]])
    if len(picked) > 1:
        row |= {name: fmean(rows[i][name] for i in picked) for name in MEANS}
    spent = sum(costs[:count], Cost()).decoded
    return row | {"policy": rule.name, "window": rows[-1]["window"], "decoded_tokens": spent}


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

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
SPENT = ["prefilled", "decoded", "attended", "depth"]  # of a Cost
MEANS = ["correct", "thinking_tokens", "total_tokens", "overran", "no_answer"]


def replay(pool: pd.DataFrame, rule: Rule, along: str = "window", orders: int = 1, seed: int = 0) -> pd.DataFrame:
    """A row a problem and sample (along windows), or a problem and order (along samples), with the pool's columns.

    `pool` is a frame of `analysis.tables.join`: one model under one policy, along samples at one window. `policy` is
    the rule's name, `decoded_tokens` counts everything drawn (a trace that windows share once), `window` is that of the
    last candidate there might have been, `sample` the number of the order. Order 0 is the stored one, `orders - 1` more
    are drawn by `seed`. A column `score` is what rules go by; without one no candidate has a score;
    one of `outcomes` is what programs did. Raises BadAnalysis,
    a ValueError, for a pool that is no such thing, smaller than the budget, without some of its scores, or with
    problems on which the rule was fitted.
    """
    return replay_priced(pool, rule, along, orders, seed)[0]


def replay_priced(
    pool: pd.DataFrame, rule: Rule, along: str = "window", orders: int = 1, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`replay`, and beside it, row by row, all that was spent: the columns SPENT, NaN where that is not known.

    The pool's column `prompt_tokens` says what a trace stands behind, `question_tokens` what asking for a score fed.
    """
    budget = _check(pool, rule, along, orders)
    changes = {name: value for name, value in (("budget", budget), ("same", operator.eq)) if hasattr(rule, name)}
    rule = replace(rule, **changes)  # answers come to it sorted by the equality of their kind
    rng = np.random.default_rng(seed)
    ordered = pool.sort_values(along, kind="stable").reset_index(drop=True)
    one_by_one = along == "window" or getattr(rule, "sequential", True)
    picked, last, spent = [], [], []
    for _, part in ordered.groupby(["problem_id", AXES[along]], sort=False):
        drawn, correct, index = _to_candidates(part, along), part.correct.tolist(), part.index.tolist()
        shuffled = rng.random((orders - 1, len(part))).argsort(axis=1)
        places = np.vstack([np.arange(len(part)), shuffled])[:, :budget]
        chosen = [_settle(rule, [drawn[i] for i in own], [correct[i] for i in own]) for own in places.tolist()]
        picked += [[index[own[i]] for i in which] for own, (which, _) in zip(places, chosen)]
        last += [index[i] for i in places[:, -1]]
        spent.append(_add_up(drawn, places, [count for _, count in chosen], one_by_one))
    costs = pd.DataFrame(np.concatenate(spent), columns=SPENT)
    rows = _to_rows(ordered, picked, last, rule, along, orders)
    return rows.assign(decoded_tokens=costs.decoded.astype(int)), costs


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


def _to_candidates(part: pd.DataFrame, along: str) -> list[Candidate]:
    """The candidates of one problem. Equal answers are spelled alike, which compares fast."""
    answers = [None if pd.isna(answer) else answer for answer in part.answer]
    groups = group_answers(answers, SAME.get(part.kind.iloc[0], operator.eq))
    prompt = int(part.prompt_tokens.iloc[0]) if "prompt_tokens" in part else None
    costs = price(list(zip(part.window, part.total_tokens, part.overran)), along, prompt)
    if "question_tokens" in part:  # behind the answer, whose keys and values are still there
        costs = [cost + Cost(prefilled=asked) for cost, asked in zip(costs, part.question_tokens.tolist())]
    scores = part.score if "score" in part else [None] * len(part)
    outcomes = part.outcomes if "outcomes" in part else [()] * len(part)
    return [Candidate(None if i is None else answers[i], *one) for i, *one in zip(groups, scores, costs, outcomes)]


def _add_up(drawn: list[Candidate], places: np.ndarray, counts: list[int], sequential: bool) -> np.ndarray:
    """What the first `counts` of the candidates at these places cost: (orders, SPENT), NaN where it is not known.

    Candidates drawn one after the other are as deep as their sum, those side by side as the deepest.
    """
    table = np.array([[getattr(one.cost, name) for name in SPENT] for one in drawn], dtype=float)
    each = table[places]
    sums = each.cumsum(axis=1)
    if not sequential:
        sums[..., SPENT.index("depth")] = np.maximum.accumulate(each[..., SPENT.index("depth")], axis=1)
    return sums[np.arange(len(places)), np.array(counts) - 1]


def _settle(rule: Rule, drawn: list[Candidate], correct: list[bool]) -> tuple[Sequence[int], int]:
    """What the rule picks, and after how many candidates, of those that come in this order."""
    if hasattr(rule, "pick"):  # a bound knows what is right
        return rule.pick(correct), len(drawn)
    for count in range(1, len(drawn) + 1):
        if (choice := rule.choose(drawn[:count])) is not None:
            return [choice], count
    raise ValueError(f"{rule} chose none of {len(drawn)} candidates")


def _to_rows(ordered: pd.DataFrame, picked: list, last: list, rule: Rule, along: str, orders: int) -> pd.DataFrame:
    """The rows of the pool that were picked, the mean of several, as rows of the rule."""
    rows = ordered.iloc[[places[0] for places in picked]].reset_index(drop=True)
    rows["policy"] = rule.name
    rows["window"] = ordered.window.to_numpy()[last]
    if along == "sample":
        rows["sample"] = list(range(orders)) * (len(rows) // orders)
    if max(map(len, picked)) > 1:
        values = ordered[MEANS].to_numpy(dtype=float)
        rows[MEANS] = [values[list(places)].mean(axis=0) for places in picked]
    return rows


def price(drawn: Sequence[tuple[int, int, bool]], along: str, prompt: int | None = None) -> list[Cost]:
    """What each candidate adds, from (window, total tokens, overran) of each in the order in which they are drawn.

    Samples are decoded whole, each behind its prompt of so many tokens. A longer window goes on behind the trace of the
    one before; where that had ended by itself it is the same completion, for nothing. A forced token counts as a
    decoded one, as the rows do. Without the length of the prompt it is not known what was prefilled and attended.
    """
    ends = [total for _, total, _ in drawn]
    starts = [0] * len(drawn)
    if along == "window":
        starts = [0, *((window if overran else total) for window, total, overran in drawn[:-1])]
    costs = []
    for number, (start, end) in enumerate(zip(starts, ends)):
        attended = None if prompt is None else (end - start) * prompt + (end * (end - 1) - start * (start - 1)) // 2
        prefilled = prompt if number == 0 or along == "sample" else 0
        costs.append(Cost(None if prompt is None else prefilled, end - start, attended, 0, 0, 0.0, end - start))
    return costs

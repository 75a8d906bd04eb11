"""Choosing among programs: how often is the answer right? From what right and wrong programs were seen to do.

Pools are made of the rows of `inference.programs`: so many programs with a share of right ones, the wrong ones all
alike or as different as there are, the two extremes of what a model writes. The sample is the problem; intervals are
over problems.
"""

import random
from collections.abc import Sequence

import pandas as pd

from z1lib.cost import Cost
from z1lib.records import Behaviour
from z1lib.selection import Anyone, Candidate, Medoid, Oracle
from z1lib.selection.behaviour import LargestGroup, MostMatching
from z1lib.selection.rules import Rule
from z1lib.stats import BadAnalysis, mean_interval, paired_bootstrap

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)
POOL = 18  # candidates, as DiffCodeGen draws on LiveCodeBench
WRONG = ("alike", "different")


def choose(rule: Rule, outcomes: Sequence[tuple[str, ...]], right: Sequence[bool]) -> float:
    """Whether a rule's answer is right: the share, where it answers with any of several."""
    if hasattr(rule, "pick"):  # a bound knows what is right
        picked = rule.pick(list(right))
        return sum(right[i] for i in picked) / len(picked)
    return float(right[rule.choose([Candidate("", None, Cost(), own) for own in outcomes])])


def make_pool(
    rows: Sequence[Behaviour], share: float, wrong: str, seed: int, inputs: int | None = None
) -> tuple[list[tuple[str, ...]], list[bool]] | None:
    """(outcomes, whether right) of POOL programs of one problem, in an order by seed; None without a wrong one.

    `wrong`: one of WRONG. `inputs`: the first so many count.
    """
    [best], others = [row for row in rows if row.kind == "right"], [row for row in rows if row.kind != "right"]
    if not others:
        return None
    rng = random.Random(f"{seed}/{best.problem_id}/{share}/{wrong}")
    count = round(share * POOL)
    drawn = rng.sample(others, len(others)) if wrong == "different" else [rng.choice(others)]
    pool = [best] * count + [drawn[i % len(drawn)] for i in range(POOL - count)]
    rng.shuffle(pool)
    return [tuple(row.outcomes[:inputs]) for row in pool], [row.kind == "right" for row in pool]


def compare(
    behaviours: Sequence[Behaviour], maker: str, seed: int, resamples: int, inputs: int | None = None
) -> pd.DataFrame:
    """By share of right programs and kind of wrong ones: how often each rule is right, and the medoid minus it.

    Problems without inputs are there: every rule takes the first program. Raises BadAnalysis where a maker has no rows.
    """
    rules = [Medoid(POOL), LargestGroup(POOL), MostMatching(POOL), Anyone(POOL), Oracle(POOL)]
    by_problem: dict[str, list[Behaviour]] = {}
    for row in behaviours:
        if row.maker == maker:
            by_problem.setdefault(row.problem_id, []).append(row)
    if not by_problem:
        raise BadAnalysis(f"no programs were run on inputs by {maker!r}")
    found = []
    for wrong in WRONG:
        for share in SHARES:
            pools = [make_pool(rows, share, wrong, seed, inputs) for rows in by_problem.values()]
            pools = [pool for pool in pools if pool]
            right = {rule.name: [choose(rule, *pool) for pool in pools] for rule in rules}
            for name, values in right.items():
                accuracy = mean_interval(values, resamples, seed)
                gain = paired_bootstrap(right["medoid"], values, resamples, seed)
                found.append((wrong, share, name, len(pools), accuracy.estimate, accuracy.low, accuracy.high, gain))
    columns = ["wrong ones", "share right", "rule", "n", "accuracy", "low", "high", "medoid minus it"]
    return pd.DataFrame(found, columns=columns)


def describe_inputs(behaviours: Sequence[Behaviour]) -> pd.DataFrame:
    """By maker: problems, the share without any input, inputs a problem, the share valid for the right program, and
    the share of wrong programs that differ from the right one on some input: what no rule can do without."""
    rows = []
    for maker, part in pd.DataFrame([vars(row) for row in behaviours]).groupby("maker", sort=False):
        best = part[part.kind == "right"].set_index("problem_id")
        valid = best.outcomes.map(lambda own: sum(map(bool, own)) / len(own) if own else float("nan"))
        others = part[part.kind != "right"]
        differs = [row.outcomes != best.outcomes[row.problem_id] for row in others.itertuples()]
        empty = (best.inputs.map(len) == 0).mean()
        told = pd.Series(differs, dtype=float).mean()
        rows.append((maker, len(best), empty, best.inputs.map(len).mean(), valid.mean(), told, part.seconds.sum()))
    columns = ["maker", "n", "without inputs", "inputs", "valid", "wrong ones told apart", "seconds"]
    return pd.DataFrame(rows, columns=columns)

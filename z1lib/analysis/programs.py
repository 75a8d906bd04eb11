"""Choosing among programs: how often is the answer right? From what right and wrong programs were seen to do.

On the test bed pools are made: so many programs with a share of right ones, the wrong ones all alike or as different as
there are, the two extremes of what a model writes. A model's own pools are as they were drawn. The sample is the
problem; intervals are over problems.
"""

import json
import random
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from z1lib.analysis import wider
from z1lib.cost import Cost
from z1lib.records import Behaviour, Shape
from z1lib.selection import Anyone, Candidate, Medoid, Oracle, Vote
from z1lib.selection.behaviour import LargestGroup, MostMatching, choose_by_behaviour
from z1lib.selection.rules import Rule
from z1lib.stats import BadAnalysis, mean_interval, paired_bootstrap

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)
POOL = 18  # candidates, as DiffCodeGen draws on LiveCodeBench
WRONG = ("alike", "different")
RULES: list[Rule] = [Medoid(POOL), LargestGroup(POOL), MostMatching(POOL), Anyone(POOL), Oracle(POOL)]


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
    found = []
    for wrong in WRONG:
        for share in SHARES:
            pools = make_pools(behaviours, maker, share, wrong, seed, inputs)
            right = {rule.name: [choose(rule, *pool) for pool in pools] for rule in RULES}
            for name, values in right.items():
                accuracy = mean_interval(values, resamples, seed)
                gain = paired_bootstrap(right["medoid"], values, resamples, seed)
                found.append((wrong, share, name, len(pools), accuracy.estimate, accuracy.low, accuracy.high, gain))
    columns = ["wrong ones", "share right", "rule", "n", "accuracy", "low", "high", "medoid minus it"]
    return pd.DataFrame(found, columns=columns)


def make_pools(
    behaviours: Sequence[Behaviour], maker: str, share: float, wrong: str, seed: int, inputs: int | None = None
) -> list[tuple[list[tuple[str, ...]], list[bool]]]:
    """`make_pool` of every problem of the bed that has wrong ones. Raises BadAnalysis where a maker has no rows."""
    pools = [make_pool(rows, share, wrong, seed, inputs) for rows in group(behaviours, maker)]
    return [pool for pool in pools if pool]


def group(behaviours: Sequence[Behaviour], maker: str) -> list[list[Behaviour]]:
    """The bed's programs on inputs by a maker, problem by problem. Raises BadAnalysis where there are none."""
    found: dict[str, list[Behaviour]] = {}
    for row in behaviours:
        if row.maker == maker and not row.model:
            found.setdefault(row.problem_id, []).append(row)
    if not found:
        raise BadAnalysis(f"no programs were run on inputs by {maker!r}")
    return list(found.values())


def ablate(behaviours: Sequence[Behaviour], resamples: int, seed: int, share: float = 0.3) -> pd.DataFrame:
    """The medoid's accuracy by maker and number of inputs, paired with the first maker's and all inputs.

    Over pools whose wrong programs are different, a `share` of them right; only problems that every maker has.
    """
    makers = list(dict.fromkeys(row.maker for row in behaviours if not row.model))
    most = max((len(row.outcomes) for row in behaviours if not row.model), default=0)
    ways = [(makers[0], count) for count in (8, 24, most) if count <= most] + [(maker, most) for maker in makers[1:]]
    right = {}
    for maker, count in ways:
        pools = make_pools(behaviours, maker, share, "different", seed, count)
        right[maker, count] = [choose(Medoid(POOL), *pool) for pool in pools]
    rows = []
    for (maker, count), values in right.items():
        accuracy = mean_interval(values, resamples, seed)
        beside = paired_bootstrap(values, right[makers[0], most], resamples, seed)
        rows.append((maker, count, len(values), accuracy.estimate, accuracy.low, accuracy.high, beside))
    columns = ["maker", "inputs at most", "n", "accuracy", "low", "high", "minus the first maker, all inputs"]
    return pd.DataFrame(rows, columns=columns)


def open_pool(behaviours: Sequence[Behaviour], seed: int) -> tuple[list[Behaviour], list[int], int]:
    """(distinct programs, the cluster of each, the answer's place) of the problem whose programs split most evenly.

    Of the bed's problems whose right program the medoid chose.
    """
    found = []
    for rows in group(behaviours, behaviours[0].maker):
        pool = random.Random(seed).sample([rows[0]] * 3 + rows[1:], len(rows) + 2)
        index, labels, _ = choose_by_behaviour([tuple(row.outcomes) for row in pool])
        sizes = sorted(Counter(label for label in labels if label >= 0).values())
        if pool[index].kind == "right" and len(sizes) == 2:
            found.append((sizes[0], len(pool), pool, labels, index))
    if not found:
        raise BadAnalysis("no pool of the test bed has two clusters and a right answer")
    _, _, pool, labels, index = max(found, key=lambda one: one[:2])
    return pool, labels, index


def tell_apart(pool: Sequence[Behaviour], labels: Sequence[int], inputs: Sequence[str]) -> pd.DataFrame:
    """The inputs on which the first programs of the two clusters differ, and what each gives: at most five."""
    one, other = (pool[list(labels).index(label)].outcomes for label in (0, 1))
    rows = [(text, say(a), say(b)) for text, a, b in zip(inputs, one, other) if a and b and a != b]
    return pd.DataFrame(rows[:5], columns=["input", "cluster 0 gives", "cluster 1 gives"])


def say(record: str) -> str:
    """A record in short: what was returned or raised, and what was printed."""
    kind, value, _, printed = json.loads(record)
    shown = value.partition(" ")[2] if kind == "returns" else f"raises {value}"
    return f"{shown} {printed!r}"[:80] if printed else shown[:80]


def add_outcomes(pool: pd.DataFrame, behaviours: Sequence[Behaviour]) -> pd.DataFrame:
    """Those rows of a pool whose programs were run on inputs, with what they did: columns `outcomes`, `seconds`."""
    seen = {row.key: row for row in behaviours if row.model}
    rows = pool[pool.key.isin(list(seen))]
    outcomes = [tuple(seen[key].outcomes) for key in rows.key]
    return rows.assign(outcomes=outcomes, seconds=[seen[key].seconds for key in rows.key])


def compare_drawn(pool: pd.DataFrame, shape: Shape, resamples: int, seed: int) -> pd.DataFrame:
    """How often each rule is right on a model's own programs, paired with the medoid, and what its answer costs.

    `pool`: `add_outcomes` of one model. Beside the four costs stand the sandbox's seconds, of rules that run programs.
    """
    most = wider.count_samples(pool)
    rules = [type(rule)(most) for rule in RULES] + [Vote(most)]
    spent = {rule.name: wider.replay_draws(pool, rule, seed=seed) for rule in rules}
    spent["one sample"] = wider.replay_one(pool)
    medoid, rows = spent["medoid"].correct, []
    seconds = pool.groupby(["problem_id", "draw"]).seconds.sum().mean()
    for name, table in spent.items():
        right = mean_interval(table.correct, resamples, seed)
        gain = paired_bootstrap(medoid, table.correct.loc[medoid.index], resamples, seed)
        costs = wider.price(table, shape).values()
        ran = seconds if name in ("medoid", "largest_group", "most_matching") else 0.0
        rows.append((name, len(table), right.estimate, right.low, right.high, gain, *costs, ran))
    columns = ["rule", "n", "accuracy", "low", "high", "medoid minus it", *wider.AXES, "seconds of sandbox"]
    return pd.DataFrame(rows, columns=columns)


def describe_inputs(behaviours: Sequence[Behaviour]) -> pd.DataFrame:
    """By maker: problems, the share without any input, inputs a problem, the share valid for the right program, and
    the share of wrong programs that differ from the right one on some input: what no rule can do without."""
    rows = []
    bed = pd.DataFrame([vars(row) for row in behaviours if not row.model])
    for maker, part in bed.groupby("maker", sort=False):
        best = part[part.kind == "right"].set_index("problem_id")
        valid = best.outcomes.map(lambda own: sum(map(bool, own)) / len(own) if own else float("nan"))
        others = part[part.kind != "right"]
        differs = [row.outcomes != best.outcomes[row.problem_id] for row in others.itertuples()]
        empty = (best.inputs.map(len) == 0).mean()
        told = pd.Series(differs, dtype=float).mean()
        rows.append((maker, len(best), empty, best.inputs.map(len).mean(), valid.mean(), told, part.seconds.sum()))
    columns = ["maker", "n", "without inputs", "inputs", "valid", "wrong ones told apart", "seconds"]
    return pd.DataFrame(rows, columns=columns)

"""Replay beside a plain loop: ten rules on 1,000 problems of 16 samples, in many orders, from one stored pool.

`python benchmarks/replay.py`. The loop does one of them, the weighted vote, and gives the same answers and costs in the
stored order, which is checked; the others are drawn by another generator.
"""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from paired import write_table

from z1lib.selection import (
    AdaptiveVote,
    Anyone,
    BestOf,
    FirstAgreeing,
    FirstConfident,
    Oracle,
    ShortestOf,
    Vote,
    WeightedVote,
    replay,
)

PROBLEMS, SAMPLES, ORDERS = 1000, 16, 200
RULES = [Vote(SAMPLES), WeightedVote(SAMPLES), BestOf(SAMPLES), FirstConfident(0.8, SAMPLES), FirstAgreeing(2, SAMPLES)]
RULES += [FirstAgreeing(3, SAMPLES, votes=True), AdaptiveVote(0.9, SAMPLES), ShortestOf(4, SAMPLES)]
RULES += [Oracle(SAMPLES), Anyone(SAMPLES)]


def make_pool(rng: np.random.Generator) -> pd.DataFrame:
    """A pool of programs (compared as written), a third of whose samples are right."""
    rows = []
    for problem in range(PROBLEMS):
        for sample in range(SAMPLES):
            right, total = rng.random() < 1 / 3, int(rng.integers(20, 400))
            answer = "right" if right else f"wrong {rng.integers(5)}"
            where = ("m", "shifted_window", 384, "code", 1, f"p{problem}", sample)
            rows.append((*where, right, total, total, total, False, False, answer, "code", float(rng.random())))
    columns = "model policy window problem_set level problem_id sample correct thinking_tokens total_tokens "
    columns += "decoded_tokens overran no_answer answer kind score"
    return pd.DataFrame(rows, columns=columns.split())


def vote_plainly(pool: pd.DataFrame, weighted: bool, orders: int) -> list[tuple[str, int]]:
    """(answer, tokens) of each problem and order, read from the rows: what one writes first."""
    found, rng = [], np.random.default_rng(0)
    for _, part in pool.groupby("problem_id", sort=False):
        rows = part.to_dict("records")
        for order in range(orders):
            drawn = [rows[i] for i in rng.permutation(len(rows))] if order else rows
            counts: Counter = Counter()
            for row in drawn:
                counts[row["answer"]] += row["score"] if weighted else 1
            found.append((counts.most_common(1)[0][0], sum(row["total_tokens"] for row in drawn)))
    return found


def main() -> None:
    pool = make_pool(np.random.default_rng(0))
    rows = []
    for rule in RULES:
        start = time.perf_counter()
        found = replay(pool, rule, "sample", orders=ORDERS)
        rows.append({"way": rule.name, "orders": ORDERS, "seconds": time.perf_counter() - start})
        if rule.name == "weighted_vote":
            ours = found[found["sample"] == 0]
    start = time.perf_counter()
    plain = vote_plainly(pool, True, ORDERS)
    rows.append({"way": "weighted vote, a plain loop", "orders": ORDERS, "seconds": time.perf_counter() - start})
    assert list(zip(ours.answer, ours.decoded_tokens)) == plain[::ORDERS]
    write_table([{**row, "problems": PROBLEMS, "samples": SAMPLES} for row in rows], Path(__file__))


if __name__ == "__main__":
    main()

"""Checks for the exercises: they say when a solution is right, and where it first goes wrong."""

import random
from collections.abc import Callable

from z1lib.window import BudgetForcing, Step


def check_budget_forcing(step: Callable[[list[int], int, list[int], list[int]], Step], trials: int = 3000) -> str:
    """Hold `step(ids, window, delimiter, forced)` against s1's budget forcing without extensions, on random ids.

    Raises AssertionError naming the first ids on which the two differ.
    """
    rng = random.Random(0)
    for _ in range(trials):
        window, delimiter = rng.randrange(8), [1, 2]
        policy = BudgetForcing(window, hint="!", delimiter="()").bind(lambda text: [1, 2] if text == "()" else [3])
        forced = list(policy.forced_ids)
        ids = [rng.choice([1, 2, 3, 4]) for _ in range(rng.randrange(12))]
        wanted, got = policy.step(ids), step(ids, window, delimiter, forced)
        assert got == wanted, (
            f"window {window}, delimiter {delimiter}, forced {forced}: after {ids} the policy gives {wanted}, "
            f"yours {got}"
        )
    return f"right on {trials} random completions"

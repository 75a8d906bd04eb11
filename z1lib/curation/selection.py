"""Which examples are trained on: Algorithm 1 of the paper, its rivals, and the five subsets of Table 2."""

import random
from collections import Counter
from collections.abc import Sequence

import numpy as np

ORDERS = ("longest", "shortest", "random", "stratified")
# The subsets of Table 2: order, and training tokens as a share of the whole set's (19 and 74 of 124 million [P]).
SUBSETS = {
    "full": ("longest", 1.0),
    "random-16k": ("random", 19 / 124),
    "random-64k": ("random", 74 / 124),
    "longest": ("longest", 74 / 124),
    "shortest": ("shortest", 74 / 124),
}


def select_subset(token_counts: Sequence[int], name: str, seed: int = 0) -> list[int]:
    """Indices of a subset of Table 2, by its share of the tokens. Raises ValueError for a name that is not there."""
    if name not in SUBSETS:
        raise ValueError(f"no subset {name!r}; Table 2 has {', '.join(SUBSETS)}")
    order, share = SUBSETS[name]
    return select(token_counts, round(share * sum(token_counts)), order, seed)


def select(
    token_counts: Sequence[int],
    token_budget: int,
    order: str = "longest",
    seed: int = 0,
    strata: Sequence[int] | None = None,
) -> list[int]:
    """Indices of the examples taken, in that order, while the budget lasts (paper, Algorithm 1).

    An example that does not fit is skipped and the next is tried, so the sum never exceeds `token_budget`. Ties keep
    the order of the input. "random" shuffles by `seed`; "stratified" takes from the strata in turn, each shuffled:
    ten bins of length unless `strata` gives every example's own. Raises ValueError for an unknown order, a negative
    budget or count, strata that are not one an example, or if nothing fits.
    """
    counts = list(token_counts)
    if order not in ORDERS:
        raise ValueError(f"order {order!r} is not one of {', '.join(ORDERS)}")
    if token_budget < 0 or any(count < 0 for count in counts):
        raise ValueError("token_budget and token_counts must not be negative")
    if strata is not None and len(strata) != len(counts):
        raise ValueError(f"strata: {len(strata)} for {len(counts)} examples")
    taken, left = [], token_budget
    for index in _ordered(counts, order, seed, strata):
        if counts[index] <= left:
            taken.append(index)
            left -= counts[index]
    if not taken:
        raise ValueError(f"the selection is empty: none of {len(counts)} examples fits {token_budget} tokens")
    return taken


def halve_levels(token_counts: Sequence[int], levels: Sequence[int], order: str, seed: int = 0) -> list[int]:
    """Indices of half of every level's examples (rounded down), its longest, its shortest or any, by level.

    So what is longest is not also what is hardest. Ties keep the order of the input. Raises ValueError where no level
    has two examples, or for an unknown order.
    """
    if order not in ORDERS:
        raise ValueError(f"order {order!r} is not one of {', '.join(ORDERS)}")
    taken = []
    for level in sorted(set(levels)):
        own = [i for i, other in enumerate(levels) if other == level]
        ranked = _ordered([token_counts[i] for i in own], order, seed, None)
        taken += [own[rank] for rank in ranked[: len(own) // 2]]
    if not taken:
        raise ValueError(f"no level of {sorted(set(levels))} has two examples to take half of")
    return taken


def _ordered(counts: list[int], order: str, seed: int, strata: Sequence[int] | None) -> list[int]:
    indices = list(range(len(counts)))
    if order in ("longest", "shortest"):
        return sorted(indices, key=lambda i: -counts[i] if order == "longest" else counts[i])
    random.Random(seed).shuffle(indices)
    if order == "random":
        return indices
    labels = strata if strata is not None else _length_bins(counts)
    turn: Counter = Counter()
    ranks = {}
    for index in indices:  # an example's rank is how many of its stratum come before it
        ranks[index] = turn[labels[index]]
        turn[labels[index]] += 1
    return sorted(indices, key=lambda i: (ranks[i], labels[i]))


def _length_bins(counts: list[int], bins: int = 10) -> list[int]:
    edges = np.quantile(counts, np.linspace(0, 1, bins + 1)[1:-1]) if counts else []
    return np.searchsorted(edges, counts, side="right").tolist()

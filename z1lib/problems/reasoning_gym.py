"""Problems that are not code: two families of the reasoning-gym package, as a test of transfer.

`letter_counting` asks how often a letter occurs in a text (the paper's "strawberry" case), `chain_sum` for the value
of a sum of several numbers. Only tested on, never trained on.
"""

import reasoning_gym

from z1lib.records import Problem

# Small numbers and short texts: a model of 135M parameters is to have a chance.
FAMILIES = {
    "letter_counting": {"min_words": 1, "max_words": 4},
    "chain_sum": {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 1},
}


def make_problems(family: str, count: int, seed: int) -> list[Problem]:
    """`count` different problems of a family; the level is the number of words or terms. Same seed, same problems."""
    dataset = reasoning_gym.create_dataset(family, seed=seed, size=4 * count, **FAMILIES[family])
    entries = {entry["question"]: entry for entry in dataset}
    if len(entries) < count:
        raise ValueError(f"{family}: only {len(entries)} different problems, {count} wanted")
    return [
        Problem(f"{family}-{i}", entry["question"], "math", str(entry["answer"]), _level(family, entry), family)
        for i, entry in enumerate(list(entries.values())[:count])
    ]


def _level(family: str, entry: dict) -> int:
    metadata = entry["metadata"]
    return len(metadata["span"]) if family == "letter_counting" else metadata["num_terms"]

"""GPQA Diamond: 198 questions of science with four choices. Gated: not to be shown in the clear."""

import random

from z1lib.problems.hub import read_rows
from z1lib.records import Problem

REPOSITORY, FILE = "Idavidrein/gpqa", "gpqa_diamond.csv"
REVISION = "83022cefff930aea54f654c0b282e74b9eeda5c6"
CORRECT, WRONG = "Correct Answer", ["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]


def make_problems(count: int | None = None, seed: int = 0, revision: str = REVISION) -> list[Problem]:
    """The first `count` questions, the choices of each in an order drawn from the seed and the question's own id."""
    rows = read_rows(REPOSITORY, revision, FILE, {"Question", "Record ID", CORRECT, *WRONG})
    return [_to_problem(row, seed) for row in rows][:count]


def _to_problem(row: dict, seed: int) -> Problem:
    choices = [row[column].strip() for column in (CORRECT, *WRONG)]
    order = random.Random(f"{seed}/{row['Record ID']}").sample(range(4), 4)
    listed = "\n".join(f"({letter}) {choices[i]}" for letter, i in zip("ABCD", order))
    prompt = f"{row['Question'].strip()}\n\n{listed}"
    return Problem(row["Record ID"], prompt, "choice", "ABCD"[order.index(0)], 0, "gpqa_diamond")

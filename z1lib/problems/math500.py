"""MATH-500: 500 competition problems with a checkable answer (the paper's mathematics benchmark)."""

from z1lib.problems.hub import read_rows
from z1lib.records import Problem

REPOSITORY, FILE = "HuggingFaceH4/MATH-500", "test.jsonl"
REVISION = "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"


def make_problems(count: int | None = None, revision: str = REVISION) -> list[Problem]:
    """The first `count` problems, all for None; the level is the data set's own, 1 to 5."""
    rows = read_rows(REPOSITORY, revision, FILE, {"problem", "answer", "level", "unique_id"})
    problems = [
        Problem(row["unique_id"], row["problem"], "math", row["answer"], int(row["level"]), "math500") for row in rows
    ]
    return problems[:count]

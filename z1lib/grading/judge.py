"""Is the answer right, and by which rule was it found? Grading is apart from generation: regrading costs nothing.

Where the answer is looked for (values, letters and text; code has rules of its own, see `extract_code`):

* After a forced hint: the first boxed value there (a small model may go on writing), else the first line with content.
* In a completion that ended by itself, or answered after its own delimiter: the last boxed value, else what is stated
  as the answer, else the last expression.
* What was boxed (or fenced, for code) before a forced hint is graded as well and kept beside: a hint may spoil it.
* In a completion that was cut without a hint: the last boxed value, else none. The last number of an unfinished
  trace is not an answer, though it is sometimes right by chance.
"""

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count

from z1lib.grading.answers import extract_answer, extract_before_hint, extract_choice, extract_code, names_wanted
from z1lib.grading.equivalence import is_equivalent, is_same_text
from z1lib.grading.programs import passes_tests
from z1lib.records import Completion, Grade, Problem, by_id
from z1lib.sandbox.host import find_isolation

VERSION = "6"  # of these rules; stored in every grade


def grade(problem: Problem, completion: Completion) -> Grade:
    """The grade of one completion, with the extracted text, the rule that found it and the error.

    `error` is None where it is right, else "no answer", "wrong", "crash", "timeout", "memory", "output" or "syntax".
    `before` is what a cut completion had answered before the hint, None if nothing.
    """
    before, before_correct = extract_before_hint(problem, completion), None
    if before is not None:
        before_correct = _judge(problem, before) is None
    extracted, rule = _extract(problem, completion)
    error = "no answer" if extracted is None else _judge(problem, extracted)
    return Grade(
        problem_id=problem.id,
        correct=error is None,
        extracted=extracted,
        rule=rule,
        error=error,
        key=completion.key,
        version=VERSION,
        before=before,
        before_correct=before_correct,
        sandbox=find_isolation() if problem.kind == "code" else "",
    )


def _extract(problem: Problem, completion: Completion) -> tuple[str | None, str]:
    """(what is compared or run, the rule that found it)."""
    if problem.kind == "code":
        return extract_code(completion, names_wanted(problem.reference))
    return extract_choice(completion) if problem.kind == "choice" else extract_answer(completion)


def _judge(problem: Problem, extracted: str) -> str | None:
    """None if an extracted answer is right, else the error."""
    if problem.kind == "code":
        return passes_tests(extracted, problem.reference)
    compare = is_equivalent if problem.kind == "math" else is_same_text
    return None if compare(extracted, problem.reference) else "wrong"


def grade_all(problems: list[Problem], completions: list[Completion]) -> list[Grade]:
    """Grades in the order of the completions.

    Raises KeyError naming a completion whose problem is not there, ValueError an id that two problems have.
    """
    asked = by_id(problems)
    missing = {row.problem_id for row in completions} - set(asked)
    if missing:
        raise KeyError(f"completions of unknown problems: {sorted(missing)[:5]}")
    with ThreadPoolExecutor(cpu_count()) as pool:  # programs run in processes of their own
        return list(pool.map(lambda row: grade(asked[row.problem_id], row), completions))

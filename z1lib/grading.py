"""Is the answer right, and by which rule was it found? Grading is apart from generation: regrading costs nothing.

* After a forced hint: the first boxed value there (a small model may go on writing), else the first line.
* In a completion that ended by itself, or answered after its own delimiter: the last boxed value, else the last number.
* In a completion that was cut without a hint: the last boxed value, else none. The last number of an unfinished
  trace is not an answer, though it is sometimes right by chance.
"""

import re

from math_verify import parse, verify

from z1lib.records import Completion, Grade, Problem

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


def find_boxed(text: str) -> list[str]:
    """The contents of every `\\boxed{...}` with matching braces, in order."""
    found = []
    for match in re.finditer(r"\\boxed\s*\{", text):
        depth, start = 1, match.end()
        for end in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found.append(text[start:end].strip())
                break
    return found


def extract_answer(completion: Completion) -> tuple[str | None, str]:
    """(the text to compare or None, the rule that found it)."""
    if completion.overran and completion.answer_text:
        boxed = find_boxed(completion.answer_text)
        if boxed:
            return boxed[0], "first boxed after the hint"
        line = next((line.strip() for line in completion.answer_text.splitlines() if line.strip()), None)
        return line, "first line after the hint" if line else "none"
    text = completion.answer_text or completion.thinking_text
    boxed = find_boxed(text)
    if boxed:
        return boxed[-1], "last boxed"
    cut = completion.finish_reason == "length" and not completion.answer_text
    numbers = [] if cut else NUMBER.findall(text)
    return (numbers[-1], "last number") if numbers else (None, "none")


def is_equivalent(answer: str, reference: str) -> bool:
    """Whether two answers mean the same: the same text, spaces and case aside, or equal for math-verify."""
    if _normal(answer) == _normal(reference):
        return True
    return bool(verify(parse(f"${reference}$"), parse(f"${answer}$")))


def _normal(text: str) -> str:
    return re.sub(r"\s+", "", text.strip().strip("$").rstrip(".")).lower()


def is_same_text(answer: str, reference: str) -> bool:
    """For answers that are printed text: equal but for white space and quotes around the whole."""
    return _normal(answer).strip("'\"`") == _normal(reference).strip("'\"`")


def grade(problem: Problem, completion: Completion) -> Grade:
    """The grade of one completion, with the extracted text, the rule and the error ("no answer", "wrong" or None)."""
    extracted, rule = extract_answer(completion)
    if extracted is None:
        return Grade(problem.id, False, None, rule, "no answer", completion.key)
    compare = is_same_text if problem.kind == "text" else is_equivalent
    correct = compare(extracted, problem.reference)
    return Grade(problem.id, correct, extracted, rule, None if correct else "wrong", completion.key)


def grade_all(problems: list[Problem], completions: list[Completion]) -> list[Grade]:
    """Grades in the order of the completions. Raises KeyError naming a completion whose problem is not there."""
    by_id = {problem.id: problem for problem in problems}
    missing = {row.problem_id for row in completions} - set(by_id)
    if missing:
        raise KeyError(f"completions of unknown problems: {sorted(missing)[:5]}")
    return [grade(by_id[row.problem_id], row) for row in completions]

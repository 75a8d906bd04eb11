"""Is the answer right, and by which rule was it found? Grading is apart from generation: regrading costs nothing.

Where the answer is looked for (values, letters and text; code has rules of its own, see `extract_code`):

* After a forced hint: the first boxed value there (a small model may go on writing), else the first line.
* In a completion that ended by itself, or answered after its own delimiter: the last boxed value, else the last number.
* What was boxed (or fenced, for code) before a forced hint is graded as well and kept beside: a hint may spoil it.
* In a completion that was cut without a hint: the last boxed value, else none. The last number of an unfinished
  trace is not an answer, though it is sometimes right by chance.
"""

import ast
import json
import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal, InvalidOperation
from functools import cache
from os import cpu_count

from z1lib.math_worker import MathWorker
from z1lib.records import Completion, Grade, Problem
from z1lib.sandbox import execute_code, find_isolation

VERSION = "4"  # of these rules; stored in every grade
TESTER = "import sandbox_tester\nsandbox_tester.main()"  # z1lib/sandbox_tester.py: every sandbox has it as a module
VERDICTS = {0: None, 10: "wrong", 11: "crash", 12: "syntax", 13: "crash", 14: "no answer"}  # its exit codes
FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)```", re.DOTALL)  # (language, code) of a closed block
PYTHON = {"", "python", "python3", "py"}
LETTER = re.compile(r"^\W*(?:(?:text|textbf|mathrm|mathbf)\W*)?([A-Ja-j])(?:\W*$|\s*[).:,\]}])")
CHOICE = re.compile(r"\b(?i:answer|choice|option)\b(?:\s+(?:is|should|would|be))*\s*:?\s*[*$\\({\[]*([A-J])\b(?!['’])")
SYNTAX_ERROR = re.compile(r"^(?:Syntax|Indentation|Tab)Error: .*\s*\Z", re.MULTILINE)
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


def extract_letter(text: str) -> str | None:
    """The choice letter that a text is or names.

    A text that starts with one as its label (`C`, `(C)`, `c.`, `\\text{C}`, `C) because`), else the last one named as
    the answer, the choice or the option (`the answer is (C)`). `A careful look` and `I think` name none.
    """
    if match := LETTER.match(text.strip()):
        return match.group(1).upper()
    named = CHOICE.findall(text)
    return named[-1] if named else None


def extract_choice(completion: Completion) -> tuple[str | None, str]:
    """(the choice letter or None, the rule that found it): a boxed letter, else one that the text names."""
    text = completion.answer_text or completion.thinking_text
    cut = completion.overran and bool(completion.answer_text)
    boxed = [letter for letter in map(extract_letter, find_boxed(text)) if letter]
    if boxed:
        return boxed[0 if cut else -1], "first boxed after the hint" if cut else "last boxed"
    letter = extract_letter(text)
    return letter, "letter named in the text" if letter else "none"


def extract_code(completion: Completion) -> tuple[str | None, str]:
    """(the program to run or None, the rule that found it).

    The last complete block of Python in the answer, else in the thinking. A hint that opens a block leaves its code
    before the first fence of the answer.
    """
    head, fence, _ = completion.answer_text.partition("```")
    if completion.overran and _is_program(head):
        return head, "code after the hint" + ("" if fence else ", not closed")
    for part, text in (("answer", completion.answer_text), ("thinking", completion.thinking_text)):
        if blocks := find_code(text):
            return blocks[-1], f"last block of the {part}"
    return None, "none"


def find_code(text: str) -> list[str]:
    """The complete fenced blocks of Python, or of no stated language, in order."""
    return [code for language, code in FENCE.findall(text) if language.lower() in PYTHON]


def _is_program(text: str) -> bool:
    """Whether a text is Python and does something: a word alone parses too."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return any(not (isinstance(line, ast.Expr) and isinstance(line.value, ast.Name | ast.Constant)) for line in body)


def is_equivalent(answer: str, reference: str) -> bool:
    """Whether two answers mean the same: the same text, spaces and case aside, or equal for math-verify.

    Before that, what math-verify stumbles over is tidied: thin spaces, units in words, `1e3`. `50\\%` is 50 as well as
    0.5. Numbers in different bases are different; where only one names its base the digits decide.
    """
    answer, reference = _tidy(answer), _tidy(reference)
    if _normal(answer) == _normal(reference):
        return True
    bases = [BASE.match(_normal(text)) for text in (answer, reference)]
    if all(bases):
        return bases[0].groups() == bases[1].groups()
    if PERCENT.search(answer) or PERCENT.search(reference):
        plain = [PERCENT.sub("", text) for text in (answer, reference)]
        if _normal(plain[0]) == _normal(plain[1]) or _worker().is_equal(f"${plain[1]}$", f"${plain[0]}$"):
            return True
    return _worker().is_equal(f"${reference}$", f"${answer}$")


BASE = re.compile(r"^(\w+)_\{?(\d+)\}?$")
PERCENT = re.compile(r"\s*(?:\\?%|percent)\s*$")
UNITS = re.compile(
    r"(?<=[\d}])\s*(?:dollars?|cents?|(?:square |cubic )?(?:units?|inch(?:es)?|feet|foot|miles?|meters?|centimeters?)|"
    r"degrees?|(?:milli)?seconds?|minutes?|hours?|days?|weeks?|months?|years?|grams?|kilograms?|pounds?|people|ways)\s*$"
)


def _tidy(text: str) -> str:
    text = re.sub(r"\\[,;:!]|\{,\}", "", text.strip()).replace(r"\varnothing", r"\emptyset")
    text = re.sub(r"^([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d+)$", r"\1 \\times 10^{\2}", text)
    return UNITS.sub("", text)


@cache
def _worker() -> MathWorker:
    return MathWorker()


def _normal(text: str) -> str:
    return re.sub(r"\s+", "", text.strip().strip("$").rstrip(".")).lower()


def is_same_text(answer: str, reference: str) -> bool:
    """For answers that are printed text: equal but for white space and quotes around the whole."""
    return _normal(answer).strip("'\"`") == _normal(reference).strip("'\"`")


def passes_tests(code: str, tests: str, timeout_s: float = 10.0, memory_mb: int = 1024) -> str | None:
    """None if a program passes all its tests, else why not: "wrong", "crash", "timeout", "memory", "syntax", ...

    `tests` is the JSON of a code problem's reference. Function tests (`function`, `tests`, `setup`, `call`) and test
    files that must share a process with the answer (`unittest`): see sandbox_tester.py. Programs (`cases`, pairs of
    input and output): every output must agree, line by line, each within the time. `timeout_s` in the reference
    stands in for the argument: tests that are many need longer.
    """
    given = json.loads(tests)
    timeout_s = given.get("timeout_s", timeout_s)
    if "cases" in given:
        return _passes_cases(given.get("setup", "") + code, given["cases"], timeout_s, memory_mb)
    if "unittest" not in given:
        given = {"setup": "", "call": given["function"], **given}
    result = execute_code(TESTER, json.dumps({**given, "answer": code}), timeout_s, memory_mb)
    return result.error if result.error != "crash" else VERDICTS.get(result.exit_code, "crash")


def _passes_cases(code: str, cases: list[list[str]], timeout_s: float, memory_mb: int) -> str | None:
    for given, expected in cases:
        result = execute_code(code, given, timeout_s, memory_mb)
        if not result.ok:
            return "syntax" if SYNTAX_ERROR.search(result.stderr) else result.error
        if not is_same_output(result.stdout, expected):
            return "wrong"
    return None


def is_same_output(printed: str, expected: str) -> bool:
    """Whether two outputs agree line by line: as text, or number by number (`1.0` and `1`)."""
    lines, wanted = ([line.split() for line in text.strip().splitlines()] for text in (printed, expected))
    return len(lines) == len(wanted) and all(
        a == b or (len(a) == len(b) and all(map(_is_same_word, a, b))) for a, b in zip(lines, wanted)
    )


def _is_same_word(printed: str, expected: str) -> bool:
    try:
        return printed == expected or Decimal(printed) == Decimal(expected)
    except InvalidOperation:
        return False


def grade(problem: Problem, completion: Completion) -> Grade:
    """The grade of one completion, with the extracted text, the rule that found it and the error.

    `error` is None where it is right, else "no answer", "wrong", "crash", "timeout", "memory", "output" or "syntax".
    `before` is what a cut completion had answered before the hint, None if nothing.
    """
    before, before_correct = extract_before_hint(problem, completion), None
    if before is not None:
        before_correct = _judge(problem, before) is None
    extract = {"code": extract_code, "choice": extract_choice}.get(problem.kind, extract_answer)
    extracted, rule = extract(completion)
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


def extract_before_hint(problem: Problem, completion: Completion) -> str | None:
    """The last boxed value, or the last whole code block, of a thinking that the policy cut."""
    if not (completion.overran and completion.hint_tokens):
        return None
    text = completion.thinking_text
    found = find_code(text) if problem.kind == "code" else find_boxed(text)
    last = found[-1] if found else None
    return extract_letter(last) if last and problem.kind == "choice" else last


def _judge(problem: Problem, extracted: str) -> str | None:
    """None if an extracted answer is right, else the error."""
    if problem.kind == "code":
        return passes_tests(extracted, problem.reference)
    compare = is_equivalent if problem.kind == "math" else is_same_text
    return None if compare(extracted, problem.reference) else "wrong"


def grade_all(problems: list[Problem], completions: list[Completion]) -> list[Grade]:
    """Grades in the order of the completions. Raises KeyError naming a completion whose problem is not there."""
    by_id = {problem.id: problem for problem in problems}
    missing = {row.problem_id for row in completions} - set(by_id)
    if missing:
        raise KeyError(f"completions of unknown problems: {sorted(missing)[:5]}")
    with ThreadPoolExecutor(cpu_count()) as pool:  # programs run in processes of their own
        return list(pool.map(lambda row: grade(by_id[row.problem_id], row), completions))

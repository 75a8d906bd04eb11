"""The answer in what a model wrote: a value, a letter, a program; and the rule that found it."""

import ast
import re

from z1lib.records import Completion, Problem

FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n`]*\n(.*?)```", re.DOTALL)  # (language, code) of a closed block


PYTHON = {"", "python", "python3", "py"}


LETTER = re.compile(r"^\W*(?:(?:text|textbf|mathrm|mathbf)\W*)?([A-Ja-j])(?:\W*$|\s*[).:,\]}])")


CHOICE = re.compile(r"\b(?i:answer|choice|option)\b(?:\s+(?:is|should|would|be))*\s*:?\s*[*$\\({\[]*([A-J])\b(?!['’])")


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


def extract_before_hint(problem: Problem, completion: Completion) -> str | None:
    """The last boxed value, or the last whole code block, of a thinking that the policy cut."""
    if not (completion.overran and completion.hint_tokens):
        return None
    text = completion.thinking_text
    found = find_code(text) if problem.kind == "code" else find_boxed(text)
    last = found[-1] if found else None
    return extract_letter(last) if last and problem.kind == "choice" else last

"""Do two answers mean the same? As values by math-verify, as printed text, as the output of a program."""

import re
from decimal import Decimal, InvalidOperation
from functools import cache

from z1lib.grading.answers import undress
from z1lib.grading.math_worker import MathWorker

LONGEST = 5000  # characters of a value: no answer is longer, and what compares values is not linear
BASE = re.compile(r"(\w+)_\{?(\d+)\}?")
PERCENT = re.compile(r"\s?(?:\\?%|percent)$")
UNITS = re.compile(
    r"(?<=[\d}])\s?(?:dollars?|cents?|(?:square |cubic )?(?:units?|inch(?:es)?|feet|foot|miles?|meters?|centimeters?)|"
    r"degrees?|(?:milli)?seconds?|minutes?|hours?|days?|weeks?|months?|years?|grams?|kilograms?|pounds?|people|ways)$"
)
WORDS = re.compile(r"[^\W\d_]+(?:[ -][^\W\d_]+)*")  # letters alone: their case says nothing
APART = re.compile(r"(?<=\d) (?=\d)")  # two numbers, not one
THOUSANDS = re.compile(r"[-+]?\d{1,3}(?: \d{3})+")
PRIME = re.compile(r"(?<=[A-Za-z)}])(?:'|\^?\{?\\prime\}?)")
INFINITY = r"\infty"
# What math-verify does not read, and how it is written for it; tests/grading/test_equality.py has a near-miss of each.
REWRITINGS = [
    (r"\\[,;:!]|\{,\}|\\left|\\right|\\displaystyle", ""),
    (r"\\[dt]frac", r"\\frac"),
    (r"\\varnothing", r"\\emptyset"),
    (r"\\(?:mathrm|text|operatorname|rm)\s?\{([ei])\}", r"\1"),
    (r"^([-+]?\d+(?:\.\d+)?)[eE]([-+]?\d+)$", r"\1 \\times 10^{\2}"),
    (r"\\?\bexp\s?\(([^()]*)\)", r"e^{\1}"),
    (r"\\?sqrt\s?\(([^()]*)\)", r"\\sqrt{\1}"),
    (r"(?<![A-Za-z\\])pi(?![A-Za-z])|π", r"\\pi "),
    (r"^([-+]?)(\d+) (\d+)/(\d+)$", r"\1(\2+\\frac{\3}{\4})"),
    (r"\\(sin|cos|tan|cot|sec|csc)\s?[({]?(-?\d+(?:\.\d+)?)\s?\^\s?\{?\\circ\}?[)}]?", r"\\\1(\\frac{\2\\pi}{180})"),
]
REPEATING = re.compile(r"(\d+)\.(\d*)\\overline\{(\d+)\}")
RELATION = re.compile(r"(?:([^<>=]+?)(<|\\leq?(?![a-z])|≤))?\s?[A-Za-z]\s?(?:(<|>|\\[lg]eq?(?![a-z])|≤|≥)([^<>=]+))?")


def is_equivalent(answer: str, reference: str) -> bool:
    """Whether two answers mean the same: the same text, or equal for math-verify and then as numbers too.

    Both are undressed, and what math-verify stumbles over is rewritten: thin spaces, units in words, `1e3`, `exp(2)`,
    repeating decimals, mixed numbers, degrees. Of words alone the case is ignored. `50\\%` is 50 as well as 0.5.
    Numbers in different bases are different; where only one names its base the digits decide. `x < 3` is its interval.
    """
    if max(len(answer), len(reference)) > LONGEST:
        answer, reference = (" ".join(text.split()) for text in (answer, reference))
        if max(len(answer), len(reference)) > LONGEST:
            return answer == reference
    answer, reference = _tidy(answer), _tidy(reference)
    if _normal(answer) == _normal(reference):
        return True
    if _differs_in_writing(answer, reference):
        return False
    bases = [BASE.fullmatch(_normal(text)) for text in (answer, reference)]
    if all(bases):
        return bases[0].groups() == bases[1].groups()
    if PERCENT.search(answer) or PERCENT.search(reference):
        plain = [PERCENT.sub("", text) for text in (answer, reference)]
        if _normal(plain[0]) == _normal(plain[1]) or _worker().is_equal(f"${plain[1]}$", f"${plain[0]}$"):
            return True
    answer, reference = _as_interval(answer, reference), _as_interval(reference, answer)
    return _worker().is_equal(f"${reference}$", f"${answer}$")


def _differs_in_writing(answer: str, reference: str) -> bool:
    """Two numbers side by side that the other has not, letters of another case, a derivative and its function."""
    for one, other in ((answer, reference), (reference, answer)):
        if APART.search(one) and not APART.search(other):
            return True
        if PRIME.search(one) and not PRIME.search(other):
            return True
    folded = _normal(answer).lower() == _normal(reference).lower()  # what is the same but for case is not the same
    return folded and not (WORDS.fullmatch(answer) and WORDS.fullmatch(reference))


def _tidy(text: str) -> str:
    text = " ".join(undress(text).split())
    if THOUSANDS.fullmatch(text):
        text = text.replace(" ", "")
    for pattern, written in REWRITINGS:
        text = re.sub(pattern, written, text)
    text = REPEATING.sub(_as_quotient, text)
    return UNITS.sub("", text.strip())


def _as_quotient(match: re.Match) -> str:
    """A repeating decimal as the quotient it is."""
    whole, fixed, repeated = match.groups()
    below = (10 ** len(repeated) - 1) * 10 ** len(fixed)
    above = int(whole + fixed + repeated) - int(whole + fixed)
    return rf"\frac{{{above}}}{{{below}}}"


def _as_interval(text: str, other: str) -> str:
    """A relation of one variable as its interval, where the other is one."""
    match = RELATION.fullmatch(text)
    if not match or not re.match(r"[(\[]", other) or not (match[1] or match[4]):
        return text
    left, first, second, right = match.groups()
    if second and (">" in second or "g" in second or "≥" in second):
        return "" if left else f"{'(' if second == '>' else '['}{right},{INFINITY})"
    start = f"({left}" if first == "<" else f"[{left}" if first else rf"(-{INFINITY}"
    end = f"{right})" if second == "<" else f"{right}]" if second else f"{INFINITY})"
    return f"{start},{end}"


@cache
def _worker() -> MathWorker:
    return MathWorker()


def _normal(text: str) -> str:
    """Without blanks but those between letters or digits, and of words alone without case."""
    text = re.sub(r"(?<!\w) | (?!\w)", "", text.strip().strip("$").rstrip("."))
    return text.lower() if WORDS.fullmatch(text) else text


def is_same_text(answer: str, reference: str) -> bool:
    """For answers that are printed text: equal but for white space and quotes around the whole, and behind a comma."""
    return _as_printed(answer) == _as_printed(reference)


def _as_printed(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"`":
        text = text[1:-1]
    return re.sub(r"(?<=[,:])[ \t]|(?<=[(\[{])[ \t]|[ \t](?=[)\]}])", "", text.strip())


def is_same_output(printed: str, expected: str) -> bool:
    """Whether two outputs agree line by line: as text, or where all words of a line are numbers, number by number.

    As LiveCodeBench's own grader has it: decimals are exact.
    """
    lines, wanted = ([line.split() for line in text.strip().splitlines()] for text in (printed, expected))
    return len(lines) == len(wanted) and all(a == b or _are_same_numbers(a, b) for a, b in zip(lines, wanted))


def _are_same_numbers(printed: list[str], expected: list[str]) -> bool:
    try:
        return [Decimal(word) for word in printed] == [Decimal(word) for word in expected]
    except InvalidOperation:
        return False

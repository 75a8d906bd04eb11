"""Do two answers mean the same? As values by math-verify, as printed text, as the output of a program."""

import re
from decimal import Decimal, InvalidOperation
from functools import cache

from z1lib.grading.math_worker import MathWorker


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

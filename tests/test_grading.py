"""The graders: hits, near-misses, and why."""

import pytest

from z1lib.grading import extract_answer, find_boxed, grade, grade_all, is_equivalent
from z1lib.records import Completion, Problem


def completion(thinking: str, answer: str = "", overran: bool = False, finish_reason: str = "stop") -> Completion:
    return Completion(
        problem_id="p", model="m", policy="shifted_window", window=1, sample=0, seed=0, prompt_tokens=1,
        thinking_tokens=1, hint_tokens=0, answer_tokens=0, probe_tokens=0, overran=overran, finish_reason=finish_reason,
        thinking_text=thinking, answer_text=answer, token_ids=[1], key="k",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{12}", ["12"]),
        (r"\boxed{\frac{1}{2}} and \boxed{[1, 2]}", [r"\frac{1}{2}", "[1, 2]"]),
        (r"\boxed{a", []),
        (r"boxed{3}", []),
        (r"\boxed {4}", ["4"]),
    ],
)
def test_boxed_values_are_found_with_matching_braces(text, found):
    assert find_boxed(text) == found


@pytest.mark.parametrize(
    ("row", "extracted", "rule"),
    [
        (completion(r"so \boxed{3}, no, \boxed{4}"), "4", "last boxed"),
        (completion("the sum is 12 or 13."), "13", "last number"),
        (completion("no idea"), None, "none"),
        (completion(r"\boxed{1}", "\n\n\\boxed{5}\n\\boxed{6}", True), "5", "first boxed after the hint"),
        (completion(r"\boxed{1}", "\n\n 7\nbecause 8", True), "7", "first line after the hint"),
        (completion("thinking", "and \\boxed{9}"), "9", "last boxed"),
        (completion(r"so \boxed{3}, then 4", "", True, "length"), "3", "last boxed"),
        (completion("a = a + 3 = 7", "", True, "length"), None, "none"),
    ],
)
def test_the_answer_is_found_by_the_stated_rule(row, extracted, rule):
    assert extract_answer(row) == (extracted, rule)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("12", "12"),
        ("12.0", "12"),
        (r"\frac{1}{2}", "0.5"),
        ("$3$", "3"),
        ("A", "a"),
        ("[1, 2]", "[1,2]"),
        ("-4", "-4"),
    ],
)
def test_equivalent_answers_are_equivalent(answer, reference):
    assert is_equivalent(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [("12", "21"), ("1.2", "12"), ("4", "-4"), (r"\frac{1}{3}", "0.33"), ("", "0"), ("[1,2]", "[2,1]")],
)
def test_near_misses_are_wrong(answer, reference):
    assert not is_equivalent(answer, reference)


def problem(kind: str, reference: str) -> Problem:
    return Problem("p", "q", kind, reference, 1, "s")


def test_printed_text_is_compared_as_text():
    assert grade(problem("text", "p-q"), completion(r"\boxed{p-q}")).correct
    assert grade(problem("text", "p-q"), completion(r"\boxed{'p-q'}")).correct
    assert grade(problem("text", "[1, 2]"), completion(r"\boxed{[1,2]}")).correct
    assert not grade(problem("text", "p-q"), completion(r"\boxed{p - q - q}")).correct
    assert not grade(problem("text", "12"), completion(r"\boxed{12.0}")).correct


def test_a_grade_says_why():
    right = grade(problem("math", "7"), completion(r"\boxed{7}"))
    wrong = grade(problem("math", "7"), completion(r"\boxed{8}"))
    empty = grade(problem("math", "7"), completion("hm"))
    assert [(g.correct, g.extracted, g.error) for g in (right, wrong, empty)] == [
        (True, "7", None),
        (False, "8", "wrong"),
        (False, None, "no answer"),
    ]
    assert right.key == "k"


def test_a_completion_of_an_unknown_problem_is_named():
    with pytest.raises(KeyError, match="unknown problems: \\['p'\\]"):
        grade_all([], [completion("x")])

"""The first wrong line of a traced completion, by kind; what second tellings change."""

import pytest

from z1lib.analysis import errors
from z1lib.problems import tracing
from z1lib.records import Completion, Problem

SUM = "a = 1\nfor i in range(2):\n    a = a + 3\nprint(a)"
BRANCH = "a = 1\nfor x in [5, 2]:\n    if x > 3:\n        a = a + 2\n    else:\n        a = a + 1\nprint(a)"
SEARCH = "for x in [4, 9, 5]:\n    if x > 8:\n        break\nprint(x)"
TEXT = "s = 'p'\ns = s + '-q'\nprint(s)"


def ask(program: str, reference: str, source: str = "tracing") -> Problem:
    return Problem("p", tracing.PROMPT.format(program=program), "text", reference, 1, source)


def complete(text: str, model: str = "z1") -> Completion:
    counts = (1, len(text), 0, 0, 0, False)
    return Completion("p", model, "unbounded", 640, 0, 0, *counts, "stop", text, "", [0] * len(text))


@pytest.mark.parametrize(
    ("program", "reference", "wrong", "kind"),
    [
        (SUM, "7", ("a = a + 3: 1+3=4", "a = a + 3: 1+3=5"), "sum"),
        (SUM, "7", ("a = a + 3: 1+3=4", "a = a + 3: 2+3=5"), "operand"),
        (SUM, "7", ("a = a + 3: 1+3=4", "a = a + 2: 1+2=3"), "statement"),
        (SUM, "7", ("i=1 last", "i=1 left 2"), "loop"),
        (SUM, "7", ("\\boxed{7}", "\\boxed{4}"), "answer"),
        (BRANCH, "4", ("5-3=2 yes, if x > 3:", "5-3=-2 no, else:"), "comparison"),
        (BRANCH, "4", ("a = a + 2: 1+2=3", "a = a + 1: 1+1=2"), "other branch"),
        (SEARCH, "9", ("9-8=1 yes", "hello"), "form"),
        (TEXT, "p-q", ("s = s + '-q': 'p'+'-q'='p-q'", "s = s + '-q': 'p'+'-q'='p-p'"), "text or list"),
    ],
)
def test_the_first_wrong_line_is_named_with_its_kind(program, reference, wrong, kind):
    problem = ask(program, reference)
    right = tracing.tell(problem, "lean").text
    assert errors.find_error(problem, right) is None
    found = errors.find_error(problem, right.replace(*wrong, 1))
    assert found[0] == kind
    assert found[0] in errors.KINDS
    assert (found[1], found[2]) == wrong


@pytest.mark.parametrize("family", tracing.FAMILIES)
@pytest.mark.parametrize("delimiters", [False, True])
def test_a_right_telling_has_no_error_however_it_is_told(family, delimiters):
    for problem in tracing.make_problems(60, [1, 3, 5], 0, family):
        for style in ("lean", "rechecked"):
            assert errors.find_error(problem, tracing.tell(problem, style, delimiters).text) is None


@pytest.mark.parametrize("family", tracing.FAMILIES)
def test_second_tellings_are_counted_by_what_both_came_to(family):
    problems = tracing.make_problems(60, [1, 3, 5], 0, family)
    told = [tracing.tell(problem, "rechecked", delimiters=True, slips=0.5) for problem in problems]
    repaired = sum("Not the same" in one.text for one in told)
    assert repaired
    rows = []
    for problem, one in zip(problems, told):
        rows.append(Completion(**{**vars(complete(one.text)), "problem_id": problem.id}))
    table = errors.recheck_outcomes(problems, rows).set_index("outcome").completions
    assert table.to_dict() == {"right to right": 60 - repaired, "wrong to right": repaired}


def test_errors_are_counted_by_model_family_and_kind():
    problem = ask(SUM, "7")
    right = tracing.tell(problem, "lean").text
    rows = [complete(right), complete(right.replace("3=4", "3=5")), complete(right, "r1")]
    table = errors.errors_by_kind([problem], rows)
    assert table.to_dict("records") == [
        {"model": "r1", "family": "tracing", "kind": "none", "completions": 1},
        {"model": "z1", "family": "tracing", "kind": "none", "completions": 1},
        {"model": "z1", "family": "tracing", "kind": "sum", "completions": 1},
    ]

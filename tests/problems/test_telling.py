"""The interpreter as a teacher: true executions, told in manners, with slips."""

import contextlib
import io
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from z1lib.problems import telling, tracing

programs = st.builds(
    lambda family, level, seed: tracing.FAMILIES[family](level, random.Random(seed)),
    st.sampled_from(sorted(tracing.FAMILIES)),
    st.integers(1, 5),
    st.integers(0, 10**6),
)


def run_plainly(program: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(program, {})
    return output.getvalue().strip()


@settings(max_examples=200, deadline=None)
@given(programs, st.sampled_from(sorted(telling.MANNERS)))
def test_what_is_told_was_printed_by_the_interpreter(program, manner):
    told = telling.narrate(program, manner)
    assert told.printed == run_plainly(program)
    assert told.slipped is None


PROGRAM = "a = 4\nfor x in [3, 2]:\n    if x > 2:\n        a = a + x\n    else:\n        a = a + 1\nprint(a)"


@pytest.mark.parametrize(
    ("manner", "steps"),
    [
        (
            "lean",
            [
                *("x=3 left 2", "3-2=1 yes, if x > 2:", "a = a + x: 4+3=7"),
                *("x=2 last", "2-2=0 no, else:", "a = a + 1: 7+1=8", "x done"),
            ],
        ),
        ("terse", ["a = 7", "a = 8"]),
        (
            "full",
            [
                *("x = 3, left [2]", "if x > 2: 3 > 2, yes", "a = a + x = 4 + 3 = 7"),
                *("x = 2, left []", "if x > 2: 2 > 2, no", "a = a + 1 = 7 + 1 = 8"),
                *("x done", "print(a): 8"),
            ],
        ),
    ],
)
def test_a_manner_says_how_much_of_every_executed_statement_is_told(manner, steps):
    assert telling.narrate(PROGRAM, manner) == telling.Telling(steps, "8")


def test_nested_loops_start_their_values_anew():
    told = telling.narrate("a = 1\nfor j in range(2):\n    for i in range(2):\n        a = a + i\nprint(a)")
    assert [step for step in told.steps if step.startswith(("i", "j"))] == [
        *("j=0 left 1", "i=0 left 1", "i=1 last", "i done"),
        *("j=1 last", "i=0 left 1", "i=1 last", "i done", "j done"),
    ]


def test_a_loop_over_a_list_is_told_where_nothing_else_tells_the_item():
    told = telling.narrate("a = 1\nfor x in [5, 7]:\n    a = a + 2\nprint(a)").steps
    assert [step for step in told if step.startswith("x")] == ["x=5 left 7", "x=7 last", "x done"]


def test_strings_and_lists_are_told_as_values():
    assert telling.narrate("s = 'p'\ns = s + '-q'\nprint(s)").steps == ["s = s + '-q': 'p'+'-q'='p-q'"]
    assert telling.narrate("h = [3]\nh = h + [4]\nprint(h)").steps == ["h = h + [4]: [3]+[4]=[3,4]"]


@given(st.integers(0, 20), st.integers(0, 20), st.sampled_from("<>"), st.booleans())
def test_a_comparison_is_told_as_a_difference_that_is_above_zero_where_it_holds(left, right, sign, slips):
    program = f"a = {left}\nb = 0\nif a {sign} {right}:\n    b = a\nprint(b)"
    step = telling.narrate(program, slip=0 if slips else None).steps[0]
    difference, verdict = step.split("=")[1].split(" ")
    assert (int(difference) > 0) == (verdict == "yes")
    assert slips or int(difference) == (left - right if sign == ">" else right - left)


def test_a_search_is_told_up_to_its_hit():
    told = telling.narrate("for x in [4, 9, 5, 6]:\n    if x > 7:\n        break\nprint(x)")
    assert told == telling.Telling(["4-7=-3 no", "9-7=2 yes"], "9")


def test_narrating_leaves_another_tracer_in_place():
    def tracer(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        telling.narrate("a = 1\na = a + 1\nprint(a)")
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


@settings(max_examples=200, deadline=None)
@given(programs, st.integers(0, 10**6))
def test_a_slip_is_one_wrong_line_and_what_is_told_before_it_is_right(program, seed):
    right = telling.narrate(program)
    slip = random.Random(seed).randrange(telling.count_steps(program))
    wrong = telling.narrate(program, slip=slip)
    assert wrong.steps[: wrong.slipped] == right.steps[: wrong.slipped]
    assert wrong.steps[wrong.slipped] != right.steps[wrong.slipped]


def test_a_slip_is_carried_on_from():
    program = "a = 1\na = a + 1\na = a + 5\nprint(a)"
    assert telling.narrate(program, slip=0) == telling.Telling(["a = a + 1: 1+1=3", "a = a + 5: 3+5=8"], "8", 0)


def test_a_slip_that_the_program_never_comes_to_is_refused():
    with pytest.raises(ValueError, match="no step 5: the program works out 1 things"):
        telling.narrate("a = 1\na = a + 1\nprint(a)", slip=5)


def test_an_unknown_manner_is_refused():
    with pytest.raises(ValueError, match="no manner 'loud' of telling; there are terse, lean, full"):
        telling.narrate("a = 1\nprint(a)", "loud")

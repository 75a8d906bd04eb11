"""The traced programs: true executions, graded, different."""

import contextlib
import io
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from z1lib.problems import reasoning_gym, tracing


def run_plainly(program: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(program, {})
    return output.getvalue().strip()


@settings(max_examples=200, deadline=None)
@given(st.integers(1, tracing.MAX_LEVEL), st.integers(0, 10**6))
def test_the_narration_ends_with_what_the_interpreter_prints(level, seed):
    program, steps, printed = tracing.make_program(level, random.Random(seed))
    assert printed == run_plainly(program)
    assert steps[-1].endswith(f": {printed}")


def test_every_executed_statement_is_told_with_its_operands():
    program = "a = 4\nfor x in [2, 3]:\n    if x % 2 == 0:\n        a = a + x\n    else:\n        a = a + 1\nprint(a)"
    steps, printed = tracing.narrate(program)
    assert steps == [
        "x = 2, left [3]",
        "if x % 2 == 0: 2 % 2 = 0, 0 == 0, yes",
        "a = a + x = 4 + 2 = 6",
        "x = 3, left []",
        "if x % 2 == 0: 3 % 2 = 1, 1 == 0, no",
        "a = a + 1 = 6 + 1 = 7",
        "x done",
        "print(a): 7",
    ]
    assert printed == "7"


def test_nested_loops_start_their_values_anew():
    steps, _ = tracing.narrate("a = 1\nfor j in range(2):\n    for i in range(2):\n        a = a + i\nprint(a)")
    assert [step for step in steps if step.startswith(("i", "j"))] == [
        *("j = 0, left [1]", "i = 0, left [1]", "i = 1, left []", "i done"),
        *("j = 1, left []", "i = 0, left [1]", "i = 1, left []", "i done", "j done"),
    ]


def test_strings_and_lists_are_told_as_values():
    assert tracing.narrate("s = 'p'\ns = s + '-q'\nprint(s)")[0][0] == "s = s + '-q' = 'p' + '-q' = 'p-q'"
    assert tracing.narrate("h = [3]\nh = h + [4]\nprint(h)")[0][0] == "h = h + [4] = [3] + [4] = [3, 4]"


def test_narrating_leaves_another_tracer_in_place():
    def tracer(frame, event, arg):
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        tracing.narrate("a = 1\na = a + 1\nprint(a)")
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("level", range(1, tracing.MAX_LEVEL + 1))
def test_a_program_of_level_k_has_seen_k_minus_one_moves(level):
    for seed in range(50):
        sketch = tracing.evolve(level, random.Random(seed))
        more = sketch.rounds > (2 if sketch.outer else 3)
        moves = bool(sketch.rounds) + bool(sketch.outer) + sketch.second + sketch.branch + sketch.walk
        assert level - 1 in (moves, moves + 1)
        assert not more or level - 1 == moves + 1


@pytest.mark.parametrize("level", [0, tracing.MAX_LEVEL + 1])
def test_a_level_outside_the_range_is_refused(level):
    with pytest.raises(ValueError, match="level must be 1 to 7"):
        tracing.evolve(level, random.Random(0))


def test_higher_levels_take_longer():
    rng = random.Random(0)
    means = [sum(len(tracing.make_program(k, rng)[1]) for _ in range(60)) / 60 for k in range(1, 8)]
    assert means == sorted(means)
    assert means[4] > 3 * means[0]


def test_problems_differ_follow_their_seed_and_keep_clear_of_what_is_taken():
    first = tracing.make_problems(60, [1, 2], 3, "tracing")
    assert first == tracing.make_problems(60, [1, 2], 3, "tracing")
    assert first != tracing.make_problems(60, [1, 2], 4, "tracing")
    programs = {tracing.program_of(problem) for problem in first}
    assert len(programs) == 60
    assert [problem.level for problem in first] == [1, 2] * 30
    taken = {tracing.canonical(program) for program in programs}
    assert len(taken) == 60
    again = tracing.make_problems(60, [1, 2], 3, "tracing", taken=taken)
    assert not taken & {tracing.canonical(tracing.program_of(problem)) for problem in again}


def test_programs_that_differ_in_names_alone_are_the_same():
    one = "b = 3\ne = 2\nfor i in range(2):\n    b = b + e\nprint(b)"
    assert tracing.canonical(one) == tracing.canonical(one.replace("e =", "a =").replace("+ e", "+ a"))
    assert tracing.canonical(one) != tracing.canonical(one.replace("print(b)", "print(e)"))


def test_a_level_that_runs_out_of_programs_says_so():
    with pytest.raises(ValueError, match="level 1 has hardly a program left"):
        tracing.make_problems(4000, [1], 0, "tracing")


def test_the_two_styles_tell_the_same_execution_and_end_alike():
    [problem] = tracing.make_problems(1, [3], 0, "tracing")
    plain, rechecked = tracing.tell_plain(problem), tracing.tell_rechecked(problem)
    told, answer = plain.split("\n\n", 1)
    assert rechecked.count(told) == 2
    assert rechecked.endswith("</think>\n\n" + answer)
    assert "think>" not in plain
    assert answer.endswith(f"\\boxed{{{problem.reference}}}")


@pytest.mark.parametrize("family", reasoning_gym.FAMILIES)
def test_transfer_problems_differ_and_follow_their_seed(family):
    problems = reasoning_gym.make_problems(family, 20, seed=1)
    assert len({problem.prompt for problem in problems}) == 20
    assert problems == reasoning_gym.make_problems(family, 20, seed=1)
    assert {problem.source for problem in problems} == {family}


def test_letter_counting_references_are_right():
    for problem in reasoning_gym.make_problems("letter_counting", 20, seed=2):
        letter, text = problem.prompt.split('letter "')[1][0], problem.prompt.split('text: "')[1].split('"')[0]
        assert int(problem.reference) == text.lower().count(letter.lower())

"""The traced programs: true executions, graded, different."""

import ast
import random
import re

import pytest

from z1lib.problems import reasoning_gym, tracing
from z1lib.records import Problem


@pytest.mark.parametrize("level", range(1, tracing.MAX_LEVEL + 1))
def test_a_program_of_level_k_has_seen_k_minus_one_moves(level):
    for seed in range(50):
        sketch = tracing.evolve(level, random.Random(seed))
        more = sketch.rounds == (3 if sketch.outer else 4)
        moves = bool(sketch.rounds) + bool(sketch.outer) + sketch.second + sketch.branch + sketch.walk
        assert level - 1 in (moves, moves + 1)
        assert not more or level - 1 == moves + 1


@pytest.mark.parametrize("level", [0, tracing.MAX_LEVEL + 1])
def test_a_level_outside_the_range_is_refused(level):
    with pytest.raises(ValueError, match="level must be 1 to 7"):
        tracing.evolve(level, random.Random(0))


@pytest.mark.parametrize("family", tracing.FAMILIES)
def test_higher_levels_take_longer(family):
    means = []
    for level in range(1, 6):
        problems = tracing.make_problems(100, [level], 0, family)
        told = [tracing.tell(problem, "lean").text.split("\n\n")[0] for problem in problems]
        means.append(sum(map(len, told)) / len(told))
    assert means[::2] == sorted(means[::2])
    assert means[4] > 1.5 * means[0]


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


@pytest.mark.parametrize("family", tracing.FAMILIES)
def test_every_style_announces_the_answer_and_ends_with_it_in_its_box(family):
    for problem in tracing.make_problems(50, [1, 3, 5], 0, family):
        for style in tracing.STYLES:
            for delimiters in (False, True):
                told = tracing.tell(problem, style, delimiters, slips=0.5).text
                assert told.endswith(f"\n\nThe final answer is:\n\n\\boxed{{{problem.reference}}}")
                assert told.count("<think>") == told.count("</think>\n\nThe final") == delimiters


def test_no_update_stands_in_a_program_twice():
    for problem in tracing.make_problems(600, [1, 2, 3, 4, 5, 6, 7], 0, "tracing"):
        lines = [line.strip() for line in tracing.program_of(problem).split("\n")]
        assert len(set(lines)) == len(lines), lines


def test_a_recheck_tells_the_execution_a_second_time():
    [problem] = tracing.make_problems(1, [3], 0, "tracing")
    told, _ = tracing.tell(problem, "lean").text.split("\n\n", 1)
    assert tracing.tell(problem, "rechecked").text.count(told) == 2


def test_a_running_best_is_rechecked_from_the_other_end_and_a_search_is_read_on():
    best, hit = (
        "b = 0\nfor x in [3, 9]:\n    if x > b:\n        b = x\nprint(b)",
        "for x in [4, 9, 5]:\n    if x > 8:\n        break\nprint(x)",
    )
    asked = [Problem("p", tracing.PROMPT.format(program=program), "text", "9", 1, "s") for program in (best, hit)]
    told = [tracing.tell(problem, "rechecked").text.split("\n\n") for problem in asked]
    assert told[0][0].split("\n") == ["3-0=3 yes", "b = x: 3", "9-3=6 yes", "b = x: 9"]
    assert told[0][2].split("\n") == ["9-0=9 yes", "b = x: 9", "3-9=-6 no"]
    assert told[1][0] == told[1][2] == "4-8=-4 no\n9-8=1 yes\n5-8=-3 no"


@pytest.mark.parametrize("family", tracing.FAMILIES)
def test_slips_come_in_their_share_are_named_and_repaired(family):
    problems = tracing.make_problems(400, [1, 2, 3, 4, 5], 0, family)
    told = [tracing.tell(problem, "rechecked", slips=0.25) for problem in problems]
    slipped = [one for one in told if one.unlearned]
    assert 0.18 < len(slipped) / len(told) < 0.32
    for one in slipped:
        assert one.unlearned in one.text.split("Wait,")[0].split("\n")
    assert any("Not the same as before" in one.text for one in slipped)
    assert not any("Not the same as before" in one.text for one in told if not one.unlearned)


def test_a_slip_that_changes_the_conclusion_is_said_to():
    """The conclusion of a search is its first hit, whatever else is read."""
    for problem in tracing.make_problems(200, [3, 5], 1, "first_hit"):
        told = tracing.tell(problem, "rechecked", slips=1.0).text
        first = [line[0] for line in told.split("\n\n")[0].split("\n") if line.endswith(" yes")]
        assert ("The same as before." in told) == (first[:1] == [problem.reference])


def test_a_running_best_is_known_before_the_end_in_proportion_to_what_was_read():
    """The reason for the family: after k of m items the best so far is the answer with probability k / m."""
    known = []
    for problem in tracing.make_problems(400, [5], 0, "running_best"):
        program = tracing.program_of(problem)
        if "= x" in program:
            items = ast.literal_eval(re.search(r"\[.*\]", program)[0])
            best = max if "x >" in program else min
            known.append(str(best(items[: len(items) // 2])) == problem.reference)
    assert 0.4 < sum(known) / len(known) < 0.6


def test_a_hit_stands_anywhere_in_its_list():
    places = []
    for problem in tracing.make_problems(300, [5], 0, "first_hit"):
        items = ast.literal_eval(re.search(r"\[.*\]", tracing.program_of(problem))[0])
        places.append(items.index(int(problem.reference)) / len(items))
    assert min(places) == 0
    assert max(places) > 0.5


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

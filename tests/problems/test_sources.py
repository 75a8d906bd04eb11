"""Benchmarks read from files of their published shape, made by us, and graded end to end."""

import base64
import json
import pickle
import re
import zlib

import pytest

from z1lib.grading.programs import passes_tests
from z1lib.problems import bigcodebench, gpqa, hub, humaneval, livecodebench, math500
from z1lib.problems.hub import SourceUnavailable


@pytest.fixture
def stored(hub_cache):
    """`stored(source module, rows, file=...)` writes rows where the Hub's file would be found."""
    return lambda source, rows, file=None: hub_cache.store(
        source.REPOSITORY, source.REVISION, file or source.FILE, rows
    )


def math_row(i: int) -> dict:
    row = {"problem": f"What is {i}+1?", "solution": "", "answer": str(i + 1), "subject": "Algebra"}
    return {**row, "level": 1 + i % 5, "unique_id": f"test/algebra/{i}.json"}


def test_math500(stored):
    stored(math500, [math_row(i) for i in range(7)])
    problems = math500.make_problems(5)
    assert [problem.reference for problem in problems] == ["1", "2", "3", "4", "5"]
    assert problems[2].level == 3
    assert {problem.kind for problem in problems} == {"math"}


def test_a_row_without_a_column_is_named(stored):
    stored(math500, [math_row(0), {"problem": "?"}])
    with pytest.raises(ValueError, match=r"MATH-500, test.jsonl, row 2: no columns \['answer', 'level', 'unique_id'\]"):
        math500.make_problems()


def gpqa_row(i: int) -> dict:
    wrong = {f"Incorrect Answer {k}": f"wrong {i}.{k}\n" for k in (1, 2, 3)}
    return {"Question": f"Which, {i}?", "Correct Answer": f"right {i}", **wrong, "Record ID": f"rec{i}"}


def test_gpqa_shuffles_by_a_recorded_seed_and_keeps_the_letter(stored):
    stored(gpqa, [gpqa_row(i) for i in range(40)])
    problems = gpqa.make_problems(seed=1)
    for i, problem in enumerate(problems):
        assert f"({problem.reference}) right {i}" in problem.prompt
        assert all(f"wrong {i}.{k}" in problem.prompt for k in (1, 2, 3))
    assert {problem.reference for problem in problems} == set("ABCD")
    assert problems == gpqa.make_problems(seed=1) != gpqa.make_problems(seed=2)
    assert problems[:3] == gpqa.make_problems(3, seed=1)


def packed(cases: list[dict]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)))).decode()


def code_row(i: int, date: str = "2024-05-01T00:00:00", functional: bool = False) -> dict:
    kind = "functional" if functional else "stdin"
    public = [{"input": "[1, 2]\n3" if functional else "1 2 3", "output": "6", "testtype": kind}]
    hidden = [{"input": "[]\n4" if functional else "4", "output": "4", "testtype": kind}]
    starter = "class Solution:\n    def total(self, xs: List[int], y: int) -> int:\n        " if functional else ""
    row = {"question_title": "t", "question_content": "Add up.", "platform": "x", "question_id": f"q{i}"}
    row |= {"contest_id": "c", "contest_date": date, "starter_code": starter, "difficulty": "hard"}
    row |= {
        "public_test_cases": json.dumps(public),
        "private_test_cases": packed(hidden) if i % 2 else json.dumps(hidden),
    }
    return {**row, "metadata": json.dumps({"func_name": "total"} if functional else {})}


def test_livecodebench_by_release_and_date(stored):
    for k, file in enumerate(livecodebench.FILES[:5]):
        stored(livecodebench, [code_row(10 * k + i, f"2024-0{k + 1}-1{i}T00:00:00") for i in range(3)], file)
    assert len(livecodebench.make_problems()) == 15
    assert len(livecodebench.make_problems(release=2)) == 6
    assert [p.id for p in livecodebench.make_problems(start="2024-02-11", end="2024-03-10")] == ["q11", "q12", "q20"]
    assert len(livecodebench.make_problems(4)) == 4


@pytest.mark.parametrize("i", [0, 1])
def test_livecodebench_programs_are_held_against_public_and_hidden_tests(stored, i):
    reference = livecodebench.make_reference(code_row(i))
    assert passes_tests("print(sum(map(int, input().split())))", reference) is None
    assert passes_tests("print(6)", reference) == "wrong"  # right on the public test alone


@pytest.mark.parametrize("i", [0, 1])
def test_livecodebench_methods_are_called(stored, i):
    row = code_row(i, functional=True)
    reference = livecodebench.make_reference(row)
    assert passes_tests(row["starter_code"] + "return sum(xs) + y", reference) is None
    assert passes_tests(row["starter_code"] + "return sum(xs)", reference) == "wrong"
    assert passes_tests("def total(xs, y): return sum(xs) + y", reference) is None  # as its own grader has it
    assert passes_tests("def other(xs, y): return sum(xs) + y", reference) == "no answer"


def test_hidden_tests_may_hold_nothing_but_text():
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(pickle.UnpicklingError, match="where text was expected"):
        livecodebench.decode_tests(base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode())


def test_bigcodebench_hard(stored):
    test = "import unittest\nclass TestCases(unittest.TestCase):\n    def test(self): self.assertEqual(task_func(2), 4)"
    row = {"task_id": "BigCodeBench/1", "instruct_prompt": "Double it.", "test": test, "libs": "['math']"}
    row["code_prompt"] = "import math\ndef task_func(x):"
    stored(bigcodebench, [row])
    [problem] = bigcodebench.make_problems()
    assert passes_tests("def task_func(x): return 2 * x", problem.reference) is None
    assert passes_tests("def task_func(x): return x", problem.reference) == "wrong"


def test_the_libraries_of_bigcodebench_must_be_installed(stored):
    row = {"task_id": "BigCodeBench/1", "instruct_prompt": "", "code_prompt": "", "test": ""}
    stored(bigcodebench, [{**row, "libs": "['math', 'nosuchlibrary']"}, {**row, "libs": "['norsuch']"}])
    with pytest.raises(SourceUnavailable, match="its tasks import norsuch, nosuchlibrary, not installed.*bigcodebench"):
        bigcodebench.make_problems()
    with pytest.raises(SourceUnavailable, match="import nosuchlibrary, not"):
        bigcodebench.make_problems(1)


def test_humaneval_has_164_problems_that_name_their_function():
    problems = humaneval.make_problems()
    assert len(problems) == 164
    assert all(json.loads(problem.reference)["function"] in problem.prompt for problem in problems)


def test_a_set_out_of_reach_says_what_to_do(hub_cache):
    with pytest.raises(SourceUnavailable, match=r"MATH-500 cannot be reached.*hf download --repo-type dataset --rev"):
        math500.make_problems()


@pytest.mark.parametrize("source", [math500, gpqa, livecodebench, bigcodebench])
def test_every_set_is_pinned_to_a_commit(source):
    assert re.fullmatch("[0-9a-f]{40}", source.REVISION)


def test_a_gated_set_says_what_to_do(monkeypatch):
    from unittest.mock import Mock

    from huggingface_hub.errors import GatedRepoError

    def gated(*args, **kwargs):
        raise GatedRepoError("403", response=Mock())

    monkeypatch.setattr(hub, "hf_hub_download", gated)
    with pytest.raises(SourceUnavailable, match=r"Idavidrein/gpqa is gated: accept its terms at https.*hf auth login"):
        gpqa.make_problems()

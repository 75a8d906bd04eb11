"""LiveCodeBench, code generation: problems of programming contests with hidden tests (arXiv 2403.07974).

Release v5 holds 880 problems up to the beginning of 2025, the paper's benchmark. The tests come compressed inside the
rows: base64, zlib and a pickle that may hold nothing but text.
"""

import base64
import io
import json
import pickle
import zlib
from datetime import date

from z1lib.problems.hub import read_rows
from z1lib.records import Problem

REPOSITORY = "livecodebench/code_generation_lite"
REVISION = "0fe84c3912ea0c4d4a78037083943e8f0c4dd505"
FILES = ("test.jsonl", "test2.jsonl", "test3.jsonl", "test4.jsonl", "test5.jsonl", "test6.jsonl")  # one more a release
LEVELS = {"easy": 1, "medium": 2, "hard": 3}
COLUMNS = {
    "question_content", "question_id", "contest_date", "starter_code", "difficulty", "public_test_cases",
    "private_test_cases", "metadata",
}  # fmt: skip
SECONDS = 10.0  # a test; the benchmark's own harness gives 6
# The wording of the prompts is ours; those of Qwen2.5-Coder, which the paper used, ask for the same.
INPUT_OUTPUT = "Read the input from standard input and print the answer to standard output."
STARTER = "Start from this code:\n\n```python\n{code}\n```"
PROMPT = "{question}\n\n{form} Give the whole Python program in one code block.\n"


class OnlyText(pickle.Unpickler):
    def find_class(self, module, name):
        raise pickle.UnpicklingError(f"the tests hold {module}.{name} where text was expected")


def make_problems(
    count: int | None = None, release: int = 5, start: str = "", end: str = "", revision: str = REVISION
) -> list[Problem]:
    """The first `count` problems of a release whose contest was from `start` to `end` (ISO dates, both included)."""
    first, last = date.fromisoformat(start or "0001-01-01"), date.fromisoformat(end or "9999-12-31")
    problems = []
    for file in FILES[:release]:
        for row in read_rows(REPOSITORY, revision, file, COLUMNS):
            if first <= date.fromisoformat(row["contest_date"][:10]) <= last:
                problems.append(_to_problem(row))
            if len(problems) == count:
                return problems
    return problems


def _to_problem(row: dict) -> Problem:
    form = STARTER.format(code=row["starter_code"]) if row["starter_code"].strip() else INPUT_OUTPUT
    prompt = PROMPT.format(question=row["question_content"].strip(), form=form)
    level = LEVELS.get(row["difficulty"], 0)
    return Problem(row["question_id"], prompt, "code", make_reference(row), level, "livecodebench")


def make_reference(row: dict) -> str:
    """Public and hidden tests: pairs of input and output, or calls of the starter code's method."""
    cases = json.loads(row["public_test_cases"]) + decode_tests(row["private_test_cases"])
    if cases and cases[0]["testtype"] == "functional":
        name = json.loads(row["metadata"])["func_name"]
        calls = [
            [[json.loads(line) for line in case["input"].strip("\n").split("\n")], json.loads(case["output"])]
            for case in cases
        ]
        tests = f"import json\nfor arguments, expected in json.loads({json.dumps(json.dumps(calls))}):\n"
        tests += "    found = f(*arguments)\n    found = list(found) if isinstance(found, tuple) else found\n"
        tests += "    assert found == expected\n"
        call = f"Solution().{name} if 'Solution' in globals() else {name}"  # a plain function will do
        called = {"function": "f", "call": call, "timeout_s": SECONDS * len(cases)}
        return json.dumps({"setup": IMPORTS, **called, "tests": tests})
    return json.dumps({"setup": IMPORTS, "cases": [[case["input"], case["output"]] for case in cases]})


# What the benchmark's own harness puts before every answer (its testing_util.py): all names of these modules, the
# built-ins on top of them again, the modules by name, and a limit of recursion that contest solutions rely on.
MODULES = "string, re, datetime, collections, heapq, bisect, copy, math, random, statistics, itertools, functools"
MODULES += ", operator, io, sys, json"
IMPORTS = "".join(f"from {name} import *\n" for name in f"{MODULES}, builtins, typing".split(", "))
IMPORTS += f"import {MODULES}\nsys.setrecursionlimit(50000)\n"


def decode_tests(text: str) -> list[dict]:
    """The hidden tests of a row: plain JSON, or JSON inside a pickle, zlib and base64."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    return json.loads(OnlyText(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load())

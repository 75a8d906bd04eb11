"""Does a program pass its tests? They run in the sandbox; the verdict is the exit code of the tests' own process."""

import json
import re

from z1lib.grading.equivalence import is_same_output
from z1lib.sandbox.host import execute_code

TESTER = "import sandbox_tester\nsandbox_tester.main()"  # sandbox/tester.py: every sandbox has it as a module


VERDICTS = {0: None, 10: "wrong", 11: "crash", 12: "syntax", 13: "crash", 14: "no answer"}  # its exit codes


SYNTAX_ERROR = re.compile(r"^(?:Syntax|Indentation|Tab)Error: .*\s*\Z", re.MULTILINE)


def passes_tests(code: str, tests: str, timeout_s: float = 10.0, memory_mb: int = 1024) -> str | None:
    """None if a program passes all its tests, else why not: "wrong", "crash", "timeout", "memory", "syntax", ...

    `tests` is the JSON of a code problem's reference. Function tests (`function`, `tests`, `setup`, `call`) and test
    files that must share a process with the answer (`unittest`): see sandbox/tester.py. Programs (`cases`, pairs of
    input and output): every output must agree, line by line, each within the time. `timeout_s` in the reference
    stands in for the argument: tests that are many need longer.
    """
    given = json.loads(tests)
    timeout_s = given.get("timeout_s", timeout_s)
    if "cases" in given:
        return _passes_cases(given.get("setup", "") + code, given["cases"], timeout_s, memory_mb)
    if "unittest" not in given:
        given = {"setup": "", "call": given["function"], **given}
    result = execute_code(TESTER, json.dumps({**given, "answer": code}), timeout_s, memory_mb)
    return result.error if result.error != "crash" else VERDICTS.get(result.exit_code, "crash")


def _passes_cases(code: str, cases: list[list[str]], timeout_s: float, memory_mb: int) -> str | None:
    for given, expected in cases:
        result = execute_code(code, given, timeout_s, memory_mb)
        if not result.ok:
            return "syntax" if SYNTAX_ERROR.search(result.stderr) else result.error
        if not is_same_output(result.stdout, expected):
            return "wrong"
    return None

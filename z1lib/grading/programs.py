"""Does a program pass its tests? They run in the sandbox; the verdict is the exit code of the tests' own process."""

import json
import re

from z1lib.grading.equivalence import is_same_output
from z1lib.sandbox.host import OUTPUT_BYTES, ExecutionResult, execute_code, last_line

TESTER = "import sandbox_tester\nsandbox_tester.main({processes})"  # sandbox/tester.py, a module in every sandbox


VERDICTS = {0: None, 10: "wrong", 11: "crash", 12: "syntax", 13: "crash", 14: "no answer"}  # its exit codes


SYNTAX_ERROR = re.compile(r"(?:Syntax|Indentation|Tab)Error: ")  # in the last line


def passes_tests(code: str, tests: str, timeout_s: float = 10.0, memory_mb: int = 1024) -> str | None:
    """None if a program passes all its tests, else why not: "wrong", "crash", "timeout", "memory", "syntax", ...

    `tests` is the JSON of a code problem's reference. Function tests (`function`, `tests`, `setup`, `call`) and test
    files that must share a process with the answer (`unittest`): see sandbox/tester.py. Programs (`cases`, pairs of
    input and output): every output must agree, line by line, each within the time. `timeout_s` and `memory_mb` in the
    reference stand in for the arguments: a benchmark's limits are its own.
    """
    given = json.loads(tests)
    timeout_s = given.get("timeout_s", timeout_s)
    if "cases" in given:
        return _passes_cases(given.get("setup", "") + code, given["cases"], timeout_s, memory_mb)
    memory_mb = given.get("memory_mb", memory_mb)
    if "unittest" not in given:
        given = {"setup": "", "call": given["function"], **given}
    tester = TESTER.format(processes=2 if "unittest" in given else 1)
    result = execute_code(tester, json.dumps({**given, "answer": code}), timeout_s, memory_mb)
    return result.error if result.error != "crash" else VERDICTS.get(result.exit_code, "crash")


def _passes_cases(code: str, cases: list[list[str]], timeout_s: float, memory_mb: int) -> str | None:
    for given, expected in cases:
        most = max(OUTPUT_BYTES, 2 * len(expected.encode()))
        result = execute_code(code, given, timeout_s, memory_mb, most)
        if not (result.ok or _exited(result)):
            return "syntax" if SYNTAX_ERROR.match(last_line(result.stderr)) else result.error
        if not is_same_output(result.stdout, expected):
            return "wrong"
    return None


def _exited(result: ExecutionResult) -> bool:
    """Whether a program ended by `sys.exit` with its own code: LiveCodeBench's grader looks at the output alone."""
    return result.error == "crash" and (result.exit_code or 0) > 0 and "Traceback (most recent" not in result.stderr

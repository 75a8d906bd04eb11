"""Holds an answer against function tests, inside the sandbox, where it is a module that `grading.passes_tests` calls.

Answer and tests live in two processes, so that an answer can neither read the tests nor patch the comparison: the
answer's process is forked before the tests are read; the tests call it through a proxy, and only plain values (numbers,
text, containers) come back. The exit code is the verdict, and it is the tests' process that exits.

Tests in a `unittest` file patch the answer's surroundings and must run in its process. The answer is defined before
they arrive, unittest is imported anew behind it, as many tests must have run as the file holds, and the verdict comes
with a word that is sent along with the tests. An answer written against this very file could still cheat there.

Standard input: one JSON object, `answer`, `setup` (code both sides may use), `tests` (code that raises if the answer is
wrong), `function` (the name by which the tests call it) and `call` (what is called in the answer's process); or
`answer` and `unittest` (the text of a test file).
"""

import ast
import builtins
import ctypes
import io
import json
import os
import pickle
import secrets
import struct
import sys
import types

WRONG, RAISES, SYNTAX, GONE, MISSING = 10, 11, 12, 13, 14  # exit codes, read by `grading`
PR_SET_DUMPABLE = 4
PLAIN = {"set", "frozenset", "complex", "bytearray", "range", "slice"}


class PlainUnpickler(pickle.Unpickler):
    """Refuses everything that is not plain data: what the other side sends is not to be trusted."""

    def find_class(self, module, name):
        if module == "builtins" and name in PLAIN:
            return getattr(builtins, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def send(fd, value):
    data = pickle.dumps(value)
    data = struct.pack("<Q", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def receive(fd):
    return PlainUnpickler(io.BytesIO(read(fd, struct.unpack("<Q", read(fd, 8))[0]))).load()


def read(fd, size):
    parts = []
    while size:
        part = os.read(fd, min(size, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(requests, answers):
    """The answer's process: define it, then run its tests here or call it as often as it is asked to."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    setup, answer, call = receive(requests)
    module = sys.modules["__test__"] = types.ModuleType("__test__")
    scope = vars(module)
    try:
        exec(compile(setup, "setup", "exec"), scope)
        exec(compile(answer, "answer", "exec"), scope)
        function = eval(call, scope)
    except SyntaxError:
        return send(answers, ("fails", SYNTAX))
    except NameError:
        return send(answers, ("fails", MISSING))
    except BaseException:
        return send(answers, ("fails", RAISES))
    send(answers, ("ready", None))
    if function is None:
        return send(answers, run_unittest(*receive(requests), scope))
    while True:
        arguments, keywords = receive(requests)
        try:
            result = ("returns", function(*arguments, **keywords))
        except BaseException as error:
            result = ("raises", type(error).__name__)
        try:
            send(answers, result)
        except (pickle.PicklingError, TypeError, AttributeError):
            send(answers, ("returns", "<something that is no plain value>"))


def run_unittest(tests, word, scope):
    """(the word, how many tests ran, whether all passed) of a test file; nobody patched the comparisons meanwhile."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "unittest"]:
        del sys.modules[name]
    import unittest

    exec(compile(tests, "tests", "exec"), scope)
    cases = [value for value in scope.values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
    load, result = unittest.TestLoader().loadTestsFromTestCase, unittest.TestResult()
    suite, checks = unittest.TestSuite(load(case) for case in dict.fromkeys(cases)), dict(vars(unittest.TestCase))
    suite.run(result)
    return word, result.testsRun, result.wasSuccessful() and checks == dict(vars(unittest.TestCase))


def count_tests(tests):
    """How many test methods the text of a test file defines."""
    classes = [node for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.ClassDef)]
    methods = [node for one in classes for node in one.body if isinstance(node, ast.FunctionDef)]
    return sum(method.name.startswith("test") for method in methods)


def ask(requests, answers, value):
    try:
        send(requests, value)
        return receive(answers)
    except (EOFError, OSError, pickle.UnpicklingError, ValueError):
        os._exit(GONE)


def main():
    requests, answers = os.pipe(), os.pipe()
    if os.fork() == 0:
        try:
            serve(requests[0], answers[1])
        finally:
            os._exit(0)
    os.close(requests[0]), os.close(answers[1])
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # the answer's process must not look into this one
    given = json.load(sys.stdin)
    defined = ask(requests[1], answers[0], (given.get("setup", ""), given["answer"], given.get("call", "None")))
    if defined[0] != "ready":
        os._exit(defined[1] if defined[0] == "fails" else GONE)
    if "unittest" in given:
        word = secrets.token_hex()
        verdict = ask(requests[1], answers[0], (given["unittest"], word))
        enough = isinstance(verdict, tuple) and verdict[:1] == (word,) and verdict[1] >= count_tests(given["unittest"])
        os._exit(0 if enough and verdict[2] is True and verdict[1] else WRONG)

    def proxy(*arguments, **keywords):
        kind, value = ask(requests[1], answers[0], (arguments, keywords))
        if kind == "returns":
            return value
        error = getattr(builtins, value, RuntimeError)
        raise error if isinstance(error, type) and issubclass(error, Exception) else RuntimeError(value)

    scope = {"__name__": "tests"}
    try:
        exec(compile(given["setup"], "setup", "exec"), scope)
        scope[given["function"]] = proxy
        exec(compile(given["tests"], "tests", "exec"), scope)
    except AssertionError:
        os._exit(WRONG)
    except BaseException:
        os._exit(RAISES)
    os._exit(0)

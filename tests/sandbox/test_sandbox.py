"""The sandbox: programs that try to break out fail, and are reported as what they are. Fork bombs come last."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from z1lib.grading.programs import passes_tests
from z1lib.sandbox import host
from z1lib.sandbox.host import SandboxUnavailable, execute_code, find_isolation, find_walls

try:
    ISOLATION = find_isolation()
except SandboxUnavailable as error:
    pytest.skip(str(error), allow_module_level=True)

HERE = Path(__file__).resolve()


def processes() -> set[int]:
    """The processes of our sandboxes and orphans: by their text, or by a user that nobody has."""
    first_line = host.GUEST.splitlines()[0]
    found, own = set(), {process.pid for process in psutil.Process().children(recursive=True)}
    for process in psutil.process_iter(["pid", "ppid", "uids", "cmdline"]):
        values = process.info
        ours = values["pid"] in own or values["ppid"] == 1
        if ours and (first_line in " ".join(values["cmdline"] or []) or values["uids"].real >= 1 << 20):
            found.add(values["pid"])
    return found


def leftovers() -> list[str]:
    return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith("z1-sandbox-")]


@pytest.fixture(scope="module", autouse=True)
def _folder_of_our_own():
    """Other tests may run programs meanwhile."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        os.chmod(folder, 0o755)
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """After a test and the end of the warm sandboxes there is no process, no file and no open file of theirs."""
    host.close_idle()
    before, open_files = processes(), len(os.listdir("/proc/self/fd"))
    yield
    host.close_idle()
    deadline = time.monotonic() + 5
    while processes() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes() <= before
    assert not leftovers()
    assert len(os.listdir("/proc/self/fd")) == open_files


def test_a_program_reads_its_input_and_its_output_is_kept_apart():
    result = execute_code("import sys; print(input()[::-1]); print('no', file=sys.stderr)", stdin="abc\n")
    assert (result.ok, result.exit_code, result.stdout, result.stderr, result.error) == (True, 0, "cba\n", "no\n", None)
    assert result.isolation == ISOLATION


def test_large_input_and_output_do_not_block_each_other():
    text = "x" * 900_000
    result = execute_code("import sys\nfor line in sys.stdin: print(line, end='')", stdin=text)
    assert (result.stdout, result.ok) == (text, True)


def test_input_that_nobody_reads_does_no_harm():
    assert execute_code("print(1)", stdin="x" * 5_000_000).stdout == "1\n"


@pytest.mark.parametrize(
    ("program", "exit_code"),
    [("import sys; sys.exit(3)", 3), ("1 / 0", 1), ("if", 1), ("import os, signal; os.kill(os.getpid(), 11)", -11)],
)
def test_any_other_end_is_a_crash_with_its_exit_code(program, exit_code):
    result = execute_code(program)
    assert (result.ok, result.error, result.exit_code) == (False, "crash", exit_code)


def test_programs_of_one_sandbox_share_nothing():
    leave = """
import json, os, random, socket
json.dumps = os.remove = None
os.environ['KEPT'] = '1'
open('kept', 'w').write('x')
socket.socket(socket.AF_UNIX).bind(chr(0) + 'kept')
print(random.random())
"""
    look = """
import json, os, random, socket, sys
assert json.dumps(1) == '1' and os.remove and 'KEPT' not in os.environ and not os.path.exists('kept')
assert sorted(vars(sys.modules['__main__'])).count('leave') == 0
socket.socket(socket.AF_UNIX).bind(chr(0) + 'kept')
print(random.random())
"""
    results = [execute_code(program) for program in (leave, look)]
    assert [(result.ok, result.stderr) for result in results] == [(True, "")] * 2
    assert results[0].stdout != results[1].stdout
    assert len(host._idle) == (1 if find_walls() == "namespaces" else 0)


def test_a_sandbox_that_died_while_idle_is_replaced():
    execute_code("print(1)")
    for warm in host._idle:
        os.killpg(warm.process.pid, signal.SIGKILL)
        warm.process.wait()
    assert execute_code("print(1)").stdout == "1\n"


def test_the_sandbox_ends_with_its_caller():
    caller = (
        "from z1lib.sandbox import execute_code\nexecute_code('print(1)')\nimport os, signal\nos.kill(os.getpid(), 9)"
    )
    before = processes()
    subprocess.run([sys.executable, "-c", caller], check=False, cwd=HERE.parent.parent)
    deadline = time.monotonic() + 5
    while processes() - before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes() <= before


def test_a_program_runs_as_an_ordinary_user_without_capabilities():
    program = """
for line in open('/proc/self/status'):
    if line.startswith(('CapInh', 'CapPrm', 'CapEff', 'CapAmb', 'NoNewPrivs')): print(line.split()[1])
"""
    assert execute_code(program).stdout.split() == ["0" * 16] * 4 + ["1"]
    assert execute_code("import os; print(os.getuid(), os.getgroups())").stdout == "1000 []\n"


def test_an_uncaught_error_ends_as_in_any_interpreter():
    result = execute_code("import atexit\natexit.register(print, 'bye')\ndef f():\n    return 1 / 0\nf()")
    assert (result.exit_code, result.stdout) == (1, "bye\n")
    assert result.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert 'File "main.py", line 4, in f' in result.stderr


def test_a_thread_that_outlives_the_main_program_is_waited_for():
    program = "import threading, time\nx = 'late'\ndef f():\n    time.sleep(0.2)\n    print(x)\n"
    program += "threading.Thread(target=f).start()"
    assert execute_code(program).stdout == "late\n"


def test_bubblewrap_puts_up_the_same_walls(monkeypatch):
    # root starts it as a user nobody has, who cannot read an interpreter in root's home folder
    monkeypatch.setattr(host, "_interpreter", lambda: "/usr/bin/python3")
    links = {folder: f"usr{folder}" for folder in ("/bin", "/lib", "/lib64")}
    monkeypatch.setattr(host, "_system_files", lambda: ({"/usr": "/usr"}, links))
    if not shutil.which("bwrap") or not host._execute("", "", 20, 512, "bubblewrap").ok:
        pytest.skip("needs bubblewrap and the system's own Python")
    program = "import os, socket\nprint(os.path.exists('/etc/passwd'), os.listdir('/tmp'))\n"
    program += "try: socket.create_connection(('1.1.1.1', 53))\nexcept OSError: print('no network')"
    result = host._execute(program, "", 20, 512, "bubblewrap")
    assert (result.stdout, result.stderr) == ("False ['main.py']\nno network\n", "")
    inside = "import os, socket\nprint(socket.gethostbyname('localhost'))\nfor place in ('/x', '/etc/x', '/usr/x'):\n"
    inside += "    try: open(place, 'w')\n    except OSError: print('closed')\n"
    assert host._execute(inside, "", 20, 512, "bubblewrap").stdout == "127.0.0.1\n" + 3 * "closed\n"
    bomb = host._execute("import os\nwhile True: os.fork()", "", 5, 512, "bubblewrap")
    assert "Resource temporarily unavailable" in bomb.stderr or bomb.error == "timeout"


def test_a_program_has_the_scientific_packages_but_not_this_one():
    program = (
        "import numpy, pandas, scipy.stats, sympy, matplotlib.pyplot, seaborn, statsmodels.api, typing_extensions\n"
    )
    result = execute_code(program + "print(numpy.arange(3).sum())", timeout_s=120)
    assert (result.stdout, result.error) == ("3\n", None)
    assert "ModuleNotFoundError" in execute_code("import z1lib").stderr


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/etc/shadow", str(HERE), str(Path.home() / ".bashrc"), "/proc/1/environ", "/dev/mem"]
)
def test_files_outside_cannot_be_read(path):
    result = execute_code(f"print(len(open({path!r}, 'rb').read(10)))")
    assert (result.ok, result.error) == (False, "crash")
    assert any(word in result.stderr for word in ("FileNotFoundError", "PermissionError"))


def test_folders_outside_cannot_be_listed():
    for folder in ("/home", str(HERE.parent), "/etc", "/var"):
        listed = execute_code(f"import os; print(os.listdir({folder!r}) if os.path.exists({folder!r}) else [])").stdout
        assert not set(eval(listed)) - {"ld.so.cache", "hosts"}


@pytest.mark.parametrize("path", ["/usr/lib/x", "/bin/sh", str(HERE), "/x", "/packages/x.py", "/dev/x"])
def test_nothing_outside_can_be_written(path):
    before = HERE.read_bytes()
    assert not execute_code(f"open({path!r}, 'w').write('x')").ok
    assert HERE.read_bytes() == before


def test_what_is_written_in_tmp_is_gone_afterwards():
    assert execute_code("open('/tmp/kept', 'w').write('x')").ok
    assert execute_code("import os; print(sorted(os.listdir('/tmp')))").stdout == "['main.py']\n"
    assert not os.path.exists("/tmp/kept")


def test_the_temporary_folder_may_be_deleted():
    result = execute_code("import shutil; shutil.rmtree('/tmp', ignore_errors=True); print('done')")
    assert result.stdout == "done\n"


@pytest.mark.parametrize("address", [("1.1.1.1", 53), ("127.0.0.1", 0)])
def test_there_is_no_network(address):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = address[0], address[1] or server.getsockname()[1]
        result = execute_code(f"import socket; socket.create_connection(({host!r}, {port}), timeout=3)")
    assert (result.ok, result.error) == (False, "crash")
    assert "unreachable" in result.stderr or "refused" in result.stderr


def test_a_program_may_start_python_by_its_name_and_it_has_the_same_packages():
    program = "import subprocess\nasked = ['python', '-c', 'import numpy; print(numpy.__name__)']\n"
    program += "print(subprocess.run(asked, capture_output=True, text=True).stdout)"
    assert execute_code(program).stdout == "numpy\n\n"


def test_the_environment_is_empty(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    result = execute_code("import os; print(sorted(os.environ))")
    assert "SECRET" not in result.stdout
    names = set(eval(result.stdout))
    assert not {name for name in names if name.endswith(("TOKEN", "KEY", "PATH"))} - {"PATH", "PYTHONPATH"}


def test_ten_gibibytes_are_refused_as_memory():
    result = execute_code("x = bytearray(10 << 30)", memory_mb=512)
    assert (result.ok, result.error) == (False, "memory")


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)", "input()\nwhile True: input()"])
def test_endless_programs_time_out(program):
    result = execute_code(program, stdin="\n" * 5, timeout_s=1)
    expected = "crash" if "input" in program else "timeout"
    assert (result.ok, result.error) == (False, expected)
    assert result.wall_s < 3


def test_a_program_that_ignores_signals_times_out():
    program = (
        "import signal, time\nfor s in (15, 2, 1, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    )
    result = execute_code(program, timeout_s=1)
    assert (result.error, result.exit_code) == ("timeout", None)


def test_endless_output_is_cut():
    result = execute_code("while True: print('x' * 1000)")
    assert (result.ok, result.error) == (False, "output")
    assert len(result.stdout) <= host.OUTPUT_BYTES


def test_a_file_of_a_gibibyte_cannot_be_written():
    result = execute_code("f = open('/tmp/big', 'wb')\nfor i in range(1024): f.write(bytes(1 << 20))")
    assert (result.ok, result.error) == (False, "crash")


def test_a_background_grandchild_dies_with_the_program():
    program = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3): os.close(fd)
                time.sleep(60)
            os._exit(0)
        print('left')
    """
    result = execute_code("\n".join(line[8:] for line in program.splitlines()))
    assert (result.ok, result.stdout) == (True, "left\n")
    assert result.wall_s < 5


@pytest.mark.parametrize("target", ["os.getppid()", "1", "-1", "OURS"])
def test_other_processes_cannot_be_killed(target):
    result = execute_code(
        f"import os, signal\nOURS = {os.getpid()}\nos.kill({target}, signal.SIGKILL)\nprint('killed')"
    )
    assert os.getpid()  # we are still here
    assert "killed" not in result.stdout or target == "-1"


def test_a_shell_gains_nothing():
    result = execute_code("import os; os.execv('/bin/sh', ['sh', '-c', 'cat /etc/passwd; id -u; ls /home'])")
    assert "root:" not in result.stdout


def test_deep_recursion_is_a_crash_of_its_own():
    result = execute_code(
        "import sys; sys.setrecursionlimit(10 ** 6)\ndef f(n): return f(n + 1) + 1\nf(0)", timeout_s=20
    )
    assert not result.ok
    assert result.error in ("crash", "memory", "timeout")


def test_the_status_of_a_program_cannot_be_forged():
    forge = "    try: os.write(fd, b'{\"exit_code\": 0}\\n')\n    except OSError: pass"
    program = f"import os\nfor fd in range(3, 64):\n{forge}\nos._exit(7)"
    assert execute_code(program).exit_code == 7


def test_the_status_cannot_be_forged_through_the_parents_files():
    program = "import os\nfor name in range(3, 32):\n    for pid in {os.getppid(), 1}:\n"
    program += "        try: os.write(os.open(f'/proc/{pid}/fd/{name}', os.O_WRONLY), b'{\"exit_code\": 0}')\n"
    program += "        except OSError: pass\nos._exit(7)"
    assert execute_code(program).exit_code == 7
    weak = host._execute(program, "", 10, 512, "limits only")
    assert weak.exit_code == 7


def test_with_limits_only_children_end_with_the_program():
    program = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\nprint('left')"
    result = host._execute(program, "", 10, 512, "limits only")
    assert result.wall_s < 15  # the child holds the streams until the time is up
    assert result.isolation == "limits only"


def test_memory_that_numpy_is_refused_is_reported_as_memory():
    assert execute_code("import numpy; numpy.ones(10 ** 10)", memory_mb=1024).error == "memory"


def test_programs_may_run_side_by_side_and_from_threads():
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: execute_code(f"print({i} ** 2)").stdout, range(24)))
    assert results == [f"{i**2}\n" for i in range(24)]


def test_without_isolation_it_refuses_unless_told_otherwise(monkeypatch):
    monkeypatch.setattr(host.shutil, "which", lambda name: None)
    real = host._execute

    def without_namespaces(program, stdin, timeout_s, memory_mb, isolation, *limits):
        if isolation == "namespaces":
            return host.ExecutionResult(False, None, "", "unshare: not permitted", "crash", 0.0, isolation)
        return real(program, stdin, timeout_s, memory_mb, isolation, *limits)

    monkeypatch.setattr(host, "_execute", without_namespaces)
    find_walls.cache_clear()
    with pytest.raises(SandboxUnavailable, match=r"unshare: not permitted.*Z1_WEAK_SANDBOX=1"):
        execute_code("print(1)")
    monkeypatch.setenv("Z1_WEAK_SANDBOX", "1")
    result = execute_code("print(1)")
    assert (result.stdout, result.isolation) == ("1\n", "limits only")
    find_walls.cache_clear()


def test_where_there_is_no_seccomp_the_isolation_says_so(monkeypatch):
    monkeypatch.setattr(host, "make_filter", lambda: b"")
    assert execute_code("print(1)").isolation == find_isolation() == f"{find_walls()}, no seccomp"


@pytest.mark.slow
def test_the_grader_survives_a_thousand_hostile_programs_and_nothing_is_left():
    hostile = [
        "import os\nos.fork()\nimport time; time.sleep(30)",
        "x = bytearray(10 << 30)",
        "open('/tmp/x', 'wb').write(bytes(10 << 20))",
        "import os; os.kill(1, 9); os._exit(0)",
        "raise SystemExit('passed')",
    ]
    tests = json.dumps({"setup": "", "tests": "assert add(1, 2) == 3", "function": "add"})
    before = threading.active_count()
    with ThreadPoolExecutor(4) as pool:
        verdicts = list(
            pool.map(lambda i: passes_tests(hostile[i % 5], tests, timeout_s=2, memory_mb=256), range(1000))
        )
    assert None not in verdicts
    assert threading.active_count() == before


@pytest.mark.parametrize("times", range(3))
def test_a_fork_bomb_is_contained(times):
    start = time.monotonic()
    result = execute_code("import os\nwhile True: os.fork()", timeout_s=3)
    assert not result.ok
    assert time.monotonic() - start < 10
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"

"""Run programs that a model wrote, so that they can do no harm and the caller learns how they ended.

Each program runs in namespaces of its own (bubblewrap where it is installed, else the kernel's user namespaces): no
network, no files but the interpreter, its libraries (read-only) and an empty /tmp in memory, no environment, no
processes but its own, and limits on time, memory, files, processes and output. When it ends everything it started is
killed.

Putting up the walls takes longer than most programs, so a walled-in interpreter is kept warm: it forks for every
program (guest.py), and what a program could touch is new each time. One that had to be stopped is not used
again, and bubblewrap's walls are for one program.

What this does not protect against: faults in the kernel, timing side channels, programs that slow each other down, and
a program that reads the tests it runs beside (see `grading`). Memory is limited for each process, not for all of a
program's together, and a file in memory counts as a file. Where namespaces are not to be had (macOS, some
containers) there are only limits, and `execute_code` refuses unless it is told that this will do.
"""

import atexit
import json
import math
import os
import re
import secrets
import select
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from z1lib.cost import Cost
from z1lib.sandbox.filter import make_filter
from z1lib.sandbox.packages import find_packages

GUEST = Path(__file__).with_name("guest.py").read_text("utf-8")
MODULES = {  # what every sandbox can import
    f"sandbox_{name}": Path(__file__).with_name(f"{name}.py").read_text("utf-8")
    for name in ("tester", "observer", "strategies", "fuzzer")
}
COMMANDS = "/commands"  # where `python` is found
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"  # the only names there are inside
OUTPUT_BYTES = 1 << 20  # of stdout and of stderr
DISK_MB = 64
PROCESSES = 128  # and threads, of which tensorflow alone starts more than 32
MEMORY_ERROR = re.compile(r"[\w.]*MemoryError\b")  # in the last line; numpy has one of its own
WEAK = "Z1_WEAK_SANDBOX"  # set to 1 to run programs where there are no namespaces


class SandboxUnavailable(RuntimeError):
    """This machine cannot wall a program in; the message says what is missing and how to go on at one's own risk."""


@dataclass(frozen=True)
class ExecutionResult:
    """How a program ended. `ok`: by itself with exit code 0.

    `error`: None, "timeout", "memory", "output" (too much of it) or "crash" (any other exit code or signal).
    `isolation`: "bubblewrap", "namespaces" or "limits only", and what the machine has not got of it.
    """

    ok: bool
    exit_code: int | None
    stdout: str
    stderr: str
    error: str | None
    wall_s: float
    isolation: str

    @property
    def cost(self) -> Cost:
        return Cost(programs=1, program_s=self.wall_s)


def execute_code(
    program: str, stdin: str = "", timeout_s: float = 10.0, memory_mb: int = 1024, output_bytes: int = OUTPUT_BYTES
) -> ExecutionResult:
    """Run a Python program and wait for its end, `timeout_s` seconds of wall time at most.

    More than `output_bytes` on stdout is the error "output"; of stderr the end is kept. Raises ValueError for limits
    that are none, SandboxUnavailable where programs cannot be walled in, unless the environment has Z1_WEAK_SANDBOX=1.
    """
    for name, value in (("timeout_s", timeout_s), ("memory_mb", memory_mb), ("output_bytes", output_bytes)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be a number above 0, got {value}")
    return _execute(program, stdin, timeout_s, memory_mb, find_walls(), output_bytes)


def find_isolation() -> str:
    """What keeps programs in on this machine, and what it lacks. Raises SandboxUnavailable if that is too weak."""
    return _name(find_walls())


def _name(walls: str) -> str:
    return walls if make_filter() or walls == "limits only" else f"{walls}, no seccomp"


@cache
def find_walls() -> str:
    """The strongest isolation this machine has, tried out once. Raises SandboxUnavailable if that is too weak."""
    reasons = []
    for isolation in ("bubblewrap", "namespaces"):
        if isolation == "bubblewrap" and not shutil.which("bwrap"):
            continue
        result = _execute("print(6 * 7)", "", 20, 512, isolation)
        if result.stdout == "42\n":
            return isolation
        reasons.append(f"{isolation}: {result.stderr.strip() or result.error}")
    if os.environ.get(WEAK) == "1":
        return "limits only"
    raise SandboxUnavailable(
        f"programs cannot be kept from files and network here ({'; '.join(reasons)}). Use Linux with user namespaces "
        f"or bubblewrap, or set {WEAK}=1 to run them with limits only, at your own risk"
    )


def _execute(
    program: str, stdin: str, timeout_s: float, memory_mb: int, isolation: str, output_bytes: int = OUTPUT_BYTES
) -> ExecutionResult:
    sandbox = _take(isolation)
    result, ended = None, False
    try:
        result, ended = sandbox.run(program, stdin.encode("utf-8", "replace"), timeout_s, memory_mb, output_bytes)
    finally:
        if ended and isolation == "namespaces":  # elsewhere a program may leave something behind
            _idle.append(sandbox)
        else:
            sandbox.close()
    return result


class _Sandbox:
    """A walled-in interpreter (guest.py) that runs one program at a time."""

    def __init__(self, isolation: str):
        self.isolation = isolation
        self.folder = tempfile.mkdtemp(prefix="z1-sandbox-") if isolation == "limits only" else None
        self.control, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as hosts:
            hosts.write(HOSTS.encode())
            hosts.seek(0)
            settings = json.dumps({**_settings(isolation), "control_fd": theirs.fileno()})
            self.process = subprocess.Popen(
                [*_wrapper(isolation, hosts.fileno()), _interpreter(), "-s", "-P", "-c", GUEST, settings],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), hosts.fileno()),
                env=_environment(isolation),
                start_new_session=True,
                **_launch_as(isolation),
            )

    def run(
        self, program: str, stdin: bytes, timeout_s: float, memory_mb: int, output_bytes: int
    ) -> tuple[ExecutionResult, bool]:
        """How a program ended, and whether it ended by itself: else this sandbox is of no more use."""
        start = time.monotonic()
        streams = self._start(program, timeout_s, memory_mb)
        output, error = _attend(*streams, stdin, start + timeout_s, output_bytes)
        report = None if error else self._read_report(start + timeout_s)
        stdout, stderr = (data.decode("utf-8", "replace") for data in output)
        if report is None:
            error = error or "timeout"
        else:
            stderr += report.get("setup_error", "")
            error = _explain(report.get("exit_code"), stderr)
        code = (report or {}).get("exit_code")
        wall_s, isolation = time.monotonic() - start, _name(self.isolation)
        return ExecutionResult(error is None, code, stdout, stderr, error, wall_s, isolation), code is not None

    def _start(self, program: str, timeout_s: float, memory_mb: int) -> tuple[int, int, int]:
        """Send a program; our ends of its stdin, stdout and stderr."""
        limits = {"cpu_s": int(timeout_s) + 1, "memory_mb": memory_mb, "disk_mb": DISK_MB}
        limits["processes"] = PROCESSES + (0 if self.isolation != "limits only" else _count_own_processes())
        job = json.dumps({"program": program, "folder": self.folder or "/tmp", **limits}).encode()
        (in_read, in_write), (out_read, out_write), (err_read, err_write) = os.pipe(), os.pipe(), os.pipe()
        with suppress(ConnectionError):  # the walls could not be put up; the report says why
            socket.send_fds(self.control, [struct.pack("<I", len(job))], [in_read, out_write, err_write])
            self.control.sendall(job)
        for fd in (in_read, out_write, err_write):
            os.close(fd)
        return in_write, out_read, err_read

    def _read_report(self, deadline: float) -> dict | None:
        """How the program ended; None if it has not by the deadline."""
        data = b""
        try:
            while not data.endswith(b"\n"):
                self.control.settimeout(max(0.001, deadline - time.monotonic()))
                data += (part := self.control.recv(65536))
                if not part:
                    raise ConnectionResetError
        except TimeoutError:
            return None
        except ConnectionError:
            return {"setup_error": "the sandbox ended before the program"}
        self.control.settimeout(None)
        return json.loads(data)

    def is_alive(self) -> bool:
        return self.process.poll() is None and not select.select([self.control], [], [], 0)[0]

    def close(self) -> None:
        """Kill the first process of the sandbox; the kernel kills all the others with it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.control.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def _count_own_processes() -> int:
    """Processes of this user: without namespaces of its own a program's limit counts them too."""
    return sum(process.info["uids"] == psutil.Process().uids() for process in psutil.process_iter(["uids"]))


_idle: list[_Sandbox] = []  # warm and free; list.pop and list.append are atomic
os.register_at_fork(after_in_child=_idle.clear)  # they answer to the parent


def _take(isolation: str) -> _Sandbox:
    while _idle:
        with suppress(IndexError):  # another thread was faster
            sandbox = _idle.pop()
            if sandbox.isolation == isolation and sandbox.is_alive():
                return sandbox
            sandbox.close()
    return _Sandbox(isolation)


@atexit.register
def close_idle() -> None:
    """End the sandboxes that are kept warm; the next program starts another."""
    while _idle:
        with suppress(IndexError):
            _idle.pop().close()


def _explain(code: int | None, stderr: str) -> str | None:
    if code == 0:
        return None
    if code == -signal.SIGXCPU:
        return "timeout"
    return "memory" if MEMORY_ERROR.match(last_line(stderr)) else "crash"


def last_line(text: str) -> str:
    """The last line of a program's complaint, which names its error."""
    return text.rstrip().rpartition("\n")[2]


def _attend(
    in_fd: int, out_fd: int, err_fd: int, stdin: bytes, deadline: float, output_bytes: int
) -> tuple[list[bytes], str | None]:
    """Feed stdin, collect stdout and stderr until both are closed, it takes too long or writes too much on stdout."""
    outputs, error = {out_fd: bytearray(), err_fd: bytearray()}, None
    os.set_blocking(in_fd, False)
    with selectors.DefaultSelector() as selector:
        for fd in outputs:
            selector.register(fd, selectors.EVENT_READ)
        selector.register(in_fd, selectors.EVENT_WRITE)
        while outputs.keys() & selector.get_map().keys() and error is None:
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                error = "timeout"
            for key, _ in ready:
                if key.fd == in_fd:
                    stdin = _feed(selector, in_fd, stdin)
                elif data := os.read(key.fd, 65536):
                    outputs[key.fd] += data
                    if key.fd == err_fd:  # what complains is no answer: its end says how it ended
                        del outputs[err_fd][:-OUTPUT_BYTES]
                    elif len(outputs[out_fd]) > output_bytes:
                        error = "output"
                else:
                    selector.unregister(key.fd)
        if in_fd in selector.get_map():
            os.close(in_fd)
    for fd in outputs:
        os.close(fd)
    return [bytes(outputs[out_fd][:output_bytes]), bytes(outputs[err_fd])], error


def _feed(selector: selectors.BaseSelector, fd: int, data: bytes) -> bytes:
    """Write what the program takes of its input; close it when all is written or nobody reads."""
    try:
        data = data[os.write(fd, data[:65536]) :] if data else b""
    except BrokenPipeError:
        data = b""
    if not data:
        selector.unregister(fd)
        os.close(fd)
    return data


def _settings(isolation: str) -> dict:
    binds, links = _system_files()
    walls = {"walls": isolation == "namespaces", "namespaces": isolation != "limits only"}
    return {
        **walls,
        "binds": binds,
        "links": links,
        "hosts": HOSTS,
        "modules": MODULES,
        "filter": make_filter().hex(),
        "hidden": _hidden(),
        **_user(isolation),
    }


def _environment(isolation: str) -> dict[str, str]:
    """What a program finds in its environment. A fixed seed of hashes: a set is in the same order each time."""
    packages = "/packages" if isolation != "limits only" else sysconfig.get_path("purelib")
    fixed = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0", "HOME": "/tmp"}
    fixed["PATH"] = f"{COMMANDS}:/usr/bin:/bin"
    fixed["MALLOC_ARENA_MAX"] = "2"  # an arena a thread would use up the address space that a program may have
    return {"PYTHONPATH": packages, **fixed}


def _wrapper(isolation: str, hosts_fd: int) -> list[str]:
    """The bubblewrap command that puts up the same walls as `guest.change_root`; /etc/hosts comes from a descriptor."""
    if isolation != "bubblewrap":
        return []
    binds, links = _system_files()
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--proc", "/proc", "--dev", "/dev"]
    command += [part for source, target in binds.items() for part in ("--ro-bind-try", source, target)]
    command += [part for link, target in links.items() for part in ("--symlink", target, link)]
    command += [part for folder in _hidden() if os.path.isdir(folder) for part in ("--tmpfs", folder)]
    command += ["--ro-bind-data", str(hosts_fd), "/etc/hosts", "--size", str(DISK_MB << 20), "--tmpfs", "/tmp"]
    return [*command, "--remount-ro", "/", "--chdir", "/tmp"]


@cache
def _system_files() -> tuple[dict[str, str], dict[str, str]]:
    """What a program may read: (source -> place inside), (link -> target)."""
    binds = {"/usr": "/usr", "/etc/ld.so.cache": "/etc/ld.so.cache"}
    binds |= {str(entry): f"/packages/{entry.name}" for entry in find_packages()}
    if not sys.base_prefix.startswith("/usr"):
        binds[os.path.realpath(sys.base_prefix)] = os.path.realpath(sys.base_prefix)
    links = {f"{COMMANDS}/python": _interpreter()}
    for folder in ("/bin", "/lib", "/lib64", "/sbin"):
        if os.path.islink(folder):
            links[folder] = os.readlink(folder)
        elif os.path.isdir(folder):
            binds[folder] = folder
    return binds, links


@cache
def _hidden() -> list[str]:
    """Packages of the interpreter and the system: a program sees those of `find_packages`, and no others."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folders = [f"{prefix}/lib/{version}" for prefix in (os.path.realpath(sys.base_prefix), "/usr", "/usr/local")]
    within = [f"{folder}/{name}" for folder in folders for name in ("site-packages", "dist-packages")]
    return [*dict.fromkeys([*within, "/usr/lib/python3/dist-packages"])]


@cache
def _interpreter() -> str:
    """The interpreter behind a virtual environment, which may stand where a program must not look."""
    return os.path.realpath(sys.executable)


def _user(isolation: str) -> dict:
    """As whom programs run within namespaces: as the caller; for root as a user nobody has."""
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0 or isolation != "namespaces":
        return {"user": None, "maps": {"setgroups": "deny", "uid_map": f"1000 {uid} 1", "gid_map": f"1000 {gid} 1"}}
    both = f"0 0 1\n1000 {_unused_user()} 1"
    return {"user": 1000, "maps": {"uid_map": both, "gid_map": both}}


def _unused_user() -> int:
    return (1 << 20) + secrets.randbelow(1 << 30)


def _launch_as(isolation: str) -> dict:
    """For root, bubblewrap itself is started as a user nobody has: limits on processes do not bind root."""
    if isolation != "bubblewrap" or os.geteuid() != 0:
        return {}
    return {"user": (unused := _unused_user()), "group": unused, "extra_groups": []}

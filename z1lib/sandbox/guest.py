"""The first process of a sandbox: walls itself in, then runs programs one after the other, each in a fork of its own.

`host.py` hands its text to an interpreter of its own, `python -c TEXT SETTINGS` (JSON), so it has the standard
library alone. Once, it makes new user, mount, network, process, IPC and host-name namespaces and a root of its own in
memory with the interpreter and libraries, all read-only. Then for every program it forks, so that no interpreter has
to start: new process, mount and IPC namespaces, an empty /tmp, limits, an ordinary user without capabilities. When the
program ends, so does its process namespace, and the kernel kills whatever it left behind; only then is its end reported
and the next one taken. It ends when the caller hangs up.

    keeper - server, process 1 within the walls - process 1 of the program's namespace - program
"""

import ctypes
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import types
from contextlib import nullcontext, suppress
from pathlib import Path

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
KEYCTL, JOIN_SESSION_KEYRING = {"x86_64": 250, "aarch64": 219}, 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CAPABILITIES_V3 = 0x20080522
PIVOT_ROOT, CLONE = {"x86_64": 155, "aarch64": 41}, {"x86_64": 56, "aarch64": 220}
DEVICES = ("null", "zero", "full", "random", "urandom")
ROOT = Path("/sys")  # where the new root is mounted before it becomes the root: it is on every Linux, nothing is there
PRELOADED = "bisect collections copy datetime decimal fractions functools hashlib heapq io itertools math operator"
PRELOADED += " pickle random re statistics string typing"  # what programs import most
LINUX = sys.platform == "linux"
libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    check(libc.mount(*texts, ctypes.c_ulong(flags), options.encode() if options else None), f"mount {target}")


def mount_proc(target: str) -> None:
    with suppress(OSError):  # not allowed inside some containers: programs go without
        mount("proc", target, "proc", MS_NOSUID | MS_NODEV)


def bind(source: str, target: Path) -> None:
    """Show `source`, a file or a folder with all below it, read-only at `target`."""
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, str(target), None, MS_BIND | MS_REC)
    if not source.startswith("/dev/"):
        mount("none", str(target), None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def enter_namespaces(settings: dict) -> None:
    """New namespaces. Their user maps are written from outside, where root may map the programs' unused user too.

    Returns in process 1 of the new process namespace; the caller stays outside and ends with it.
    """
    own, (wait_fd, go_fd) = os.getpid(), os.pipe()
    helper = os.fork()
    if helper == 0:
        os.read(wait_fd, 1)
        for name, text in settings["maps"].items():
            Path(f"/proc/{own}/{name}").write_text(text)
        os._exit(0)
    check(libc.unshare(NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS), "unshare")
    os.write(go_fd, b"x")
    if os.waitpid(helper, 0)[1] != 0:
        raise OSError("the user maps of the namespace could not be written")
    os.close(wait_fd), os.close(go_fd)
    if server := os.fork():
        os.waitpid(server, 0)
        os._exit(0)


def open_loopback() -> None:
    """Inside there is a network of one's own, with nobody else in it."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def change_root(settings: dict) -> None:
    """A read-only root in memory: the interpreter and libraries, a few devices, an empty folder for /tmp."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", str(ROOT), "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for source, target in settings["binds"].items():
        needed = os.R_OK | (os.X_OK if os.path.isdir(source) else 0)
        if os.access(source, needed):  # packages under a closed home folder stay outside
            bind(source, ROOT / target.lstrip("/"))
    for folder in settings["hidden"]:
        if (ROOT / folder.lstrip("/")).is_dir():
            mount(
                "tmpfs", str(ROOT / folder.lstrip("/")), "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=4k,mode=755"
            )
    for link, target in settings["links"].items():
        (place := ROOT / link.lstrip("/")).parent.mkdir(exist_ok=True)
        place.symlink_to(target)
    for name in DEVICES:
        bind(f"/dev/{name}", ROOT / "dev" / name)
    for name in ("tmp", "proc", "old", "dev/shm"):
        (ROOT / name).mkdir()
    (ROOT / "etc").mkdir(exist_ok=True)
    (ROOT / "etc/hosts").write_text(settings["hosts"])
    mount_proc(str(ROOT / "proc"))  # the kernel wants one in sight when a program gets its own
    check(libc.syscall(PIVOT_ROOT[os.uname().machine], str(ROOT).encode(), str(ROOT / "old").encode()), "pivot_root")
    os.chdir("/")
    check(libc.umount2(b"/old", MNT_DETACH), "umount")
    os.rmdir("/old")
    mount("none", "/", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def receive(control: socket.socket) -> tuple[dict, list[int]] | None:
    """The next program and its stdin, stdout and stderr; None when the caller has hung up."""
    head, streams, _, _ = socket.recv_fds(control, 4, 3)
    if not head:
        return None
    size, parts = struct.unpack("<I", head)[0], []
    while size:
        parts.append(control.recv(size))
        size -= len(parts[-1]) or sys.exit()
    return json.loads(b"".join(parts)), streams


def serve(control: socket.socket, settings: dict) -> dict:
    """Take programs until the caller hangs up. Returns in the process that is to run one."""
    while (received := receive(control)) is not None:
        job, streams = received
        status_fd, report_fd = os.pipe()
        if (first := fork(NEWNS | NEWPID | NEWIPC if settings["walls"] else 0)) == 0:
            start(job, streams, report_fd, settings)
            return job
        for fd in (*streams, report_fd):
            os.close(fd)
        if control in select.select([control, status_fd], [], [])[0]:  # hung up while a program runs
            os.killpg(0, signal.SIGKILL)
        report = os.read(status_fd, 4096)
        os.close(status_fd)
        os.waitpid(first, 0)  # all that the program started is gone
        control.sendall((report or b"{}") + b"\n")
    sys.exit()


def fork(namespaces: int) -> int:
    """`os.fork` into new namespaces, in one call. Python does not know of it: the child should fork again soon."""
    if not namespaces:
        return os.fork()
    pid = libc.syscall(CLONE[os.uname().machine], namespaces | signal.SIGCHLD, 0, 0, 0, 0)
    check(min(pid, 0), "clone")
    return pid


def start(job: dict, streams: list[int], report_fd: int, settings: dict) -> None:
    """Process 1 of the program's namespace: start the program, bury the dead, report how it ended.

    Returns in the program's process alone.
    """
    try:
        prepare(job, settings)
        program = os.fork()
    except OSError as error:
        os.write(report_fd, json.dumps({"setup_error": str(error)}).encode())
        os._exit(1)
    if program == 0:
        for fd, stream in enumerate(streams):
            os.dup2(stream, fd)
        return confine(job, settings)
    for fd in streams:
        os.close(fd)
    pid, status = os.wait()
    while pid != program:
        pid, status = os.wait()
    os.write(report_fd, json.dumps({"exit_code": os.waitstatus_to_exitcode(status)}).encode())
    os._exit(0)


def prepare(job: dict, settings: dict) -> None:
    """An empty /tmp with the program in it."""
    if LINUX:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if settings["walls"]:
        mount_proc("/proc")
        for folder in ("/tmp", "/dev/shm"):
            mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, f"size={job['disk_mb']}m,mode=777")
    os.chdir(job["folder"])
    Path("main.py").write_bytes(job["program"].encode("utf-8", "replace"))


def confine(job: dict, settings: dict) -> None:
    """In the program's process: nothing open but its streams, an ordinary user, no capabilities, limits."""
    os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if settings["user"] is not None:  # the limit on processes does not bind root
        os.setgroups([])
        os.setresgid(*[settings["user"]] * 3)
        os.setresuid(*[settings["user"]] * 3)
    if settings["namespaces"]:
        os.setsid()  # elsewhere the program stays in the group that is killed at its end
    memory, disk = job["memory_mb"] << 20, job["disk_mb"] << 20
    limits = {"AS": memory, "CPU": job["cpu_s"], "FSIZE": disk, "NPROC": job["processes"], "NOFILE": 256, "CORE": 0}
    for name, value in limits.items():
        with nullcontext() if LINUX else suppress(OSError, ValueError):  # macOS knows no limit on address space
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value + (name == "CPU")))
    if LINUX:
        libc.syscall(KEYCTL[os.uname().machine], JOIN_SESSION_KEYRING, None)  # an empty one, not the caller's
        check(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")
        check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        check(libc.capset((ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()), "capset")
        set_filter(bytes.fromhex(settings["filter"]))


def set_filter(rules: bytes) -> None:
    """Refuse some system calls from here on (filter.py), if there is a filter."""
    if rules:
        array = ctypes.create_string_buffer(rules, len(rules))
        program = struct.pack("HxxxxxxP", len(rules) // 8, ctypes.addressof(array))  # struct sock_fprog
        check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(program), 0, 0), "seccomp")


def become(program: str) -> types.CodeType:
    """Make this interpreter look as if it had been started as `python main.py`; the compiled program."""
    sys.argv = ["main.py"]
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.modules["__main__"] = types.ModuleType("__main__")
    sys.modules["__main__"].__file__ = "main.py"
    return compile(program, "main.py", "exec", dont_inherit=True)


def main() -> dict:
    settings = json.loads(sys.argv[1])
    with suppress(OSError):  # where memory runs out the kernel is to take the program and not its grader
        Path("/proc/self/oom_score_adj").write_text("1000")
    control = socket.socket(fileno=settings["control_fd"])
    try:
        if settings["walls"]:
            enter_namespaces(settings)
            open_loopback()
            change_root(settings)
            sys.path_importer_cache.clear()  # folders that were not there before
    except OSError as error:
        control.sendall(json.dumps({"setup_error": str(error)}).encode() + b"\n")
        sys.exit(1)
    if LINUX:  # a program of the same user must not reach into the processes that report how it ended
        check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    for name in PRELOADED.split():
        importlib.import_module(name)
    for name, text in settings["modules"].items():
        sys.modules[name] = types.ModuleType(name)
        exec(text, vars(sys.modules[name]))
    gc.freeze()
    return serve(control, settings)


# The program runs at the top level, so that its exceptions, exits and threads end as they do in any interpreter.
exec(become(main()["program"]), vars(sys.modules["__main__"]))

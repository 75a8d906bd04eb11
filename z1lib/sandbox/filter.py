"""What a program may not ask of the kernel: the system calls that only break out of walls, as a seccomp filter.

libseccomp writes the filter (by way of pyseccomp); the sandbox's first process, which has the standard library alone,
sets it for every program.
"""

import tempfile
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from functools import cache

try:
    import pyseccomp
except (ImportError, RuntimeError, OSError):  # no libseccomp on this machine
    pyseccomp = None

# Keyrings outlive a program; io_uring, bpf and the like are the kernel's most faulty parts, and no task needs them.
REFUSED = "add_key request_key keyctl io_uring_setup io_uring_enter io_uring_register unshare setns bpf userfaultfd"
REFUSED += " perf_event_open ptrace process_vm_readv process_vm_writev mount umount2 pivot_root"
FAMILIES = {1, 2, 10, 16}  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
NEWUSER = 0x10000000


@cache
def make_filter() -> bytes:
    """The filter as the kernel takes it (an array of `struct sock_filter`), empty where libseccomp is not installed."""
    if pyseccomp is None:
        return b""
    rules = pyseccomp.SyscallFilter(defaction=pyseccomp.ALLOW)
    for name in REFUSED.split():
        rules.add_rule(pyseccomp.ERRNO(EPERM), name)
    rules.add_rule(pyseccomp.ERRNO(ENOSYS), "clone3")  # its flags cannot be looked at; libraries then take clone
    rules.add_rule(pyseccomp.ERRNO(EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, NEWUSER, NEWUSER))
    no_family = pyseccomp.ERRNO(EAFNOSUPPORT)
    for family in set(range(max(FAMILIES))) - FAMILIES:
        rules.add_rule(no_family, "socket", pyseccomp.Arg(0, pyseccomp.EQ, family))
    rules.add_rule(no_family, "socket", pyseccomp.Arg(0, pyseccomp.GT, max(FAMILIES)))
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()

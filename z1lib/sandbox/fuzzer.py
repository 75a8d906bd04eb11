"""Inputs that take one program somewhere new, by coverage-guided fuzzing inside the sandbox.

libFuzzer, by way of atheris, makes bytes and keeps those that reach new code; hypothesis makes inputs of bytes, so all
are of the kind that `sandbox_strategies` says. A module of every sandbox; the program runs in a fork of this process.

Standard input: one JSON object, as `sandbox_observer` takes it, with `annotations`, `examples`, `runs`, `seed` and
`seconds`. Standard output: a JSON list of inputs in the order in which they were found.
"""

import contextlib
import os
import select
import signal

import sandbox_observer
import sandbox_strategies
from hypothesis import given as draws
from hypothesis import settings

FOUND = "/tmp/found"  # where libFuzzer keeps what reaches new code
FLAGS = ("-timeout=0", "-rss_limit_mb=0", "-verbosity=0", "-reload=0", "-max_len=512", "-len_control=0")


def make_target(strategy, use):
    """What calls `use` with the input that some bytes stand for."""

    @settings(database=None, deadline=None)
    @draws(strategy)
    def run(text):
        use(text)

    return run.hypothesis.fuzz_one_input


def fuzz(given, strategy):
    """In the fork: define the program with its branches counted, and feed it. Does not return."""
    import atheris
    from atheris.instrument_bytecode import patch_code

    try:
        signal.signal(signal.SIGALRM, sandbox_observer.ring)
        call = sandbox_observer.define(given, lambda code: patch_code(code, trace_dataflow=True))
        arcs = sandbox_observer.Arcs(False)
        target = make_target(strategy, lambda text: sandbox_observer.observe(call, text, given["limit_s"], arcs))
        atheris.Setup(["fuzzer", FOUND, f"-runs={given['runs']}", f"-seed={1 + given['seed']}", *FLAGS], target)
        atheris.Fuzz()
    finally:
        os._exit(0)


def main():
    given, said = sandbox_observer.listen()
    os.mkdir(FOUND)
    strategy = sandbox_strategies.strategy_of(given["kind"], given["annotations"], given["examples"])
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(said)
        os.close(reader)
        fuzz(given, strategy)
    os.close(writer)
    select.select([reader], [], [], given["seconds"])  # until the fork ends, and its end of the pipe with it
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    texts = []
    target = make_target(strategy, texts.append)
    for file in sorted(os.scandir(FOUND), key=lambda one: (one.stat().st_mtime_ns, one.name)):
        with open(file.path, "rb") as stored:
            target(stored.read(4096))
    sandbox_observer.answer(said, list(dict.fromkeys(texts)))

"""Runs one program on many inputs, inside the sandbox, where it is a module that `selection.behaviour` calls.

The program is defined once; then a fork of that process runs all inputs in a row, twice, so that what differs between
the two is known not to be the input's doing. An input that takes too long ends its fork, and another goes on behind it.
What a program prints, returns, raises and leaves in its arguments is its record; it can spoil its own, and no other's.

Standard input: one JSON object, `answer`, `setup`, `kind` ("function", "method" or "stdin"), `name`, `inputs` (texts:
the arguments as a Python literal, or what stands on standard input), `limit_s` and `arcs` (whether to report the lines
that follow one another). Standard output: one JSON object, `error` of the definition or null, `records` of both passes,
a text or null (not valid) an input, and `arcs`, a list an input.
"""

import ast
import contextlib
import inspect
import io
import json
import os
import select
import signal
import struct
import sys
import types

LONGEST = 2000  # characters of a value or of a print; beyond it the rest is a hash
TIMEOUT = "timeout"
PATIENCE = 3  # inputs on which a program may take too long; on those behind them it is not run, and counts as if it had


class TooLong(BaseException):
    """Raised in the program by the clock."""


def spell(value, depth=6):
    """A plain value as text that is equal where the values are: floats to nine digits, sets and dicts in order."""
    kind = type(value)
    if kind is float:
        return f"{value:.9g}" if value == value else "nan"
    if kind in (int, str, bytes, bool, type(None), complex):
        return repr(value)
    if depth == 0:
        return "..."
    if kind in (list, tuple):
        inner = ",".join(spell(one, depth - 1) for one in value)
        return f"[{inner}]" if kind is list else f"({inner},)"
    if kind in (set, frozenset):
        return f"{kind.__name__}({','.join(sorted(spell(one, depth - 1) for one in value))})"
    if kind is dict:
        pairs = sorted(f"{spell(key, depth - 1)}:{spell(one, depth - 1)}" for key, one in value.items())
        return "{" + ",".join(pairs) + "}"
    return f"<{kind.__name__}>"


def shorten(text):
    if len(text) <= LONGEST:
        return text
    import hashlib

    return text[:LONGEST] + hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


class Arcs:
    """Which lines of the program followed one another: `sys.monitoring` where it is there, else `sys.settrace`."""

    def __init__(self, watch):
        self.watch, self.seen, self.last = watch, set(), None

    def start(self):
        self.seen, self.last = set(), None
        if not self.watch:
            return
        if hasattr(sys, "monitoring"):
            watcher = sys.monitoring
            with contextlib.suppress(ValueError):
                watcher.use_tool_id(watcher.COVERAGE_ID, "arcs")
            watcher.register_callback(watcher.COVERAGE_ID, watcher.events.LINE, lambda code, line: self.add(code, line))
            watcher.set_events(watcher.COVERAGE_ID, watcher.events.LINE)
        else:
            sys.settrace(self.trace)

    def stop(self):
        if self.watch and hasattr(sys, "monitoring"):
            sys.monitoring.set_events(sys.monitoring.COVERAGE_ID, 0)
        elif self.watch:
            sys.settrace(None)
        return sorted(self.seen)

    def add(self, code, line):
        if code.co_filename == "answer":
            self.seen.add(f"{self.last}-{line}")
            self.last = line

    def trace(self, frame, event, argument):
        if event == "line":
            self.add(frame.f_code, frame.f_lineno)
        return self.trace


def call_function(function, text):
    """(returns or raises, and what; the arguments afterwards), None where they do not even unpack."""
    arguments = ast.literal_eval(text)
    try:
        inspect.signature(function).bind(*arguments)
    except (TypeError, ValueError):
        return None
    try:
        value = function(*arguments)
    except (Exception, SystemExit) as error:
        return "raises", type(error).__name__, spell(arguments)
    if isinstance(value, types.GeneratorType):
        value = [one for one, _ in zip(value, range(1000))]
    return "returns", f"{type(value).__name__} {spell(value)}", spell(arguments)


def call_program(code, text):
    sys.stdin = io.StringIO(text)
    try:
        exec(code, {"__name__": "__main__"})
    except SystemExit as error:
        return "raises", f"SystemExit {error.code}", ""
    except Exception as error:
        return "raises", type(error).__name__, ""
    return "returns", "", ""


def observe(call, text, limit_s, arcs):
    """(record, arcs) of one input; the record is None where the input is not valid."""
    printed = io.StringIO()
    sys.stdout = printed
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        arcs.start()
        said = call(text)
    except TooLong:
        said = ("raises", TIMEOUT, "")
    except BaseException as error:
        said = ("raises", type(error).__name__, "")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        taken = arcs.stop()
        sys.stdout = sys.__stdout__
    if said is None:
        return None, taken
    return json.dumps([shorten(part) for part in (*said, printed.getvalue())]), taken


def define(given, patch=lambda code: code):
    """What calls the program, patched, with an input. Raises what its definition raises."""
    scope = {"__name__": "answer"}
    exec(compile(given["setup"], "setup", "exec"), scope)
    code = patch(compile(given["answer"], "answer", "exec"))
    if given["kind"] == "stdin":
        return lambda text: call_program(code, text)
    scope.pop(given["name"], None)  # a benchmark's setup may hold the head of it, which is no answer
    exec(code, scope)
    if given["kind"] == "method":
        return lambda text: call_function(getattr(scope["Solution"](), given["name"]), text)
    function = scope[given["name"]]
    return lambda text: call_function(function, text)


def ring(*_):
    raise TooLong


def run_pass(call, inputs, limit_s, watch):
    """(record, arcs) of every input, from forks that each go as far as they come."""
    found, patience, endless = [], limit_s + 1, (json.dumps(["raises", TIMEOUT, "", ""]), [])
    while len(found) < len(inputs):
        if count_late(found) >= PATIENCE:
            return found + [endless] * (len(inputs) - len(found))
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            os.close(reader)
            run_rest(call, inputs[len(found) :], limit_s, watch, writer)
        os.close(writer)
        rest = collect(reader, patience)
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found += rest
        if len(found) < len(inputs):  # the next one killed it, or could not be stopped from within
            found.append(endless)
    return found


def count_late(found):
    return sum(record is not None and json.loads(record)[1] == TIMEOUT for record, _ in found)


def run_rest(call, inputs, limit_s, watch, writer):
    """In the fork: run inputs, write each as it ends. Does not return."""
    try:
        signal.signal(signal.SIGALRM, ring)
        arcs, write, late = Arcs(watch), os.write, 0
        for text in inputs:
            seen = observe(call, text, limit_s, arcs)
            late += count_late([seen])
            data = json.dumps(seen).encode()
            data = struct.pack("<I", len(data)) + data
            while data:
                data = data[write(writer, data) :]
            if late >= PATIENCE:
                break
    finally:
        os._exit(0)


def collect(reader, patience):
    """What a fork writes, until it ends or is silent for too long."""
    data, found = b"", []
    while select.select([reader], [], [], patience)[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            break
        data += part
        while len(data) >= 4 and len(data) >= 4 + (size := struct.unpack("<I", data[:4])[0]):
            with contextlib.suppress(ValueError, TypeError):
                record, arcs = json.loads(data[4 : 4 + size])
                found.append((record, arcs))
            data = data[4 + size :]
    return found


def listen():
    """(what was asked, where to answer); from here on nothing else has a standard stream."""
    given = json.load(sys.stdin)
    said, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return given, said


def answer(said, found):
    """Write the answer, whole. Does not return."""
    data = json.dumps(found).encode()
    while data:
        data = data[os.write(said, data) :]
    os._exit(0)


def main():
    given, said = listen()
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, given["define_s"])
    error, passes = None, [[], []]
    try:
        call = define(given)
    except SyntaxError:
        error = "syntax"
    except BaseException as raised:
        error = TIMEOUT if isinstance(raised, TooLong) else type(raised).__name__
    signal.setitimer(signal.ITIMER_REAL, 0)
    if error is None:
        passes = [run_pass(call, given["inputs"], given["limit_s"], given["arcs"]) for _ in range(given["passes"])]
    arcs = [taken for _, taken in passes[0]]
    answer(said, {"error": error, "records": [[record for record, _ in one] for one in passes], "arcs": arcs})

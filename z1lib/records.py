"""The rows that pass from one notebook to the next, and the JSON lines files that hold them.

A file written here is whole or absent: it is written under another name and renamed when complete. Rows that must
survive a kill go to a `Ledger`, a growing file beside the final one.
"""

import fcntl
import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar

Row = TypeVar("Row")


class BadRecord(ValueError):
    """A row that cannot be read; the message names the file, the line and the key."""


@dataclass(frozen=True)
class Problem:
    """One task. `kind` says how it is graded: "math", "choice", "code" or "text"."""

    id: str
    prompt: str
    kind: str
    reference: str
    level: int
    source: str

    def __post_init__(self):
        if not self.id:
            raise ValueError("key 'id': a problem needs an id")
        if self.kind not in ("math", "choice", "code", "text"):
            raise ValueError(f"key 'kind': {self.kind!r} is not one of math, choice, code, text")


@dataclass(frozen=True)
class Trajectory:
    """One supervised example: a question, a teacher's response, its length in tokens of the model to be trained."""

    id: str
    question: str
    response: str
    token_count: int
    level: int
    source: str
    run: str  # the model this row trains: "z1", "r1", ...


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one problem under one policy, with every token accounted for.

    `thinking_tokens + hint_tokens + answer_tokens == len(token_ids)`; `probe_tokens` were decoded beside it.
    `token_ids` include the end token and nothing after it. `overran`: the policy cut the thinking.
    `key` is a hash of all that determines the row (model weights, policy, prompt, sampling, seed).
    """

    problem_id: str
    model: str
    policy: str
    window: int
    sample: int
    seed: int
    prompt_tokens: int
    thinking_tokens: int
    hint_tokens: int
    answer_tokens: int
    probe_tokens: int
    overran: bool
    finish_reason: str  # "stop": an end token; "length": a token limit
    thinking_text: str
    answer_text: str
    token_ids: list[int]
    key: str = ""


@dataclass(frozen=True)
class Grade:
    """Whether a completion is right, and why: the text that was compared, the rule that found it, the error if any."""

    problem_id: str
    correct: bool
    extracted: str | None
    rule: str
    error: str | None
    key: str = ""  # the completion's key
    version: str = ""  # of the grader
    before: str | None = None  # what was answered before a forced hint
    before_correct: bool | None = None
    sandbox: str = ""  # the isolation a program ran in (sandbox.py)


# What notebooks 01 and 03 leave for the analysis: <name>.jsonl and its rows.
ARTIFACTS = {"problems": Problem, "completions": Completion, "grades": Grade}


def _to_row(cls: type[Row], values: object, where: str) -> Row:
    if not isinstance(values, dict):
        raise BadRecord(f"{where}: expected a JSON object, got {type(values).__name__}")
    known = {field.name: field for field in fields(cls)}
    missing = [name for name, field in known.items() if field.default is MISSING and name not in values]
    unknown = [name for name in values if name not in known]
    if missing or unknown:
        raise BadRecord(f"{where}: {cls.__name__} has missing keys {missing}, unknown keys {unknown}")
    for name, value in values.items():
        if not _fits(value, str(known[name].type)):
            kind = getattr(known[name].type, "__name__", known[name].type)
            raise BadRecord(f"{where}: key {name!r} should be {kind}, got {value!r:.80}")
    try:
        return cls(**values)
    except ValueError as error:
        raise BadRecord(f"{where}: {error}") from None


def _fits(value: object, annotation: str) -> bool:
    if value is None:
        return "None" in annotation
    kinds = {"bool": bool, "int": int, "str": str, "list": list}
    kind = next(kinds[name] for name in ("list", "bool", "int", "str") if name in annotation)
    if kind is list:
        return isinstance(value, list) and all(_fits(item, "int") for item in value)  # token ids
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def read_jsonl(path: str | Path, cls: type[Row]) -> list[Row]:
    """The rows of a JSON lines file (packed if it ends in .gz) as `cls`.

    Raises FileNotFoundError, or BadRecord naming file, line and key (bad JSON, missing or unknown key, wrong type).
    """
    rows = []
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            rows.append(_read_line(line, cls, f"{path}, line {number}"))
    return rows


def _read_line(line: bytes, cls: type[Row], where: str) -> Row:
    try:
        values = json.loads(line)
    except ValueError as error:  # no JSON, or no UTF-8
        raise BadRecord(f"{where}: not valid JSON ({error}); was the file written to the end?") from None
    return _to_row(cls, values, where)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name to write a file under; it becomes `path` when the block has ended without an error."""
    unfinished = path.with_name(path.name + ".writing")
    yield unfinished
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def write_jsonl(path: str | Path, rows: list) -> Path:
    """Write dataclass rows as JSON lines; the file appears under its name only when it is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.writelines(_to_line(row) for row in rows)
    return path


def _to_line(row: object) -> str:
    return json.dumps(asdict(row), ensure_ascii=False) + "\n"


class Busy(RuntimeError):
    """Another process is writing there; the message says which."""


_locks: set[TextIO] = set()  # a forked child lets go of them: it may outlive the holder
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold `path` for this process alone; raises Busy if another has it. The lock goes when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(path.name + ".lock"), "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise Busy(f"{path} is being written by process {lock.read()}; wait for it or stop it") from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        _locks.add(lock)
        try:
            yield
        finally:
            _locks.discard(lock)
            fcntl.flock(lock, fcntl.LOCK_UN)


class Ledger:
    """A growing JSON lines file of finished rows, flushed row by row; a line cut short by a kill is dropped.

    Every row needs a `key`; `rows` maps keys to the rows already there. Opening one changes nothing on disk, so that
    another process may be writing there; who appends should hold the file (`exclusive`).
    """

    def __init__(self, path: str | Path, cls: type):
        self.path, self.cls = Path(path), cls
        self.rows: dict[str, object] = {}
        if self.path.exists():
            whole = self.path.read_bytes()
            for number, line in enumerate(whole[: whole.rfind(b"\n") + 1].splitlines(), start=1):
                row = _read_line(line, cls, f"{self.path}, line {number}")
                self.rows[row.key] = row

    def append(self, rows: list) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab+") as file:
            _drop_cut_line(file)
            file.write("".join(map(_to_line, rows)).encode())
        self.rows.update((row.key, row) for row in rows)


def _drop_cut_line(file: BinaryIO) -> None:
    """Cut a file back to its last whole line."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)

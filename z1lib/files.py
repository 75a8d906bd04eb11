"""JSON lines, files that are whole or absent, journals that survive a kill, and hashes of what is on disk.

A file written here is written under another name and renamed when complete. Rows that must survive a kill go to a
`Journal`, a growing file beside the final one.
"""

import fcntl
import gzip
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, TextIO, TypeVar

from pydantic import ValidationError

Row = TypeVar("Row")


class BadRecord(ValueError):
    """A row that cannot be read; the message names the file, the line and the key."""


def read_jsonl(path: str | Path, cls: type[Row]) -> list[Row]:
    """The rows of a JSON lines file (packed if it ends in .gz) as `cls`; a name with a `*` is that of several files.

    Raises FileNotFoundError, or BadRecord naming file, line and key (bad JSON, missing or unknown key, a key twice,
    wrong type; a value twice of what is `UNIQUE` to a row of `cls`).
    """
    path = Path(path)
    if "*" in path.name and (files := sorted(path.parent.glob(path.name))):
        return [row for file in files for row in read_jsonl(file, cls)]
    rows, seen = [], {}
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            rows.append(_read_line(line, cls, f"{path}, line {number}"))
            if hasattr(cls, "UNIQUE") and seen.setdefault(value := getattr(rows[-1], cls.UNIQUE), number) != number:
                raise BadRecord(f"{path}, line {number}: {cls.UNIQUE} {value!r} is also that of line {seen[value]}")
    return rows


def _read_line(line: bytes, cls: type[Row], where: str) -> Row:
    try:
        values = json.loads(line, object_pairs_hook=_only_once)
    except ValueError as error:  # no JSON, or no UTF-8
        raise BadRecord(f"{where}: not valid JSON ({error}); was the file written to the end?") from None
    if not isinstance(values, dict):
        raise BadRecord(f"{where}: expected a JSON object, got {type(values).__name__}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise BadRecord(f"{where}: {cls.__name__}: {explain(error)}") from None


def _only_once(pairs: list[tuple[str, object]]) -> dict:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"key {twice!r} stands there twice")
    return values


def explain(error: ValidationError) -> str:
    """pydantic's first complaint as a sentence that names the key, by its dotted path."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key {key!r}"
    if first["type"] in ("missing", "missing_argument"):
        return f"key {key!r} is missing"
    if first["type"] == "value_error":
        return f"key {key!r}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    return f"key {key!r} should {first['msg'].partition(' should ')[2]}, got {first['input']!r:.60}"


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
        file.writelines(to_line(row) for row in rows)
    return path


def to_line(row: object) -> str:
    """A dataclass row as a line of JSON."""
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


class Journal:
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
            file.write("".join(map(to_line, rows)).encode())
        self.rows.update((row.key, row) for row in rows)


def _drop_cut_line(file: BinaryIO) -> None:
    """Cut a file back to its last whole line."""
    size = file.seek(0, os.SEEK_END)
    if size:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


def hash_files(files: list[Path]) -> str:
    """One sha256 of files, in their order."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as data:
            digest.update(hashlib.file_digest(data, "sha256").digest())
    return digest.hexdigest()


def hash_path(path: Path) -> str:
    """sha256 of a file, or of the weight files in a folder."""
    return hash_files(sorted(path.glob("*.safetensors")) if path.is_dir() else [path])

"""Rows of questions and responses from files or the Hub: every row is read, a bad one with its fault.

datatrove's own readers pass over a line that is no JSON, a row without text and the rest of a file after invalid UTF-8
with no more than a warning; this one loses nothing.
"""

import codecs
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow
import pyarrow.parquet
from datatrove.data import Document
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep

from z1lib.problems import hub

# Column -> type, named as in the released data set. `token_num_qwen` is the count of the response's tokens that came
# with it; `truncated` is unknown (null) where the source does not say.
REQUIRED = {"id": str, "question": str, "response": str}
OPTIONAL = {"token_num_qwen": int, "level": int, "source": str, "truncated": bool, "reference": str, "kind": str}
OPTIONAL |= {"unlearned": str}
LARGEST_ROW = 500_000  # bytes; a trajectory of 8,192 tokens has about 30,000


@dataclass(frozen=True)
class Source:
    """A file on the Hub and what it calls our columns, where it has another name for them; "" where it has none."""

    repository: str
    revision: str
    file: str
    names: dict[str, str] = field(default_factory=dict)
    schema: dict[str, str] = field(default_factory=dict)  # column -> type, of a parquet file that must have just these


SOURCES = {
    # The Hub's own conversion to parquet, whose file name is known: one split, 107,173 rows, four columns. A branch and
    # no commit: of the repository we know neither its file names nor a revision. Its schema is checked, and
    # provenance.json has the hash of what was made of it.
    "z1_code_reasoning_107k": Source(
        "efficientscaling/Z1-Code-Reasoning-107K",
        "refs/convert/parquet",
        "default/train/0000.parquet",
        schema={"id": "string", "question": "string", "response": "string", "token_num_qwen": "int64"},
    ),
    # Code Evol-Instruct questions. The paper does not say which copy it took; this one is decontaminated against
    # HumanEval, MBPP and others by its authors. Its responses are not a reasoning teacher's and are left behind.
    "evol_instruct": Source(
        "ise-uiuc/Magicoder-Evol-Instruct-110K",
        "3f350cf5bee985616f4c8fbd482dd95bb752897f",
        "data-evol_instruct-decontaminated.jsonl",
        {"id": "", "question": "instruction", "response": ""},
    ),
}


def find_files(source: str) -> tuple[list[Path], dict[str, str]]:
    """The files of a source (a name in SOURCES, or a local .jsonl or .parquet file or folder) and its column names.

    Raises SourceUnavailable if the Hub's file cannot be had, ValueError naming the columns if it has other ones,
    FileNotFoundError where there is no such file.
    """
    if source in SOURCES:
        named = SOURCES[source]
        file = hub.fetch(named.repository, named.revision, named.file)
        check_schema(file, named.schema)
        return [file], named.names
    path = Path(source)
    files = [path] if path.is_file() else sorted(file for file in path.glob("*") if _is_data(file))
    if not files:
        raise FileNotFoundError(f"{source!r} is no .jsonl or .parquet file, nor one of {', '.join(SOURCES)}")
    return files, {}


def check_schema(file: Path, schema: dict[str, str]) -> None:
    """Raises ValueError unless a parquet file has these columns of these types and no others; {} asks for nothing."""
    if not schema:
        return
    found = {field.name: str(field.type).removeprefix("large_") for field in pyarrow.parquet.read_schema(file)}
    wrong = [
        f"{name}: {found.get(name, 'missing')}, should be {schema.get(name, 'absent')}"
        for name in {**schema, **found}
        if found.get(name) != schema.get(name)
    ]
    if wrong:
        raise ValueError(f"{file} has other columns than the released data set: {'; '.join(wrong)}")


def _is_data(path: Path) -> bool:
    return path.suffix in (".jsonl", ".parquet")


class RowReader(PipelineStep):
    """Every row of the files as a Document: `text` is the question, the rest is metadata.

    A row that cannot be used has `metadata["fault"]`, the name of what is wrong, and `metadata["detail"]`. Rows are
    dealt to the tasks by their id, so that equal ids meet in one task, where the second is at fault. Only the first
    `max_rows` are read; `needs` are the columns that may not be empty. `metadata["position"]` is the row's place in the
    whole input, by which the output is put in order again.
    """

    type = "📖 - READER"
    name = "🧾 Rows"

    def __init__(
        self,
        files: list[Path],
        names: dict[str, str] | None = None,
        needs: tuple[str, ...] = tuple(REQUIRED),
        max_rows: int | None = None,
    ):
        super().__init__()
        self.files, self.names, self.needs, self.max_rows = [str(file) for file in files], names or {}, needs, max_rows

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        seen: set[str] = set()
        for position, (where, values, fault, detail) in enumerate(islice(self._rows(), self.max_rows)):
            values = {ours: _plain(values.get(self.names.get(ours, ours))) for ours in (*REQUIRED, *OPTIONAL)}
            if self.names.get("id") == "":
                values["id"] = f"{Path(self.files[0]).stem}-{position}"
            key = values["id"] if isinstance(values["id"], str) and values["id"] else where
            if zlib.crc32(key.encode()) % world_size != rank:
                continue
            if not fault:
                fault, detail = self._check(values)
            if not fault and key in seen:
                fault, detail = "id twice", repr(key)
            if not fault:
                seen.add(key)
            self.stat_update("rows")
            yield _to_document(values, position, where, fault, detail)

    def _rows(self) -> Iterator[tuple[str, dict, str, str]]:
        """(where, values, fault, detail) of every row of every file."""
        for file in self.files:
            read = _read_parquet if file.endswith(".parquet") else _read_lines
            for number, *row in read(file):
                yield f"{Path(file).name}, row {number}", *row

    def _check(self, values: dict) -> tuple[str, str]:
        """The first fault of a row, column by column, and its detail; two empty strings if there is none."""
        for column, kind in {**REQUIRED, **OPTIONAL}.items():
            value, theirs = values[column], self.names.get(column, column)
            if value is None:
                if column in self.needs:
                    return "missing", f"column {theirs!r}"
            elif not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                return "wrong type", f"column {theirs!r} is {type(value).__name__}, not {kind.__name__}"
            elif kind is int and abs(value) >= 2**63:
                return "wrong type", f"column {theirs!r} is too large a number"
            elif kind is str and not value.strip() and column in self.needs:
                return "empty", f"column {theirs!r}"
        return "", ""


def _plain(value):
    """A whole number also where it is written 3.0, and None for the NaN by which pandas writes a gap."""
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return value


def _read_lines(file: str) -> Iterator[tuple[int, dict, str, str]]:
    """(number of the line in the file, values, fault, detail) of every line that is not blank."""
    with get_datafolder(str(Path(file).parent)).open(Path(file).name, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if line.strip():
                yield number, *_read_line(line)


def _read_line(line: bytes) -> tuple[dict, str, str]:
    if len(line) > LARGEST_ROW:
        return {"response": line.decode("utf-8", "replace")}, "too large", f"{len(line):,} bytes"
    try:
        return _parse(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        values, _, _ = _parse(line.decode("utf-8", "replace"))  # what can be read names the row
        return values, "not UTF-8", f"byte {error.start} of the line"


def _parse(text: str) -> tuple[dict, str, str]:
    try:
        values = json.loads(text)
        if "\\u" in text:  # an escape may spell half of a surrogate pair
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return {"response": text}, "not UTF-8", "half of a surrogate pair"
    except (ValueError, RecursionError) as error:
        return {"response": text}, "not JSON", str(error)
    if not isinstance(values, dict):
        return {"response": text}, "not JSON", f"a {type(values).__name__}, not an object"
    return values, "", ""


def _read_parquet(file: str) -> Iterator[tuple[int, dict, str, str]]:
    number = 0
    for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1000):
        columns = [_as_bytes(column).to_pylist() for column in batch.columns]
        for values in zip(*columns):
            number += 1
            yield number, *_decode(dict(zip(batch.schema.names, values)))


def _as_bytes(column: pyarrow.Array) -> pyarrow.Array:
    """Text as bytes: parquet does not check it, and a column with one bad row could not be read as text at all."""
    text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
    return column.cast(pyarrow.large_binary()) if text else column


def _decode(values: dict) -> tuple[dict, str, str]:
    size = sum(len(value) for value in values.values() if isinstance(value, bytes))
    fault, detail = ("too large", f"{size:,} bytes") if size > LARGEST_ROW else ("", "")
    decoded = {}
    for name, value in values.items():
        try:
            decoded[name] = value.decode("utf-8") if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            decoded[name] = value.decode("utf-8", "replace")
            fault, detail = "not UTF-8", f"column {name!r}, byte {error.start}"
    return decoded, fault, detail


def _to_document(values: dict, position: int, where: str, fault: str, detail: str) -> Document:
    """Values of a bad row are written down as text, whatever they are."""
    if fault:
        values = {**{column: _as_text(values[column]) for column in REQUIRED}, **dict.fromkeys(OPTIONAL)}
    question, name = values.pop("question") or "", values.pop("id") or ""
    found = {"fault": fault, "detail": detail, "overlap": "", "tokens": 0}
    return Document(question, name, metadata={**values, "position": position, "row": where, **found})


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)

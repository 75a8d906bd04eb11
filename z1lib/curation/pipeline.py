"""Filters, near-duplicates and overlap over any number of rows: datatrove steps, under one of its executors.

Three passes, because duplicates are found between rows: check and filter; find near-duplicates; drop them and look for
overlap. What a pass has finished is kept in a folder named by a hash of inputs and settings, so a run that was killed
goes on, and other inputs start anew.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import multiprocess
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import ParquetWriter
from datatrove.utils.logging import setup_default_logger

from z1lib.curation.filters import (
    CODE_WORDS,
    HASH,
    NORM,
    Correctness,
    Faults,
    Length,
    Overlap,
    Repetition,
    write_overlap_index,
)
from z1lib.curation.reader import RowReader
from z1lib.files import exclusive, hash_path
from z1lib.profile import Profile
from z1lib.provenance import hash_code
from z1lib.records import Problem

multiprocess.set_forkserver_preload([__name__])  # the workers of all passes share one import of torch and the rest
TASKS = 8  # shares the rows are dealt into, always the same, so that the output is; workers decide how many run at once
FILTERS = ("readable", "length", "repetition", "correctness", "near_duplicates", "overlap")
COLUMNS = {
    "id": pa.string(), "question": pa.large_string(), "response": pa.large_string(), "tokens": pa.int64(),
    "level": pa.int64(), "source": pa.string(), "truncated": pa.bool_(), "reference": pa.string(), "kind": pa.string(),
    "token_num_qwen": pa.int64(), "overlap": pa.string(), "position": pa.int64(), "row": pa.string(),
    "fault": pa.string(), "detail": pa.string(), "filter_reason": pa.string(), "minhash_cluster_id": pa.int64(),
    "unlearned": pa.string(),
}  # fmt: skip


class LocalExecutor(LocalPipelineExecutor):
    """datatrove's executor on this machine, logging to a file alone: it writes more lines than a notebook has."""

    def run(self):
        with self._quiet():
            return super().run()

    def _launch_run_for_rank(self, *arguments, **options):  # in a worker's own process, if there are several
        with self._quiet():
            return super()._launch_run_for_rank(*arguments, **options)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        try:
            with self.logging_dir.open("console.txt", "a") as file, redirect_stderr(file):
                setup_default_logger()
                yield
        finally:
            setup_default_logger()


@dataclass(frozen=True)
class Row:
    """A curated example. `tokens` count the response with its end token; `token_num_qwen` is the count it came with.

    `truncated`: whether the teacher's limit cut it, None where nobody says. `overlap`: "" or "<set>/<kind>" of an
    overlap with an evaluation set that was not a reason to drop it. `position` is its place in the input.
    `unlearned` is as in `records.Trajectory`.
    """

    id: str
    question: str
    response: str
    tokens: int
    token_num_qwen: int | None
    level: int
    source: str
    truncated: bool | None
    overlap: str
    position: int
    unlearned: str = ""


@dataclass(frozen=True)
class Rejected:
    """A row put aside: by which of FILTERS (or "teacher"), for what reason, with what detail, and where it was read."""

    id: str
    row: str
    filter: str
    reason: str
    detail: str
    question: str
    response: str


@dataclass(frozen=True)
class Curated:
    """What the pipeline kept and what it put aside, both in the order of the input; first what no teacher answered."""

    rows: list[Row]
    rejected: list[Rejected]

    def counts(self) -> pd.DataFrame:
        """Rows into, kept and dropped by every filter, in their order; before them the teacher, where it left some."""
        left, table = len(self.rows) + len(self.rejected), []
        for name in ("teacher",) * bool(self.dropped_by("teacher")) + FILTERS:
            reasons = pd.Series(
                [row.reason for row in self.rejected if row.filter == name], dtype=object
            ).value_counts()
            dropped = int(reasons.sum())
            why = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            table.append((name, left, left - dropped, dropped, dropped / left if left else 0.0, why))
            left -= dropped
        return pd.DataFrame(table, columns=["filter", "rows in", "kept", "dropped", "share", "why"])

    def dropped_by(self, name: str, max_rows: int = 10) -> list[Rejected]:
        """The first few rows a filter dropped, to look at."""
        return [row for row in self.rejected if row.filter == name][:max_rows]

    def overlaps(self) -> pd.DataFrame:
        """Rows that overlap with each evaluation set, by kind, of those that came through the other filters.

        A row that overlaps with two sets counts for both.
        """
        found = [(row.overlap, "kept") for row in self.rows if row.overlap]
        found += [(row.detail, "dropped") for row in self.rejected if row.filter == "overlap"]
        pairs = [(*one.split("/"), state) for overlaps, state in found for one in overlaps.split(", ")]
        table = pd.DataFrame(pairs, columns=["set", "same", "state"])
        return table.groupby(["set", "same", "state"]).size().rename("rows").reset_index()


def curate(
    files: list[Path],
    tokenizer: Path,
    test: list[Problem],
    profile: Profile,
    folder: Path,
    names: dict[str, str] | None = None,
    before: list[Rejected] | None = None,
    workers: int | None = None,
    executor: Callable = LocalExecutor,
) -> Curated:
    """Run every filter of the profile over the rows of `files` (see `reader.RowReader` for their columns).

    `before`: rows that were put aside earlier, by a teacher; they are counted with the rest. The result does not depend
    on `workers` (None: the profile's) or on kills and reruns. Raises ValueError, with the
    counts, if no row is left, and Busy if another process works in `folder`. `executor` is one of datatrove's, or a
    partial of one, that returns when its pass is done: Ray's does, and Slurm's with `sbatch_args={"wait": ""}`.
    """
    workers = workers or profile.curation.workers
    with exclusive(folder):
        work = _open_folder(folder, files, tokenizer, test, profile, names)
        write_overlap_index(work / "index", test, profile.curation.overlap_words)
        for name, steps, tasks in stages(files, tokenizer, profile, work, names):
            at_once = workers if tasks == TASKS else 1  # the other passes take seconds
            executor(steps, tasks=tasks, workers=at_once, logging_dir=str(work / "logs" / name)).run()
            if not any((work / "filtered").glob("*.parquet")):
                break
        curated = _collect(work, before or [])
    if not curated.rows:
        raise ValueError(f"no row is left of {[str(file) for file in files]}:\n{curated.counts().to_string()}")
    return curated


def stages(
    files: list[Path], tokenizer: Path, profile: Profile, work: Path, names: dict[str, str] | None = None
) -> list[tuple[str, list[PipelineStep], int]]:
    """(name, datatrove steps, tasks) of every pass, each to be run when the one before is done."""
    asked, dropped = profile.curation, work / "dropped"
    minhash = MinhashConfig(**dict(asked.near_duplicates), norm_config=NORM, hash_config=HASH)
    signatures, buckets, clusters = str(work / "signatures"), str(work / "buckets"), str(work / "clusters")
    lengths = asked.min_response_tokens, asked.max_response_tokens
    first = [
        RowReader(files, names, max_rows=asked.train_problems),
        Faults(make_exclusion_writer(dropped / "readable")),
        Length(tokenizer, *lengths, make_exclusion_writer(dropped / "length")),
        Repetition(dict(asked.repetition), make_exclusion_writer(dropped / "repetition")),
        Correctness(make_exclusion_writer(dropped / "correctness")),
        make_exclusion_writer(work / "filtered"),
    ]
    clustering = [
        MinhashDedupCluster(buckets, clusters, config=minhash, save_cluster_id=True),
        partial(_name_every_task, clusters),
    ]
    alike, overlap = (make_exclusion_writer(dropped / name) for name in ("near_duplicates", "overlap"))
    last = [
        _reader(work / "filtered"),
        MinhashDedupFilter(clusters, alike, load_cluster_ids=True),
        Overlap(work / "index", asked.overlap_words, asked.drop_overlap, overlap),
        make_exclusion_writer(work / "kept"),
    ]
    return [
        ("1_filter", first, TASKS),
        ("2_signatures", [_reader(work / "filtered"), MinhashDedupSignature(signatures, minhash, CODE_WORDS)], TASKS),
        ("3_buckets", [MinhashDedupBuckets(signatures, buckets, config=minhash)], minhash.num_buckets),
        ("4_clusters", clustering, 1),
        ("5_overlap", last, TASKS),
    ]


def _reader(folder: Path) -> ParquetReader:
    return ParquetReader(str(folder), text_key="question")


def make_exclusion_writer(folder: Path) -> ParquetWriter:
    return ParquetWriter(str(folder), adapter=_to_columns, schema=pa.schema(COLUMNS), max_file_size=-1)


def _to_columns(self, document) -> dict:
    values = {"id": document.id, "question": document.text, **document.metadata}
    return {column: values.get(column) for column in COLUMNS}


def _open_folder(folder: Path, files, tokenizer, test, profile: Profile, names) -> Path:
    """The working folder of these inputs, settings and this code; those of others are removed."""
    settings = [profile.curation.model_dump(exclude={"teacher", "workers"}), names, version("datatrove"), TASKS]
    vocabulary = Path(tokenizer) / "tokenizer.json"
    inputs = [hash_path(Path(file)) for file in files] + [asdict(problem) for problem in test]
    inputs.append(hash_path(vocabulary) if vocabulary.exists() else str(tokenizer))
    code = hash_code(Path(__file__).read_text(encoding="utf-8"))  # with all that the filters call
    key = hashlib.sha256(json.dumps([settings, inputs, code]).encode()).hexdigest()[:16]
    work = folder / f"stages-{key}"
    for other in folder.glob("stages-*"):
        if other != work:
            shutil.rmtree(other)
    work.mkdir(parents=True, exist_ok=True)
    return work


def _collect(work: Path, before: list[Rejected]) -> Curated:
    kept, overlapping = read_shards(work / "kept"), read_shards(work / "dropped" / "overlap")
    names = {row["minhash_cluster_id"]: row["id"] for row in kept + overlapping}
    rejected = []
    for name in FILTERS:
        for row in read_shards(work / "dropped" / name):
            if name == "near_duplicates":
                row |= {"filter_reason": "near-duplicate", "detail": f"of {names[row['minhash_cluster_id']]!r}"}
            rejected.append((row["position"], to_rejected(row, name)))
    rows = sorted((_to_row(row) for row in kept), key=lambda row: row.position)
    return Curated(rows, before + [row for _, row in sorted(rejected, key=lambda pair: pair[0])])


def read_shards(folder: Path) -> list[dict]:
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def _to_row(values: dict) -> Row:
    known = {
        name: values[name] for name in ("id", "question", "response", "tokens", "truncated", "overlap", "position")
    }
    return Row(
        **known,
        token_num_qwen=values["token_num_qwen"],
        level=values["level"] or 0,
        source=values["source"] or "",
        unlearned=values["unlearned"] or "",
    )


def to_rejected(values: dict, name: str) -> Rejected:
    known = {column: values[column] or "" for column in ("id", "row", "detail", "question", "response")}
    return Rejected(**known, filter=name, reason=values["filter_reason"])


def _name_every_task(folder: str, data, rank: int, world_size: int) -> None:
    """datatrove's filter reads a row's cluster only in tasks that have something to remove; so every task has."""
    Path(folder).mkdir(exist_ok=True)  # datatrove makes it when it finds duplicates
    for task in range(TASKS):
        for kind in ("remove", "clusters"):
            (Path(folder) / f"{task:06d}.{kind}").touch()

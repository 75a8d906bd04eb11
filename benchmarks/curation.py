"""Curation at the paper's scale: 107,173 rows with planted faults through filters, selection and statistics.

`python benchmarks/curation.py` on two cores. The first table: time and peak memory from 10K rows to 107K, and how many
of the planted loops, near-duplicates and overlaps with HumanEval were found; then what of it is within the bounds it
should keep. The second: the step that finds near-duplicates, beside datasketch's MinHash and LSH (the signatures in
`datasets.map`), on the same questions.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
from curation_rows import make_rows
from datasets import Dataset
from datasketch import MinHash, MinHashLSH
from paired import Way, compare, print_bounds, write_table
from transformers import AutoTokenizer

from z1lib import published
from z1lib.curation import Curated, curate
from z1lib.curation.filters import CODE_WORDS
from z1lib.curation.pipeline import TASKS, LocalExecutor, stages
from z1lib.curation.statistics import (
    compare_trigrams,
    complexity,
    contrast_trigrams,
    count_trigrams,
    describe_subsets,
    relate,
)
from z1lib.models import save_base_model
from z1lib.problems import humaneval
from z1lib.profile import load_profile

WORKERS = 2
SCHEME = "affine32"  # datasketch's default hashing
# The planted loops are added to responses of any length: above the paper's 8,192 tokens they would drop as too long.
PROFILE = load_profile("paper", curation={"workers": WORKERS, "max_response_tokens": 20_000})
MOST_SECONDS, MOST_GIB, LEAST_FOUND, MOST_GROWTH = 20 * 60, 8, 0.95, 1.25


class Memory(threading.Thread):
    """The most memory this process and its children had at once, in GiB; what they share is counted in each."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak, self.ended = 0.0, False
        self.start()

    def run(self):
        me = psutil.Process()
        while not self.ended:
            sizes = []
            for process in (me, *me.children(recursive=True)):
                try:
                    sizes.append(process.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            self.peak = max(self.peak, sum(sizes) / 2**30)
            time.sleep(0.2)


def run_once(count: int, base: Path, folder: Path) -> dict:
    """Make `count` rows, then time the work on them and score what it found."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    file, rows = make_rows(count, tokenizer, folder)
    memory, marks = Memory(), [time.perf_counter()]
    curated = curate([file], base, humaneval.make_problems(), PROFILE, folder / "work")
    marks.append(time.perf_counter())
    subsets = describe_subsets([row.tokens for row in curated.rows], published.load("data_ablation"))
    marks.append(time.perf_counter())
    trigrams = summarise(curated)
    marks.append(time.perf_counter())
    memory.ended = True
    print(curated.counts().to_string(), subsets.to_string(), trigrams.head(3).to_string(), sep="\n\n")
    parts = [after - before for before, after in zip(marks, marks[1:])]
    times = dict(zip(("curate s", "select s", "statistics s"), parts))
    tokens = pd.Series([row.tokens for row in curated.rows])
    result = {"rows": count, "Mtokens kept": tokens.sum() / 1e6, "shortest": int(tokens.min())}
    result |= {"mean tokens": tokens.mean(), "longest": int(tokens.max())}
    result |= {**times, "total s": sum(parts), "peak GiB": memory.peak}
    return {**result, **score(curated, rows)}


def summarise(curated: Curated) -> pd.DataFrame:
    """The statistics of the notebook: lengths against complexity, trigrams of two halves and their contrast."""
    table = pd.DataFrame({"tokens": [row.tokens for row in curated.rows], "level": 0})
    relate(table.assign(complexity=[complexity(row.question) for row in curated.rows]))
    half = len(curated.rows) // 2
    first, second = (
        count_trigrams(row.response for row in part) for part in (curated.rows[:half], curated.rows[half:])
    )
    contrast_trigrams(first.rename("first"), second.rename("second"))
    return compare_trigrams(first, second)


def score(curated: Curated, rows) -> dict:
    """Precision and recall of every filter on what was planted for it."""
    scores = {}
    for name, planted in rows.planted.items():
        dropped = [row for row in curated.rejected if row.filter == name]
        if name == "near_duplicates":  # a pair is found whichever of the two is dropped
            right = sum(rows.family.get(row.id, row.id) == _family(row.detail, rows) for row in dropped)
        else:
            right = sum(row.id in planted for row in dropped)
        scores |= {f"{name} planted": len(planted), f"{name} dropped": len(dropped)}
        scores |= {f"{name} precision": right / max(1, len(dropped)), f"{name} recall": right / max(1, len(planted))}
    others = sum(row.filter not in rows.planted for row in curated.rejected)
    return {**scores, "other rows dropped": others}


def _family(detail: str, rows) -> str:
    kept = detail.removeprefix("of '").removesuffix("'")
    return rows.family.get(kept, kept)


def compare_dedup(count: int, base: Path, folder: Path, repeats: int) -> dict:
    """Finding the near-duplicates of the same questions: our steps of datatrove, and datasketch."""
    file, _ = make_rows(count, AutoTokenizer.from_pretrained(base), folder)
    curate([file], base, [], PROFILE, folder / "work")
    [work] = (folder / "work").glob("stages-*")
    filtered = sorted((work / "filtered").glob("*.parquet"))
    questions = [text for file in filtered for text in pq.read_table(file)["question"].to_pylist()]

    def ours() -> int:
        """How many rows it would remove."""
        for name in ("signatures", "buckets", "clusters", *(stage for stage, _, _ in passes)):
            shutil.rmtree(work / name, ignore_errors=True)
        for name, steps, tasks in passes:
            LocalExecutor(steps, tasks, WORKERS if tasks == TASKS else 1, str(work / name)).run()
        return sum(file.stat().st_size for file in (work / "clusters").glob("*.remove")) // 4  # uint32 a row

    passes = stages([file], base, PROFILE, work)[1:4]

    def nothing():  # no tokens here
        return 0, 0

    datatrove, datasketch = Way("datatrove", ours, nothing), Way("datasketch", lambda: sketch(questions), nothing)
    row = compare(datatrove, datasketch, repeats, same_outputs=False)
    row = {key: value for key, value in row.items() if "decoded" not in key and "differ" not in key}
    return {"rows": len(questions), **row, "ours removes": datatrove.outputs, "peer removes": datasketch.outputs}


def sketch(questions: list[str]) -> int:
    """How many questions repeat an earlier one, for datasketch at the same bands and rows."""
    config = PROFILE.curation.near_duplicates
    signed = Dataset.from_dict({"question": questions}).map(
        sign, batched=True, num_proc=WORKERS, remove_columns=["question"], load_from_cache_file=False
    )
    bands, width = config["num_buckets"], config["hashes_per_bucket"]
    index = MinHashLSH(num_perm=bands * width, params=(bands, width))
    repeated = 0
    for number, values in enumerate(signed.with_format("numpy")["signature"]):
        signature = MinHash(num_perm=bands * width, hashvalues=values, scheme=SCHEME)
        repeated += bool(index.query(signature))
        index.insert(number, signature)
    return repeated


def sign(batch: dict) -> dict:
    config = PROFILE.curation.near_duplicates
    signatures = []
    for question in batch["question"]:
        words, size = CODE_WORDS.word_tokenize(question.lower()), config["n_grams"]
        sketch = MinHash(num_perm=config["num_buckets"] * config["hashes_per_bucket"], scheme=SCHEME)
        sketch.update_batch([" ".join(words[i : i + size]).encode() for i in range(len(words) - size + 1)])
        signatures.append(sketch.hashvalues)
    return {"signature": signatures}


def in_a_process(*arguments: object) -> dict:
    """One measurement in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, *map(str, arguments)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    *log, result = output.splitlines()
    print(*log, sep="\n", flush=True)
    return json.loads(result)


def print_verdicts(rows: list[dict]) -> None:
    """What the largest size took and found, against the bounds; and how time grows from the smallest to it."""
    first, last = rows[0], rows[-1]
    found = {key: value for key, value in last.items() if key.endswith(("precision", "recall"))}
    growth = last["s per 1,000 rows"] / first["s per 1,000 rows"]
    bounds = [
        (f"{last['total s'] / 60:.1f} min, at most {MOST_SECONDS / 60:.0f}", last["total s"] <= MOST_SECONDS),
        (f"{last['peak GiB']:.1f} GiB, at most {MOST_GIB}", last["peak GiB"] <= MOST_GIB),
        (f"precision and recall from {min(found.values()):.3f}, at least {LEAST_FOUND}",
         min(found.values()) >= LEAST_FOUND),
        (f"a row takes {growth:.2f} times as long as at {first['rows']:,} rows, at most {MOST_GROWTH}",
         growth <= MOST_GROWTH),
    ]  # fmt: skip
    print(f"\n{last['rows']:,} rows:")
    print_bounds(bounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 27_000, 54_000, 107_173])
    parser.add_argument("--repeats", type=int, default=5, help="pairs of timings beside datasketch, on the first size")
    parser.add_argument("--measure", nargs=2, metavar=("ROWS", "BASE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.measure:
            count, base = given.measure
            print(json.dumps(run_once(int(count), Path(base), Path(folder))))
            return
        mini = load_profile("mini")
        base = save_base_model(Path(folder) / "base", mini.model.base, "main", mini.model.package, 0)
        rows = [in_a_process("--measure", count, base) for count in given.rows]
        for row in rows:
            row["s per 1,000 rows"] = 1000 * row["total s"] / row["rows"]
        write_table(rows, Path(__file__))
        print_verdicts(rows)
        write_table(
            [compare_dedup(given.rows[0], base, Path(folder), given.repeats)],
            Path(__file__).with_name("curation_near_duplicates"),
        )


if __name__ == "__main__":
    main()

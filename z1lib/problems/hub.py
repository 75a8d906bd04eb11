"""Data files on the Hub: fetched at a pinned revision, cached, read row by row.

`datasets` 5 runs no loading scripts any more, so the files themselves are read.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

csv.field_size_limit(sys.maxsize)


class SourceUnavailable(RuntimeError):
    """A data set cannot be had here; the message says what to do about it."""


def read_rows(repository: str, revision: str, file: str, columns: set[str]) -> Iterator[dict]:
    """The rows of one data file (.jsonl, .parquet or .csv) of a Hub data set.

    Raises SourceUnavailable if it cannot be fetched, ValueError naming file and row where a column is missing.
    """
    path = fetch(repository, revision, file)
    for number, row in enumerate(_read(path), start=1):
        missing = sorted(columns - set(row))
        if missing:
            raise ValueError(f"{repository}, {file}, row {number}: no columns {missing}")
        yield row


def fetch(repository: str, revision: str, file: str) -> Path:
    """The local path of a data file, from the cache if it is there."""
    page = f"https://huggingface.co/datasets/{repository}"
    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    except GatedRepoError as error:
        raise SourceUnavailable(f"{repository} is gated: accept its terms at {page}, then `hf auth login`") from error
    except LocalEntryNotFoundError as error:
        raise SourceUnavailable(
            f"{page} cannot be reached and {file} is not in the cache: fetch it where there is a network "
            f"(`hf download --repo-type dataset --revision {revision} {repository} {file}`) and take the cache along; "
            "`make reproduce PROFILE=mini` needs none"
        ) from error
    except (RepositoryNotFoundError, EntryNotFoundError) as error:
        raise SourceUnavailable(f"{page} has no {file} at revision {revision}") from error


def _read(path: Path) -> Iterator[dict]:
    if path.suffix == ".parquet":
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
        return
    with open(path, encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file) if path.suffix == ".csv" else map(json.loads, file)

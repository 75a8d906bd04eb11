"""What the repository keeps of a run: its problems, completions and grades, packed; all else is made from them.

They let a reader open notebooks 03 and 04 without having trained anything. Trainings with a seed have files of their
own, so that a study that is published seed by seed adds files and changes none.
"""

import gzip
import re
import shutil
from pathlib import Path

import pandas as pd

from z1lib.analysis import tables
from z1lib.files import read_jsonl, to_line, write_jsonl
from z1lib.grading import judge
from z1lib.profile import load_profile
from z1lib.records import ARTIFACTS, MORE, Behaviour, Completion, Confidence, Recall, Shape

MAX_BYTES = 5_000_000  # of one training seed
GRADED = {"completions": "grades", "samples": "sample_grades", "sparse": "sparse_grades"}
SEEDED = re.compile(r"(-\d+)?$")  # the end of a model's name


def pack(rows: dict[str, list], folder: Path) -> dict[str, int]:
    """Write artifacts packed into a folder, of models with a seed a file a seed. Returns the bytes of each seed."""
    model_of = {one.key: one.model for one in [*rows["completions"], *rows.get("samples", []), *rows.get("sparse", [])]}
    sizes: dict[str, int] = {}
    for name, every in rows.items():
        parts: dict[str, list] = {}
        for row in every:
            parts.setdefault(SEEDED.search(_model_of(row, model_of))[0], []).append(row)
        for seed, part in parts.items():
            data = gzip.compress("".join(map(to_line, part)).encode(), mtime=0)
            (folder / f"{name}{seed}.jsonl.gz").write_bytes(data)
            sizes[seed] = sizes.get(seed, 0) + len(data)
    return sizes


def _model_of(row, model_of: dict[str, str]) -> str:
    """The model that a row is about, by its completion's key where it does not say; "" of a problem."""
    if isinstance(row, Completion | Shape | Behaviour):
        return row.model
    return model_of[row.completion if isinstance(row, Confidence | Recall) else row.key] if hasattr(row, "key") else ""


def keep_seeds(folder: Path, packed: Path) -> bool:
    """Copy what `folder` has of other seeds to what is `packed`, if both have the same problems; whether it did."""
    old = folder / "artifacts"
    before, now = (place / "problems.jsonl.gz" for place in (old, packed))
    if not before.exists() or before.read_bytes() != now.read_bytes():
        return False
    others = [file for file in old.glob("*-*.jsonl.gz") if not (packed / file.name).exists()]
    for file in others:
        (packed / file.name).write_bytes(file.read_bytes())
    return bool(others)


def read_artifacts(folder: Path) -> dict[str, list]:
    """The rows of a profile's committed artifacts by name; those of notebook 05 where it has them."""
    return {name: read_jsonl(folder / f"artifacts/{name}*.jsonl.gz", cls) for name, cls in kept(folder).items()}


def kept(folder: Path) -> dict[str, type]:
    """What there is of a profile, and of which kind its rows are."""
    return ARTIFACTS | {
        name: cls for name, cls in MORE.items() if any((folder / "artifacts").glob(f"{name}*.jsonl.gz"))
    }


def unpack(folder: Path, run: Path) -> None:
    """Put a profile's committed artifacts and provenance into a run's folder, as if it had been run there."""
    run.mkdir(parents=True)
    for name, rows in read_artifacts(folder).items():
        write_jsonl(run / f"{name}.jsonl", rows)
    shutil.copy(folder / "provenance.json", run)


def read_frame(folder: Path) -> pd.DataFrame:
    """The frame of the committed artifacts (`tables.make_frame`)."""
    read = read_artifacts(folder)
    return tables.make_frame(*(read[name] for name in ARTIFACTS), load_profile(folder.name))


def regrade(folder: Path) -> dict:
    """Grade what is committed by today's rules: how many verdicts moved; {} where they graded it already."""
    read = read_artifacts(folder)
    before = {grade.version for grade in read["grades"]}
    if before == {judge.VERSION}:
        return {}
    moved = verdicts = 0
    for rows, grades in GRADED.items():
        anew = judge.grade_all(read["problems"], read.get(rows, []))
        was = {(grade.problem_id, grade.key): grade.correct for grade in read.get(grades, [])}
        moved += sum(was[grade.problem_id, grade.key] != grade.correct for grade in anew)
        verdicts += len(anew)
        read[grades] = anew
    pack(read, folder / "artifacts")
    return {"version": judge.VERSION, "before": ", ".join(sorted(before)), "verdicts": verdicts, "moved": moved}

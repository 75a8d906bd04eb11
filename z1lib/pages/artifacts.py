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
from z1lib.records import ARTIFACTS

MAX_BYTES = 5_000_000  # of one training seed
SEEDED = re.compile(r"(-\d+)?$")  # the end of a model's name


def pack(rows: dict[str, list], folder: Path) -> dict[str, int]:
    """Write artifacts packed into a folder, of models with a seed a file a seed. Returns the bytes of each seed."""
    model_of = {(one.problem_id, one.key): one.model for one in rows["completions"]}
    sizes: dict[str, int] = {}
    for name, every in rows.items():
        parts: dict[str, list] = {}
        for row in every:
            model = "" if name == "problems" else model_of[row.problem_id, row.key]
            parts.setdefault(SEEDED.search(model)[0], []).append(row)
        for seed, part in parts.items():
            data = gzip.compress("".join(map(to_line, part)).encode(), mtime=0)
            (folder / f"{name}{seed}.jsonl.gz").write_bytes(data)
            sizes[seed] = sizes.get(seed, 0) + len(data)
    return sizes


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
    """The rows of a profile's committed artifacts: problems, completions, grades."""
    return {name: read_jsonl(folder / f"artifacts/{name}*.jsonl.gz", cls) for name, cls in ARTIFACTS.items()}


def unpack(folder: Path, run: Path) -> None:
    """Put a profile's committed artifacts and provenance into a run's folder, as if it had been run there."""
    run.mkdir(parents=True)
    for name, rows in read_artifacts(folder).items():
        write_jsonl(run / f"{name}.jsonl", rows)
    shutil.copy(folder / "provenance.json", run)


def read_frame(folder: Path) -> pd.DataFrame:
    """The frame of the committed artifacts (`tables.make_frame`)."""
    return tables.make_frame(*read_artifacts(folder).values(), load_profile(folder.name))


def regrade(folder: Path) -> dict:
    """Grade what is committed by today's rules: how many verdicts moved; {} where they graded it already."""
    read = read_artifacts(folder)
    before = {grade.version for grade in read["grades"]}
    if before == {judge.VERSION}:
        return {}
    anew = judge.grade_all(read["problems"], read["completions"])
    was = {(grade.problem_id, grade.key): grade.correct for grade in read["grades"]}
    pack(read | {"grades": anew}, folder / "artifacts")
    moved = sum(was[grade.problem_id, grade.key] != grade.correct for grade in anew)
    return {"version": judge.VERSION, "before": ", ".join(sorted(before)), "verdicts": len(anew), "moved": moved}

"""`make publish`: put a run's summary, provenance and small artifacts beside its figures, to be committed.

The artifacts let a reader open notebooks 03 and 04 without having trained anything.
"""

import gzip
import shutil
import sys
from pathlib import Path

ARTIFACTS = ("problems", "completions", "grades")
MOST_BYTES = 5_000_000


def main(run: Path, figures: Path) -> None:
    artifacts = figures / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    for name in ("summary.csv", "provenance.json"):
        shutil.copy(run / name, figures / name)
    for name in ARTIFACTS:
        # Without a time inside, the same rows give the same bytes.
        packed = gzip.compress((run / f"{name}.jsonl").read_bytes(), mtime=0)
        (artifacts / f"{name}.jsonl.gz").write_bytes(packed)
    size = sum(file.stat().st_size for file in artifacts.iterdir())
    if size > MOST_BYTES:
        raise SystemExit(f"{artifacts} holds {size:,} bytes, more than the {MOST_BYTES:,} that git should carry")
    print(f"{figures}: summary, provenance and {size:,} bytes of artifacts")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

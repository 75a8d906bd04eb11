"""`make publish`: put a run's summary, provenance and small artifacts beside its figures, its results in the README.

The artifacts let a reader open notebooks 03 and 04 without having trained anything.
"""

import gzip
import json
import re
import shutil
import sys
from pathlib import Path

import pandas as pd

from z1lib.analysis import efficiency, findings, subsets, tables
from z1lib.files import read_jsonl
from z1lib.profile import load_profile
from z1lib.records import ARTIFACTS

MOST_BYTES = 5_000_000
README_BLOCK = re.compile(r"(<!-- results: written by `make publish` -->\n).*(<!-- end of results -->)", re.S)


def publish(run: Path, figures: Path) -> None:
    """Copy summary.csv and provenance.json, pack the artifacts. Raises SystemExit if they are too large for git."""
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


def write_results(figures: Path) -> str:
    """The README's results as Markdown, every number from the published files."""
    rows = [read_jsonl(figures / f"artifacts/{name}.jsonl.gz", cls) for name, cls in ARTIFACTS.items()]
    summary = pd.read_csv(figures / "summary.csv", dtype={"level": str})
    notes = json.loads((figures / "provenance.json").read_text())
    profile = load_profile(notes["profile"])
    frame, draws, seed = tables.join(*rows), profile.bootstrap_draws, profile.seed
    tracing = frame[frame.problem_set == "tracing"]
    pair, rival = ("z1", "shifted_window"), ("r1", "budget_forcing")
    ratio = efficiency.iso_accuracy_interval(tracing, pair, rival, draws, seed)
    transfer = [name for name in profile.test_problems if not name.startswith("tracing")]
    sentences = [
        findings.say_curves(frame, summary, *pair, ["tracing"], draws, seed),
        findings.say_hint(frame, "z1", "tracing", draws, seed),
        findings.say_levels(frame, "z1", draws, seed),
        findings.say_overthinking(tracing, [pair, rival], draws, seed),
        findings.say_ratio(*ratio, "z1", "r1") + " The rival is ours, not R1-Distill.",
        findings.say_transfer(frame, "z1", transfer, draws, seed),
    ]
    ran = _provenance(notes, figures, "accuracy_by_thinking")
    ran += (
        " Intervals are 95%: Wilson's for an accuracy, the paired bootstrap over problems for differences and ratios. "
        "They are those of the models as trained, once each: another seed trains other models."
    )
    ablated = _ablation(figures.parent / f"{notes['profile']}_ablation")
    return "\n\n".join([ran, *sentences, *ablated]) + "\n"


def _ablation(figures: Path) -> list[str]:
    """What `make ablation` found, once it has been run."""
    if not (figures / "subsets.csv").exists():
        return []
    notes = json.loads((figures / "provenance.json").read_text())
    return [
        "The length of what is learned from (the paper's Table 2), at equal tokens: short ones are more examples.",
        _provenance(notes, figures, "accuracy_by_subset"),
        subsets.say_subsets(pd.read_csv(figures / "subsets.csv")),
    ]


def _provenance(notes: dict, figures: Path, figure: str) -> str:
    stages = notes["stages"]
    times = ", ".join(f"{name} {stage['seconds'] / 60:.1f} min" for name, stage in stages.items())
    peak = max(stage["peak_memory_gib"] for stage in stages.values())
    where = stages["02_sft"]["hardware"]
    hardware = f"{where['processor']}, {where['cores']} cores"
    return (
        f"![{figure.replace('_', ' ')}]({figures.as_posix()}/{figure}.png)\n\n"
        f"Profile `{notes['profile']}`, commit `{stages['03_windowed_inference']['commit']}`, seed {notes['seed']}, "
        f"{hardware}: {times}; peak memory {peak:.1f} GiB."
    )


if __name__ == "__main__":
    run_folder, figures_folder = map(Path, sys.argv[1:])
    publish(run_folder, figures_folder)
    if run_folder.name == "mini":
        readme = Path("README.md")
        results = write_results(figures_folder)
        readme.write_text(README_BLOCK.sub(lambda found: found[1] + results + found[2], readme.read_text()))

"""`make ablation`: what the subsets of a profile (paper, Table 2) came to, with intervals over problems and seeds.

Reads what notebooks 01 to 03 made of the profile, and writes beside it. The claims are tested over trainings; the
intervals of the table are a bootstrap over problems and trainings, too narrow where there are two of them.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from z1lib import plots
from z1lib.analysis import figures, tables
from z1lib.analysis.claims import list_seeds, make_claims
from z1lib.analysis.estimands import measure
from z1lib.files import read_jsonl
from z1lib.profile import Profile, load_profile
from z1lib.records import ARTIFACTS, Trajectory
from z1lib.sft.data import training_runs
from z1lib.stats import BadAnalysis, bootstrap_two_levels, percentile_interval


def subset_values(frame: pd.DataFrame, profile: Profile, column: str) -> np.ndarray:
    """Problems x seeds x subsets of a column, every model under its policy at the widest window.

    Raises BadAnalysis if one lacks a problem.
    """
    at_widest = frame[frame.window == max(profile.inference.windows)]
    runs = [(name, seed) for name, subset in profile.sft.subsets.items() for seed in subset.seeds]
    columns = {}
    for name, seed in runs:
        run = f"{name}-{seed}"
        columns[run] = tables.problem_table(at_widest, run, profile.inference.models[run], column).squeeze(axis=1)
    table = pd.DataFrame(columns)
    lacking = table.columns[table.isna().any()]
    if len(lacking):
        raise BadAnalysis(f"{lacking[0]} lacks {int(table[lacking[0]].isna().sum())} problems that others have")
    return table.to_numpy().reshape(len(table), len(profile.sft.subsets), -1).transpose(0, 2, 1)


def compare_subsets(frame: pd.DataFrame, trajectories: list[Trajectory], profile: Profile) -> pd.DataFrame:
    """A row a benchmark and subset: what it was trained on, its accuracy over problems and trainings."""
    trained, rows = training_runs(trajectories, profile), []
    for benchmark, part in frame.groupby("problem_set", sort=False):
        correct, thinking = (subset_values(part, profile, column) for column in ("correct", "thinking_tokens"))
        resamples = bootstrap_two_levels(correct, profile.analysis.resamples, profile.seed)
        for i, (name, subset) in enumerate(profile.sft.subsets.items()):
            examples = trained[f"{name}-{subset.seeds[0]}"][0]
            tokens = sum(row.token_count for row in examples)
            accuracy = percentile_interval(correct[:, :, i].mean(), resamples[:, i])
            row = {"benchmark": benchmark, "n": len(correct), "subset": name, "seeds": len(subset.seeds)}
            row |= {"examples": len(examples), "train_tokens": tokens, "mean_trajectory_tokens": tokens / len(examples)}
            row |= {"accuracy": accuracy.estimate, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
            rows.append(row | {"thinking_tokens": thinking[:, :, i].mean()})
    return pd.DataFrame(rows)


def main(run: Path) -> None:
    profile = load_profile(run.name)
    rows = [read_jsonl(run / f"{name}.jsonl", cls) for name, cls in ARTIFACTS.items()]
    frame = tables.make_frame(*rows, profile)
    table = compare_subsets(frame, read_jsonl(run / "sft.jsonl", Trajectory), profile)
    plots.save_figure(figures.accuracy_by_subset(table), run / "figures", "accuracy_by_subset", profile)
    verdicts = make_claims(measured := measure(frame, profile))
    found = {"summary": tables.summarise(frame), "subsets": table, "claims": verdicts, "seeds": list_seeds(measured)}
    for name, one in found.items():
        one.to_csv(run / f"{name}.csv", index=False, float_format="%.4f")
    print(table.round(3).to_markdown(index=False), found["claims"].round(3).to_markdown(index=False), sep="\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

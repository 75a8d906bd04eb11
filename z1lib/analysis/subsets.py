"""`make ablation`: what the subsets of a profile (paper, Table 2) came to, with intervals over problems and seeds.

Reads what notebooks 01 to 03 made of the profile, and writes beside it. Two seeds bound the effect of the seed
badly: the intervals are too narrow rather than too wide, and so are the tests that come from the same draws.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from z1lib import plots
from z1lib.analysis import figures, tables
from z1lib.analysis.findings import say_p, verdict
from z1lib.files import read_jsonl
from z1lib.profile import Profile, load_profile
from z1lib.records import ARTIFACTS, Trajectory
from z1lib.sft.data import training_runs
from z1lib.stats import BadAnalysis, Interval, bootstrap_p, bootstrap_two_levels, correct_family, percentile_interval


def subset_values(frame: pd.DataFrame, profile: Profile, column: str) -> np.ndarray:
    """Problems x seeds x subsets of a column, every model under its policy at the widest window.

    Raises BadAnalysis if one lacks a problem.
    """
    at_widest = frame[frame.window == max(profile.windows)]
    runs = [(name, seed) for name, subset in profile.subsets.items() for seed in subset["seeds"]]
    columns = {}
    for name, seed in runs:
        run = f"{name}-{seed}"
        columns[run] = tables.problem_table(at_widest, run, profile.models[run], column).squeeze(axis=1)
    table = pd.DataFrame(columns)
    lacking = table.columns[table.isna().any()]
    if len(lacking):
        raise BadAnalysis(f"{lacking[0]} lacks {int(table[lacking[0]].isna().sum())} problems that others have")
    return table.to_numpy().reshape(len(table), len(profile.subsets), -1).transpose(0, 2, 1)


def compare_subsets(frame: pd.DataFrame, trajectories: list[Trajectory], profile: Profile) -> pd.DataFrame:
    """A row a benchmark and subset: what it was trained on, its accuracy, the paired difference to the first subset.

    `p`: of that difference, from the same draws, Holm-corrected over the subsets of a benchmark.
    """
    trained, rows = training_runs(trajectories, profile), []
    for benchmark, part in frame.groupby("problem_set", sort=False):
        correct, thinking = (subset_values(part, profile, column) for column in ("correct", "thinking_tokens"))
        draws = bootstrap_two_levels(correct, profile.bootstrap_draws, profile.seed)
        means = correct.mean(axis=(0, 1))
        tests = [float("nan"), *correct_family([bootstrap_p(draw - draws[:, 0]) for draw in draws.T[1:]])]
        for i, (name, subset) in enumerate(profile.subsets.items()):
            examples = trained[f"{name}-{subset['seeds'][0]}"][0]
            tokens = sum(row.token_count for row in examples)
            accuracy = percentile_interval(means[i], draws[:, i])
            gain = percentile_interval(means[i] - means[0], draws[:, i] - draws[:, 0])
            row = {"benchmark": benchmark, "n": len(correct), "subset": name, "seeds": len(subset["seeds"])}
            row |= {"examples": len(examples), "train_tokens": tokens, "mean_trajectory_tokens": tokens / len(examples)}
            row |= {"accuracy": accuracy.estimate, "accuracy_low": accuracy.low, "accuracy_high": accuracy.high}
            row |= {"thinking_tokens": thinking.mean(axis=(0, 1))[i], "minus_first": gain.estimate}
            rows.append(row | {"minus_first_low": gain.low, "minus_first_high": gain.high, "p": tests[i]})
    return pd.DataFrame(rows)


def say_subsets(table: pd.DataFrame) -> str:
    """What each subset came to, and whether it is more than chance beside the first."""
    lines = []
    for benchmark, rows in table.groupby("benchmark", sort=False):
        first = rows.iloc[0]
        lines.append(f"* {benchmark} (n = {first.n}), `{first.subset}`: {_say_subset(first)}.")
        for _, row in rows.iloc[1:].iterrows():
            gain = Interval(row.minus_first, row.minus_first_low, row.minus_first_high)
            lines.append(
                f"* {benchmark}, `{row.subset}`: {_say_subset(row)}; minus `{first.subset}` {row.minus_first:+.2f} "
                f"[{row.minus_first_low:+.2f}, {row.minus_first_high:+.2f}], "
                f"{say_p(row.p, 'bootstrap, Holm-corrected')}: {verdict(gain, row.p)}."
            )
    few = f"{table.seeds.min()} seeds a subset, so intervals over seeds and problems are rather too narrow"
    return f"**Measured.** Accuracy at the widest window, paired by problem; {few}.\n" + "\n".join(lines)


def _say_subset(row: pd.Series) -> str:
    of = f"{row.examples} examples of {row.mean_trajectory_tokens:.0f} tokens"
    return f"{row.accuracy:.2f} [{row.accuracy_low:.2f}, {row.accuracy_high:.2f}], trained on {of}"


def main(run: Path) -> None:
    profile = load_profile(run.name)
    frame = tables.join(*(read_jsonl(run / f"{name}.jsonl", cls) for name, cls in ARTIFACTS.items()))
    table = compare_subsets(frame, read_jsonl(run / "sft.jsonl", Trajectory), profile)
    plots.save_figure(figures.accuracy_by_subset(table), run / "figures", "accuracy_by_subset", profile)
    tables.summarise(frame).to_csv(run / "summary.csv", index=False, float_format="%.4f")
    table.to_csv(run / "subsets.csv", index=False, float_format="%.4f")
    print(table.round(3).to_markdown(index=False), say_subsets(table), sep="\n\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

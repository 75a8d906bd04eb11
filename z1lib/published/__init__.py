"""What the paper (arXiv 2504.00810 v1) and its neighbours printed and what follows from it: never mixed with what we
measured."""

from importlib.resources import files

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import confint_proportions_2indep

from z1lib.stats import BadAnalysis, iso_accuracy_ratio, wilson

TABLES = {"main": "Table 1", "data_ablation": "Table 2", "scaling": "Table 6", "trigrams": "Figure 3"}
# Tables whose rows say where: errors of the paper; what its three neighbours report, `secondary` where we have read it
# in somebody's notes and not in the paper itself.
WITH_PLACES = {"errors": "arXiv 2504.00810 v1, ", "neighbours": ""}

SIZES = {"math500": 500, "gpqa_diamond": 198, "livecodebench": 880, "bigcodebench_hard": 148}  # paper, section 4


def load(table: str) -> pd.DataFrame:
    """A printed table, every row with its place in the paper (`source`); "errors" is ours: what does not hold, and why.

    Raises ValueError for an unknown name.
    """
    if table not in {*TABLES, *WITH_PLACES}:
        raise ValueError(f"no published table {table!r}; there are {', '.join([*TABLES, *WITH_PLACES])}")
    frame = pd.read_csv(files(__name__) / f"{table}.csv")
    if table in TABLES:
        return frame.assign(source=f"arXiv 2504.00810 v1, {TABLES[table]}")
    return frame.assign(source=WITH_PLACES[table] + frame["where"])


def recompute_ratios(scaling: pd.DataFrame) -> pd.DataFrame:
    """The iso-accuracy token ratio of Z1-7B to R1-Distill-Qwen-7B on each benchmark, from the paper's printed points.

    At the highest accuracy both curves reach; the paper's "about 30%" holds for two of three (FACTS: 29.8, 30.3, 87).
    """
    rows = []
    for benchmark, part in scaling.groupby("benchmark", sort=False):
        curves = {
            model: list(zip(points.average_thinking_tokens, points.pass_at_1))
            for model, points in part.groupby("model")
        }
        z1, r1 = curves["Z1-7B"], curves["R1-Distill-Qwen-7B"]
        accuracy = min(max(reached for _, reached in points) for points in (z1, r1))
        rows.append((benchmark, accuracy, iso_accuracy_ratio(z1, r1, accuracy)))
    return pd.DataFrame(rows, columns=["benchmark", "accuracy", "ratio"])


def average_points(scaling: pd.DataFrame) -> pd.DataFrame:
    """Each model's tokens and pass@1 at its largest window, averaged over the three benchmarks, by model.

    These are the points that the paper's Figure 1 sets side by side (1,507 and 3,243 tokens). The rest of its averaged
    curve cannot be recomputed: Table 6 names no windows, and its benchmarks have different numbers of points.
    """
    last = scaling.groupby(["model", "benchmark"], sort=False).last()
    return last.groupby("model", sort=False).mean(numeric_only=True)


def printed_ablation(table: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 2 with the 95% intervals that follow from its sample sizes, and each subset minus
    random-64k, which has the token budget of the longest and the shortest.

    Wilson for an accuracy, Newcombe for a difference: unpaired, since answers to single problems are not published.
    Raises BadAnalysis for a benchmark whose size is not known.
    """
    if unknown := set(table.benchmark) - set(SIZES):
        raise BadAnalysis(f"no sample size for {sorted(unknown)}")
    rows = []
    for benchmark, part in table.groupby("benchmark", sort=False):
        n = SIZES[benchmark]
        random = round(part[part.subset == "random-64k"].accuracy.iloc[0] / 100 * n)
        for row in part.itertuples():
            right = round(row.accuracy / 100 * n)
            low, high = wilson(right, n)
            away = confint_proportions_2indep(right, n, random, n, method="newcomb", compare="diff")
            gain = (right - random) / n
            rows.append(
                (row.subset, benchmark, n, row.accuracy, 100 * low, 100 * high, 100 * gain, *(100 * np.array(away)))
            )
    columns = [
        "subset",
        "benchmark",
        "n",
        "printed accuracy",
        "low",
        "high",
        "minus random-64k",
        "difference low",
        "difference high",
    ]
    return pd.DataFrame(rows, columns=columns)

"""Our bootstrap and scipy's on the same numbers: 900 problems, 10 policies, 10,000 draws, paired over problems.

`python benchmarks/bootstrap.py`. Both give the interval of each policy's accuracy minus the first one's; scipy draws
its resamples in its own order, so the ends agree up to Monte Carlo error, which is printed.
"""

import time
from pathlib import Path

import numpy as np
from paired import write_table
from scipy.stats import bootstrap

from z1lib.stats import bootstrap_means

PROBLEMS, POLICIES, DRAWS, REPEATS = 900, 10, 10_000, 5


def ours(correct: np.ndarray) -> np.ndarray:
    means = bootstrap_means(correct, DRAWS, seed=0)
    return np.percentile(means[:, 1:] - means[:, :1], [2.5, 97.5], axis=0).T


def scipys(correct: np.ndarray) -> np.ndarray:
    def gain(values: np.ndarray, axis: int) -> np.ndarray:
        return values.mean(axis=axis)

    differences = correct[:, 1:] - correct[:, :1]
    options = {"n_resamples": DRAWS, "method": "percentile", "vectorized": True, "batch": 500}
    found = [bootstrap((column,), gain, rng=np.random.default_rng(0), **options) for column in differences.T]
    return np.array([[one.confidence_interval.low, one.confidence_interval.high] for one in found])


def timed(way, correct: np.ndarray) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    found = way(correct)
    return time.perf_counter() - start, found


def main() -> None:
    rng = np.random.default_rng(0)
    correct = (rng.random((PROBLEMS, 1)) + 0.3 * rng.random((PROBLEMS, POLICIES)) > 0.6).astype(float)
    ways = {"bootstrap_means": ours, "scipy.stats.bootstrap": scipys}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    intervals = {}
    for _ in range(REPEATS):
        for name, way in ways.items():
            taken, intervals[name] = timed(way, correct)
            seconds[name].append(taken)
    apart = np.abs(intervals["bootstrap_means"] - intervals["scipy.stats.bootstrap"]).max()
    size = {"problems": PROBLEMS, "policies": POLICIES, "draws": DRAWS}
    rows = [{"way": name, **size, "median s": np.median(taken)} for name, taken in seconds.items()]
    write_table([{**row, "ends apart at most": apart} for row in rows], Path(__file__))


if __name__ == "__main__":
    main()

"""`make verify`: does a fresh summary agree with the committed one, within stated tolerances? Says which row moved.

Training in floating point is not repeatable across machines: with other vector instructions the same data give other
weights. So each tolerance is that of a difference between two runs, root 2 times the half-width of the committed row's
95% interval, and at least 0.10, for an accuracy; the same, and at least 0.15, for the share that overran; 20% or 5
tokens for average thinking and total tokens. Single levels and sets of fewer than 50 problems are held to their
accuracy alone: there one completion that loops moves the average by a fifth.
"""

import sys

import pandas as pd

KEYS = ["model", "policy", "window", "problem_set", "level"]
ACCURACY, OVERRUN, TOKENS, FEW_TOKENS, FEW_PROBLEMS = 0.10, 0.15, 0.20, 5, 50


def compare(fresh: pd.DataFrame, committed: pd.DataFrame) -> list[str]:
    """One line for each row that is missing, new, or further off than the tolerance."""
    pair = [frame.astype({"level": str}).set_index(KEYS) for frame in (fresh, committed)]
    both = pair[1].merge(pair[0], how="outer", on=KEYS, suffixes=("_committed", "_fresh"))
    return [line for key, row in both.iterrows() for line in _differences(key, row)]


def _differences(key: tuple, row: pd.Series) -> list[str]:
    model, policy, window, problem_set, level = key
    name = f"{model}, {policy} {window}, {problem_set}" + (f" level {level}" if level != "all" else "")
    if pd.isna(row.accuracy_fresh) or pd.isna(row.accuracy_committed):
        return [f"{name}: only in the {'committed' if pd.isna(row.accuracy_fresh) else 'fresh'} summary"]
    if row.n_fresh != row.n_committed:
        return [f"{name}: {row.n_fresh:.0f} completions, committed {row.n_committed:.0f}"]
    spread = (row.accuracy_high_committed - row.accuracy_low_committed) / 2**0.5
    tolerances = {"accuracy": max(ACCURACY, spread)}
    if level == "all" and row.n_committed >= FEW_PROBLEMS:
        tolerances["overrun_rate"] = max(OVERRUN, spread)
        for column in ("thinking_tokens", "total_tokens"):
            tolerances[column] = max(TOKENS * row[f"{column}_committed"], FEW_TOKENS)
    return [
        f"{name}: {column.replace('_', ' ')} {row[f'{column}_fresh']:.2f}, committed {row[f'{column}_committed']:.2f}"
        for column, allowed in tolerances.items()
        if not abs(row[f"{column}_fresh"] - row[f"{column}_committed"]) <= allowed  # a missing number has moved too
    ]


def main(fresh: str, committed: str) -> int:
    try:
        tables = [pd.read_csv(path) for path in (fresh, committed)]
    except FileNotFoundError as error:
        print(f"nothing to compare: {error.filename} is missing; `make reproduce` makes a summary")
        return 2
    found = compare(*tables)
    if not len(tables[1]):
        print(f"nothing to compare: {committed} has no rows")
        return 2
    print(*found, sep="\n")
    print(f"{len(found)} figures moved" if found else f"{fresh} agrees with {committed}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

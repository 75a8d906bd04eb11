"""The pictures of notebook 01: lengths, and words that tell two corpora apart."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from z1lib.plots import make_axes


def length_distribution(table: pd.DataFrame) -> Figure:
    """Response tokens by run and level, one scale; `table` has columns run, level, tokens."""
    figure, axes = make_axes(table.run.nunique(), height=3.0)
    bounds = 0, table.tokens.max()
    for axis, (run, rows) in zip(axes, table.groupby("run", sort=False)):
        sns.histplot(
            rows, x="tokens", hue="level", multiple="stack", palette="viridis", ax=axis, bins=40, binrange=bounds
        )
        axis.set(xlabel="response tokens", ylabel="examples", xlim=bounds, title=f"{run} (n={len(rows)})")
    return figure


def length_bins(bins: pd.DataFrame) -> Figure:
    """Examples by length bin, and the mean complexity of their questions; `bins` as `statistics.relate` gives them."""
    figure, axes = make_axes(2, height=3.0)
    labels = [f"{low}-{2 * low - 1}" for low in bins["bin"]]
    for axis, column, colour in zip(axes, ("examples", "complexity"), ("#0072B2", "#E69F00")):
        axis.bar(labels, bins[column], color=colour)
        axis.tick_params(axis="x", rotation=45)
        axis.set(xlabel="response tokens")
    axes[0].set(ylabel="examples", title=f"n={bins.examples.sum()}")
    axes[1].set(ylabel="mean complexity of the question\n(compressed bytes)")
    return figure


def trigram_contrast(contrast: pd.DataFrame, first: str, second: str) -> Figure:
    """The trigrams that tell two corpora apart, by the log-ratio of their shares; `contrast` has column log2_ratio."""
    figure, [axis] = make_axes(width=6.5, height=0.6 + 0.22 * len(contrast))
    ordered = contrast[::-1]
    colours = ["#0072B2" if ratio > 0 else "#D55E00" for ratio in ordered.log2_ratio]
    axis.barh(range(len(ordered)), ordered.log2_ratio, color=colours)
    # No mathematics: a trigram may hold a dollar sign.
    axis.set_yticks(range(len(ordered)), [name.replace("$", r"\$") for name in ordered.index], fontsize=8)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.set(xlabel=f"more in {second}   <   log2 of the ratio of shares   >   more in {first}")
    return figure

"""The study's pictures: every function takes a table and returns a Figure; `save_figure` stamps and saves it."""

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from z1lib.profile import Profile
from z1lib.study import commit

# Okabe-Ito colours, with markers and dashes of their own so that nothing depends on colour.
STYLES = {
    ("z1", "shifted_window"): ("z1, shifted window", "#0072B2", "o", "-"),
    ("z1", "truncation"): ("z1, cut at the window", "#56B4E9", "v", ":"),
    ("z1", "truncation_matched"): ("z1, cut at the same total", "#009E73", "^", "--"),
    ("r1", "budget_forcing"): ("r1, budget forcing", "#D55E00", "s", "-"),
    ("base", "shifted_window"): ("base, shifted window", "#666666", "D", "-."),
}
sns.set_theme(style="whitegrid", context="paper", font_scale=1.1)


def _axes(columns: int = 1, width: float = 5.5, height: float = 3.6) -> tuple[Figure, list]:
    figure, axes = plt.subplots(1, columns, figsize=(width * columns, height), squeeze=False, layout="constrained")
    plt.close(figure)  # the caller shows it; pyplot must not show it a second time
    return figure, list(axes[0])


def accuracy_curves(summary: pd.DataFrame, problem_set: str, tokens: str = "thinking_tokens") -> Figure:
    """Accuracy against average thinking (or total) tokens, one line a model and policy, with 95% intervals."""
    figure, [axis] = _axes()
    whole = summary[(summary.problem_set == problem_set) & (summary.level == "all")]
    for (model, policy), (label, colour, marker, dashes) in STYLES.items():
        rows = whole[(whole.model == model) & (whole.policy == policy)].sort_values("window")
        if len(rows):
            errors = [rows.accuracy - rows.accuracy_low, rows.accuracy_high - rows.accuracy]
            axis.errorbar(
                rows[tokens], rows.accuracy, yerr=errors, label=f"{label} (n={rows.n.max()})", color=colour,
                marker=marker, linestyle=dashes, capsize=2, elinewidth=0.8, markersize=5,
            )  # fmt: skip
    axis.set(xlabel=f"average {tokens.replace('_', ' ')}", ylabel="accuracy", ylim=(-0.02, 1.02), title=problem_set)
    axis.legend(fontsize=8)
    return figure


def thinking_by_level(frame: pd.DataFrame, model: str) -> Figure:
    """Thinking tokens of a model left alone by complexity level, a panel a problem set."""
    rows = frame[(frame.model == model) & (frame.policy == "unbounded")]
    groups = list(rows.groupby("problem_set", sort=False))
    figure, axes = _axes(columns=len(groups), width=3.0)
    for axis, (name, part) in zip(axes, groups):
        sns.boxplot(part, x="level", y="thinking_tokens", color="#56B4E9", fliersize=2, ax=axis)
        axis.set(xlabel="complexity level", ylabel="", ylim=(0, 1.05 * rows.thinking_tokens.max()))
        axis.set_title(f"{name.replace('_', ' ')} (n={len(part)})")
    axes[0].set_ylabel(f"thinking tokens of {model}, no window")
    return figure


def overrun_by_window(summary: pd.DataFrame, problem_set: str) -> Figure:
    """Share of completions whose thinking the window cut."""
    figure, [axis] = _axes()
    whole = summary[(summary.problem_set == problem_set) & (summary.level == "all")]
    for key in [("z1", "shifted_window"), ("r1", "budget_forcing"), ("base", "shifted_window")]:
        label, colour, marker, dashes = STYLES[key]
        rows = whole[(whole.model == key[0]) & (whole.policy == key[1])].sort_values("window")
        axis.plot(rows.window, rows.overrun_rate, label=label, color=colour, marker=marker, linestyle=dashes)
    axis.set(xlabel="window (tokens)", ylabel="share that overran", ylim=(-0.02, 1.02), title=problem_set)
    axis.legend(fontsize=8)
    return figure


def overthinking(first: pd.DataFrame, title: str) -> Figure:
    """Tokens of thinking up to the first right answer, and after it, by level (means over solved problems)."""
    figure, [axis] = _axes()
    means = first.groupby("level")[["first", "full"]].mean()
    axis.bar(means.index, means["first"], color="#0072B2", label="up to the first right answer")
    axis.bar(means.index, means["full"] - means["first"], bottom=means["first"], color="#E69F00", hatch="//",
             edgecolor="white", label="after it")  # fmt: skip
    counts = first.level.value_counts()
    axis.set_xticks(means.index, [f"{level}\nn={counts[level]}" for level in means.index])
    axis.set(xlabel="complexity level", ylabel="mean thinking tokens", title=title)
    axis.legend(fontsize=8)
    return figure


def transfer(summary: pd.DataFrame, problem_sets: list[str]) -> Figure:
    """Base and tuned models, left alone, on problems that are not code."""
    figure, [axis] = _axes()
    rows = summary[(summary.policy == "unbounded") & (summary.level == "all") & summary.problem_set.isin(problem_sets)]
    models = list(dict.fromkeys(rows.model))
    colours = {"base": "#666666", "z1": "#0072B2", "r1": "#D55E00"}
    for i, model in enumerate(models):
        part = rows[rows.model == model].set_index("problem_set").loc[problem_sets]
        places = [x + 0.25 * (i - (len(models) - 1) / 2) for x in range(len(problem_sets))]
        errors = [part.accuracy - part.accuracy_low, part.accuracy_high - part.accuracy]
        axis.bar(places, part.accuracy, width=0.22, yerr=errors, capsize=3, color=colours.get(model), label=model)
    axis.set_xticks(range(len(problem_sets)), [name.replace("_", " ") for name in problem_sets])
    axis.set(ylabel="accuracy", ylim=(0, 1.02), title=f"transfer, no window (n={rows.n.max()} a set)")
    axis.legend(fontsize=8)
    return figure


def length_distribution(table: pd.DataFrame) -> Figure:
    """Response tokens by run and level; `table` has columns run, level, tokens."""
    figure, axes = _axes(columns=table.run.nunique(), width=4.2)
    for axis, (run, rows) in zip(axes, table.groupby("run", sort=False)):
        sns.histplot(rows, x="tokens", hue="level", multiple="stack", palette="viridis", ax=axis, bins=30)
        axis.set(xlabel="response tokens", ylabel="examples", title=f"{run} (n={len(rows)})")
    return figure


def training_loss(logs: dict[str, list[dict]]) -> Figure:
    """Loss by step for every run."""
    figure, [axis] = _axes()
    for (run, log), dashes in zip(logs.items(), ["-", "--", "-.", ":"]):
        steps = [(row["step"], row["loss"]) for row in log if "loss" in row]
        axis.plot(*zip(*steps), label=run, linestyle=dashes)
    axis.set(xlabel="step", ylabel="loss on the response", yscale="log")
    axis.legend()
    return figure


def published_scaling(scaling: pd.DataFrame) -> Figure:
    """The paper's own scaling points (Table 6), as printed: it gives no intervals."""
    names = {"gpqa_diamond": "GPQA Diamond", "livecodebench": "LiveCodeBench", "math500": "MATH-500"}
    figure, axes = _axes(columns=3, width=3.4)
    for axis, (benchmark, name) in zip(axes, names.items()):
        for (model, rows), marker in zip(scaling[scaling.benchmark == benchmark].groupby("model", sort=False), "os"):
            axis.plot(rows.average_thinking_tokens, rows.pass_at_1, marker=marker, label=model)
        axis.set(xlabel="average thinking tokens", ylabel="pass@1 (%)", title=f"{name}, as printed")
    axes[0].legend(fontsize=8)
    return figure


def save_figure(figure: Figure, folder: Path, name: str, profile: Profile) -> Path:
    """Save as PNG with profile and commit under the picture; a profile whose numbers mean nothing says so across it."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.text(1, -0.01, f"profile {profile.name}, commit {commit()}", ha="right", va="top", fontsize=7, color="0.4")
    if profile.is_meaningless:
        figure.text(0.5, 0.5, "smoke run, numbers mean nothing", ha="center", va="center", fontsize=20,
                    color="crimson", alpha=0.5, rotation=20)  # fmt: skip
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    return path

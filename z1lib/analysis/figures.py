"""The pictures of notebook 04: every function takes a table and returns a Figure; `plots.save_figure` saves it."""

from itertools import cycle

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from z1lib import published
from z1lib.analysis.findings import FEWEST
from z1lib.analysis.tables import curve_with_intervals
from z1lib.plots import BENCHMARKS, CONTROLS, RUN_STYLES, STYLES, legend_below, make_axes, styles_of
from z1lib.window import policies_by_name


def accuracy_curves(
    frame: pd.DataFrame, problem_sets: list[str], resamples: int, seed: int, tokens: str = "thinking_tokens"
) -> Figure:
    """Accuracy against average tokens, one line a model and policy, 95% intervals both ways; a panel a problem set.

    Several sets have one panel more with their average: over the paper's three where all are there, else over all.
    Where the paper has points they are drawn too, in thinking tokens, hollow and as printed.
    """
    printed = published.load("scaling") if tokens == "thinking_tokens" else pd.DataFrame(columns=["benchmark", "model"])
    of_figure_1 = [name for name in problem_sets if name in set(printed.benchmark)]
    averaged = of_figure_1 if len(of_figure_1) == printed.benchmark.nunique() > 0 else problem_sets
    panels = [[name] for name in problem_sets] + [averaged] * (len(problem_sets) > 1)
    figure, axes = make_axes(len(panels))
    for axis, names in zip(axes, panels):
        counts = []
        for (model, policy), style in styles_of(frame).items():
            if not frame[(frame.model == model) & (frame.policy == policy) & frame.problem_set.isin(names)].empty:
                points = curve_with_intervals(frame, model, policy, names, tokens, resamples, seed)
                _draw_curve(axis, points, *style)
                counts.append(points.n.max())
        if names == of_figure_1 and len(names) > 1:
            _draw_points(axis, published.average_points(printed).reset_index().groupby("model", sort=False))
        elif len(names) == 1:
            _draw_points(axis, printed[printed.benchmark == names[0]].groupby("model", sort=False))
        title = BENCHMARKS.get(names[0], names[0]) if len(names) == 1 else f"average of {len(names)} sets"
        axis.set(xlabel=f"average {tokens.replace('_', ' ')}", ylabel="accuracy", ylim=(-0.02, 1.02))
        axis.set_title(f"{title} ({_say_n(counts)})")
    legend_below(figure, axes)
    return figure


def _say_n(counts: list[int]) -> str:
    """How many problems the lines of a panel have, least and most."""
    return f"n={min(counts)}" + (f" to {max(counts)}" if len(set(counts)) > 1 else "")


def _draw_curve(axis, points: pd.DataFrame, label: str, colour: str, marker: str, dashes: str) -> None:
    errors = {
        f"{side}err": [points[name] - points[f"{name}_low"], points[f"{name}_high"] - points[name]]
        for side, name in (("x", "tokens"), ("y", "accuracy"))
    }
    axis.errorbar(
        points.tokens, points.accuracy, **errors, label=label, color=colour, marker=marker,
        linestyle=dashes, capsize=2, elinewidth=0.8, markersize=5, fillstyle="none" if not dashes else "full",
    )  # fmt: skip


def _draw_points(axis, by_model) -> None:
    for (model, part), marker in zip(by_model, "os"):
        axis.plot(part.average_thinking_tokens, part.pass_at_1 / 100, marker=marker, fillstyle="none", color="0.5",
                  linestyle=":", label=f"{model}, as printed")  # fmt: skip


def thinking_by_level(frame: pd.DataFrame, models: list[str]) -> Figure:
    """Thinking tokens of models left alone by complexity level, a panel a problem set, one scale, the cap dashed."""
    rows = frame[frame.model.isin(models) & (frame.policy == "unbounded")]
    groups = list(rows.groupby("problem_set", sort=False))
    figure, axes = make_axes(len(groups), height=2.8)
    for axis, (name, part) in zip(axes, groups):
        sns.boxplot(
            part, x="level", y="thinking_tokens", hue="model", hue_order=models, palette=_colours(models),
            fliersize=2, ax=axis,
        )  # fmt: skip
        axis.axhline(rows.window.max(), color="0.3", linewidth=0.8, linestyle="--")
        axis.set(xlabel="complexity level", ylabel="thinking tokens, no window", ylim=(0, 1.05 * rows.window.max()))
        axis.set_title(f"{name.replace('_', ' ')} (n={part.problem_id.nunique()})")
    legend_below(figure, axes)
    return figure


def thinking_by_need(frame: pd.DataFrame, models: list[str]) -> Figure:
    """Total tokens of models left alone against what each problem needs, both logarithmic; a panel a problem set.

    The needed length is that of the interpreter's own telling; sets that it does not tell are left out.
    """
    rows = frame[frame.model.isin(models) & (frame.policy == "unbounded") & (frame.needed > 0)]
    groups = list(rows.groupby("problem_set", sort=False))
    figure, axes = make_axes(len(groups), height=2.8)
    for axis, (name, part) in zip(axes, groups):
        sns.scatterplot(
            part, x="needed", y="total_tokens", hue="model", style="model", hue_order=models, style_order=models,
            palette=_colours(models), s=14, alpha=0.6, ax=axis,
        )  # fmt: skip
        limits = {"xlim": (0.9 * rows.needed.min(), 1.1 * rows.needed.max()), "ylim": (8, 1.2 * rows.window.max())}
        axis.set(xlabel="characters needed", ylabel="total tokens, no window", xscale="log", yscale="log", **limits)
        for ticks in (axis.xaxis, axis.yaxis):
            _tick_plainly(ticks)
        axis.set_title(f"{name.replace('_', ' ')} (n={part.problem_id.nunique()})")
    legend_below(figure, axes)
    return figure


def _colours(models: list[str]) -> dict[str, str]:
    """Of each model, as in its curve."""
    known = {model: colour for (model, _), (colour, *_) in reversed(STYLES.items())}
    return {model: known.get(model, other) for model, (_, other, _) in zip(models, cycle(RUN_STYLES))}


def overrun_by_window(summary: pd.DataFrame, problem_set: str) -> Figure:
    """Share of completions whose thinking the window cut."""
    figure, [axis] = make_axes()
    whole = summary[(summary.problem_set == problem_set) & (summary.level == "all")]
    for (model, policy), (label, colour, marker, dashes) in styles_of(summary).items():
        rows = whole[(whole.model == model) & (whole.policy == policy)].sort_values("window")
        if policy in policies_by_name() and not CONTROLS.match(policy) and len(rows):
            label = f"{label} (n={rows.n.max()})"
            axis.plot(rows.window, rows.overrun_rate, label=label, color=colour, marker=marker, linestyle=dashes)
    axis.set(xlabel="window (tokens)", ylabel="share that overran", ylim=(-0.02, 1.02), title=problem_set)
    axis.legend(fontsize=8)
    return figure


def overthinking(firsts: dict[str, pd.DataFrame]) -> Figure:
    """Tokens of thinking up to the first right answer, and after it, by level (means over solved problems).

    A panel for each title and its `tables.first_correct`, one scale; levels with fewer than 10 solved are left out.
    """
    figure, axes = make_axes(len(firsts))
    tops = []
    for axis, (title, first) in zip(axes, firsts.items()):
        counts = first.level.value_counts()
        means = first[first.level.map(counts) >= FEWEST].groupby("level")[["first", "full"]].mean()
        axis.bar(means.index, means["first"], color="#0072B2", label="up to the first right answer")
        axis.bar(means.index, means["full"] - means["first"], bottom=means["first"], color="#E69F00", hatch="//",
                 edgecolor="white", label="after it")  # fmt: skip
        axis.set_xticks(means.index, [f"{level}\nn={counts[level]}" for level in means.index])
        axis.set(xlabel="complexity level", ylabel="mean thinking tokens", title=title)
        tops.append(axis.get_ylim()[1])
    for axis in axes:
        axis.set_ylim(0, max(tops))
    legend_below(figure, axes)
    return figure


def window_errors(errors: pd.DataFrame, title: str) -> Figure:
    """Accuracy by window, what an oracle would reach, and the two ways to be wrong (`analysis.window_errors`)."""
    figure, [axis] = make_axes()
    names = ["accuracy", "overthinking", "oracle", "underthinking"]
    for name, (marker, colour, dashes) in zip(names, RUN_STYLES):
        axis.plot(errors.window, errors[name], label=name, color=colour, marker=marker, linestyle=dashes)
    axis.set(xlabel="window (tokens)", ylabel="share of problems", ylim=(-0.02, 1.02), title=title)
    axis.legend(fontsize=8)
    return figure


def hints(table: pd.DataFrame) -> Figure:
    """Accuracy of the problems that the window cut, by hint, a panel a set and window (`tables.compare_hints`).

    A window that cut fewer than 10 of a set has no panel, unless that is all there is.
    """
    groups = list((table if table.n.max() < FEWEST else table[table.n >= FEWEST]).groupby(["problem_set", "window"]))
    figure, axes = make_axes(len(groups), height=2.4)
    for axis, ((problem_set, window), rows) in zip(axes, groups):
        names = [HINT_NAMES.get(hint, hint) for hint in rows.hint]
        errors = [rows.accuracy - rows.accuracy_low, rows.accuracy_high - rows.accuracy]
        axis.errorbar(rows.accuracy, names, xerr=errors, fmt="o", color="#0072B2", capsize=3)
        axis.invert_yaxis()
        title = f"{problem_set.replace('_', ' ')}, window {window} (n={rows.n.max()} cut)"
        axis.set(xlabel="accuracy", title=title, xlim=(-0.02, 1.02))
    return figure


HINT_NAMES = {"shifted_window": "the paper's hint", "truncation": "none: cut"}


def printed_ablation(table: pd.DataFrame) -> Figure:
    """The paper's Table 2 with the intervals its sample sizes give (`published.printed_ablation`)."""
    groups = list(table.groupby("benchmark", sort=False))
    figure, axes = make_axes(len(groups), height=2.6)
    for axis, (benchmark, rows) in zip(axes, groups):
        errors = [rows["printed accuracy"] - rows.low, rows.high - rows["printed accuracy"]]
        axis.errorbar(rows["printed accuracy"], rows.subset, xerr=errors, fmt="o", color="0.3", capsize=3)
        axis.invert_yaxis()
        axis.set(xlabel="accuracy (%), as printed; bars ours", title=f"{BENCHMARKS[benchmark]} (n={rows.n.max()})")
    return figure


def transfer(summary: pd.DataFrame, problem_sets: list[str]) -> Figure:
    """Base and tuned models, left alone, on problems that are not code: points, so that a zero is seen."""
    rows = summary[(summary.policy == "unbounded") & (summary.level == "all") & summary.problem_set.isin(problem_sets)]
    models = list(dict.fromkeys(rows.model))
    figure, axes = make_axes(len(problem_sets), height=1.2 + 0.3 * len(models))
    for axis, name in zip(axes, problem_sets):
        part = rows[rows.problem_set == name].set_index("model").loc[models]
        errors = [part.accuracy - part.accuracy_low, part.accuracy_high - part.accuracy]
        axis.errorbar(part.accuracy, models, xerr=errors, fmt="o", color="#0072B2", capsize=3)
        axis.invert_yaxis()
        title = f"{name.replace('_', ' ')} (n={part.n.min()})"  # problems: the untrained model answers each once
        axis.set(xlabel="accuracy, no window", xlim=(-0.02, 1.02), title=title)
    return figure


def accuracy_by_run(trainings: pd.DataFrame) -> Figure:
    """Accuracy of every run left alone, a point a training and a bar at their mean (`tables.list_trainings`)."""
    groups = list(trainings.groupby("problem_set", sort=False))
    figure, axes = make_axes(len(groups), height=2.6)
    runs = list(dict.fromkeys(trainings.run))
    for axis, (name, part) in zip(axes, groups):
        for place, run in enumerate(runs):
            own = part[part.run == run]
            axis.plot(own.accuracy, [place] * len(own), "o", color="#0072B2", fillstyle="none", markersize=5)
            axis.plot([own.accuracy.mean()], [place], "|", color="black", markersize=14, markeredgewidth=2)
        axis.set_yticks(range(len(runs)), [run.replace("_", " ") for run in runs])
        axis.invert_yaxis()
        axis.set(xlabel="accuracy, no window", xlim=(-0.02, 1.02), title=f"{name.replace('_', ' ')} (n={part.n.max()})")
    return figure


def published_scaling(scaling: pd.DataFrame) -> Figure:
    """The paper's own scaling points (Table 6), as printed: it gives no intervals. n is the size of the benchmark.

    The last panel has what follows from them for the average: each model's point at its largest window.
    """
    figure, axes = make_axes(4, height=2.8)
    for axis, (benchmark, points) in zip(axes, scaling.groupby("benchmark", sort=False)):
        for (model, rows), marker in zip(points.groupby("model", sort=False), "os"):
            axis.plot(rows.average_thinking_tokens, rows.pass_at_1, marker=marker, label=model)
        title = f"{BENCHMARKS[benchmark]} (n={published.SIZES[benchmark]})"
        axis.set(xlabel="average thinking tokens, as printed", ylabel="pass@1 (%), as printed", title=title)
    average = published.average_points(scaling)
    for (model, row), marker in zip(average.iterrows(), "os"):
        axes[3].plot(row.average_thinking_tokens, row.pass_at_1, marker=marker, linestyle="", label=model)
    axes[3].set(xlabel="average thinking tokens, recomputed", ylabel="pass@1 (%), recomputed",
                xlim=(0, 1.2 * average.average_thinking_tokens.max()), ylim=(0, 100),
                title="mean of the three, largest window (n=3)")  # fmt: skip
    legend_below(figure, axes)
    return figure


def _tick_plainly(ticks) -> None:
    """1, 2, 5, 10, ... on a logarithmic axis, as plain numbers."""
    ticks.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ticks.set_major_formatter(StrMethodFormatter("{x:g}"))
    ticks.set_minor_locator(NullLocator())


def longer_or_wider(front: pd.DataFrame, axes_named: dict[str, str], n: int) -> Figure:
    """Accuracy against each of four costs: windows alone, samples alone, both. A light line is one window's votes.

    `front`: `wider.draw_front`; `axes_named`: its columns of costs and what they are called.
    """
    figure, axes = make_axes(len(axes_named), height=2.8)
    alone = [("longer", "#0072B2", "o", "-", "longer: one sample, more window"),
             ("wider", "#D55E00", "s", "-", "wider: more whole samples, voted")]  # fmt: skip
    whole, single = front.window.max(), front.n.min()
    for axis, (column, title) in zip(axes, axes_named.items()):
        for window, part in front[front.window < whole].groupby("window"):
            label = "both: votes of cut samples" if window == front.window.min() else None
            axis.plot(part[column], part.accuracy, color="0.7", marker=".", linewidth=0.8, label=label)
            axis.annotate(f"{window}", (part[column].iloc[-1], part.accuracy.iloc[-1]), fontsize=7, color="0.4")
        for way, colour, marker, dashes, label in alone:
            part = front[(front.n == single) if way == "longer" else (front.window == whole)]
            errors = [part.accuracy - part.low, part.high - part.accuracy]
            axis.errorbar(part[column], part.accuracy, errors, label=label, color=colour, marker=marker,
                          linestyle=dashes, capsize=2, elinewidth=0.8, markersize=5)  # fmt: skip
        axis.set(xlabel=title, ylabel="accuracy", xscale="log", ylim=(-0.02, 1.02))
        _tick_plainly(axis.xaxis)
    figure.suptitle(f"Accuracy for what an answer costs (n={n})", fontsize=10)
    legend_below(figure, axes)
    return figure


def reliability(rows: pd.DataFrame, scores: dict[str, str], bins: int = 10) -> Figure:
    """Share right against the score, in equally wide bins, a line a score: on the diagonal a score is what it says.

    `rows`: answers with the scores as columns; a point is as large as its bin.
    """
    figure, [axis] = make_axes(1, height=3.4)
    axis.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
    for (column, label), (marker, colour, dashes) in zip(scores.items(), RUN_STYLES):
        where = (rows[column] * bins).astype(int).clip(upper=bins - 1)
        points = rows.assign(score=rows[column], correct=rows.correct.astype(float)).groupby(where)
        means, sizes = points[["score", "correct"]].mean(), points.size()
        axis.plot(means.score, means.correct, color=colour, linestyle=dashes, linewidth=1, label=label)
        axis.scatter(means.score, means.correct, s=6 + 120 * sizes / sizes.sum(), color=colour, marker=marker)
    axis.set(xlabel="score", ylabel="share right", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.set_title(f"What a score is worth (n={len(rows)} answers)")
    legend_below(figure, [axis])
    return figure


def programs_by_share(table: pd.DataFrame) -> Figure:
    """How often each rule answers right, by the share of right programs in the pool; wrong ones alike, and different.

    `table`: `programs.compare`. The dotted line is one program drawn at random.
    """
    groups = list(table.groupby("wrong ones", sort=False))
    figure, axes = make_axes(len(groups), height=3.2)
    for axis, (wrong, part) in zip(axes, groups):
        shown = [name for name in part.rule.unique() if name not in ("anyone", "oracle")]
        for name, (marker, colour, dashes) in zip(shown, RUN_STYLES):
            own = part[part.rule == name]
            errors = [own.accuracy - own.low, own.high - own.accuracy]
            axis.errorbar(own["share right"], own.accuracy, errors, color=colour, marker=marker, linestyle=dashes,
                          capsize=2, linewidth=1, markersize=5, label=name.replace("_", " "))  # fmt: skip
        chance = part[part.rule == "anyone"]
        axis.plot(chance["share right"], chance.accuracy, color="0.5", linestyle=":", label="any one program")
        axis.set(xlabel="share of right programs", ylabel="right answers", xlim=(0, 0.8), ylim=(-0.02, 1.05))
        axis.set_title(f"wrong programs {wrong} (n={part.n.max()} problems)")
    legend_below(figure, axes)
    return figure


def clusters(table: pd.DataFrame, labels: list[int], answer: int) -> Figure:
    """How far programs lie from one another, as a heat map in the order of their clusters; the answer is starred.

    `table`: the share of inputs on which two differ, with the programs' kinds as names.
    """
    order = sorted(range(len(labels)), key=lambda i: (labels[i], i != answer))
    places = {-1: "crashes"}  # a cluster of its own, see `selection.behaviour`
    names = [f"{'★ ' if i == answer else ''}{table.index[i]} ({places.get(labels[i], labels[i])})" for i in order]
    figure, [axis] = make_axes(1, height=4.2)
    drawn = table.iloc[order, order].set_axis(names).set_axis(names, axis=1)
    sns.heatmap(
        drawn, vmin=0, vmax=1, cmap="mako_r", ax=axis, square=True, cbar_kws={"label": "share of inputs that differ"}
    )
    axis.set_title("programs by what they do: kind (cluster), ★ the answer", fontsize=9)
    axis.tick_params(labelsize=7)
    return figure


def recall_by_layer(recalls: pd.DataFrame, budget: int) -> Figure:
    """The share of the wanted positions that each selection finds, layer by layer, at one budget; dotted: chance."""
    figure, [axis] = make_axes(1, height=3.2)
    rows = recalls[recalls.budget == budget]
    for (select, part), (marker, colour, dashes) in zip(rows.groupby("select", sort=False), RUN_STYLES):
        means = part.groupby("layer").recall.mean()
        axis.plot(means.index, means, color=colour, marker=marker, markersize=3, linestyle=dashes, label=select)
    chance = rows.groupby("layer").chance.mean()
    axis.plot(chance.index, chance, color="0.5", linestyle=":", label="chance")
    axis.set(xlabel="layer", ylabel="recall", ylim=(-0.02, 1.02))
    axis.set_title(
        f"Wanted positions that are chosen (budget {budget}, n={rows.problem_id.nunique()} traces)", fontsize=10
    )
    legend_below(figure, [axis])
    return figure


def cheaper(table: pd.DataFrame) -> Figure:
    """Accuracy against positions read a layer, and against eFLOPs: a line a selection, dense attention as a star.

    `table`: `analysis.cheaper.compare`, at the largest window; a row of panels a length of problems.
    """
    table = table[table.window == table.window.max()]
    axes_named = {"attended": "positions read", "billion eFLOPs": "billion eFLOPs"}
    lengths = list(table.groupby("length", sort=False))
    figure, axes = make_axes(2 * len(lengths), height=2.8)
    panels = [(length, part, *named) for length, part in lengths for named in axes_named.items()]
    for axis, (length, part, column, title) in zip(axes, panels):
        dense = part[part["select"] == "dense"]
        axis.errorbar(dense[column], dense.accuracy, [dense.accuracy - dense.low, dense.high - dense.accuracy],
                      fmt="*", color="black", markersize=10, capsize=2, label="dense")  # fmt: skip
        sparse = part[part["select"] != "dense"].groupby("select", sort=False)
        for (select, own), (marker, colour, dashes) in zip(sparse, RUN_STYLES):
            errors = [own.accuracy - own.low, own.high - own.accuracy]
            axis.errorbar(own[column], own.accuracy, errors, color=colour, marker=marker, linestyle=dashes,
                          label=select, capsize=2, linewidth=1, elinewidth=0.6, markersize=4)  # fmt: skip
        axis.set(xlabel=title, ylabel="accuracy", xscale="log", ylim=(-0.02, 1.02))
        axis.set_title(f"{length} prompts (n={part.n.max()})", fontsize=9)
        _tick_plainly(axis.xaxis)
    legend_below(figure, axes)
    return figure

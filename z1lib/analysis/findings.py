"""What the notebook says under its figures: sentences that take every number, and their verdict, from the data."""

import pandas as pd

from z1lib import published
from z1lib.analysis.tables import curve, first_correct, hint_gain, problem_table
from z1lib.stats import (
    Interval,
    bootstrap_interval,
    bootstrap_means,
    mean_interval,
    paired_bootstrap,
    paired_tests,
    percentile_interval,
    problems_needed,
)

LEVEL = 0.05  # of every test, after Holm's correction over its family


def verdict(gain: Interval, p: float, words: tuple[str, str, str] = ("better", "worse", "not shown to differ")) -> str:
    """Which way a difference goes, if its corrected test says that it is more than chance."""
    return words[2] if p > LEVEL else words[0] if gain.estimate > 0 else words[1]


def say_curves(
    frame: pd.DataFrame, summary: pd.DataFrame, model: str, policy: str, problem_sets: list[str], draws: int, seed: int
) -> str:
    """Does accuracy rise from the smallest window to the largest? One test a problem set, one family."""
    ends = {name: curve(summary, model, policy, name).iloc[[0, -1]] for name in problem_sets}
    tables = {name: problem_table(frame[frame.problem_set == name], model, policy, "correct") for name in problem_sets}
    pairs = [(table.iloc[:, -1], table.iloc[:, 0]) for table in tables.values()]
    lines = []
    for (name, rows), pair, p in zip(ends.items(), pairs, paired_tests(pairs, draws, seed)):
        gain, (low, high) = paired_bootstrap(*pair, draws, seed), rows.itertuples()
        lines.append(
            f"**Measured.** Under `{policy}` the accuracy of `{model}` on `{name}` "
            f"{verdict(gain, p, ('rises', 'falls', 'does not clearly rise'))} with the window: from {_share(low)} at a "
            f"window of {low.window} to {_share(high)} at {high.window}, a paired difference of {gain} (n = {high.n}, "
            f"{say_p(p, _test(frame))})."
        )
    return "\n\n".join(lines)


def say_p(p: float, test: str) -> str:
    return f"{'p < 0.001' if p < 0.001 else f'p = {p:.3f}'} ({test})"


def _test(frame: pd.DataFrame) -> str:
    """The name of what `stats.paired_tests` does with one sample a problem, or with means over several."""
    return f"{'McNemar' if frame['sample'].nunique() == 1 else 'paired bootstrap'}, Holm-corrected"


def _share(row: pd.Series) -> str:
    return f"{row.accuracy:.2f} [{row.accuracy_low:.2f}, {row.accuracy_high:.2f}]"


def say_hint(frame: pd.DataFrame, model: str, problem_set: str, draws: int, seed: int) -> str:
    frame = frame[frame.problem_set == problem_set]
    lines = []
    for control, words in [("truncation", "cut at the window"), ("truncation_matched", "cut at the same total tokens")]:
        gains = hint_gain(frame, model, control, draws, seed)
        often = list(gains[gains.overran > 0.2].itertuples())
        ahead = [row for row in often if row.gain.estimate > 0]
        surely = sum(verdict(row.gain, row.p) == "better" for row in ahead)
        span = ", ".join(f"{row.window}: {_signed(row.gain)}" for row in often)
        lines.append(
            f"* Against the trace {words}: the hint is ahead at {len(ahead)} of the {len(often)} windows that more "
            f"than 20% overrun, at {surely} of them by more than chance ({_test(frame)}: p at most {LEVEL}): "
            f"{span or 'none'}."
        )
    return "**The hint.** Accuracy with it minus accuracy of the control, paired by problem.\n" + "\n".join(lines)


def _signed(gain: Interval) -> str:
    if gain.is_degenerate:
        return "the same on every problem" if not gain.estimate else f"{gain.estimate:+.2f} on every problem"
    return f"{gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def say_levels(frame: pd.DataFrame, model: str, draws: int, seed: int) -> str:
    rows = frame[(frame.model == model) & (frame.policy == "unbounded")]
    lines = []
    for name, part in rows.groupby("problem_set", sort=False):
        levels = dict(list(part.groupby("level")))
        shown = ", ".join(
            f"level {level}: {_mean_tokens(one, draws, seed)} (n = {len(one)}, accuracy {one.correct.mean():.2f})"
            for level, one in levels.items()
        )
        line = f"* {name}: {shown}"
        if len(levels) > 1:
            times = _ratio_of_levels(levels[min(levels)], levels[max(levels)], draws, seed)
            line += f"; the most complex takes {times} times the tokens of the simplest"
        lines.append(line + ".")
    return f"**Measured.** Mean thinking tokens of `{model}` without a window:\n" + "\n".join(lines)


def _mean_tokens(rows: pd.DataFrame, draws: int, seed: int) -> str:
    interval = mean_interval(rows.groupby("problem_id").thinking_tokens.mean(), draws, seed)
    return f"{interval.estimate:.0f} [{interval.low:.0f}, {interval.high:.0f}]"


def _ratio_of_levels(simple: pd.DataFrame, complex_: pd.DataFrame, draws: int, seed: int) -> Interval:
    """The two levels hold different problems, so each is drawn by itself."""
    means = [part.groupby("problem_id").thinking_tokens.mean().to_numpy() for part in (simple, complex_)]
    low, high = (bootstrap_means(values[:, None], draws, seed + i)[:, 0] for i, values in enumerate(means))
    return percentile_interval(means[1].mean() / means[0].mean(), high / low)


def say_overthinking(frame: pd.DataFrame, pairs: list[tuple[str, str]], draws: int, seed: int) -> str:
    lines = []
    for model, policy in pairs:
        first = first_correct(frame, model, policy)
        if first.empty:
            lines.append(f"* `{model}` solved nothing at its largest window.")
            continue
        solved = first.groupby("problem_id")[["first", "full"]].mean()
        after = bootstrap_interval(solved.to_numpy(), lambda means: 1 - means[:, 0] / means[:, 1], draws, seed)
        lines.append(
            f"* `{model}`: {after} of the thinking on {len(solved)} solved problems came after the first right answer."
        )
    return "**Measured.** Share of the thinking, with its interval over problems:\n" + "\n".join(lines)


def say_errors(frame: pd.DataFrame, errors: pd.DataFrame, model: str, policy: str, draws: int, seed: int) -> str:
    """From `analysis.window_errors`: where cutting costs more than it saves, and what an oracle would gain."""
    correct = problem_table(frame, model, policy, "correct")
    worst = errors.loc[errors.overthinking.idxmax()]
    last, best, first = correct.iloc[:, -1], correct.max(axis=1), correct.iloc[:, 0]

    def share(values: pd.Series) -> Interval:
        return mean_interval(values, draws, seed)

    early, late = (last - first).clip(lower=0), (correct[int(worst.window)] - last).clip(lower=0)
    return (
        f"**Measured.** At the smallest window a share of {share(early)} is cut too early for `{model}`: wrong there, "
        f"right at the largest. The other way round, right early and wrong at the largest, are at most "
        f"{share(late)} (window {worst.window:.0f}). An oracle that knows which window is right would gain "
        f"{paired_bootstrap(best, last, draws, seed)} on {share(last)}, lucky guesses included (n = {len(last)})."
    )


def say_before(frame: pd.DataFrame, model: str) -> str:
    """Answers that stood in the thinking before the hint: what the hint did to them, cut by cut."""
    rows = frame[(frame.model == model) & (frame.policy == "shifted_window") & frame.before_correct.notna()]
    right = rows[rows.before_correct.astype(bool)]
    if right.empty:
        return f"**Measured.** No trace of `{model}` that a window cut held a right answer before the hint."
    spoiled = int((~right.correct).sum())
    return (
        f"**Measured.** In {len(right)} cuts of traces of `{model}` (a trace counts once for every window that cut it) "
        f"the right answer stood before the hint already; after it the answer was wrong in {spoiled} of them."
    )


def say_hints(frame: pd.DataFrame, table: pd.DataFrame) -> str:
    """From `analysis.compare_hints`: does the wording matter, and does any hint?"""
    lines = []
    for row in table[table.hint != "shifted_window"].itertuples():
        name = "no hint at all" if row.hint == "truncation" else f"`{row.hint.removeprefix('hint: ')}`"
        lines.append(
            f"* window {row.window}, {name}: {_signed(row.gain)} against the paper's hint, "
            f"{say_p(row.p, _test(frame))}, on {row.n} problems: {verdict(row.gain, row.p)}."
        )
    return "**Measured.**\n" + "\n".join(lines)


def say_power(accuracy: float, n: int) -> str:
    """How many problems a difference takes, and what the number at hand can show (80% power, two-sided 5%)."""
    wanted = {points: problems_needed(points / 100, accuracy) for points in (2, 5, 10) if accuracy + points / 100 < 1}
    shown = ", ".join(f"{points} points {count:,}" for points, count in wanted.items())
    return (
        f"**Computed.** From an accuracy of {accuracy:.2f}, two models that agree no more than by chance need this "
        f"many problems for 80% power: {shown or 'no such difference fits'}. Here are {n}. Models that agree on most "
        "problems need fewer, which is why everything above is paired."
    )


def say_ratio(accuracy: float, ratio: Interval, n: int, model: str, rival: str) -> str:
    """From `efficiency.iso_accuracy_interval`: who needs fewer tokens, if the interval says so."""
    if ratio.is_degenerate:
        needs = "every draw is alike, so nothing is shown"
    elif ratio.high < 1:
        needs = f"`{model}` needs fewer thinking tokens"
    elif ratio.low > 1:
        needs = f"`{model}` needs more thinking tokens"
    else:
        needs = "the interval holds 1, so neither is shown to need fewer"
    return (
        f"**Measured.** At an accuracy of {accuracy:.2f}, the highest both reach, `{model}` thinks {ratio} times "
        f"as many tokens as `{rival}` (n = {n}): {needs}. In {ratio.undefined:.0%} of the bootstrap draws one of the "
        f"two does not reach it; they are in the interval, as 0 where only `{rival}` does not."
    )


def say_transfer(frame: pd.DataFrame, model: str, problem_sets: list[str], draws: int, seed: int) -> str:
    pairs = []
    for name in problem_sets:
        part = frame[frame.problem_set == name]
        tables = {who: problem_table(part, who, "unbounded", "correct").iloc[:, 0] for who in ("base", model)}
        shared = tables["base"].index.intersection(tables[model].index)
        pairs.append((tables[model][shared], tables["base"][shared]))
    lines = []
    for name, pair, p in zip(problem_sets, pairs, paired_tests(pairs, draws, seed)):
        gain = paired_bootstrap(*pair, draws, seed)
        lines.append(
            f"* {name}: tuned minus base {_signed(gain)}, {say_p(p, _test(frame))}, on {len(pair[0])} problems: "
            f"{verdict(gain, p)}."
        )
    return f"**Measured.** `{model}` against the base model, no window:\n" + "\n".join(lines)


def say_paper(scaling: pd.DataFrame) -> str:
    """The paper's claim beside what its own points give."""
    ratios, average = published.recompute_ratios(scaling), published.average_points(scaling).average_thinking_tokens
    headline = average["Z1-7B"] / average["R1-Distill-Qwen-7B"]
    shown = ", ".join(f"{row.ratio:.0%} on {row.benchmark} (at {row.accuracy})" for row in ratios.itertuples())
    return (
        "**Recomputed from the printed points.** Thinking tokens of Z1-7B over those of R1-Distill-Qwen-7B at the "
        f"highest accuracy both reach: {shown}; of the two points that the paper's first figure sets side by side, "
        f"{headline:.0%}. The abstract says about 30%."
    )


def say_published_errors(*names: str) -> str:
    """Rows of the paper's error list (`published.load("errors")`), for beside the claims they touch."""
    errors = published.load("errors").set_index("id").loc[list(names)]
    lines = [f"* {row.where}: {row.printed}. **Holds:** {row.follows}. {row.why}" for row in errors.itertuples()]
    return "**Does not hold as printed.**\n" + "\n".join(lines)

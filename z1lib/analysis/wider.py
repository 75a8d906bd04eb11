"""Longer or wider: what windows, samples and rules over them give for the same cost, from one pool.

The sample is the problem: everything is averaged over a problem's samples, orders and seeds first, and intervals are
over problems. A threshold is fitted on one half of the problems and tested on the other, both ways round.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from z1lib.analysis.tables import join
from z1lib.cost import Cost, count_eflops, count_money
from z1lib.profile import Calibrated
from z1lib.records import Completion, Confidence, Grade, Problem, Shape
from z1lib.selection import (
    AdaptiveVote,
    BestOf,
    FirstAgreeing,
    FirstConfident,
    Oracle,
    ShortestOf,
    Vote,
    WeightedVote,
    calibrate,
)
from z1lib.selection.calibration import count_wrong_stops, find_safe, levels_of
from z1lib.selection.pool import SPENT, replay_priced
from z1lib.selection.rules import Rule
from z1lib.stats import (
    BadAnalysis,
    Interval,
    auroc,
    bootstrap_interval,
    brier_score,
    calibration_error,
    count_pairs,
    mean_interval,
    paired_bootstrap,
    platt_scaling,
    tokens_at,
)

SCORES = {"yes": "P(Yes)", "mean": "mean likelihood", "weakest": "weakest group", "share": "share of votes"}
FREE = ("mean", "weakest")  # known from decoding; P(Yes) is asked for
AXES = {
    "decoded": "decoded tokens",
    "eflops": "billion eFLOPs",
    "money": "US$ per 1,000 answers",
    "depth": "tokens in a row",
}
ORDERS = 20  # in which the samples of a problem may come


def make_pool(
    problems: list[Problem], samples: list[Completion], grades: list[Grade], confidences: list[Confidence]
) -> pd.DataFrame:
    """`tables.join` of a pool, with its scores, what asking fed, and `draw`, the number of the seed of sampling.

    `share` is the share of a problem's samples, at its window and of its draw, that give the same answer; 0 of none.
    Raises BadAnalysis as `join` does, and for samples without a score.
    """
    seeds = sorted({one.seed for one in samples})
    most = 1 + max((one.sample for one in samples), default=0)
    distinct = [replace(one, sample=seeds.index(one.seed) * most + one.sample) for one in samples]
    frame = join(problems, distinct, grades)
    rated = {one.completion: one for one in confidences}
    if missing := [one for one in samples if one.key not in rated]:
        raise BadAnalysis(f"{len(missing)} samples have no score, such as one of problem {missing[0].problem_id!r}")
    frame["key"] = [one.key for one in samples]
    columns = ("yes", "mean", "weakest", "question_tokens")
    scores = pd.DataFrame([[getattr(rated[one.key], name) for name in columns] for one in samples], columns=columns)
    frame = pd.concat([frame, scores], axis=1).assign(draw=frame["sample"] // most)
    groups = frame.groupby(["model", "problem_id", "window", "draw"])
    same = frame.groupby(["model", "problem_id", "window", "draw", frame.answer.fillna("")]).answer.transform("size")
    return frame.assign(share=(same / groups.answer.transform("size")).where(frame.answer.notna(), 0.0))


def count_samples(pool: pd.DataFrame) -> int:
    """How many samples every problem has, at every window and in every draw."""
    return int(pool.groupby(["problem_id", "window", "draw"]).size().min())


def take(pool: pd.DataFrame, window: int | None = None, score: str | None = None) -> pd.DataFrame:
    """The pool at one window, with one of SCORES as what rules go by; only P(Yes) is paid for."""
    rows = pool if window is None else pool[pool.window == window]
    if score is None:
        return rows.drop(columns="question_tokens", errors="ignore")
    return rows.assign(score=rows[score], question_tokens=rows.question_tokens * (score not in FREE))


def replay_draws(
    pool: pd.DataFrame, rule: Rule, along: str = "sample", orders: int = ORDERS, seed: int = 0
) -> pd.DataFrame:
    """`replay` of every draw by itself, a row a problem: the means of `correct` and of what was spent."""
    parts = [replay_priced(part, rule, along, orders, seed) for _, part in pool.groupby("draw")]
    rows = pd.concat([costs.assign(problem_id=rows.problem_id, correct=rows.correct) for rows, costs in parts])
    return rows.astype({"correct": float}).groupby("problem_id", sort=False)[["correct", *SPENT]].mean()


def replay_one(pool: pd.DataFrame) -> pd.DataFrame:
    """`replay_draws` of one sample, the mean of all."""
    return replay_draws(pool.assign(draw=pool["sample"]), Vote(1), orders=1)


def price(spent: pd.DataFrame, shape: Shape) -> dict[str, float]:
    """The four costs of an answer, from the mean of what was spent."""
    mean = spent[SPENT].mean()
    cost = Cost(mean.prefilled, mean.decoded, mean.attended, depth=mean.depth)
    eflops = count_eflops(cost, shape) / 1e9
    return {"decoded": cost.decoded, "eflops": eflops, "money": count_money(cost), "depth": cost.depth}


def draw_front(pool: pd.DataFrame, shape: Shape, resamples: int, seed: int) -> pd.DataFrame:
    """Accuracy with its interval and the four costs of windows alone, samples alone, and both.

    Columns: `way`, window, n, accuracy, low, high, AXES. A window alone is one sample under it, the mean of all.
    """
    windows, most = sorted(pool.window.unique()), count_samples(pool)
    counts = [1, *(n for n in (2, 4, 8, 16) if n <= most)]
    rows = []
    for window in windows:
        for n in counts:
            cut = take(pool, window)
            spent = replay_one(cut) if n == 1 else replay_draws(cut, Vote(n), seed=seed)
            accuracy = mean_interval(spent.correct, resamples, seed)
            way = "longer" if n == 1 else "wider" if window == windows[-1] else "both"
            rows.append((way, window, n, accuracy.estimate, accuracy.low, accuracy.high, *price(spent, shape).values()))
    return pd.DataFrame(rows, columns=["way", "window", "n", "accuracy", "low", "high", *AXES])


def beside_whole(pool: pd.DataFrame, resamples: int, seed: int) -> tuple[int, int, Interval] | None:
    """One whole sample minus the most accurate vote of cut samples that costs no more: (window, samples, gain), paired.

    The vote is chosen by what it gets right here, which favours it. None where no vote is as cheap.
    """
    whole = replay_one(take(pool, pool.window.max()))
    found = []
    for window in sorted(pool.window.unique())[:-1]:
        cut = take(pool, window)
        for n in range(2, count_samples(cut) + 1):
            vote = replay_draws(cut, Vote(n), seed=seed)
            if vote.decoded.mean() > whole.decoded.mean():
                break
            found.append((vote.correct.mean(), window, n, vote.correct))
    if not found:
        return None
    _, window, n, correct = max(found, key=lambda one: one[0])
    return window, n, paired_bootstrap(whole.correct, correct.loc[whole.index], resamples, seed)


def gains_by_level(pool: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """`gains_of_votes` of as many samples as there are, level by level."""
    parts = [gains_of_votes(part, resamples, seed).tail(1).assign(level=level) for level, part in pool.groupby("level")]
    return pd.concat(parts).set_index("level").reset_index()


def gains_of_votes(pool: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Vote minus one sample, oracle minus vote, at the largest window, by the number of samples; paired intervals."""
    rows = take(pool, pool.window.max())
    one = replay_one(rows).correct
    found = []
    for n in (2, 4, 8):
        if n <= count_samples(rows):
            vote, best = (replay_draws(rows, rule, seed=seed).correct for rule in (Vote(n), Oracle(n)))
            gain, left = (paired_bootstrap(*pair, resamples, seed) for pair in ((vote, one), (best, vote)))
            found.append((n, one.mean(), vote.mean(), best.mean(), gain, left))
    columns = ["n", "one sample", "vote", "oracle", "vote - one", "oracle - vote"]
    return pd.DataFrame(found, columns=columns)


def rules_of(n: int, most: int) -> list[tuple[str | None, Rule]]:
    """(score, rule) of every rule that is compared: of n samples, or of up to `most` where it may stop early."""
    scored = [(score, rule(n)) for score in ("yes", "mean", "weakest") for rule in (WeightedVote, BestOf)]
    stopping = [(score, FirstConfident(budget=most)) for score in ("yes", "mean", "weakest")]
    voting = [(score, AdaptiveVote(budget=most)) for score in (None, "mean")]
    plain = [(None, FirstAgreeing(2, most, votes=True)), (None, ShortestOf(1 + n // 2, n))]
    return [*scored, *stopping, *voting, *plain]


def compare_rules(pool: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Each rule beside the vote at the same mean number of decoded tokens, at up to three costs.

    The costs are those of the vote of 2, 4 and 8 samples. A rule with a threshold has it fitted to the cost on half of
    the problems and is tested on the others, both ways round; it is left out where no threshold is cheap enough.
    Between two whole numbers of samples the vote is the mixture of both that costs as much. `minus vote` is paired by
    problem.
    """
    rows = take(pool, pool.window.max())
    most = count_samples(rows)
    votes = {n: replay_draws(rows, Vote(n), seed=seed) if n > 1 else replay_one(rows) for n in range(1, most + 1)}
    halves = split(rows.problem_id.unique(), seed)
    found = []
    for n in [n for n in (2, 4, 8) if n <= most]:
        spend = votes[n].decoded.mean()
        for score, rule in rules_of(n, most):
            try:
                spent = _test(take(pool, pool.window.max(), score), rule, spend, halves, seed)
            except BadAnalysis:
                continue
            beside = mix(votes, spent.decoded.mean())
            gain = paired_bootstrap(spent.correct, beside.loc[spent.index], resamples, seed)
            score_name = SCORES.get(score, "none")
            found.append(
                (n, rule.name, score_name, spent.correct.mean(), spent.decoded.mean(), spent.depth.mean(), gain)
            )
    columns = ["cost of vote of", "rule", "score", "accuracy", "decoded", "depth", "minus vote"]
    return pd.DataFrame(found, columns=columns)


def _test(
    own: pd.DataFrame, rule: Rule, spend: float, halves: Sequence[set[str]], seed: int, along: str = "sample"
) -> pd.DataFrame:
    """What a rule spends and gets right; fitted on the first draw of one half of the problems, tested on the other."""
    orders = ORDERS if along == "sample" else 1
    if not hasattr(rule, "tuned"):
        return replay_draws(own, rule, along, orders, seed)
    first, parts = own[own.draw == own.draw.min()], []
    for held, tested in (halves, halves[::-1]):
        fitted = calibrate(first, rule, held, spend, along, orders, seed)
        parts.append(replay_draws(own[own.problem_id.isin(tested)], fitted, along, orders, seed))
    return pd.concat(parts)


def split(names: Sequence[str], seed: int) -> tuple[set[str], set[str]]:
    """Two halves of the problems, drawn by seed."""
    drawn = np.random.default_rng(seed).permutation(sorted(names))
    return set(drawn[: len(drawn) // 2]), set(drawn[len(drawn) // 2 :])


def mix(votes: dict[int, pd.DataFrame], decoded: float) -> pd.Series:
    """By problem the accuracy of the vote that costs so many decoded tokens on average: a mixture of two of `votes`.

    Beyond the cheapest and the dearest it is that one.
    """
    costs = np.array([votes[n].decoded.mean() for n in votes])
    above = int(np.clip(np.searchsorted(costs, decoded), 1, len(costs) - 1)) if len(costs) > 1 else 0
    below = max(above - 1, 0)
    weight = float(np.clip((decoded - costs[below]) / max(costs[above] - costs[below], 1e-9), 0, 1))
    tables = list(votes.values())
    return (1 - weight) * tables[below].correct + weight * tables[above].correct


def calibration(pool: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """What each score is worth, at the largest window: ECE, Brier, and AUROC over all and within questions.

    The rows "after Platt" have a logistic map fitted on half of the problems and tested on the others, both ways round:
    it may repair the first two and hardly moves a ranking. AUROC within has its interval over problems.
    """
    rows, found = pool[pool.window == pool.window.max()], []
    for score, name in SCORES.items():
        for shown, scores in ((name, rows[score]), (f"{name}, after Platt", map_by_platt(rows, score, seed))):
            pairs = count_pairs(scores, rows.correct, rows.problem_id)
            within = bootstrap_interval(pairs, _share, resamples, seed)
            measures = [measure(scores, rows.correct) for measure in (calibration_error, brier_score, auroc)]
            found.append((shown, len(rows), *measures, within))
    return pd.DataFrame(found, columns=["score", "n", "ECE", "Brier", "AUROC over all", "AUROC within a question"])


def _share(means: np.ndarray) -> np.ndarray:
    """The first column as a share of the second; NaN where there is nothing to share."""
    with np.errstate(invalid="ignore"):
        return means[:, 0] / means[:, 1]


def map_by_platt(rows: pd.DataFrame, score: str, seed: int) -> pd.Series:
    """The scores through `stats.platt_scaling`, of each half of the problems by a curve of the other's."""
    mapped = rows[score].astype(float)
    halves = split(rows.problem_id.unique(), seed)
    for held, tested in (halves, halves[::-1]):
        fit, rest = rows.problem_id.isin(held), rows.problem_id.isin(tested)
        mapped[rest] = platt_scaling(rows[score][fit], rows.correct[fit])(rows[score][rest])
    return mapped


def simulate_risk(
    pool: pd.DataFrame, score: str, risk: float, confidence: float, splits: int, seed: int
) -> dict[str, float]:
    """How often `limit_risk` keeps its word: over random halves of the problems, the share in which the threshold that
    is found safe on one half stops wrongly on at most a share `risk` of all problems.

    A half on which nothing can be shown takes no threshold, draws all samples and counts as kept.
    """
    rows = take(pool, pool.window.max(), score)
    rows = rows[rows.draw == rows.draw.min()]
    most = count_samples(rows)
    rule = FirstConfident(budget=most)
    levels = levels_of(rows, rule)[::-1]
    levels = levels[np.unique(np.linspace(0, len(levels) - 1, 200).astype(int))]
    stops = count_wrong_stops(rows, rule, levels)
    rng = np.random.default_rng(seed)
    halves = [rng.permutation(stops.shape[1])[: stops.shape[1] // 2] for _ in range(splits)]
    safe = np.array([find_safe(stops[:, half], risk, confidence) for half in halves])
    kept = (safe == 0) | (stops.mean(axis=1)[safe - 1] <= risk)
    return {"splits": splits, "kept": kept.mean(), "no threshold": (safe == 0).mean()}


def exit_early(pool: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Rules along the windows of one sample: stop thinking where the model is sure, or where two answers agree.

    Thresholds are fitted as in `compare_rules`, to 0.75, 1, 1.25 and 1.5 times the tokens of a whole sample, which is
    what `minus whole` is paired with.
    """
    whole = replay_one(take(pool, pool.window.max()))
    halves, found = split(pool.problem_id.unique(), seed), []
    rules = [(None, 1.0, FirstAgreeing(2))]
    rules += [(score, share, FirstConfident()) for score in ("yes", "mean") for share in (0.75, 1.0, 1.25, 1.5)]
    for score, share, rule in rules:
        try:
            spent = _test(take(pool, None, score), rule, share * whole.decoded.mean(), halves, seed, along="window")
        except BadAnalysis:  # no threshold is cheap enough
            continue
        gain = paired_bootstrap(spent.correct, whole.correct.loc[spent.index], resamples, seed)
        told = rule.name if score is None else f"{rule.name}, {SCORES[score]}, fitted to {share:g} of a whole sample"
        found.append((told, spent.correct.mean(), spent.decoded.mean(), whole.decoded.mean(), gain))
    return pd.DataFrame(found, columns=["rule", "accuracy", "decoded", "of a whole sample", "minus whole"])


def compare_models(everything: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """`calibration` of P(Yes) for every model of a pool: before and after a training that was to teach it."""
    tables = [calibration(part, resamples, seed).assign(model=model) for model, part in everything.groupby("model")]
    rows = pd.concat(tables)
    return rows[rows.score.str.startswith(SCORES["yes"])].set_index("model").reset_index()


def break_even(pool: pd.DataFrame, asked: Calibrated, seed: int) -> dict[str, float]:
    """After how many questions a calibration has paid for itself, in tokens as they are decoded.

    It took the samples, and a pass over every row forth and back, three times a token's work. It saves what a vote as
    right as stopping by P(Yes) costs more than that does, where thresholds are fitted to the cost of a vote of 4 or of
    all samples; `questions` is infinite where it saves nothing.
    """
    rows = take(pool, pool.window.max())
    most = count_samples(rows)
    votes = [replay_one(rows), *(replay_draws(rows, Vote(n), seed=seed) for n in range(2, most + 1))]
    spend = votes[min(4, most) - 1].decoded.mean()
    stopping = FirstConfident(budget=most)
    spent = _test(take(pool, pool.window.max(), "yes"), stopping, spend, split(rows.problem_id.unique(), seed), seed)
    curve = [(table.decoded.mean(), table.correct.mean()) for table in votes]
    same = tokens_at(curve, spent.correct.mean())
    each = rows.total_tokens.mean()
    read = each + pool.prompt_tokens.mean() + pool.question_tokens.mean()
    training = asked.problems * asked.n * each + 3 * asked.rows * asked.epochs * read
    saved = (same if same is not None else curve[-1][0]) - spent.decoded.mean()
    return {"training": training, "saved": saved, "questions": training / saved if saved > 0 else np.inf}

"""The statistics the paper lacks: intervals, paired comparisons, corrections, power. Arrays in, numbers out.

Intervals are 95%: Wilson's for a share, the paired bootstrap over problems for everything that compares. statsmodels
computes what it has; ours is the resampling by problem and, within it, by seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from scipy.stats import mannwhitneyu, nct, norm
from scipy.stats import t as student
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

Curve = list[tuple[float, float]]  # (average thinking tokens, accuracy)
SHARES = np.linspace(0.4, 0.8, 9)  # of the lower curve's top: where two curves are compared (docs/CLAIMS.md)


class BadAnalysis(ValueError):
    """The rows do not fit together; the message says which."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval; `undefined` is the share of bootstrap resamples in which it does not exist."""

    estimate: float | None
    low: float | None
    high: float | None
    undefined: float = 0.0

    @property
    def is_degenerate(self) -> bool:
        """Every resample gave one and the same number: the data say nothing about the spread."""
        return self.low == self.high

    def __str__(self) -> str:
        if self.estimate is None or self.low is None:
            return "not reached"
        if self.is_degenerate:
            return f"{self.estimate:.2f} (no spread, so no interval)"
        high = "not reached" if np.isinf(self.high) else f"{self.high:.2f}"
        return f"{self.estimate:.2f} [{self.low:.2f}, {high}]"


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval for a share (statsmodels); rounding may not put an end on the wrong side of the share."""
    if n < 1:
        raise BadAnalysis("a share of no problems has no interval")
    low, high = proportion_confint(successes, n, method="wilson")
    return min(low, successes / n), max(high, successes / n)


def bootstrap_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of (problems x columns) values over problems drawn with replacement: (resamples x columns).

    All columns of a draw share their problems, so differences and ratios of columns are paired.
    """
    values = np.asarray(values, dtype=float)
    n = len(values)
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return weights @ values / n


def bootstrap_two_levels(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means of (problems x seeds x columns) values: problems are drawn, and seeds within each: (resamples x columns).

    One seed, shared by all problems of a run, is one draw at the upper level: a training run.
    """
    values = np.asarray(values, dtype=float)
    problems, seeds, _ = values.shape
    rng = np.random.default_rng(seed)
    by_problem = rng.multinomial(problems, np.full(problems, 1 / problems), size=resamples) / problems
    by_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    return np.einsum("dp,ds,psc->dc", by_problem, by_seed, values, optimize=True)


def percentile_interval(estimate: float | None, resamples: np.ndarray) -> Interval:
    """The percentile interval of bootstrap resamples; undefined ones (NaN) are counted, not dropped in silence."""
    resamples = np.asarray(resamples, dtype=float)
    defined = resamples[~np.isnan(resamples)]
    undefined = 1 - len(defined) / len(resamples)
    if estimate is None or np.isnan(estimate) or not len(defined):
        return Interval(None, None, None, undefined)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Interval(float(estimate), float(low), float(high), undefined)


def paired_bootstrap(values, reference, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean difference of two values of the same problems, with its paired bootstrap interval.

    Raises BadAnalysis if the two differ in length, are empty or hold what is not a number. With one problem, or where
    all differences are the same, the interval is that one value (`Interval.is_degenerate`).
    """
    values, reference = _pair(values, reference)
    return mean_interval(values - reference, resamples, seed)


def mean_interval(values, resamples: int = 10_000, seed: int = 0) -> Interval:
    """The mean of one value a problem, with its bootstrap interval."""
    values = np.asarray(values, dtype=float)
    return percentile_interval(values.mean(), bootstrap_means(values[:, None], resamples, seed)[:, 0])


def _pair(values, reference) -> tuple[np.ndarray, np.ndarray]:
    values, reference = np.asarray(values, dtype=float), np.asarray(reference, dtype=float)
    if not values.size and not reference.size:
        raise BadAnalysis("no problems to compare")
    if values.shape != reference.shape or values.ndim != 1:
        raise BadAnalysis(f"paired values must be two equally long lists, got {values.shape} and {reference.shape}")
    if not (np.isfinite(values).all() and np.isfinite(reference).all()):
        raise BadAnalysis("paired values must be numbers, got some that are missing or infinite")
    return values, reference


def mcnemar_test(correct, reference) -> float:
    """The exact p-value of McNemar's test: do two policies differ in what they get right on the same problems?

    Raises BadAnalysis for what is not right (1) or wrong (0).
    """
    correct, reference = _pair(correct, reference)
    if not _is_binary(correct, reference):
        raise BadAnalysis("McNemar's test takes right and wrong answers, not means over samples")
    table = [[int(np.sum((correct == a) & (reference == b))) for b in (1, 0)] for a in (1, 0)]
    return float(mcnemar(table, exact=True).pvalue)


def _is_binary(*values) -> bool:
    return bool(np.isin(np.concatenate(values), [0, 1]).all())


def bootstrap_p(resamples: np.ndarray) -> float:
    """The two-sided p-value of a difference from its resamples: twice the smaller share on one side of zero."""
    resamples = np.asarray(resamples)
    sides = (np.sum(resamples <= 0) + 1, np.sum(resamples >= 0) + 1)
    return float(min(1, 2 * min(sides) / (len(resamples) + 1)))


def correct_family(p_values: list[float]) -> list[float]:
    """Holm's corrected p-values of a family of tests, in the same order."""
    return [] if not p_values else [float(p) for p in multipletests(p_values, method="holm")[1]]


def paired_tests(
    pairs: list[tuple[Sequence[float], Sequence[float]]], resamples: int = 10_000, seed: int = 0
) -> list[float]:
    """The p-values of a family of paired accuracies, Holm-corrected over the family.

    McNemar's where every answer is right or wrong; the paired bootstrap's where there are means over samples.
    """

    def test(values, reference) -> float:
        values, reference = _pair(values, reference)
        if _is_binary(values, reference):
            return mcnemar_test(values, reference)
        return bootstrap_p(bootstrap_means((values - reference)[:, None], resamples, seed)[:, 0])

    return correct_family([test(*pair) for pair in pairs])


def problems_needed(difference: float, accuracy: float, power: float = 0.8, agreement: float = 0.0) -> int:
    """How many problems it takes to see an accuracy difference in a paired two-sided test at 5%.

    `accuracy` is that of the reference. `agreement` (0 to 1) says how far the two agree beyond chance: 0 is two
    independent models, 1 two that differ only where one gained. Normal approximation to McNemar's test (Connor, 1987).
    """
    other = accuracy + difference
    if not 0 < abs(difference) < 1 or not 0 <= other <= 1:
        raise BadAnalysis(f"no such difference: {difference} from an accuracy of {accuracy}")
    independent = accuracy * (1 - other) + other * (1 - accuracy)
    discordant = agreement * abs(difference) + (1 - agreement) * independent
    upper, lower = norm.ppf(0.975), norm.ppf(power)
    n = (upper * np.sqrt(discordant) + lower * np.sqrt(discordant - difference**2)) ** 2 / difference**2
    return int(np.ceil(n))


def tokens_at(curve: Curve, accuracy: float) -> float | None:
    """The fewest tokens at which the piecewise-linear curve first reaches the accuracy; None if it never does.

    The points are taken by rising tokens; nothing is extrapolated: left of its first point a curve is undefined.
    """
    tokens, reached = (np.array([column]) for column in zip(*curve))
    found = tokens_at_each(tokens, reached, accuracy)[0]
    return None if np.isnan(found) else float(found)


def tokens_at_each(tokens: np.ndarray, reached: np.ndarray, accuracy: float | np.ndarray) -> np.ndarray:
    """`tokens_at` for many curves: (resamples x points) tokens and accuracies to (resamples,), NaN: not reached.

    `accuracy`: one for all, or one a curve.
    """
    tokens, reached = np.asarray(tokens, dtype=float), np.asarray(reached, dtype=float)
    order = np.argsort(tokens, axis=1, kind="stable")
    tokens, reached = np.take_along_axis(tokens, order, axis=1), np.take_along_axis(reached, order, axis=1)
    # Means summed in another order must not miss an accuracy by a rounding error.
    accuracy = np.broadcast_to(accuracy, len(tokens))
    at_least = reached >= accuracy[:, None] - 1e-12
    first = at_least.argmax(axis=1)
    rows = np.arange(len(tokens))
    before = np.maximum(first - 1, 0)
    rise = reached[rows, first] - reached[rows, before]
    share = np.divide(accuracy - reached[rows, before], rise, out=np.ones_like(rise), where=rise > 0)
    found = tokens[rows, before] + (tokens[rows, first] - tokens[rows, before]) * np.clip(share, 0, 1)
    return np.where(at_least.any(axis=1), found, np.nan)


def iso_accuracy_ratio(curve: Curve, reference_curve: Curve, accuracy: float) -> float | None:
    """Tokens of `curve` over tokens of `reference_curve` where each first reaches `accuracy`; None if one does not."""
    tokens, reference = tokens_at(curve, accuracy), tokens_at(reference_curve, accuracy)
    return None if tokens is None or not reference else tokens / reference


def mean_log_ratio(
    tokens: np.ndarray, reached: np.ndarray, other_tokens: np.ndarray, other_reached: np.ndarray
) -> np.ndarray:
    """Log of the tokens of curves over those of others at equal accuracy, its mean over `SHARES` of the lower top.

    All are (resamples x points), what returns is (resamples,); NaN where the lower curve gets nothing right. No one
    accuracy decides, and a plateau at the top, where tokens buy nothing, does not enter. Where a curve's first point
    is above an accuracy already, that point's tokens count.
    """
    top = np.minimum(reached.max(axis=1), other_reached.max(axis=1))
    ratios = [
        np.log(tokens_at_each(tokens, reached, share * top) / tokens_at_each(other_tokens, other_reached, share * top))
        for share in SHARES
    ]
    return np.where(top > 0, np.mean(ratios, axis=0), np.nan)


def demean_within(values, groups) -> np.ndarray:
    """Values minus the mean of their group: with it a slope is one within groups, each with its own intercept."""
    values, (_, places) = np.asarray(values, dtype=float), np.unique(groups, return_inverse=True)
    return values - (np.bincount(places, values) / np.bincount(places))[places]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error and the degrees of freedom of its t distribution."""

    value: float
    error: float
    df: float

    def interval(self) -> Interval:
        half = student.ppf(0.975, self.df) * self.error
        return Interval(self.value, float(self.value - half), float(self.value + half))

    def p_value(self, null: float = 0.0) -> float:
        """Of the two-sided test that it is `null`; 1 where nothing spreads, since nothing is known of chance then."""
        return float(2 * student.sf(abs(self.value - null) / self.error, self.df)) if self.error else 1.0

    def detectable(self, power: float = 0.8) -> float:
        """The distance from a null that this test, two-sided at 5%, sees with such a power."""
        bar = student.ppf(0.975, self.df)
        return float(self.error * brentq(lambda far: nct.sf(bar, self.df, far) - power, 0, 40 * bar))


def estimate_over_trainings(by_training, drawn: np.ndarray) -> Estimate:
    """The mean over two or more trainings, each measured on the same problems, for other trainings and other problems.

    `by_training`: an estimate each (trainings,); `drawn`: its bootstrap over problems (trainings x resamples), each
    draw of problems shared by all trainings. Their spread gives the classical t with trainings - 1 degrees of freedom.
    It knows nothing of what the problems have in common for all trainings: that variance is added, without the part
    that is in the spread already, and the degrees of freedom are Satterthwaite's. Raises BadAnalysis for fewer than
    two trainings.
    """
    by_training, drawn = np.asarray(by_training, dtype=float), np.asarray(drawn, dtype=float)
    count = len(by_training)
    if count < 2:
        raise BadAnalysis("one training has no spread over trainings")
    spread = by_training.var(ddof=1) / count
    of_mean, alone = drawn.mean(axis=0).var(ddof=1), drawn.var(axis=1, ddof=1).mean()
    shared = max(0.0, of_mean - (alone - of_mean) / (count - 1))
    if not spread:
        return Estimate(float(by_training.mean()), float(np.sqrt(shared)), count - 1)
    df = (spread + shared) ** 2 / (spread**2 / (count - 1))  # problems are many: theirs adds next to nothing
    return Estimate(float(by_training.mean()), float(np.sqrt(spread + shared)), float(df))


def prediction_interval(values, more_variance: float = 0.0) -> Interval:
    """Where one more draw should lie at 95%, from two or more (t); `more_variance` is what it has beyond theirs."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        raise BadAnalysis("one value says nothing about the next")
    error = np.sqrt(values.var(ddof=1) * (1 + 1 / len(values)) + more_variance)
    return Estimate(float(values.mean()), float(error), len(values) - 1).interval()


def area_under_curve(curve: Curve, low: float, high: float) -> float:
    """Mean accuracy over the logarithm of tokens from `low` to `high`; outside its points a curve stays level.

    One number for "more accuracy for fewer tokens", with no accuracy singled out. Raises BadAnalysis unless
    0 < low < high.
    """
    if not 0 < low < high:
        raise BadAnalysis(f"tokens must run from a positive number to a larger one, got {low} to {high}")
    tokens, reached = zip(*sorted(curve))
    inside = [token for token in tokens if low < token < high]
    grid = np.log([low, *inside, high])
    places = np.log(np.maximum(tokens, 1e-9))  # a point of no tokens lies left of all others
    return float(np.trapezoid(np.interp(grid, places, reached), grid) / (grid[-1] - grid[0]))


def pareto_front(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the (tokens, accuracy) points that no other beats in one of the two without losing in the other."""

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        return one != other and one[0] <= other[0] and one[1] >= other[1]

    return [i for i, point in enumerate(points) if not any(beats(other, point) for other in points)]


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int
) -> Interval:
    """The interval of a statistic of column means: (rows x columns) means to (rows,) numbers, NaN where undefined."""
    values = np.asarray(values, dtype=float)
    estimate = statistic(values.mean(axis=0, keepdims=True))[0]
    return percentile_interval(estimate, statistic(bootstrap_means(values, resamples, seed)))


def calibration_error(scores, correct, bins: int = 10) -> float:
    """The expected calibration error: |mean score - share right|, over equally wide bins, weighted by their answers.

    A score of exactly 1 is in the last bin. Raises BadAnalysis for what is no score or not right (1) or wrong (0).
    """
    scores, correct = _pair_scores(scores, correct)
    where = np.minimum((scores * bins).astype(int), bins - 1)
    sums = [np.bincount(where, values, bins) for values in (scores, correct)]
    return float(np.abs(sums[0] - sums[1]).sum() / len(scores))


def brier_score(scores, correct) -> float:
    """The mean squared difference between scores and what came true. Raises as `calibration_error` does."""
    scores, correct = _pair_scores(scores, correct)
    return float(np.mean((scores - correct) ** 2))


def auroc(scores, correct, groups=None) -> float | None:
    """The probability that a right answer has a higher score than a wrong one, ties counted half; None without a pair.

    `groups`: one label an answer; only pairs within a group count, which is what a rule that ranks the answers to one
    question lives on. Raises as `calibration_error` does.
    """
    above, pairs = count_pairs(scores, correct, np.zeros(len(scores)) if groups is None else groups).sum(axis=0)
    return float(above / pairs) if pairs else None


def count_pairs(scores, correct, groups) -> np.ndarray:
    """By group (groups, 2): pairs of a right and a wrong answer whose right one has the higher score, and all pairs."""
    scores, correct = _pair_scores(scores, correct)
    labels = np.unique(groups, return_inverse=True)[1]
    counts = []
    for label in range(labels.max() + 1):
        right, wrong = (scores[(labels == label) & (correct == value)] for value in (1, 0))
        higher = mannwhitneyu(right, wrong).statistic if len(right) and len(wrong) else 0.0
        counts.append((higher, len(right) * len(wrong)))
    return np.array(counts, dtype=float)


def platt_scaling(scores, correct) -> Callable[[np.ndarray], np.ndarray]:
    """A map of scores that makes them probabilities: a logistic curve of their log-odds, fitted by likelihood.

    It is monotone (rising, unless low scores are the right ones): it can repair a calibration error and changes no
    ranking. The targets are Platt's, which keep the fit finite where scores separate right from wrong. Raises as
    `calibration_error` does.
    """
    scores, correct = _pair_scores(scores, correct)
    right = correct.sum()
    targets = np.where(correct == 1, (right + 1) / (right + 2), 1 / (len(correct) - right + 2))

    def loss(parameters: np.ndarray) -> float:
        odds = parameters[0] * _log_odds(scores) + parameters[1]
        return float(np.sum(np.logaddexp(0, odds) - targets * odds))

    slope, offset = minimize(loss, [1.0, 0.0]).x
    return lambda other: expit(slope * _log_odds(np.asarray(other, dtype=float)) + offset)


def _log_odds(scores: np.ndarray) -> np.ndarray:
    return logit(np.clip(scores, 1e-15, 1 - 1e-15))  # what a model hardly ever says has a rank too


def _pair_scores(scores, correct) -> tuple[np.ndarray, np.ndarray]:
    scores, correct = _pair(scores, correct)
    if not _is_binary(correct) or scores.min() < 0 or scores.max() > 1:
        raise BadAnalysis("scores are from 0 to 1, and answers right (1) or wrong (0)")
    return scores, correct

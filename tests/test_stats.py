"""The statistics: hand-made cases, known truth, and agreement with scipy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from z1lib import stats
from z1lib.stats import BadAnalysis, auroc, brier_score, calibration_error, platt_scaling

POINTS = st.lists(st.tuples(st.integers(1, 200), st.integers(0, 20)), min_size=1, max_size=8, unique_by=lambda p: p[0])


def test_tokens_at_reads_the_line_and_extrapolates_nowhere():
    curve = [(10, 0.2), (20, 0.4), (40, 0.5)]
    assert stats.tokens_at(curve, 0.2) == 10
    assert stats.tokens_at(curve, 0.3) == pytest.approx(15)
    assert stats.tokens_at(curve, 0.45) == pytest.approx(30)
    assert stats.tokens_at(curve, 0.5) == 40
    assert stats.tokens_at(curve, 0.51) is None


def test_tokens_at_takes_the_first_time_a_curve_that_falls_again_reaches_it():
    assert stats.tokens_at([(10, 0.1), (20, 0.5), (30, 0.2), (40, 0.6)], 0.5) == 20


def test_the_points_may_come_in_any_order():
    assert stats.tokens_at([(40, 0.5), (10, 0.2), (20, 0.4)], 0.3) == pytest.approx(15)


def test_a_ratio_that_is_not_reached_is_none():
    assert stats.iso_accuracy_ratio([(1, 0.5)], [(1, 0.4)], 0.45) is None
    assert stats.iso_accuracy_ratio([(1, 0.4)], [(1, 0.5)], 0.45) is None


def test_the_paired_bootstrap_refuses_what_is_not_paired():
    with pytest.raises(stats.BadAnalysis, match="equally long"):
        stats.paired_bootstrap([1, 0], [1])
    with pytest.raises(stats.BadAnalysis, match="no problems to compare"):
        stats.paired_bootstrap([], [])
    with pytest.raises(stats.BadAnalysis, match="missing or infinite"):
        stats.paired_bootstrap([1, np.nan], [0, 1])
    with pytest.raises(stats.BadAnalysis, match="not means over samples"):
        stats.mcnemar_test([1, 0.5], [0, 1])


@pytest.mark.parametrize(("values", "reference"), [([1], [0]), ([1, 1], [0, 0]), ([1, 0], [0, -1])])
def test_one_problem_or_no_spread_gives_the_degenerate_interval_and_says_so(values, reference):
    interval = stats.paired_bootstrap(values, reference)
    assert (interval.estimate, interval.low, interval.high) == (1, 1, 1)
    assert interval.is_degenerate
    assert str(interval) == "1.00 (no spread, so no interval)"
    assert not stats.paired_bootstrap([1, 0, 1], [0, 0, 0]).is_degenerate


def test_draws_that_do_not_exist_are_counted():
    interval = stats.percentile_interval(0.5, [0.4, np.nan, 0.6, np.nan])
    assert interval.undefined == 0.5
    assert str(stats.percentile_interval(None, [np.nan])) == "not reached"


def test_the_bootstrap_is_paired_across_columns():
    values = np.random.default_rng(1).random((40, 1))
    resamples = stats.bootstrap_means(np.hstack([values, values + 3]), 200, seed=0)
    assert np.allclose(resamples[:, 1] - resamples[:, 0], 3)


@given(POINTS, st.integers(0, 20))
def test_many_curves_at_once_are_read_like_one(points, accuracy):
    """Against a plain reading: walk the line by rising tokens."""
    ordered, expected = sorted(points), None
    for i, (tokens, reached) in enumerate(ordered):
        if reached >= accuracy:
            before = ordered[i - 1] if i else None
            share = (accuracy - before[1]) / (reached - before[1]) if before else 1
            expected = before[0] + (tokens - before[0]) * share if before else tokens
            break
    found = stats.tokens_at(points, accuracy)
    assert (found is None) == (expected is None)
    assert found is None or found == pytest.approx(expected)


def test_the_mean_log_ratio_is_that_of_two_curves_read_accuracy_by_accuracy():
    curve, other = [(10, 0.1), (20, 0.5), (60, 0.8)], [(30, 0.2), (90, 0.7)]
    read = [stats.iso_accuracy_ratio(curve, other, share * 0.7) for share in stats.SHARES]
    columns = [np.array([column], dtype=float) for one in (curve, other) for column in zip(*one)]
    assert stats.mean_log_ratio(*columns)[0] == pytest.approx(np.mean(np.log(read)))
    assert stats.mean_log_ratio(*columns[2:], *columns[:2])[0] == pytest.approx(-np.mean(np.log(read)))


def test_a_curve_that_is_another_stretched_has_its_factor_as_ratio_and_a_curve_of_nothing_has_none():
    tokens, reached = np.array([[10.0, 20, 40], [5, 50, 60]]), np.array([[0.1, 0.5, 0.6], [0.2, 0.3, 0.9]])
    assert stats.mean_log_ratio(0.7 * tokens, reached, tokens, reached) == pytest.approx(np.log([0.7, 0.7]))
    assert np.isnan(stats.mean_log_ratio(tokens, 0 * reached, tokens, reached)).all()


def test_values_within_groups_keep_the_slope_of_a_regression_with_an_intercept_a_group():
    rng = np.random.default_rng(0)
    groups, x = rng.integers(3, size=60), rng.normal(size=60)
    y = 2 * x + 5 * groups + rng.normal(size=60)
    within = stats.demean_within(x, groups)
    columns = np.column_stack([x, np.eye(3)[groups]])
    assert within @ y / (within @ within) == pytest.approx(np.linalg.lstsq(columns, y)[0][0])


TRAININGS = [0.12, 0.20, 0.07, 0.15, 0.11]


def test_over_trainings_that_share_nothing_the_test_is_the_t_of_scipy():
    """Drawn problem by problem alone, a training's own error is in the spread already, and nothing is added."""
    drawn = np.array(TRAININGS)[:, None] + np.random.default_rng(0).normal(0, 0.03, size=(5, 4000))
    ours, scipys = stats.estimate_over_trainings(TRAININGS, drawn), scipy_stats.ttest_1samp(TRAININGS, 0.1)
    assert ours.p_value(0.1) == pytest.approx(scipys.pvalue, rel=0.05)
    low, high = scipys.confidence_interval()
    assert (ours.interval().low, ours.interval().high) == pytest.approx((low, high), rel=0.05)


def test_what_trainings_share_is_added_to_their_spread():
    drawn = np.array(TRAININGS)[:, None] + np.random.default_rng(0).normal(0, 0.05, size=4000)
    found = stats.estimate_over_trainings(TRAININGS, drawn)
    assert found.error**2 == pytest.approx(np.var(TRAININGS, ddof=1) / 5 + 0.05**2, rel=0.05)
    assert found.df > 4
    with pytest.raises(stats.BadAnalysis, match="no spread over trainings"):
        stats.estimate_over_trainings([0.1], drawn[:1])


def test_intervals_over_trainings_and_problems_cover_the_truth():
    """Problems, trainings and chance all vary, also where trainings hardly do."""
    rng = np.random.default_rng(9)
    for spread, shared in [(0.05, 0.3), (0.005, 0.3), (0.05, 0.02)]:
        covered = []
        for trial in range(600):
            values = shared * rng.normal(size=(150, 1)) + spread * rng.normal(size=5) + rng.normal(0, 0.4, (150, 5))
            drawn = stats.bootstrap_means(values, 200, trial).T
            interval = stats.estimate_over_trainings(values.mean(axis=0), drawn).interval()
            covered.append(interval.low <= 0 <= interval.high)
        assert 0.93 <= np.mean(covered) <= 0.98, (spread, shared)


def test_the_effect_that_could_be_seen_is_that_of_statsmodels():
    error, n = 0.03, 5
    of_statsmodels = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * error * np.sqrt(n)
    assert stats.Estimate(0.0, error, n - 1).detectable() == pytest.approx(of_statsmodels, rel=1e-3)


def test_one_more_draw_lies_in_the_prediction_interval_as_often_as_it_says():
    rng = np.random.default_rng(10)
    draws = rng.normal(size=(2000, 6))
    inside = [one.low <= last <= one.high for *five, last in draws for one in [stats.prediction_interval(five)]]
    assert 0.94 <= np.mean(inside) <= 0.96
    assert stats.prediction_interval([0, 1], 9.0).high > stats.prediction_interval([0, 1]).high
    with pytest.raises(stats.BadAnalysis, match="nothing about the next"):
        stats.prediction_interval([1.0])


@given(POINTS)
def test_no_point_of_the_front_is_beaten_and_every_other_is(points):
    front = stats.pareto_front(points)
    for i, (tokens, reached) in enumerate(points):
        beaten = any(
            (t <= tokens and r >= reached) and (t, r) != (tokens, reached) for j, (t, r) in enumerate(points) if j != i
        )
        assert (i in front) != beaten


def test_the_area_is_the_accuracy_of_a_level_curve_and_grows_with_it():
    assert stats.area_under_curve([(10, 0.4), (100, 0.4)], 5, 200) == pytest.approx(0.4)
    low, high = [(10, 0.1), (100, 0.5)], [(10, 0.2), (100, 0.5)]
    assert stats.area_under_curve(low, 10, 100) == pytest.approx(0.3)
    assert stats.area_under_curve(high, 10, 100) > stats.area_under_curve(low, 10, 100)
    with pytest.raises(stats.BadAnalysis, match="positive"):
        stats.area_under_curve(low, 0, 10)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (3, 10), (50, 100), (499, 500)])
def test_wilson_is_that_of_scipy_and_statsmodels(successes, n):
    ours = stats.wilson(successes, n)
    scipys = scipy_stats.binomtest(successes, n).proportion_ci(method="wilson")
    assert ours == pytest.approx((scipys.low, scipys.high), abs=1e-9)
    assert ours == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-9)


def test_no_problems_have_no_interval():
    with pytest.raises(stats.BadAnalysis, match="no problems"):
        stats.wilson(0, 0)


def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.random(80) < 0.6, rng.random(80) < 0.4
    only_first, only_second = int(np.sum(first & ~second)), int(np.sum(~first & second))
    expected = scipy_stats.binomtest(only_first, only_first + only_second).pvalue
    assert stats.mcnemar_test(first, second) == pytest.approx(expected)
    assert stats.mcnemar_test(first, first) == 1


def test_holm_multiplies_the_smallest_by_their_number_and_keeps_the_order():
    assert stats.correct_family([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert stats.correct_family([]) == []


def paired_answers(rng, n: int, difference: float, resamples: int):
    """Two models on the same problems: skills vary, the second is better by `difference` on each."""
    skill = 0.2 + 0.5 * rng.random((resamples, n))
    return rng.random((resamples, n)) < skill, rng.random((resamples, n)) < skill + difference


def test_accuracy_intervals_cover_the_truth():
    rng = np.random.default_rng(1)
    shares = rng.binomial(200, 0.37, size=1000)
    covered = [low <= 0.37 <= high for low, high in (stats.wilson(int(share), 200) for share in shares)]
    assert 0.93 <= np.mean(covered) <= 0.97


def test_difference_intervals_cover_the_truth():
    rng = np.random.default_rng(2)
    first, second = paired_answers(rng, 200, 0.1, 1000)
    intervals = [stats.paired_bootstrap(b, a, resamples=1000, seed=i) for i, (a, b) in enumerate(zip(first, second))]
    assert 0.93 <= np.mean([one.low <= 0.1 <= one.high for one in intervals]) <= 0.97


def test_tests_hold_their_size_and_power_is_what_the_formula_says():
    rng = np.random.default_rng(4)
    first, second = paired_answers(rng, 150, 0.0, 1000)
    rejected = np.mean([stats.mcnemar_test(b, a) < 0.05 for a, b in zip(first, second)])
    assert 0.02 <= rejected <= 0.05  # exact, so below its size
    resamples = [
        stats.bootstrap_means((b * 1.0 - a)[:, None], 500, i)[:, 0] for i, (a, b) in enumerate(zip(first, second))
    ]
    assert 0.03 <= np.mean([stats.bootstrap_p(one) < 0.05 for one in resamples]) <= 0.07
    n = stats.problems_needed(0.1, 0.45)
    first, second = rng.random((1000, n)) < 0.45, rng.random((1000, n)) < 0.55
    power = np.mean([stats.mcnemar_test(b, a) < 0.05 for a, b in zip(first, second)])
    assert 0.75 <= power <= 0.85


def test_fewer_problems_are_needed_for_larger_differences_and_more_alike_models():
    assert stats.problems_needed(0.2, 0.5) < stats.problems_needed(0.1, 0.5) < stats.problems_needed(0.05, 0.5)
    assert stats.problems_needed(0.1, 0.5, agreement=0.9) < stats.problems_needed(0.1, 0.5)
    with pytest.raises(stats.BadAnalysis, match="no such difference"):
        stats.problems_needed(0.0, 0.5)


def test_a_family_of_tests_holds_its_size_together(monkeypatch):
    """Five policies that do not differ from a sixth: any of them is called different in at most 5% of 1,000 studies."""
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels collects every time, which takes minutes here
    rng = np.random.default_rng(6)
    skill = 0.2 + 0.5 * rng.random((1000, 150, 1))
    answers = rng.random((1000, 150, 6)) < skill
    wrong = [min(stats.paired_tests([(one[:, i], one[:, 0]) for i in range(1, 6)])) <= 0.05 for one in answers]
    assert 0.005 <= np.mean(wrong) <= 0.055
    means = stats.paired_tests([([0.5, 1, 1], [0, 0.5, 0.5]), ([1, 0], [0, 1])], resamples=200)
    assert means == pytest.approx([2 * 2 / 201, 1])  # means over samples take the bootstrap's test


def test_the_bootstrap_is_that_of_scipy():
    rng = np.random.default_rng(7)
    first, second = rng.random(200) < 0.6, rng.random(200) < 0.5
    ours = stats.paired_bootstrap(first, second, resamples=20_000)
    gain = first * 1.0 - second
    options = {"n_resamples": 20_000, "method": "percentile", "rng": np.random.default_rng(0)}
    scipys = scipy_stats.bootstrap((gain,), np.mean, **options).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((scipys.low, scipys.high), abs=0.006)


def test_intervals_over_problems_and_many_seeds_cover_the_truth():
    """With thirty seeds of every model. (With two, as in `mini_ablation`, they are too narrow, and it says so.)"""
    rng, covered = np.random.default_rng(8), {2: [], 30: []}
    for trial in range(1000):
        for seeds, found in covered.items():
            skill = 0.5 + 0.15 * rng.normal(size=(150, 1, 1)) + 0.04 * rng.normal(size=(1, seeds, 1))
            resamples = stats.bootstrap_two_levels(skill, 800, trial)[:, 0]
            low, high = np.percentile(resamples, [2.5, 97.5])
            found.append(low <= 0.5 <= high)
    assert np.mean(covered[2]) < 0.9
    assert 0.93 <= np.mean(covered[30]) <= 0.97


def test_two_levels_are_wider_than_one_where_seeds_differ():
    rng = np.random.default_rng(5)
    values = rng.random((100, 4, 1)) + np.array([0.0, 0.5, 1.0, 1.5])[None, :, None]
    both = stats.bootstrap_two_levels(values, 2000, 0)[:, 0]
    one = stats.bootstrap_means(values.mean(axis=1), 2000, 0)[:, 0]
    assert both.std() > 3 * one.std()
    assert both.mean() == pytest.approx(values.mean(), abs=0.05)
    alike = stats.bootstrap_two_levels(np.repeat(values[:, :1], 4, axis=1), 2000, 0)[:, 0]
    assert alike.std() == pytest.approx(stats.bootstrap_means(values[:, 0], 2000, 1)[:, 0].std(), rel=0.1)


SCORED = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1), st.integers(0, 3)), min_size=1, max_size=40)


@given(SCORED)
def test_the_auroc_is_the_share_of_pairs_in_order_over_all_and_within_questions(rows):
    scores, correct, groups = zip(*rows)
    for labels in (None, groups):
        pairs = [
            (a > b) + (a == b) / 2
            for a, right, own in rows
            for b, wrong, other in rows
            if right and not wrong and (labels is None or own == other)
        ]
        found = auroc(scores, correct, labels)
        assert found == (pytest.approx(sum(pairs) / len(pairs)) if pairs else None)


def test_the_calibration_error_is_the_gap_of_each_bin_and_a_score_of_one_has_a_bin():
    assert calibration_error([0.15, 0.15, 1.0, 1.0], [0, 1, 1, 1]) == pytest.approx(0.35 / 2)
    assert calibration_error([1.0, 1.0], [0, 0]) == 1.0
    assert brier_score([0.5, 1.0], [0, 1]) == pytest.approx(0.125)


def test_platt_scaling_repairs_the_calibration_and_changes_no_ranking():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.05, 0.95, 4000)
    correct = (rng.random(4000) < truth).astype(int)
    scores = truth**4  # far too low
    fitted = platt_scaling(scores[:2000], correct[:2000])
    after = fitted(scores[2000:])
    assert calibration_error(scores[2000:], correct[2000:]) > 0.2
    assert calibration_error(after, correct[2000:]) < 0.05
    assert auroc(after, correct[2000:]) == pytest.approx(auroc(scores[2000:], correct[2000:]))
    separated = platt_scaling([0.1, 0.9], [0, 1])
    assert 0 < separated(np.array([0.0]))[0] < separated(np.array([1.0]))[0] < 1


@pytest.mark.parametrize(("scores", "correct"), [([1.2], [1]), ([0.5], [2]), ([float("nan")], [1]), ([], [])])
def test_what_is_no_score_or_no_verdict_is_refused(scores, correct):
    with pytest.raises(BadAnalysis):
        calibration_error(scores, correct)

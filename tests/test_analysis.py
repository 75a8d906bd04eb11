"""The numbers: against hand-made cases, the paper's printed points, and known truth."""

import numpy as np
import pandas as pd
import pytest
from test_grading import completion

from z1lib import analysis, published
from z1lib.records import Grade, Problem


def test_tokens_at_reads_the_line_and_extrapolates_nowhere():
    curve = [(10, 0.2), (20, 0.4), (40, 0.5)]
    assert analysis.tokens_at(curve, 0.2) == 10
    assert analysis.tokens_at(curve, 0.3) == pytest.approx(15)
    assert analysis.tokens_at(curve, 0.45) == pytest.approx(30)
    assert analysis.tokens_at(curve, 0.5) == 40
    assert analysis.tokens_at(curve, 0.51) is None


def test_tokens_at_takes_the_first_time_a_curve_that_falls_again_reaches_it():
    assert analysis.tokens_at([(10, 0.1), (20, 0.5), (30, 0.2), (40, 0.6)], 0.5) == 20


def test_the_points_may_come_in_any_order():
    assert analysis.tokens_at([(40, 0.5), (10, 0.2), (20, 0.4)], 0.3) == pytest.approx(15)


@pytest.mark.parametrize(
    ("benchmark", "accuracy", "printed"),
    [("livecodebench", 35.3, 0.298), ("gpqa_diamond", 35.4, 0.303), ("math500", 76.4, 0.87)],
)
def test_the_iso_accuracy_ratios_of_the_papers_points(benchmark, accuracy, printed):
    scaling = published.load("scaling")
    curves = {
        model: list(zip(rows.average_thinking_tokens, rows.pass_at_1))
        for model, rows in scaling[scaling.benchmark == benchmark].groupby("model")
    }
    ratio = analysis.iso_accuracy_ratio(curves["Z1-7B"], curves["R1-Distill-Qwen-7B"], accuracy)
    assert ratio == pytest.approx(printed, abs=0.005)


def test_a_ratio_that_is_not_reached_is_none():
    assert analysis.iso_accuracy_ratio([(1, 0.5)], [(1, 0.4)], 0.45) is None
    assert analysis.iso_accuracy_ratio([(1, 0.4)], [(1, 0.5)], 0.45) is None


def test_the_paired_bootstrap_covers_the_truth():
    rng, hits, trials = np.random.default_rng(0), 0, 300
    for trial in range(trials):
        skill = rng.random(120)
        first, second = rng.random(120) < skill, rng.random(120) < np.clip(skill + 0.1, 0, 1)
        truth = np.mean(np.clip(np.linspace(0, 1, 100_001) + 0.1, 0, 1)) - 0.5
        interval = analysis.paired_bootstrap(second, first, draws=500, seed=trial)
        hits += interval.low <= truth <= interval.high
    assert 0.91 <= hits / trials <= 0.98


def test_the_paired_bootstrap_refuses_what_is_not_paired():
    with pytest.raises(analysis.BadAnalysis, match="equally long"):
        analysis.paired_bootstrap([1, 0], [1])
    with pytest.raises(analysis.BadAnalysis, match="equally long"):
        analysis.paired_bootstrap([], [])


def test_one_problem_gives_the_degenerate_interval():
    interval = analysis.paired_bootstrap([1], [0])
    assert (interval.estimate, interval.low, interval.high) == (1, 1, 1)


def test_draws_that_do_not_exist_are_counted():
    interval = analysis.percentile_interval(0.5, [0.4, None, 0.6, None])
    assert interval.undefined == 0.5
    assert str(analysis.percentile_interval(None, [None])) == "not reached"


def test_the_bootstrap_is_paired_across_columns():
    values = np.random.default_rng(1).random((40, 1))
    draws = analysis.bootstrap_means(np.hstack([values, values + 3]), 200, seed=0)
    assert np.allclose(draws[:, 1] - draws[:, 0], 3)


def row(
    problem: str, window: int, tokens: int, policy: str = "shifted_window", model: str = "z1", overran: bool = False
):
    return completion("t").__class__(
        **{**vars(completion("t")), "problem_id": problem, "window": window, "thinking_tokens": tokens,
           "policy": policy, "model": model, "overran": overran, "key": f"{model}{policy}{problem}{window}"}
    )  # fmt: skip


PROBLEMS = [Problem(name, "q" + name, "text", "1", level, "tracing") for name, level in [("a", 1), ("b", 2)]]


def frame_of(rows, right):
    grades = [Grade(r.problem_id, (r.problem_id, r.window) in right, "1", "r", None, r.key) for r in rows]
    return analysis.join(PROBLEMS, rows, grades)


def test_the_summary_has_the_fixed_columns_and_a_row_a_level():
    rows = [row(p, w, w) for p in "ab" for w in (4, 8)]
    summary = analysis.summarise(frame_of(rows, {("a", 4), ("a", 8), ("b", 8)}))
    assert list(summary.columns) == analysis.SUMMARY
    whole = summary[summary.level == "all"].set_index("window")
    assert whole.accuracy.to_dict() == {4: 0.5, 8: 1.0}
    assert whole.n.to_dict() == {4: 2, 8: 2}
    assert len(summary) == 2 * 3
    assert (summary.accuracy_low <= summary.accuracy).all()
    assert (summary.accuracy <= summary.accuracy_high).all()


def test_a_completion_without_a_grade_is_named():
    with pytest.raises(analysis.BadAnalysis, match="no grade for z1, shifted_window 4, problem 'a'"):
        analysis.join(PROBLEMS, [row("a", 4, 4)], [])


def test_a_row_that_comes_twice_is_named():
    with pytest.raises(analysis.BadAnalysis, match="1 rows come twice"):
        frame_of([row("a", 4, 4), row("a", 4, 4)], set())


def test_a_window_that_lacks_problems_is_named():
    frame = frame_of([row("a", 4, 4), row("b", 4, 4), row("a", 8, 8)], set())
    with pytest.raises(analysis.BadAnalysis, match="window 8 lacks 1 problems"):
        analysis.problem_table(frame, "z1", "shifted_window", "correct")


def test_a_policy_that_is_not_there_is_named():
    frame = frame_of([row("a", 4, 4)], set())
    with pytest.raises(analysis.BadAnalysis, match="r1 under budget_forcing"):
        analysis.problem_table(frame, "r1", "budget_forcing", "correct")
    with pytest.raises(analysis.BadAnalysis, match="no rows for r1"):
        analysis.curve(analysis.summarise(frame), "r1", "budget_forcing", "tracing")


def test_the_first_right_answer_is_that_of_the_smallest_window():
    rows = [row("a", w, min(w, 30)) for w in (8, 16, 64)] + [row("b", w, w) for w in (8, 16, 64)]
    table = analysis.first_correct(frame_of(rows, {("a", 16), ("a", 64), ("b", 8)}), "z1", "shifted_window")
    assert table.problem_id.tolist() == ["a"]  # b is not solved at the largest window
    assert table[["first", "full"]].to_numpy().tolist() == [[16, 30]]


def test_the_hint_is_compared_with_its_control_problem_by_problem():
    rows = [row(p, 4, 4, overran=True) for p in "ab"] + [row(p, 4, 4, "truncation", overran=True) for p in "ab"]
    grades = [Grade(r.problem_id, r.policy == "shifted_window", "1", "r", None, r.key) for r in rows]
    gains = analysis.hint_gain(analysis.join(PROBLEMS, rows, grades), "z1", "truncation", 100, 0)
    assert gains[["window", "overran", "gain", "low", "high"]].to_numpy().tolist() == [[4, 1, 1, 1, 1]]


def test_the_sentences_follow_the_data():
    rows = [row(p, w, w) for p in "ab" for w in (4, 8)]
    flat = analysis.summarise(frame_of(rows, set()))
    assert "does not clearly rise" in analysis.say_curve(flat, "z1", "shifted_window", "tracing")
    many = pd.concat(
        [flat.assign(accuracy=0.0, accuracy_high=0.1, window=4), flat.assign(accuracy=1.0, accuracy_low=0.9)]
    )
    assert "rises with the window" in analysis.say_curve(many, "z1", "shifted_window", "tracing")
    assert "fewer thinking tokens" in analysis.say_ratio(analysis.Interval(0.5, 0.4, 0.6), 0.7)
    assert "more thinking tokens" in analysis.say_ratio(analysis.Interval(1.5, 1.4, 1.6), 0.7)
    assert "neither is shown" in analysis.say_ratio(analysis.Interval(0.9, 0.8, 1.1), 0.7)
    assert "not reached by both" in analysis.say_ratio(analysis.Interval(None, None, None), 0.7)

"""From rows to tables and sentences: hand-made cases and the paper's printed points."""

from dataclasses import replace

import pandas as pd
import pytest

from tests.grading.test_grading import completion
from z1lib.analysis import figures, findings, tables
from z1lib.records import Grade, Problem
from z1lib.stats import BadAnalysis


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
    return tables.join(PROBLEMS, rows, grades)


def test_the_summary_has_the_fixed_columns_and_a_row_a_level():
    rows = [row(p, w, w) for p in "ab" for w in (4, 8)]
    summary = tables.summarise(frame_of(rows, {("a", 4), ("a", 8), ("b", 8)}))
    assert list(summary.columns) == tables.SUMMARY
    whole = summary[summary.level == "all"].set_index("window")
    assert whole.accuracy.to_dict() == {4: 0.5, 8: 1.0}
    assert whole.n.to_dict() == {4: 2, 8: 2}
    assert len(summary) == 2 * 3
    assert (summary.accuracy_low <= summary.accuracy).all()
    assert (summary.accuracy <= summary.accuracy_high).all()


def test_a_completion_without_a_grade_is_named():
    with pytest.raises(BadAnalysis, match="no grade for z1, shifted_window 4, problem 'a'"):
        tables.join(PROBLEMS, [row("a", 4, 4)], [])


def test_a_row_that_comes_twice_is_named():
    with pytest.raises(BadAnalysis, match="1 rows come twice"):
        frame_of([row("a", 4, 4), row("a", 4, 4)], set())


def test_a_window_that_lacks_problems_is_named():
    frame = frame_of([row("a", 4, 4), row("b", 4, 4), row("a", 8, 8)], set())
    with pytest.raises(BadAnalysis, match="window 8 lacks 1 problems"):
        tables.problem_table(frame, "z1", "shifted_window", "correct")


def test_a_policy_that_is_not_there_is_named():
    frame = frame_of([row("a", 4, 4)], set())
    with pytest.raises(BadAnalysis, match="r1 under budget_forcing"):
        tables.problem_table(frame, "r1", "budget_forcing", "correct")
    with pytest.raises(BadAnalysis, match="no rows for r1"):
        tables.curve(tables.summarise(frame), "r1", "budget_forcing", "tracing")


def test_the_first_right_answer_is_that_of_the_smallest_window():
    rows = [row("a", w, min(w, 30)) for w in (8, 16, 64)] + [row("b", w, w) for w in (8, 16, 64)]
    table = tables.first_correct(frame_of(rows, {("a", 16), ("a", 64), ("b", 8)}), "z1", "shifted_window")
    assert table.problem_id.tolist() == ["a"]  # b is not solved at the largest window
    assert table[["first", "full"]].to_numpy().tolist() == [[16, 30]]


def sampled(problem: str, sample: int, **changes):
    return replace(row(problem, 8, 8), sample=sample, key=f"{problem}{sample}", **changes)


def test_pass_at_k_is_the_unbiased_estimate_and_pass_at_1_the_mean():
    rows = [sampled(p, s) for p in "ab" for s in range(4)]
    right = {"a0", "a2"}  # a: 2 of 4, b: 0 of 4
    grades = [Grade(r.problem_id, r.key in right, "1", "r", None, r.key) for r in rows]
    table = tables.measure(tables.join(PROBLEMS, rows, grades)).iloc[0]
    assert table["pass@1"] == pytest.approx((0.5 + 0) / 2)
    assert table["pass@2"] == pytest.approx((1 - 1 / 6 + 0) / 2)
    assert table["pass@4"] == pytest.approx(0.5)
    assert "pass@8" not in table


def test_tokens_are_counted_three_ways():
    one = replace(row("a", 8, 8, overran=True), hint_tokens=3, answer_tokens=2, probe_tokens=7)
    other = row("b", 8, 5)
    grades = [Grade("a", False, None, "none", "no answer", one.key), Grade("b", True, "1", "r", None, other.key)]
    table = tables.measure(tables.join(PROBLEMS, [one, other], grades)).iloc[0]
    assert (table.thinking_tokens, table.total_tokens, table.decoded_tokens) == (6.5, 9, 12.5)
    assert (table.overrun_rate, table.no_answer_rate) == (0.5, 0.5)


def test_samples_of_one_problem_are_not_independent():
    """Ten samples that all agree are no more evidence than one: Wilson over completions would claim they were."""
    few = [sampled(p, 0) for p in "ab"]
    many = [sampled(p, s) for p in "ab" for s in range(10)]
    widths = []
    for rows in (few, many):
        grades = [Grade(r.problem_id, r.problem_id == "a", "1", "r", None, r.key) for r in rows]
        whole = tables.summarise(tables.join(PROBLEMS, rows, grades)).iloc[0]
        widths.append(whole.accuracy_high - whole.accuracy_low)
    assert widths[1] > 0.9 * widths[0]


def test_the_average_curve_gives_every_set_the_same_weight():
    problems = [Problem(f"s{i}", "q", "text", "1", 1, "small") for i in range(2)]
    problems += [Problem(f"l{i}", "q", "text", "1", 1, "large") for i in range(30)]
    rows = [row(p.id, w, w + (10 if p.source == "large" else 0)) for p in problems for w in (4, 8)]
    grades = [Grade(r.problem_id, r.problem_id.startswith("s"), "1", "r", None, r.key) for r in rows]
    frame = tables.join(problems, rows, grades)
    points = tables.curve_with_intervals(frame, "z1", "shifted_window", ["small", "large"], "thinking_tokens", 200, 0)
    assert points.accuracy.tolist() == [0.5, 0.5]
    assert points.tokens.tolist() == [9, 13]
    assert points.n.tolist() == [32, 32]
    assert (points.tokens_low <= points.tokens).all()


def test_errors_by_window_are_those_of_a_hand_made_case():
    # a: right, wrong, right; b: right, right, wrong; windows 4, 8, 16
    right = {("a", 4), ("b", 4), ("b", 8), ("a", 16)}
    rows = [row(p, w, w) for p in "ab" for w in (4, 8, 16)]
    table = tables.window_errors(frame_of(rows, right), "z1", "shifted_window").set_index("window")
    assert table.accuracy.tolist() == [1, 0.5, 0.5]
    assert table.underthinking.tolist() == [0, 0.5, 0]
    assert table.overthinking.tolist() == [0.5, 0.5, 0]
    assert table.oracle.tolist() == [1, 1, 1]


def test_hints_are_compared_on_the_problems_the_window_cut():
    problems = [Problem(str(i), "q", "text", "1", 1, "tracing") for i in range(20)]
    rows = []
    for policy in ("shifted_window", "hint: placebo", "truncation"):
        rows += [row(str(i), 8, 8, policy, overran=i < 12) for i in range(20)]
    grades = [Grade(r.problem_id, r.policy == "shifted_window", "1", "r", None, r.key) for r in rows]
    frame = tables.join(problems, rows, grades)
    table = tables.compare_hints(frame, "z1", 200, 0).set_index("hint")
    assert table.n.tolist() == [12, 12, 12]
    assert table.gain["hint: placebo"].estimate == -1
    assert table.p["hint: placebo"] < 0.01
    assert table.gain["shifted_window"] is None  # not compared with itself
    assert table.p.isna().tolist() == [True, False, False]
    assert table.p["truncation"] == pytest.approx(2 * 2 * 0.5**12)  # a family of two
    assert "(McNemar, Holm-corrected), on 12 problems: worse" in findings.say_hints(frame, table.reset_index())
    twice = pd.concat([frame, frame.assign(sample=1)])
    table = tables.compare_hints(twice, "z1", 200, 0)
    assert "(paired bootstrap" in findings.say_hints(twice, table)  # means over samples are not McNemar's


def test_hints_without_the_papers_own_are_named():
    frame = frame_of([row("a", 8, 8, "hint: placebo", overran=True)], set())
    with pytest.raises(BadAnalysis, match="no completions under shifted_window at 8"):
        tables.compare_hints(frame, "z1", 50, 0)


def test_a_hint_that_lacks_completions_is_named():
    rows = [row(p, 8, 8, policy, overran=True) for p in "ab" for policy in ("shifted_window", "truncation")]
    hinted = [row("a", 8, 8, "hint: placebo", overran=True), *(row(p, 8, 8, "hint: s1", overran=True) for p in "ab")]
    with pytest.raises(BadAnalysis, match="hint: placebo: window 8 lacks 1 of 2 cut completions"):
        tables.compare_hints(frame_of(rows + hinted, set()), "z1", 50, 0)


def test_hints_are_compared_on_the_problems_that_were_asked_under_them():
    rows = [row(p, 8, 8, policy, overran=True) for p in "ab" for policy in ("shifted_window", "truncation")]
    hinted = [row("b", 8, 8, "hint: placebo", overran=True)]
    assert tables.compare_hints(frame_of(rows + hinted, set()), "z1", 50, 0).n.tolist() == [1] * 3


def test_trainings_of_a_run_are_pooled_as_samples_and_listed_one_by_one():
    rows = [row(p, 8, 8, "unbounded", f"{run}-{seed}") for p in "ab" for run in ("z1", "r1") for seed in (0, 3)]
    frame = frame_of(rows, {("a", 8)})
    pooled = tables.pool_trainings(frame)
    assert set(pooled.model) == {"z1", "r1"}
    assert pooled[pooled.model == "z1"].groupby("problem_id")["sample"].nunique().tolist() == [2, 2]
    listed = tables.list_trainings(frame)
    assert set(zip(listed.run, listed.training_seed, listed.n, listed.accuracy)) == {
        (run, seed, 2, 0.5) for run in ("z1", "r1") for seed in (0, 3)
    }
    [axis] = figures.accuracy_by_run(listed).axes
    assert [len(line.get_xdata()) for line in axis.lines] == [2, 1, 2, 1]


def test_one_training_of_each_run_is_pooled_into_itself():
    frame = frame_of([row(p, 8, 8, "unbounded", run) for p in "ab" for run in ("z1", "base")], set())
    pd.testing.assert_frame_equal(tables.pool_trainings(frame), frame)
    assert tables.list_trainings(frame).empty  # one run has nothing to be compared with


def test_samples_that_agree_are_no_more_evidence_for_a_hint():
    policies = ("shifted_window", "hint: placebo", "truncation")
    intervals = []
    for samples in (1, 10):
        rows = [
            replace(row(str(i), 8, 8, policy, overran=True), sample=s, key=f"{policy}{i}{s}")
            for policy in policies for i in range(6) for s in range(samples)
        ]  # fmt: skip
        problems = [Problem(str(i), f"q{i}", "text", "1", 1, "tracing") for i in range(6)]
        grades = [
            Grade(r.problem_id, r.policy == "shifted_window" and int(r.problem_id) < 3, "1", "r", None, r.key)
            for r in rows
        ]
        table = tables.compare_hints(tables.join(problems, rows, grades), "z1", 500, 0).set_index("hint")
        intervals.append(table.gain["hint: placebo"])
    assert intervals[0] == intervals[1]


def test_two_samples_of_a_problem_keep_their_own_first_right_answer():
    rows = [replace(row("a", w, w), sample=s, key=f"a{w}{s}") for w in (4, 8) for s in (0, 1)]
    grades = [Grade("a", r.key in ("a40", "a81"), "1", "r", None, r.key) for r in rows]
    frame = tables.join(PROBLEMS, rows, grades)
    errors = tables.window_errors(frame, "z1", "shifted_window").set_index("window")
    assert errors.accuracy.tolist() == [0.5, 0.5]
    assert errors.oracle.tolist() == [0.5, 1]
    assert tables.first_correct(frame, "z1", "shifted_window")[["first", "full"]].to_numpy().tolist() == [[8, 8]]


def test_an_oracle_takes_the_first_right_window_and_the_smallest_where_none_is():
    rows = [row(p, w, w) for p in "ab" for w in (4, 8, 16)]
    table = tables.oracle(frame_of(rows, {("a", 8)}), "z1", "shifted_window", 200, 0).set_index("level")
    assert table.saved["all"].estimate == pytest.approx(1 - 6 / 16)
    assert table.saved["all"].low == 0.5  # both problems a: 8 of 16
    assert table.saved["all"].high == 0.75
    assert table.loc["all", ["accuracy", "oracle accuracy", "tokens", "oracle tokens"]].tolist() == [0, 0.5, 16, 6]
    assert table.loc[1, "right, then wrong"] == 1
    assert table.n.to_dict() == {"all": 2, 1: 1, 2: 1}


def test_windows_and_problems_that_do_not_match_are_named():
    with pytest.raises(BadAnalysis, match="window 8 lacks 1 problems"):
        tables.first_correct(frame_of([row("a", 4, 4), row("a", 8, 8), row("b", 4, 4)], set()), "z1", "shifted_window")


def test_sets_with_other_windows_are_not_averaged():
    problems = [Problem(name, name, "text", "1", 1, name) for name in ("s", "l")]
    rows = [row("s", 4, 4), row("s", 8, 8), row("l", 8, 8), row("l", 16, 16)]
    frame = tables.join(problems, rows, [Grade(r.problem_id, True, "1", "r", None, r.key) for r in rows])
    with pytest.raises(BadAnalysis, match=r"l has the windows \[8, 16\], s \[4, 8\]"):
        tables.curve_with_intervals(frame, "z1", "shifted_window", ["s", "l"], "thinking_tokens", 50, 0)


def test_problems_that_come_twice_or_with_fewer_samples_are_named():
    with pytest.raises(BadAnalysis, match="1 problems have an id that another has"):
        tables.join([*PROBLEMS, PROBLEMS[0]], [], [])
    rows = [sampled("a", 0), sampled("a", 1), sampled("b", 0)]
    grades = [Grade(r.problem_id, True, "1", "r", None, r.key) for r in rows]
    with pytest.raises(BadAnalysis, match="problem 'b' has 1 samples, others have 2"):
        tables.join(PROBLEMS, rows, grades)


def test_grades_that_disagree_are_named():
    grades = [Grade("a", right, "1", "r", None, row("a", 4, 4).key) for right in (True, False)]
    with pytest.raises(BadAnalysis, match="two grades of one completion of problem 'a' disagree"):
        tables.join(PROBLEMS, [row("a", 4, 4)], grades)


def test_a_loop_is_told_from_a_completion_that_is_only_long():
    text = {"a": "Let me check it again and then once more. " * 30, "b": " ".join(f"w{i * i}" for i in range(300))}
    rows = [replace(row(p, 64, 64, "unbounded"), thinking_text=text[p], finish_reason="length") for p in "ab"]
    table = tables.loops(PROBLEMS, rows).set_index("level")
    assert table[["never ended", "in a loop", "n"]].to_numpy().tolist() == [[1, 1, 1], [1, 0, 1]]


def test_what_a_hint_spoiled_is_counted():
    rows = [replace(row(p, 8, 8, overran=True), hint_tokens=2) for p in "ab"]
    grades = [
        Grade(r.problem_id, r.problem_id == "a", "1", "r", None, r.key, before="1", before_correct=True) for r in rows
    ]
    text = findings.say_before(tables.join(PROBLEMS, rows, grades), "z1")
    assert "In 2 cuts" in text
    assert "wrong in 1 of them" in text


def answered(right: dict[str, set[int]], windows=(4, 16), level=1) -> pd.DataFrame:
    """One problem a key, right at these windows."""
    problems = [Problem(name, name, "text", "1", level, "tracing") for name in right]
    rows = [row(name, w, w) for name in right for w in windows]
    grades = [Grade(r.problem_id, r.window in right[r.problem_id], "1", "r", None, r.key) for r in rows]
    return tables.join(problems, rows, grades)


def test_what_cutting_costs_and_an_oracle_gains_is_said_with_paired_intervals():
    frame = answered(
        {**{f"a{i}": {16} for i in range(5)}, **{f"b{i}": {4} for i in range(3)}, "c": {4, 16}, "d": set()}
    )
    errors = tables.window_errors(frame, "z1", "shifted_window")
    text = findings.say_errors(frame, errors, "z1", "shifted_window", 2000, 0)
    assert "a share of 0.50 [0.20, 0.80] is cut too early" in text
    assert "right early and wrong at the largest, are at most 0.30 [0.1" in text
    assert "would gain 0.30 [0.10, 0.60] on 0.60 [0.30, 0.90]" in text
    assert "(n = 10)" in text


def test_levels_are_said_with_n_and_a_handful_of_problems_has_no_interval():
    rows = [row(p, 64, tokens, "unbounded") for p, tokens in (("a", 10), ("b", 40))]
    text = findings.say_levels(frame_of(rows, {("a", 64)}), "z1", 100, 0)
    assert "level 1: 10 (n = 1, accuracy 1.00), level 2: 40 (n = 1, accuracy 0.00)." in text
    assert "times" not in text


def test_overthinking_is_the_share_after_the_first_right_answer():
    frame = answered({f"a{i}": {4, 16} for i in range(4)} | {f"b{i}": {16} for i in range(4)})
    text = findings.say_overthinking(frame, [("z1", "shifted_window")], 500, 0)
    assert "0.38 [" in text  # 4 of 16 needed on half of them: (16 + 4) / 2 of 16
    assert "on 8 solved problems" in text
    nothing = findings.say_overthinking(answered({"a": set()}), [("z1", "shifted_window")], 50, 0)
    assert "solved nothing" in nothing


def test_power_says_how_many_problems_a_difference_takes():
    text = findings.say_power(0.5, 160)
    assert "5 points 1,5" in text  # 2 * 0.5 * 0.5 * (1.96 + 0.84)^2 / 0.05^2 = 1,568, and a little less
    assert "Here are 160" in text


def test_a_sets_size_is_its_problems_however_many_trainings_answered_them():
    many = pd.DataFrame({"problem_set": "large", "problem_id": [f"p{i}" for i in range(50)]})
    few = pd.DataFrame({"problem_set": "small", "problem_id": [f"q{i % 30}" for i in range(90)]})
    assert tables.main_sets(pd.concat([many, few])) == ["large"]
    assert tables.main_sets(few) == ["small"]

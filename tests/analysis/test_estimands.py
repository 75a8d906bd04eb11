"""What the claims measure, on frames made by hand: each estimate is that of the plan, and misfits are named."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from tests.conftest import make_profile
from z1lib.analysis import estimands
from z1lib.analysis.tables import split_model
from z1lib.stats import BadAnalysis

PROFILE = make_profile("smoke")
SETS = ("tracing", "running_best", "first_hit")
PAIRS = [("z1", "shifted_window"), ("z1", "truncation_matched"), ("r1_plain", "shifted_window")]
PAIRS += [("z1", "unbounded"), ("r1_plain", "unbounded")]


def make_frame(right=lambda **_: 0.5, tokens=lambda **_: 100.0, seeds=(0, 1), n=20, pairs=PAIRS, sets=SETS):
    """Rows of `tables.make_frame`; `right` and `tokens` are of run, policy, window, seed, problem_set, level, needed.

    `right` is a share of the problems of every level, or a value a problem if it is an array.
    """
    i = np.arange(n)
    level, needed = i % 2 + 1, 50 + 10 * (i // 2) + 200 * (i % 2)
    parts = []
    for run, policy in pairs:
        for seed in [0] if run == "base" else seeds:
            for window in [640] if policy == "unbounded" else [64, 128, 256]:
                for name in sets:
                    one = {"run": run, "policy": policy, "window": window, "training_seed": seed, "problem_set": name}
                    told = {**one, "seed": one["training_seed"], "level": level, "needed": needed}
                    share, length = right(**told), tokens(**told)
                    correct = i // 2 / (n / 2) < share if np.isscalar(share) else share
                    model = run if run == "base" else f"{run}-{seed}"
                    values = {"level": level, "needed": needed, "correct": correct, "total_tokens": length}
                    parts.append(
                        pd.DataFrame({"problem_id": [f"{name}{j}" for j in i], **values, **one, "model": model})
                    )
    return pd.concat(parts, ignore_index=True)


def measure(frame: pd.DataFrame) -> dict:
    return estimands.measure(frame, PROFILE)


def test_every_claim_of_the_plan_is_measured_or_says_which_run_it_lacks():
    found = measure(make_frame())
    assert list(found) == [claim.id for claim in estimands.read_plan()]
    assert {name for name, one in found.items() if isinstance(one, str)} == {"E1", "E2", "F1", "F2"}
    assert found["F1"] == "no completions of full under unbounded on tracing"


def test_the_bounds_of_the_plan_leave_no_claim_without_a_way_to_be_supported_or_refuted():
    for claim in estimands.read_plan():
        assert claim.bound("supported")[0] != claim.bound("refuted")[0]
        assert claim.measure in estimands.MEASURES
        assert claim.family in ("", "A-F")
        assert claim.needs in ("", *(other.id for other in estimands.read_plan()))


def test_the_gain_is_between_the_two_windows_that_the_plan_names():
    found = measure(make_frame(lambda window, seed, **_: {64: 0.1, 128: 0.2, 256: 0.7, 640: 0.8}[window] + seed / 10))
    assert found["A"].by_training == pytest.approx([0.6, 0.6])
    assert (found["A"].n, found["A"].seeds) == (20, [0, 1])


def test_the_hint_is_compared_at_equal_cost_over_the_windows_between_the_two():
    def right(policy, window, problem_set, **_):
        gain = {64: 0.2, 128: 0.4}.get(window, 0.0)
        return 0.2 + gain * (policy == "shifted_window" and problem_set == "running_best")

    found = measure(make_frame(right))
    assert found["C"].by_training == pytest.approx([0.2, 0.2])  # at 64; 128 is above the last
    assert found["C'"].by_training == pytest.approx([0, 0])


def test_families_are_pooled_with_equal_weight():
    found = measure(make_frame(lambda run, problem_set, **_: 0.9 if (run, problem_set) == ("z1", "tracing") else 0.6))
    assert found["B'"].by_training == pytest.approx([0.1, 0.1])
    assert found["B'"].n == 60


def test_the_ratio_of_tokens_at_equal_accuracy_is_the_planted_one_in_every_training():
    def tokens(run, window, seed, **_):
        return window * (1.0 if run == "r1_plain" else 0.5 + seed / 10)

    found = measure(make_frame(lambda window, **_: {64: 0.1, 128: 0.4, 256: 0.8, 640: 0.8}[window], tokens))["B"]
    assert np.exp(found.by_training) == pytest.approx([0.5, 0.6])


def test_where_nothing_is_right_there_is_no_ratio():
    assert np.isnan(measure(make_frame(lambda **_: 0.0))["B"].by_training).all()


def test_the_slope_is_that_of_a_regression_with_an_intercept_a_level():
    rng = np.random.default_rng(0)
    frame = make_frame(
        tokens=lambda run, needed, **_: needed ** (0.8 if run == "z1" else 0.3) * rng.uniform(0.9, 1.1, 20)
    )
    found = measure(frame)["D"].by_training
    rows = frame[(frame.problem_set == "first_hit") & (frame.policy == "unbounded") & (frame.training_seed == 0)]
    slopes = {}
    for run, part in rows.groupby("run"):
        columns = pd.get_dummies(part.level, dtype=float).assign(needed=np.log(part.needed))
        slopes[run] = sm.OLS(np.log(part.total_tokens), columns).fit().params["needed"]
    assert found[0] == pytest.approx(slopes["z1"] - slopes["r1_plain"])
    assert found == pytest.approx([0.5, 0.5], abs=0.1)


def test_every_training_is_compared_with_the_one_untrained_model():
    pairs = [("z1", "unbounded"), ("base", "unbounded")]
    frame = make_frame(
        lambda run, seed, **_: 0.2 if run == "base" else 0.4 + seed / 10, pairs=pairs, sets=["chain_sum"]
    )
    assert measure(frame)["E2"].by_training == pytest.approx([0.2, 0.3])


def test_a_claim_takes_the_trainings_that_were_asked_its_problems_and_no_others():
    frame = make_frame(seeds=(0, 1, 2), pairs=[*PAIRS, ("base", "unbounded")], sets=[*SETS, "chain_sum"])
    found = measure(frame[(frame.problem_set != "chain_sum") | (frame.training_seed != 1)])
    assert (found["A"].seeds, found["E2"].seeds) == ([0, 1, 2], [0, 2])


def test_a_factorial_that_lacks_a_cell_is_named():
    pairs = [(run, "unbounded") for run in ("z1", "z1_think", "r1")]
    with pytest.raises(BadAnalysis, match="the factorial lacks the cell r1_plain"):
        measure(make_frame(pairs=pairs))


def test_two_cells_are_no_factorial_and_lack_nothing():
    found = measure(make_frame(pairs=[("z1", "unbounded"), ("r1", "unbounded")]))
    assert found["B'"] == "no completions of r1_plain under unbounded on tracing"


def test_cells_with_other_seeds_are_named_and_fewer_of_the_same_will_do():
    frame = make_frame()
    with pytest.raises(BadAnalysis, match=r"other seeds: \{'z1': \[0\], 'r1_plain': \[1\]\}"):
        measure(frame[(frame.run == "z1") == (frame.training_seed == 0)])
    estimands.check_cells(frame[(frame.run == "z1") | (frame.training_seed == 0)])


def test_compared_cells_with_fewer_seeds_are_named():
    frame = make_frame()
    with pytest.raises(BadAnalysis, match=r"has the seeds \[0, 1\], r1_plain \[0\]"):
        measure(frame[(frame.run == "z1") | (frame.training_seed == 0)])


def test_runs_that_are_compared_and_have_other_seeds_are_named():
    frame = make_frame(pairs=[("full", "unbounded"), ("terse", "unbounded")], sets=["tracing"])
    with pytest.raises(BadAnalysis, match=r"F1: full has the seeds \[0, 1\], terse \[0\]"):
        measure(frame[(frame.run == "full") | (frame.training_seed == 0)])


def test_a_seed_that_was_trained_twice_is_named():
    frame = make_frame()
    again = frame[frame.model == "z1-0"].assign(model="z1")
    with pytest.raises(BadAnalysis, match="z1 was trained twice with seed 0: z1-0, z1"):
        measure(pd.concat([frame, again]))


def test_a_seed_that_lacks_a_problem_is_named_with_the_problem():
    frame = make_frame()
    lacking = (frame.model == "z1-1") & (frame.problem_id == "tracing7") & (frame.window == 128)
    with pytest.raises(BadAnalysis, match="z1-1, shifted_window 128, on tracing lacks 1 problems .*'tracing7'"):
        measure(frame[~lacking])


def test_cells_that_answered_other_problems_are_named_with_the_first():
    frame = make_frame()
    with pytest.raises(BadAnalysis, match="z1 and r1_plain answered other problems, 1 are of one alone: 'tracing3'"):
        measure(frame[(frame.run == "z1") | (frame.problem_id != "tracing3")])


def test_a_window_that_was_not_run_leaves_the_claim_not_run():
    frame = make_frame()
    assert measure(frame[frame.window != 256])["A"].endswith("at the windows 64 256")


def test_a_set_that_no_interpreter_told_has_no_length():
    with pytest.raises(BadAnalysis, match="no interpreter told first_hit"):
        measure(make_frame().assign(needed=0))
    with pytest.raises(BadAnalysis, match="within a level all problems of first_hit need the same length"):
        measure(make_frame().assign(needed=lambda rows: 10 * rows.level))


@pytest.mark.parametrize(
    ("model", "parts"), [("z1-12", ("z1", 12)), ("r1", ("r1", 0)), ("a-b-0", ("a-b", 0)), ("-7B", ("-7B", 0))]
)
def test_a_models_name_is_split_into_run_and_seed(model, parts):
    assert split_model(model) == parts


def test_a_bound_of_a_ratio_is_a_logarithm_and_is_shown_as_a_ratio():
    claim = next(claim for claim in estimands.read_plan() if claim.measure == "log ratio")
    side, value = replace(claim, supported="< 0.9").bound("supported")
    assert (side, claim.show(value)) == ("<", pytest.approx(0.9))

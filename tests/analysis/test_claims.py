"""A claim's verdict follows from the data: a planted effect is found, its opposite refuted, a null left undecided."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.test_analysis import row
from tests.conftest import make_profile
from z1lib.analysis import claims, tables
from z1lib.profile import load_profile
from z1lib.records import Grade, Problem
from z1lib.stats import BadAnalysis, Interval

PROFILE = load_profile("smoke")
SCALING, PLACE, TOKENS = "a larger window buys accuracy", "cutting at the same place", "spending the same tokens"


def frame_of(right, sets: str = "a", n: int = 20, windows=(4, 8)) -> pd.DataFrame:
    """z1 on `n` problems a set: the shifted window and its two controls; `right(policy, window, number)`."""
    problems = [Problem(f"{name}{i}", f"q{name}{i}", "text", "1", 1, name) for name in sets for i in range(n)]
    rows = [
        row(problem.id, window, window, policy, overran=True)
        for policy in ("shifted_window", "truncation", "truncation_matched")
        for problem in problems
        for window in windows
    ]
    graded = [right(one.policy, one.window, int(one.problem_id[1:])) for one in rows]
    grades = [Grade(one.problem_id, correct, "1", "r", None, one.key) for one, correct in zip(rows, graded)]
    return tables.join(problems, rows, grades)


def verdicts(frame: pd.DataFrame, sets: str = "a") -> dict[str, str]:
    found = claims.make_claims(frame, PROFILE_OF_ONE, list(sets))
    return dict(zip(found.claim, found.verdict))


PROFILE_OF_ONE = make_profile("smoke", models={"z1": "shifted_window"}, max_problems={})


@pytest.mark.parametrize(("at", "verdict"), [(8, "supported"), (4, "refuted"), (0, "undecided")])
def test_the_scaling_claim_follows_the_windows(at, verdict):
    assert verdicts(frame_of(lambda policy, window, i: window == at))[SCALING] == verdict


def test_the_hint_is_compared_problem_by_problem_with_each_control():
    found = verdicts(frame_of(lambda policy, window, i: i < {"shifted_window": 12, "truncation": 4}.get(policy, 12)))
    assert found[f"the hint helps against {PLACE}"] == "supported"
    assert found[f"the hint helps against {TOKENS}"] == "undecided"
    found = verdicts(frame_of(lambda policy, window, i: i < {"shifted_window": 4}.get(policy, 12)))
    assert found[f"the hint helps against {TOKENS}"] == "refuted"


def test_several_sets_are_one_family_of_tests():
    frame = frame_of(lambda policy, window, i: window == 8 and i < 7, sets="ab", n=8)
    table = claims.make_claims(frame, PROFILE_OF_ONE, ["a", "b"])
    assert table[table.claim == SCALING].test.tolist() == ["McNemar, Holm: p = 0.031"] * 2  # 2 * 0.5^7, times two


def test_policies_with_other_windows_are_named():
    frame = frame_of(lambda policy, window, i: False)
    with pytest.raises(BadAnalysis, match="truncation have other windows or problems"):
        verdicts(frame[(frame.policy != "truncation") | (frame.window == 4)])


@given(st.floats(-1, 1), st.floats(0, 1))
def test_only_a_small_p_value_decides_and_the_sign_says_which_way(estimate, p):
    found = claims.decide(estimate, p)
    assert (found == "undecided") == (p > 0.05)
    assert found != "supported" or estimate > 0


def test_an_interval_decides_where_it_leaves_out_the_null_and_shows_some_spread():
    assert claims.decide_by_interval(Interval(0.5, 0.3, 0.9), 1.0) == "refuted"
    assert claims.decide_by_interval(Interval(1.5, 1.2, float("inf")), 1.0) == "supported"
    assert claims.decide_by_interval(Interval(0.5, 0.0, 1.1), 1.0) == "undecided"
    assert claims.decide_by_interval(Interval(0.5, 0.5, 0.5), 1.0) == "undecided"
    assert claims.decide_by_interval(Interval(None, None, None), 1.0) == "undecided"


def test_trainings_that_differ_as_much_as_the_recipes_decide_nothing():
    table = claims.claims_of_subsets(
        {"long": [0.2, 0.22], "short": [0.6, 0.61], "random": [0.5, 0.3]}, "toy", 9, "long"
    )
    assert table.verdict.tolist() == ["refuted", "undecided"]

"""Pools of programs with a known truth: shares are kept, planted behaviour decides, and nothing is there by chance."""

import pytest

from z1lib.analysis import programs
from z1lib.records import Behaviour
from z1lib.stats import BadAnalysis


def seen(problem: str, kind: str, outcomes: list[str], maker: str = "hypothesis") -> Behaviour:
    inputs = ["(1,)"] * len(outcomes) if kind == "right" else []
    return Behaviour(f"{problem}/{kind}/{outcomes}", problem, "", maker, kind, "code", inputs, outcomes, 0.1)


def make_bed(problems: int = 6) -> list[Behaviour]:
    wrong = [("operator", ["x", "b"]), ("branch", ["a", "y"]), ("constant", ["p", "q"]), ("boundary", ["r", "s"])]
    return [
        row
        for number in range(problems)
        for row in (seen(f"p{number}", "right", ["a", "b"]), *(seen(f"p{number}", *one) for one in wrong))
    ]


@pytest.mark.parametrize("share", programs.SHARES)
@pytest.mark.parametrize("wrong", programs.WRONG)
def test_a_pool_has_its_share_of_right_programs(share, wrong):
    outcomes, right = programs.make_pool(make_bed(1), share, wrong, seed=0)
    assert len(outcomes) == programs.POOL
    assert sum(right) == round(share * programs.POOL)
    others = {own for own, is_right in zip(outcomes, right) if not is_right}
    assert len(others) == (1 if wrong == "alike" else 4)
    assert programs.make_pool(make_bed(1)[:1], share, wrong, seed=0) is None
    assert programs.make_pool(make_bed(1), share, wrong, seed=0) == (outcomes, right)


def test_the_majority_wins_where_the_wrong_ones_agree_and_the_bounds_are_what_they_are():
    table = programs.compare(make_bed(), "hypothesis", seed=0, resamples=200).set_index(
        ["wrong ones", "share right", "rule"]
    )
    alike = table.loc["alike"]
    for name in ("medoid", "largest_group", "most_matching"):
        assert alike.loc[(0.7, name)].accuracy == 1
        assert alike.loc[(0.3, name)].accuracy == 0
    for share in programs.SHARES:
        assert table.loc[("different", share, "anyone")].accuracy == pytest.approx(round(share * 18) / 18)
        assert table.loc[("different", share, "oracle")].accuracy == 1
    assert table.loc[("different", 0.3, "largest_group")].accuracy == 1
    gain = alike.loc[(0.7, "anyone")]["medoid minus it"]
    assert gain.estimate == pytest.approx(1 - 13 / 18)


def test_inputs_are_described_by_what_they_tell_apart():
    rows = [*make_bed(2), seen("p9", "right", []), seen("p9", "branch", [])]
    [table] = programs.describe_inputs(rows).to_dict("records")
    assert table["n"] == 3
    assert table["without inputs"] == pytest.approx(1 / 3)
    assert table["wrong ones told apart"] == pytest.approx(8 / 9)
    with pytest.raises(BadAnalysis, match="no programs were run on inputs by 'atheris'"):
        programs.compare(rows, "atheris", 0, 100)

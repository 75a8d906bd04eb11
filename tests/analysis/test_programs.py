"""Pools of programs with a known truth: shares are kept, planted behaviour decides, and nothing is there by chance."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from z1lib.analysis import programs
from z1lib.records import Behaviour, Shape
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


def record(value: str) -> str:
    return json.dumps(["returns", f"int {value}", "(1,)", ""])


def test_fewer_inputs_and_other_makers_are_paired_with_the_first():
    blind = [replace(row, maker="examples", outcomes=["x", "x"]) for row in make_bed()]
    table = programs.ablate([*make_bed(), *blind], 200, 0, share=0.5).set_index(["maker", "inputs at most"])
    assert [*table.index] == [("hypothesis", 2), ("examples", 2)]
    assert table.loc[("hypothesis", 2)].accuracy == 1
    beside = table.loc[("examples", 2)]["minus the first maker, all inputs"]
    assert beside.estimate == pytest.approx(table.loc[("examples", 2)].accuracy - 1)


def test_the_pool_that_is_opened_has_two_clusters_and_a_right_answer_and_says_what_differs():
    right = [record(value) for value in "12345678"]
    near = [*right[:6], record("0"), record("0")]
    far = [record("9")] * 8
    bed = [seen("p", "right", right), seen("p", "branch", near), seen("p", "operator", far), seen("q", "right", right)]
    pool, labels, answer = programs.open_pool(bed, seed=1)
    assert pool[answer].kind == "right"
    assert {row.problem_id for row in pool} == {"p"}
    assert sorted(labels) == [0, 0, 0, 0, 1] or sorted(labels) == [0, 1, 1, 1, 1]
    table = programs.tell_apart(pool, labels, [f"({i},)" for i in range(8)])
    assert len(table) == 5
    assert set(table.iloc[0, 1:]) == {"1", "9"}
    with pytest.raises(BadAnalysis, match="two clusters and a right answer"):
        programs.open_pool(bed[-1:], seed=0)


def test_a_models_own_programs_are_chosen_among_and_priced():
    shape, rows = Shape("m", 1000, 20, 3), []
    for problem in range(6):
        for sample in range(4):
            right = sample < 2
            outcomes = (record("1"),) if right else (record(str(2 + sample)),)
            rows.append((f"p{problem}", sample, 0, right, outcomes))
    pool = pd.DataFrame(rows, columns=["problem_id", "sample", "draw", "correct", "outcomes"])
    pool = pool.assign(model="m", policy="w", window=9, total_tokens=5, overran=False, kind="code", seconds=0.5)
    pool = pool.assign(prompt_tokens=10, answer="code", thinking_tokens=5, no_answer=False)
    table = programs.compare_drawn(pool, shape, 200, 0).set_index("rule")
    assert table.loc["medoid"].accuracy == table.loc["largest_group"].accuracy == table.loc["oracle"].accuracy == 1
    assert table.loc["one sample"].accuracy == table.loc["anyone"].accuracy == 0.5
    assert table.loc["one sample", "medoid minus it"].estimate == 0.5
    assert table.loc["medoid", "seconds of sandbox"] == 2
    assert table.loc["vote", "seconds of sandbox"] == 0
    assert table.loc["medoid", "decoded"] == 20

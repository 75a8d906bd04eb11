"""What a budget saves and costs: closed forms beside counting, planted losses found, equality shown and not assumed."""

from dataclasses import replace

import pandas as pd
import pytest

from z1lib.analysis import cheaper
from z1lib.records import Completion, Grade, Problem, Recall, Shape

SHAPE = Shape("z1", 1000, 20, 3)
ROW = Completion("p", "z1-0 dense 0 short", "shifted_window", 64, 0, 0, 10, 5, 0, 0, 0, False, "stop", "", "", [1] * 5)


def make(right: dict[str, list[bool]], window: int = 64) -> pd.DataFrame:
    """One row a problem and label."""
    problems = [Problem(f"p{i}", "?", "text", "1", source="tracing") for i in range(max(map(len, right.values())))]
    rows, grades = [], []
    for label, own in right.items():
        for problem, is_right in zip(problems, own):
            key = f"{label}/{problem.id}/{window}"
            rows.append(replace(ROW, model=label, problem_id=problem.id, window=window, key=key))
            grades.append(Grade(problem.id, is_right, "1", "last", None if is_right else "wrong", key))
    return cheaper.make_frame(problems, rows, grades)


def test_what_is_read_is_counted_token_by_token():
    assert cheaper.count_read(10, 5, "dense", 0) == (10 + 11 + 12 + 13 + 14, 0)
    assert cheaper.count_read(10, 5, "now", 13) == (10 + 11 + 12 + 13 + 13, 14)
    assert cheaper.count_read(20, 2, "page", 13) == (26, round(20 / 8) + round(21 / 8))
    assert cheaper.count_read(20, 2, "window", 13) == (26, 0)
    assert cheaper.count_read(20, 0, "now", 13) == (0, 0)


def test_a_label_is_taken_apart():
    frame = make({"z1-0 ridge 64 long": [True]})
    assert frame[["model", "select", "budget", "length"]].values.tolist() == [["z1-0", "ridge", 64, "long"]]


def test_a_planted_loss_is_found_and_equality_must_be_shown():
    right = [True, False] * 100
    worse = [one and i % 20 != 0 for i, one in enumerate(right)]  # ten of the hundred right ones are lost
    few = {"z1 dense 0 long": [True, False], "z1 now 64 long": [True, True]}
    table = cheaper.compare(
        make({"z1 dense 0 short": right, "z1 now 64 short": right, "z1 now 16 short": worse}), SHAPE, 500, 0
    )
    rows = table.set_index(["select", "budget"])
    assert rows.loc[("now", 64)].enough
    assert not rows.loc[("now", 16)].enough
    assert rows.loc[("now", 16)]["minus dense"].estimate == pytest.approx(-0.05)
    assert rows.loc[("now", 16)]["minus dense"].high < 0
    assert rows.loc[("dense", 0)].attended == sum(range(10, 15))
    [enough] = cheaper.first_enough(table)["first budget"]
    assert enough == 64
    alike = {"z1 dense 0 long": [True] * 3, "z1 now 64 long": [True] * 3}
    [none] = cheaper.first_enough(cheaper.compare(make(alike), SHAPE, 500, 0))["first budget"]
    assert pd.isna(none)  # three problems show nothing
    unsure = {**few, "z1 now 64 long": [False, True]}
    [none] = cheaper.first_enough(cheaper.compare(make(unsure), SHAPE, 500, 0))["first budget"]
    assert pd.isna(none)


def test_a_larger_budget_that_fails_takes_the_smaller_one_with_it():
    rows = [("short", 64, "now", budget, 9, enough) for budget, enough in ((16, True), (32, False), (64, True))]
    table = pd.DataFrame(rows, columns=["length", "window", "select", "budget", "n", "enough"])
    assert cheaper.first_enough(table)["first budget"].tolist() == [64]


def test_recall_is_paired_with_the_last_querys_choice():
    rows = [
        Recall(f"{p}/{layer}/{select}", f"c{p}", f"p{p}", layer, select, 16, value + p / 10, 0.1, 0.5, 0.9, 0.6)
        for p in range(5)
        for layer in (0, 1)
        for select, value in (("last", 0.2), ("ridge", 0.3))
    ]
    table = cheaper.compare_recalls(rows, 200, 0).set_index("select")
    assert table.loc["ridge", "recall minus last"].estimate == pytest.approx(0.1)
    assert table.loc["ridge", "recall minus last"].low > 0
    assert table.loc["last", "recall minus last"].estimate == 0
    assert table.n.tolist() == [5, 5]

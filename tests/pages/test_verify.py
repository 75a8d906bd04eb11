"""Verification passes on another draw of the same recipe and fails on what cannot be one."""

import gzip
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from z1lib.analysis.tables import SUMMARY
from z1lib.pages import verify
from z1lib.profile import load_profile

ROOT = Path(__file__).parent.parent.parent
MINI = load_profile("mini")


def summary(accuracy: float = 0.5, n: int = 160, model: str = "z1", level: str = "all", tokens: float = 50):
    values = [model, "shifted_window", 64, "tracing", level, n, accuracy, accuracy - 0.07, accuracy + 0.07]
    return pd.DataFrame([[*values, tokens, tokens + 20, 0.4]], columns=SUMMARY)


def compare(fresh: pd.DataFrame, committed: pd.DataFrame, exactly: bool = False) -> list[str]:
    return verify.compare(fresh, committed, MINI, exactly)


@pytest.mark.parametrize(("one", "other"), [(0.79, 0.72), (0.72, 0.63), (0.79, 0.63)])
def test_the_published_trainings_of_one_recipe_are_draws_of_it(one, other):
    assert compare(summary(one), summary(other)) == []


def test_thirty_points_of_a_trained_model_are_no_draw_and_it_says_which_row_moved():
    [line] = compare(summary(0.80), summary(0.50))
    assert line.startswith("z1, shifted_window 64, tracing: accuracy 0.80, committed 0.50, allowed 0.2")


def test_a_recipe_that_varies_as_much_as_r1_is_held_only_to_what_it_can_be():
    assert compare(summary(0.68, n=40, model="r1"), summary(0.33, n=40, model="r1")) == []  # two that were published
    assert compare(summary(0.95, n=160, model="r1"), summary(0.30, n=160, model="r1"))


def test_two_problems_are_no_alarm_and_many_of_an_untrained_model_are():
    assert compare(summary(0.0, n=2), summary(1.0, n=2)) == []
    assert compare(summary(0.20, model="base"), summary(0.05, model="base"))
    assert compare(summary(0.06, model="base"), summary(0.05, model="base")) == []


def test_on_the_same_machine_everything_repeats_to_the_last_digit():
    assert compare(summary(tokens=50), summary(tokens=50), exactly=True) == []
    [line] = compare(summary(tokens=51), summary(tokens=50), exactly=True)
    assert "thinking_tokens, total_tokens should repeat exactly" in line
    assert compare(summary(tokens=90), summary(tokens=50)) == []


def test_rows_that_are_missing_or_of_other_sizes_are_named():
    assert len(compare(summary(), summary().assign(window=8))) == 2
    assert compare(summary(n=159), summary()) == ["z1, shifted_window 64, tracing: 159 completions, committed 160"]


def notes(**changed) -> dict:
    stage = {"code": "c", "hardware": {"processor": "p", "cores": 2}, "versions": {"torch": "2"}, **changed}
    return {"stages": {"02_sft": stage}}


def test_two_runs_are_alike_only_by_code_machine_and_versions():
    assert verify.made_alike(notes(), notes())
    for changed in ({"code": "d"}, {"hardware": {"processor": "p", "cores": 4}}, {"versions": {"torch": "3"}}):
        assert not verify.made_alike(notes(), notes(**changed))


@pytest.fixture
def committed(tmp_path) -> Path:
    return Path(shutil.copytree(ROOT / "figures/mini", tmp_path / "mini"))


@pytest.mark.parametrize("folder", sorted(ROOT.glob("figures/*/RESULTS.md")), ids=lambda file: file.parent.name)
def test_what_is_committed_follows_from_the_committed_completions(folder):
    assert verify.check_committed(folder.parent) == []


def test_one_changed_grade_is_found(committed):
    file = committed / "artifacts/grades.jsonl.gz"
    first, *rest = gzip.decompress(file.read_bytes()).decode().splitlines()
    values = json.loads(first)
    values["correct"] = not values["correct"]
    file.write_bytes(gzip.compress("\n".join([json.dumps(values), *rest]).encode() + b"\n"))
    found = verify.check_committed(committed)
    assert any(": 1 of " in line and "grades do not repeat" in line for line in found)
    assert any(line.startswith(f"{values['problem_id']}: committed as {values['correct']}") for line in found)


def test_a_changed_number_of_a_table_is_found(committed):
    table = pd.read_csv(committed / "summary.csv")
    table.loc[3, "accuracy"] += 0.01
    (committed / "summary.csv").write_text(verify.to_csv(table))
    assert any("summary.csv does not follow" in line for line in verify.check_committed(committed))


def test_verifying_without_a_summary_says_what_to_do(tmp_path, capsys):
    assert verify.main(tmp_path / "mini", tmp_path / "mini") == 2
    assert "`make reproduce PROFILE=mini` makes a summary" in capsys.readouterr().out

"""Subsets of the data under equal token budgets, and what is said about the models trained on them."""

import pandas as pd
import pytest
import yaml

from tests.conftest import make_profile, sections
from tests.test_notebooks import clone_project, make
from z1lib.analysis import subsets
from z1lib.profile import load_profile
from z1lib.records import Trajectory
from z1lib.sft.data import training_runs
from z1lib.stats import BadAnalysis

SUBSETS = {
    "longest": {"order": "longest", "tokens": 300, "seeds": [0, 1]},
    "random": {"order": "random", "tokens": 300, "seeds": [0, 1]},
    "full": {"order": "random", "tokens": None, "seeds": [0, 1]},
}
MODELS = {f"{name}-{seed}": "shifted_window" for name in SUBSETS for seed in (0, 1)}
PROFILE = make_profile("smoke", subsets=SUBSETS, models=MODELS)
POOL = [Trajectory(f"t{i}", f"q{i}", "a", 10 + i, 1, "toy", "z1") for i in range(40)]
POOL += [Trajectory(f"r{i}", f"q{i}", "a", 10 + i, 1, "toy", "r1") for i in range(5)]


def tokens(rows) -> int:
    return sum(row.token_count for row in rows)


def test_without_subsets_the_runs_are_trained_but_those_that_are_released():
    runs = training_runs(POOL, make_profile("smoke", released_models={"z1": "someone/z1"}))
    assert {run: len(rows) for run, (rows, _) in runs.items()} == {"r1": 5}


def test_subsets_have_nearly_equal_budgets_and_each_seed_is_a_run_of_its_own():
    runs = training_runs(POOL, PROFILE)
    assert list(runs) == ["longest-0", "longest-1", "random-0", "random-1", "full-0", "full-1"]
    assert all(280 < tokens(runs[name][0]) <= 300 for name in list(runs)[:4])
    assert [by.seed for _, by in runs.values()] == [0, 1] * 3
    assert {row.id for row in runs["full-0"][0]} == {f"t{i}" for i in range(40)}
    assert min(row.token_count for row in runs["longest-0"][0][:5]) > 40
    assert runs["random-0"][0] != runs["random-1"][0]


@pytest.mark.parametrize(("name", "subsets"), [("mini_ablation", 4), ("paper_ablation", 5)])
def test_the_ablation_profiles_decode_every_model_they_train(name, subsets):
    profile = load_profile(name)
    assert len(profile.sft.subsets) == subsets
    first, *others = profile.sft.subsets.values()  # what the others are compared with: the claim is about the longest
    assert first.order == "longest"
    assert sum(subset.tokens == first.tokens for subset in others) == 2
    assert set(profile.inference.models) == {
        f"{key}-{seed}" for key, subset in profile.sft.subsets.items() for seed in subset.seeds
    }
    if name == "mini_ablation":
        assert {subset.tokens for key, subset in profile.sft.subsets.items() if key != "full"} == {20000}
        assert all(len(subset.seeds) >= 2 for subset in profile.sft.subsets.values())


def make_frame(accuracy: dict[str, float], problems: int = 40) -> pd.DataFrame:
    rows = [
        (f"{name}-{seed}", "shifted_window", window, "toy", f"p{i}", i < share * problems and window > 8, 50)
        for name, share in accuracy.items()
        for seed in (0, 1)
        for i in range(problems)
        for window in (8, max(PROFILE.inference.windows))
    ]
    columns = ["model", "policy", "window", "problem_set", "problem_id", "correct", "thinking_tokens"]
    return pd.DataFrame(rows, columns=columns)


def test_every_subset_has_its_accuracy_over_problems_and_trainings():
    table = subsets.compare_subsets(make_frame({"longest": 0.8, "random": 0.3, "full": 0.8}), POOL, PROFILE)
    assert table.accuracy.tolist() == pytest.approx([0.8, 0.3, 0.8])
    assert table.train_tokens[0] == tokens(training_runs(POOL, PROFILE)["longest-0"][0])
    assert table.benchmark.tolist() == ["toy"] * 3


@pytest.mark.slow
def test_make_ablation_trains_decodes_and_compares_every_subset_and_does_nothing_twice(tmp_path):
    folder = clone_project(tmp_path / "clone")
    budgets = {name: {**subset, "tokens": subset["tokens"] and 1500} for name, subset in SUBSETS.items()}
    keys = {"runs": {"z1": "plain"}, "subsets": budgets, "models": MODELS, "windows": [8], "probe_every": 8}
    keys |= {"other_hint_windows": [], "max_problems": {}, "test_problems": {"tracing": 5}}
    values = {"like": "smoke", **sections(**keys)}
    (folder / "profiles/tiny.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    run = make(folder, "-o", "own", "ablation", "ABLATION=tiny")
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    made = {path.name for path in (folder / "runs/tiny").rglob("*")}
    assert made >= {"subsets.csv", "summary.csv", "provenance.json", "accuracy_by_subset.png"}
    assert pd.read_csv(folder / "runs/tiny/subsets.csv").subset.tolist() == list(SUBSETS)
    assert "==" not in make(folder, "-o", "own", "ablation", "ABLATION=tiny").stdout


def test_a_model_that_was_not_decoded_is_named():
    frame = make_frame({"longest": 0.5, "random": 0.5})
    with pytest.raises(BadAnalysis, match="full-0"):
        subsets.compare_subsets(frame, POOL, PROFILE)
    frame = make_frame({"longest": 0.5, "random": 0.5, "full": 0.5})
    frame = frame[(frame.model != "random-1") | (frame.problem_id != "p7")]
    with pytest.raises(BadAnalysis, match="random-1 lacks 1 problems"):
        subsets.compare_subsets(frame, POOL, PROFILE)

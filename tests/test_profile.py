"""Profiles load, and say what is wrong with one that does not."""

import dataclasses

import pytest
import yaml

from z1lib.profile import PROFILES, BadProfile, Profile, load_profile

NAMES = sorted(file.stem for file in PROFILES.glob("*.yaml"))
KEYS = {field.name for field in dataclasses.fields(Profile)} - {"name"}


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_has_the_same_keys_or_is_like_one_that_has(name):
    keys = set(yaml.safe_load((PROFILES / f"{name}.yaml").read_text()))
    assert keys == KEYS or ("like" in keys and keys - {"like"} < KEYS)
    assert load_profile(name).name == name


def test_a_profile_like_another_takes_what_it_does_not_name(tmp_path):
    copy = tmp_path / "mine.yaml"
    copy.write_text("like: smoke\nseed: 5\n")
    mine, smoke = load_profile(copy), load_profile("smoke")
    assert {key for key in KEYS if getattr(mine, key) != getattr(smoke, key)} == {"seed"}
    copy.write_text("like: nothing\n")
    with pytest.raises(BadProfile, match="no profile 'nothing'"):
        load_profile(copy)
    copy.write_text("just words")
    with pytest.raises(BadProfile, match="mine.yaml: should hold keys and values"):
        load_profile(copy)


def test_values_are_overridden_and_the_profile_is_frozen():
    profile = load_profile("smoke", seed=7, windows=[8, 16])
    assert (profile.seed, profile.windows) == (7, [8, 16])
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.seed = 8


def test_a_profile_that_is_like_itself_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("z1lib.profile.PROFILES", tmp_path)
    (tmp_path / "a.yaml").write_text("like: b")
    (tmp_path / "b.yaml").write_text("like: a")
    with pytest.raises(BadProfile, match="is like itself, by way of a, b"):
        load_profile("a")


def test_loading_a_profile_again_gives_the_same():
    profile = load_profile("smoke")
    assert load_profile(profile) == profile  # a notebook's cell that is run twice


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
        ({"mixed_precision": "fp8"}, "key 'mixed_precision': 'fp8' is not one of bf16, fp16, no"),
        ({"subsets": {"longest": {"order": "longest"}}}, "key 'subsets': longest should have order, tokens and seeds"),
        (
            {"subsets": {k: {"order": "random", "tokens": 9, "seeds": list(range(k == "b"))} for k in "ab"}},
            "key 'subsets': all need as many seeds",
        ),
        ({"lora": {"r": 8}, "fsdp": {"version": 2}}, "keys 'lora' and 'fsdp'"),
        ({"n": 0}, "key 'n' must be at least 1"),
        ({"hints": {"shifted_window": 3}}, "key 'hints' should be"),
        ({"hints": {}}, "key 'hints': none for budget_forcing, shifted_window"),
        ({"other_hint_windows": [-1]}, "key 'other_hint_windows'"),
        ({"models": {"z1": "foo"}}, "key 'models': z1 has policy 'foo'"),
        ({"engine": "nope"}, "key 'engine': 'nope' is not one of transformers, vllm, server"),
        ({"gradient_accumulation_steps": 0}, "key 'gradient_accumulation_steps' must be at least 1"),
        ({"response_token_budget": -5}, "key 'response_token_budget'"),
        ({"learning_rate": -1.0}, "key 'learning_rate' must be from 0 to 1"),
        ({"top_p": 5.0}, "key 'top_p'"),
        ({"temperature": -1.0}, "key 'temperature'"),
        ({"gpus": -1}, "key 'gpus'"),
        ({"test_problems": {"tracing": -3}}, "key 'test_problems': tracing"),
        ({"train_levels": []}, "key 'train_levels'"),
        ({"max_tokens": 8}, "key 'max_tokens': 8 is below the largest window"),
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
    with pytest.raises(BadProfile, match=f"there are {', '.join(NAMES)}"):
        load_profile("huge")


def test_every_number_of_the_paper_profile_has_its_source():
    lines = (PROFILES / "paper.yaml").read_text().splitlines()
    for i, line in enumerate(lines):
        key, _, value = line.strip().partition(":")
        if key in (
            "learning_rate",
            "warmup_steps",
            "epochs",
            "batch_size",
            "max_length",
            "windows",
            "n",
            "temperature",
            "mixed_precision",
            "version",
            "reshard_after_forward",
            "activation_checkpointing",
            "training_tokens_per_second",
        ):
            above = " ".join(lines[max(0, i - 3) : i])
            assert any(mark in value + above for mark in ("[P]", "[R]", "[C]", "[ours]")), key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"repetition": {"least_tokens": 40}}, "key 'repetition' should hold .*'loop_ratio'"),
        ({"teacher": {"model": "x", "speed": 1}}, "key 'teacher' should hold .*'servers'"),
        ({"drop_overlap": ["letters"]}, "key 'drop_overlap' takes 'question' and 'words'"),
        ({"min_response_tokens": 10, "max_response_tokens": 9}, "key 'min_response_tokens'"),
    ],
)
def test_senseless_filters_are_refused(values, message):
    with pytest.raises(BadProfile, match=message):
        load_profile("mini", **values)

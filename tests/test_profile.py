"""Profiles load, and say in one sentence what is wrong with one that does not."""

import pytest
import yaml
from pydantic import ValidationError

from z1lib import hardware
from z1lib.profile import MOVED, PROFILES, BadProfile, Profile, load_profile

NAMES = sorted(file.stem for file in PROFILES.glob("*.yaml"))
SECTIONS = set(Profile.model_fields) - {"name"}


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_has_all_sections_or_is_like_one_that_has(name):
    keys = set(yaml.safe_load((PROFILES / f"{name}.yaml").read_text()))
    assert keys == SECTIONS or ("like" in keys and keys - {"like"} < SECTIONS)
    assert load_profile(name).name == name


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mini", "paper")])
def test_what_is_like_another_says_only_what_differs(name, tmp_path):
    values = yaml.safe_load((PROFILES / f"{name}.yaml").read_text())
    other, own = load_profile(values.pop("like")).model_dump(), load_profile(name).model_dump()
    for section, keys in values.items():
        assert all(other[section][key] != own[section][key] for key in keys), section


def test_a_profile_like_another_takes_what_it_does_not_name(tmp_path):
    copy = tmp_path / "mine.yaml"
    copy.write_text("like: smoke\nsft: {epochs: 5}\ncuration: {teacher: {gpus: 9}, test_problems: {tracing: 3}}\n")
    mine, smoke = load_profile(copy), load_profile("smoke")
    assert mine.sft.model_dump() == {**smoke.sft.model_dump(), "epochs": 5}
    assert mine.curation.teacher.model_dump() == {**smoke.curation.teacher.model_dump(), "gpus": 9}
    assert mine.curation.test_problems == {"tracing": 3}  # a mapping that is a value is taken whole
    copy.write_text("like: nothing\n")
    with pytest.raises(BadProfile, match="no profile 'nothing'"):
        load_profile(copy)
    copy.write_text("just words")
    with pytest.raises(BadProfile, match="mine.yaml: should hold keys and values"):
        load_profile(copy)


def test_values_are_overridden_and_the_profile_is_frozen():
    profile = load_profile("smoke", seed=7, inference={"windows": [16, 32]})
    assert (profile.seed, profile.inference.windows, profile.inference.n) == (7, [16, 32], 1)
    with pytest.raises(ValidationError, match="frozen"):
        profile.seed = 8


def test_a_profile_survives_json():
    profile = load_profile("paper")
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


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
        ({"colour": 1}, "no key 'colour'; the nearest is '"),
        ({"sfft": {}}, "no key 'sfft'; the nearest is 'sft'"),
        ({"sft": {"epoch": 2}}, "no key 'sft.epoch'; the nearest is 'sft.epochs'"),
        ({"curation": {"teacher": {"speed": 1}}}, "no key 'curation.teacher.speed'"),
        ({"learning_rate": 0.1}, "key 'learning_rate' is now 'sft.learning_rate'"),
        ({"models": {}}, "key 'models' is now 'inference.models'"),
        ({"bootstrap_draws": 3}, "key 'bootstrap_draws' is now 'analysis.resamples'"),
        ({"seed": "0"}, "key 'seed' should be a valid integer, got '0'"),
        ({"sft": 3}, "key 'sft' should be a valid dictionary"),
        ({"sft": {"epochs": True}}, "key 'sft.epochs' should be a valid integer, got True"),
        ({"sft": {"mixed_precision": "fp8"}}, "key 'sft.mixed_precision' should be 'bf16', 'fp16' or 'no', got 'fp8'"),
        ({"sft": {"runs": {"a": {"order": "longest"}}}}, "key 'sft.runs.a.style' is missing"),
        ({"sft": {"runs": {"a": {"style": "lean", "order": "best"}}}}, "key 'sft.runs.a.order' should be"),
        ({"sft": {"runs": {"a": {"style": "lean", "within_levels": True, "tokens": 5}}}}, "one of the two"),
        ({"sft": {"seeds": [0, 1, 0]}}, "seeds: \\[0, 1, 0\\] holds 0 twice"),
        ({"inference": {"other_hint_windows": [16, 16]}}, "other_hint_windows: \\[16, 16\\] holds 16 twice"),
        ({"inference": {"models": {"z1": ["truncation", "truncation"]}}}, "models: .* holds 'truncation' twice"),
        ({"inference": {"models": {"z1": "truncation"}}}, "models: none is decoded under shifted_window"),
        ({"inference": {"models": {"z2": "shifted_window"}}}, "inference.models names 'z2', .* the nearest is 'z1'"),
        ({"inference": {"delimiters": {"r1": "</think>", "r2": "x"}}}, "inference.delimiters names 'r2'.*'r1'"),
        ({"inference": {"delimiters": {}}}, "delimiters: none for r1, which is decoded under budget_forcing"),
        ({"inference": {"max_problems": {"bas": 3}}}, "inference.max_problems names 'bas'.*'base'"),
        ({"inference": {"max_problems": {"base": {"tracin": 3}}}}, "max_problems.base names 'tracin'.*'tracing'"),
        ({"inference": {"hints": {"shifted_window": "a", "budget_forcing": "b", "tuncation": "c"}}}, "no policy 'tunc"),
        ({"model": {"evaluation_system_prompts": {"math": "a"}}}, "model.evaluation_system_prompts names 'math'"),
        ({"sft": {"runs": {"a": {"style": "lean", "seeds": [3]}}}}, "a has the seeds \\[3\\], which are not all among"),
        ({"sft": {"subsets": {}}}, "key 'sft.subsets' is now 'sft.runs'"),
        ({"sft": {"lora": {"r": 8}, "fsdp": {"version": 2}}}, "lora and fsdp: adapters are merged on one device"),
        ({"sft": {"average_last": 0.2, "fsdp": {"version": 2}}}, "average_last and fsdp: the mean is kept on one"),
        ({"sft": {"average_last": 1.5}}, "key 'sft.average_last' should be less than or equal to 1, got 1.5"),
        (
            {"sft": {"gradient_accumulation_steps": 0}},
            "'sft.gradient_accumulation_steps' should be greater than or equ",
        ),
        ({"sft": {"lora": {"rank": 8}}}, "lora: .*'rank'"),
        ({"sft": {"fsdp": {"reshard_after_foward": True}}}, "reshard_after_foward"),
        ({"sft": {"seeds": [-1]}}, "key 'sft.seeds.0' should be greater than or equal to 0"),
        ({"seed": 2**40}, "key 'seed' should be less than 4294967296"),
        ({"inference": {"engine_options": {"batch_size": 0}}}, "batch_size"),
        ({"inference": {"engine_options": {"batchsize": 8}}}, "batchsize"),
        ({"inference": {"engine": "server", "engine_options": {"concurency": 8}}}, "concurency"),
        ({"inference": {"temperature": 1e-40}}, "'inference.temperature': must be 0 \\(greedy\\) or from 0.01"),
        ({"inference": {"temperature": float("nan")}}, "'inference.temperature': must be 0"),
        ({"curation": {"train_levels": [0]}}, "key 'curation.train_levels.0' should be greater than or equal to 1"),
        ({"curation": {"train_levels": [9]}}, "key 'curation.train_levels.0' should be less than or equal to 7"),
        ({"sft": {"tokens_per_second": float("inf")}}, "key 'sft.tokens_per_second'"),
        ({"sft": {"learning_rate": -1.0}}, "key 'sft.learning_rate' should be greater than or equal to 0"),
        ({"sft": {"learning_rate": 3}}, "key 'sft.learning_rate' should be less than or equal to 1, got 3"),
        ({"inference": {"windows": [-1, 4]}}, "key 'inference.windows.0' should be greater than or equal to 0"),
        ({"inference": {"windows": [8, 4]}}, "key 'inference': windows must rise"),
        ({"inference": {"windows": [4, 4]}}, "key 'inference': windows: \\[4, 4\\] holds 4 twice"),
        ({"inference": {"windows": []}}, "key 'inference.windows'"),
        ({"inference": {"n": 0}}, "key 'inference.n' should be greater than or equal to 1"),
        ({"inference": {"hints": {"shifted_window": 3}}}, "key 'inference.hints.shifted_window' should be a valid str"),
        ({"inference": {"hints": {}}}, "hints: none for budget_forcing, shifted_window"),
        ({"inference": {"other_hint_windows": [-1]}}, "other_hint_windows"),
        ({"inference": {"models": {"z1": "foo"}}}, "no policy 'foo'; there are shifted_window, budget_forcing, trunc"),
        ({"inference": {"engine": "nope"}}, "'inference.engine' should be 'transformers', 'vllm' or 'server'"),
        ({"inference": {"top_p": 5.0}}, "key 'inference.top_p'"),
        ({"inference": {"temperature": -1.0}}, "key 'inference.temperature'"),
        ({"inference": {"max_tokens": 8}}, "max_tokens: 8 is below the largest window"),
        ({"inference": {"probe_every": 5}}, "probe_every: the windows must hold every multiple of 5"),
        ({"hardware": {"gpus": -1}}, "key 'hardware.gpus'"),
        ({"hardware": {"gpus": 3, "machines": 2}}, "3 gpus cannot be spread evenly over 2 machines"),
        ({"curation": {"response_token_budget": -5}}, "key 'curation.response_token_budget'"),
        ({"curation": {"test_problems": {"tracing": -3}}}, "key 'curation.test_problems.tracing'"),
        ({"curation": {"train_levels": []}}, "tracing needs at least one of each"),
        ({"curation": {"drop_overlap": ["letters"]}}, "'curation.drop_overlap.0' should be 'question' or 'words'"),
        ({"curation": {"min_response_tokens": 10, "max_response_tokens": 9}}, "min_response_tokens must be at most"),
    ],
)
def test_a_bad_value_is_named_by_file_and_key_in_one_sentence(overrides, message):
    with pytest.raises(BadProfile, match=message) as error:
        load_profile("smoke", **overrides)
    assert str(error.value).startswith(f"{PROFILES / 'smoke.yaml'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("seed: 1\nseed: 2", "key 'seed' stands there twice"),
        ("sft:\n  epochs: 1\n  epochs: 2", "key 'epochs' stands there twice"),
        ("seed: 010", "YAML reads 010 as 8: write it so, or in quotes"),
        ("seed: 1:30", "YAML reads 1:30 as 90"),
        ("seed: 0x1f", "YAML reads 0x1f as 31"),
        ("sft: {gradient_checkpointing: no}", "YAML reads no as False"),
        ("sft: {mixed_precision: no}", "YAML reads no as False"),
        ("seed: [", "not valid YAML"),
    ],
)
def test_what_yaml_would_read_as_something_else_is_refused(tmp_path, lines, said):
    path = tmp_path / "p.yaml"
    path.write_text(f"like: mini\n{lines}\n")
    with pytest.raises(BadProfile, match=said) as error:
        load_profile(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_numbers_and_truth_are_read_as_they_are_written_also_behind_a_mark_of_the_byte_order(tmp_path):
    path = tmp_path / "p.yaml"
    lines = "like: mini\nseed: +12\nsft: {gradient_checkpointing: True}\ncuration: {train_problems: 1_000}\n"
    path.write_text(f"\ufeff{lines}", encoding="utf-8")
    profile = load_profile(path)
    read = profile.seed, profile.sft.gradient_checkpointing, profile.curation.train_problems
    assert read == (12, True, 1000)


def test_every_key_of_the_flat_profiles_says_where_it_went():
    values = load_profile("mini").model_dump()
    for path in MOVED.values():
        section, _, key = path.partition(".")
        assert key in values[section]


def test_a_flat_profile_says_where_its_first_key_went(tmp_path):
    (tmp_path / "old.yaml").write_text("seed: 0\ngpus: 0\nbase_model: random\n")
    with pytest.raises(BadProfile, match="old.yaml: key 'gpus' is now 'hardware.gpus'"):
        load_profile(tmp_path / "old.yaml")


def test_a_missing_key_is_named(tmp_path):
    short = tmp_path / "short.yaml"
    short.write_text("seed: 0\n")
    with pytest.raises(BadProfile, match="short.yaml: key 'hardware' is missing"):
        load_profile(short)


def test_an_unknown_profile_lists_those_there_are():
    with pytest.raises(BadProfile, match=f"there are {', '.join(NAMES)}"):
        load_profile("huge")
    with pytest.raises(BadProfile, match="no profile 'minni', did you mean 'mini'"):
        load_profile("minni")


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
            "tokens_per_second",
        ):
            above = " ".join(lines[max(0, i - 3) : i])
            assert any(mark in value + above for mark in ("[P]", "[R]", "[C]", "[ours]")), key


def test_decoding_takes_bfloat16_where_there_are_units_unless_the_profile_says_otherwise(monkeypatch):
    def resolved(engine: str, dtype: str | None) -> str | None:
        options = {"engine": engine, "dtype": dtype}
        return hardware.decoding_dtype(load_profile("mini", inference=options))

    monkeypatch.setattr(hardware, "has_bf16_units", lambda: True)
    assert [resolved("transformers", dtype) for dtype in (None, "float32")] == ["bfloat16", "float32"]
    assert resolved("vllm", None) is resolved("server", None) is None
    monkeypatch.setattr(hardware, "has_bf16_units", lambda: False)
    assert resolved("transformers", None) is None
    with pytest.warns(UserWarning, match=r"no units for bfloat16 here: .* takes [\d.]+ times"):
        assert resolved("transformers", "bfloat16") == "bfloat16"


def test_a_server_chooses_its_own_dtype():
    with pytest.raises(BadProfile, match="dtype: a server chooses its own"):
        load_profile("paper", inference={"dtype": "float16"})

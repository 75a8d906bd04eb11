"""Budgets in the study: dense rows are plain decoding, long prompts hold solved problems, a rerun does nothing."""

from dataclasses import replace

import pytest

from z1lib.chat import encode_prompt
from z1lib.engines import load_engine
from z1lib.engines.sparse import Sparse
from z1lib.files import write_jsonl
from z1lib.inference import cheaper
from z1lib.inference.sweep import sweep_problems
from z1lib.profile import BadProfile, load_profile
from z1lib.records import Problem, Trajectory
from z1lib.study import Study
from z1lib.window import ShiftedWindow

ASKED = {"models": ["z1"], "problems": {"tracing": 2}, "windows": [8, 24], "selects": ["ridge", "last"]}
ASKED |= {"budgets": [16, 4000], "long_problems": {"tracing": 1}, "long_tokens": 600, "long_budgets": [16]}
PROFILE = load_profile("smoke", inference={"cheaper": ASKED}, sft={"seeds": []})
PROBLEMS = [Problem(f"tracing-{i}", f"What is {i} + {i}?", "text", str(2 * i), source="tracing") for i in range(3)]


@pytest.fixture
def study(tiny_model, tmp_path, monkeypatch):
    opened = Study(PROFILE, tmp_path)
    monkeypatch.setattr(opened, "model", lambda name: str(tiny_model))
    rows = [Trajectory(f"t{i}", f"What is {i}?", f"{i}", 9, 1, "tracing", "z1") for i in range(40)]
    write_jsonl(opened.path("sft.jsonl"), [*rows, replace(rows[0], id="other", run="r1")])
    return opened


def test_dense_rows_are_plain_decoding_and_a_large_budget_gives_the_same(study, tiny_model, tmp_path):
    rows, recalls = cheaper.decode_sparse(study, PROBLEMS)
    of = {label: [row for row in rows if row.model == label] for label in dict.fromkeys(row.model for row in rows)}
    assert [*of] == [
        "z1 dense 0 short", "z1 dense 0 long", "z1 ridge 16 short", "z1 ridge 16 long", "z1 ridge 4000 short",
        "z1 last 16 short", "z1 last 16 long", "z1 last 4000 short",
    ]  # fmt: skip
    engine = load_engine("transformers", tiny_model, "float32")
    hint = PROFILE.hint_of("shifted_window")
    policies = [ShiftedWindow(window, hint, PROFILE.inference.max_answer_tokens) for window in ASKED["windows"]]
    plain = sweep_problems(engine, PROBLEMS[:2], [policies] * 2, None, PROFILE.system_prompt_of)
    ids = [row.token_ids for row in plain]
    assert [row.token_ids for row in of["z1 dense 0 short"]] == ids
    assert [row.token_ids for row in of["z1 ridge 4000 short"]] == ids
    assert len({row.key for row in rows}) == len(rows)
    found = {(one.select, one.budget, one.problem_id) for one in recalls}
    assert found == {(select, 16, "tracing-0") for select in ASKED["selects"]}  # no trace outgrows the other
    assert cheaper.decode_sparse(study, PROBLEMS) == (rows, recalls)


def test_long_prompts_hold_the_runs_own_solved_problems_up_to_their_tokens(study, tiny_model):
    engine = load_engine("transformers", tiny_model, "float32")
    turns = cheaper.take_examples(study, engine, "z1", 600)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
    assert turns[1]["content"] == "0"
    assert turns[2]["content"] == "What is 1?"
    length = len(encode_prompt(engine.tokenizer, [*turns, {"role": "user", "content": ""}]))
    assert 500 < length <= 600
    assert cheaper.take_examples(study, engine, "z1", 1) == []


def test_a_label_says_how_it_was_decoded():
    assert cheaper.label("z1-3", Sparse(64, "page"), "long") == "z1-3 page 64 long"
    assert cheaper.label("z1-3", None, "short") == "z1-3 dense 0 short"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"long_budgets": [999]}, r"long_budgets: \[999\] are not all among the budgets"),
        ({"models": ["z9"]}, "names 'z9'"),
        ({"long_problems": {"tracin": 1}}, "inference.cheaper.long_problems names 'tracin'"),
        ({"selects": ["best"]}, "selects"),
    ],
)
def test_what_is_asked_must_fit(change, said):
    with pytest.raises(BadProfile, match=said):
        load_profile("smoke", inference={"cheaper": {**ASKED, **change}})

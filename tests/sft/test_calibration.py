"""Self-Calibration: labels that are shares, a question on one side of a split, the loss written twice, a small fit."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import make_profile
from z1lib.chat import conversation, encode_prompt, encode_question
from z1lib.inference.confidence import QUESTION, find_yes_and_no
from z1lib.profile import load_profile
from z1lib.records import Trajectory
from z1lib.sft.calibration import (
    Rated,
    balance,
    calibration_loss,
    collate,
    label_answers,
    learn,
    self_calibrate,
    split_questions,
    to_example,
)
from z1lib.sft.data import IGNORE
from z1lib.stats import calibration_error

ASKED = load_profile("mini_calibrated").sft.calibrated["z1_sure"]
QUESTIONS = [Trajectory(f"q{i}", f"What is {i} + {i}?", "", 1, 1, "tracing", "z1") for i in range(4)]

answers = st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.floats(0, 1)), min_size=1, max_size=12)


@settings(deadline=None)  # the first comparison of answers imports a library
@given(answers)
def test_labels_sum_to_one_over_the_distinct_answers_to_a_question(drawn):
    told, scores = zip(*drawn)
    labels = label_answers(told, scores)
    shares = {answer: label for answer, label in zip(told, labels) if answer is not None}
    assert all(label == 0 for answer, label in zip(told, labels) if answer is None)
    assert all(label == shares[answer] for answer, label in zip(told, labels) if answer is not None)
    assert sum(shares.values()) == pytest.approx(1 if shares else 0)


def test_a_label_is_the_share_of_the_scores_that_an_answer_gets():
    assert label_answers(["4", "4.0", "5", None], [0.2, 0.4, 0.4, 0.9]) == pytest.approx([0.6, 0.6, 0.4, 0.0])
    assert label_answers(["4", "5"], [0.0, 0.0]) == [0.5, 0.5]


def row(label: float, question: int = 0, ids: tuple[int, ...] = (5,)) -> Rated:
    return Rated(f"q{question}", [1, 2], list(ids), [3, 4, 6], label)


def test_rows_are_balanced_over_the_bins_of_labels():
    rows = [row(0.99)] * 50 + [row(0.5)] * 5 + [row(0.01)] * 3
    taken = [one.label for one in balance(rows, 12, seed=0)]
    assert {label: taken.count(label) for label in set(taken)} == {0.99: 4, 0.5: 5, 0.01: 3}
    with pytest.raises(ValueError, match="no answers to learn from"):
        balance([], 12, seed=0)


@given(st.integers(1, 30), st.integers(0, 9))
def test_no_question_is_on_both_sides_of_a_split(questions, seed):
    rows = [row(0.5, i % questions) for i in range(60)]
    learned, held = split_questions(rows, 0.2, seed)
    assert len(learned) + len(held) == len(rows)
    assert not {one.problem_id for one in learned} & {one.problem_id for one in held}
    assert len({one.problem_id for one in held}) == round(0.2 * questions)


def test_the_loss_is_what_the_formula_says_row_by_row_and_id_by_id():
    rows = [row(0.9, ids=(7, 8)), row(0.3), row(0.76, ids=(9,))]
    batch = collate([to_example(one, learn_above=0.75) for one in rows])
    logits = torch.randn(*batch["input_ids"].shape, 12, generator=torch.Generator().manual_seed(0))
    sure, learned = [], []
    for place, one in enumerate(rows):
        ids = one.prompt_ids + one.response_ids + one.question_ids
        odds = logits[place, len(ids) - 1]
        gap = abs(float(odds.exp()[11] / odds.exp().sum()) - one.label)
        sure.append(0.5 * gap**2 / 0.25 if gap < 0.25 else gap - 0.125)
        for k in range(2, 3 + len(one.response_ids)) if one.label > 0.75 else ():
            scores = logits[place, k - 1]
            learned.append(-float(scores[ids[k]] - scores.logsumexp(0)))
    wanted = sum(sure) / 3 + 0.1 * sum(learned) / len(learned)
    assert len(learned) == 5  # two responses and their ends
    assert float(calibration_loss(logits, batch, 11, 0.25, 0.1)) == pytest.approx(wanted, rel=1e-5)


def test_a_batch_is_filled_up_behind_and_nothing_of_it_is_learned():
    batch = collate([to_example(row(0.9, ids=(7, 8, 9)), 0.75), to_example(row(0.1), 0.75)])
    assert batch["last"].tolist() == [7, 5]
    assert batch["attention_mask"].sum(dim=1).tolist() == [8, 6]
    assert set(batch["labels"][1].tolist()) == {IGNORE}


@pytest.mark.filterwarnings("ignore:.*says Yes or No")
def test_a_small_fit_learns_how_sure_to_be(tiny_model, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    messages = [conversation(f"What is {i}?", "") for i in range(16)]
    rows = [
        Rated(f"q{i}", encode_prompt(tokenizer, own), [40 + i, 41], encode_question(tokenizer, own, QUESTION), i % 2)
        for i, own in enumerate(messages)
    ]
    asked = ASKED.model_copy(update={"learning_rate": 3e-3, "batch_size": 16, "epochs": 500})
    profile = make_profile("smoke")
    learn(rows, tiny_model, tmp_path / "sure", profile, asked)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "sure", dtype=torch.float32)
    yes = find_yes_and_no(tokenizer)[0]
    found = []
    for one in rows:
        with torch.inference_mode():
            logits = model(torch.tensor([one.prompt_ids + one.response_ids + one.question_ids])).logits[0, -1]
        found.append(float(logits.softmax(-1)[yes]))
    assert calibration_error(found, [one.label for one in rows]) < 0.02


@pytest.mark.filterwarnings("ignore:.*says Yes or No")
def test_a_model_learns_from_its_own_answers_once(tiny_model, tmp_path):
    profile = make_profile("smoke", max_tokens=384)
    asked = ASKED.model_copy(update={"problems": 4, "n": 2, "rows": 6, "held_out": 0.25, "batch_size": 3})
    profile = profile.model_copy(update={"inference": profile.inference.model_copy(update={"max_tokens": 16})})
    log, held = self_calibrate(tiny_model, tmp_path / "sure", QUESTIONS, profile, asked)
    assert len({one.problem_id for one in held}) == 1
    made = (tmp_path / "sure/training.json").stat().st_mtime_ns
    assert self_calibrate(tiny_model, tmp_path / "sure", QUESTIONS, profile, asked)[0] == log
    assert (tmp_path / "sure/training.json").stat().st_mtime_ns == made
    assert math.isfinite(log[-1]["train_loss"])
    with pytest.raises(ValueError, match="no training questions of 'z1'"):
        self_calibrate(tiny_model, tmp_path / "other", [], profile, asked)


def test_a_run_is_calibrated_for_every_training_of_the_run_it_is_of():
    profile = load_profile("mini_calibrated", sft={"seeds": [3, 4]})
    assert profile.models_of("z1_sure") == ["z1_sure-3", "z1_sure-4"]
    with pytest.raises(ValueError, match="to be of one of z1"):
        load_profile("mini_calibrated", sft={"calibrated": {"z1_sure": {**ASKED.model_dump(), "of": "z2"}}})

"""Three scores of an answer: each is what a plain forward gives, is found once, and P(Yes) needs a plain Yes and No."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.conftest import ToyTokenizer
from z1lib.chat import conversation, encode_prompt
from z1lib.engines import load_engine
from z1lib.files import Journal
from z1lib.inference import generate
from z1lib.inference.confidence import QUESTION, drop_forced, find_yes_and_no, rate, summarise_likelihood
from z1lib.records import Confidence, Problem
from z1lib.window import ShiftedWindow

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", "text", str(2 * i)) for i in range(3)]


@pytest.fixture(scope="module")
def engine(tiny_model):
    return load_engine("transformers", tiny_model, dtype="float32")


@pytest.fixture(scope="module")
def rows(engine):
    prompts = [encode_prompt(engine.tokenizer, conversation(problem.prompt, "")) for problem in PROBLEMS]
    samples = generate(engine, prompts, ShiftedWindow(12, hint="No!", max_answer_tokens=6), n=2, temperature=0.8)
    return [replace(row, problem_id=problem.id) for problem, own in zip(PROBLEMS, samples) for row in own]


def ask(engine, rows, journal=None, **options):
    return rate(engine, PROBLEMS, rows, journal, lambda source: "", **options)


@pytest.mark.filterwarnings("ignore:.*says Yes or No")
def test_the_scores_are_what_a_plain_forward_gives_of_the_conversation_that_the_template_writes(engine, rows):
    model = AutoModelForCausalLM.from_pretrained(engine.model_name, dtype=torch.float32)
    tokenizer = engine.tokenizer
    for row, one in zip(rows, ask(engine, rows), strict=True):
        own = [i for i in row.token_ids if i not in engine.end_ids]
        prompt = next(problem.prompt for problem in PROBLEMS if problem.id == row.problem_id)
        turns = [{"role": "assistant", "content": "MARK"}, {"role": "user", "content": QUESTION}]
        turns = [*conversation(prompt, ""), *turns]
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        before, behind = (tokenizer(part)["input_ids"] for part in whole.split("MARK"))
        ids = before + own + behind
        with torch.inference_mode():
            likely = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        assert one.yes == pytest.approx(math.exp(likely[-1, find_yes_and_no(tokenizer)[0]]), rel=1e-3)
        assert one.prefix_tokens + one.question_tokens == len(ids)
        free = [k for k in range(len(row.token_ids)) if not 12 <= k < 12 + row.hint_tokens]
        mean = sum(float(likely[len(before) + k - 1, row.token_ids[k]]) for k in free) / len(free)
        assert one.mean == pytest.approx(math.exp(mean), rel=1e-3)


@pytest.mark.filterwarnings("ignore:.*says Yes or No")
def test_what_is_stored_is_not_asked_again_and_equal_answers_once(engine, rows, tmp_path, monkeypatch):
    first = ask(engine, rows[:4], Journal(tmp_path / "confidences.jsonl", Confidence))
    counted, read = [], engine.reread
    monkeypatch.setattr(engine, "reread", lambda answers: counted.append(len(answers)) or read(answers))
    again = ask(engine, rows, Journal(tmp_path / "confidences.jsonl", Confidence))
    assert again[:4] == first
    assert counted == [2]
    twins = [replace(row, window=99, key=f"{row.key}, wider") for row in rows]
    other = ask(engine, [*rows, *twins], question="Sure? Yes or No.")
    assert counted == [2, 6]
    assert [one.yes for one in other[:6]] == [one.yes for one in other[6:]] != [one.yes for one in again]


def test_a_model_that_says_neither_is_named(engine, rows):
    with pytest.warns(UserWarning, match="says Yes or No with 0.0"):
        ask(engine, rows, question="Name a colour of the rainbow.")


def test_a_completion_of_another_prompt_is_refused(engine, rows):
    with pytest.raises(ValueError, match="prompt tokens, and its completion had"):
        rate(engine, PROBLEMS, rows, system_prompt_of=lambda source: "Think.")


def test_yes_and_no_must_be_one_id_each():
    with pytest.raises(ValueError, match="each must be one id of its own"):
        find_yes_and_no(ToyTokenizer())


@given(st.lists(st.floats(-9, 0), min_size=1, max_size=60), st.integers(1, 20))
def test_the_weakest_is_the_least_likely_run_of_tokens(values, group):
    mean, weakest = summarise_likelihood(values, group)
    runs = [values[i : i + group] for i in range(max(1, len(values) - group + 1))]
    assert weakest == pytest.approx(min(math.exp(sum(run) / len(run)) for run in runs))
    assert mean == pytest.approx(math.exp(sum(values) / len(values)))


def test_only_what_a_full_window_forced_is_left_out(rows):
    for row in rows:
        places = list(range(len(row.token_ids)))
        assert drop_forced(row, places) == places[: row.thinking_tokens] + places[len(places) - row.answer_tokens :]
        uncut = replace(row, overran=False)  # a "Wait" inside the thinking: where it stands is not known here
        assert len(drop_forced(uncut, places)) == len(places)

"""P(Yes): asked behind the completion's own ids, once, and only with a Yes and a No that are one id each."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Tokenizer

from z1lib.chat import conversation, encode_prompt
from z1lib.engines import load_engine
from z1lib.files import Journal
from z1lib.inference import generate
from z1lib.inference.confidence import QUESTION, Confidence, ask_yes, find_yes_and_no
from z1lib.models import make_random_model, save_whole
from z1lib.records import Problem
from z1lib.window import Truncation

PROBLEMS = [Problem(f"p{i}", f"What is {i} + {i}?", "text", str(2 * i)) for i in range(3)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """A random model whose tokenizer of bytes knows two words."""
    model, letters = make_random_model(0)
    words = {word: len(letters) + i for i, word in enumerate(("Ye", "Yes", "No"))}
    vocabulary = {name: i for name, i in letters.get_vocab().items() if not name.startswith("<|")}
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o")]
    tokenizer = Qwen2Tokenizer(vocab={**vocabulary, **words}, merges=merges, eos_token="<|im_end|>")
    tokenizer.chat_template = letters.chat_template
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    model.resize_token_embeddings(len(tokenizer) + 8)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    folder = save_whole(tmp_path_factory.mktemp("m") / "words", model, tokenizer, {})
    return load_engine("transformers", str(folder), dtype="float32")


@pytest.fixture(scope="module")
def rows(engine):
    prompts = [encode_prompt(engine.tokenizer, conversation(problem.prompt, "")) for problem in PROBLEMS]
    samples = generate(engine, prompts, Truncation(12), n=2, temperature=0.8)
    return [
        row.__class__(**{**vars(row), "problem_id": problem.id})
        for problem, own in zip(PROBLEMS, samples)
        for row in own
    ]


def test_it_is_the_probability_of_yes_in_the_conversation_that_the_template_writes(engine, rows):
    found = ask_yes(engine, PROBLEMS, rows, system_prompt="")
    model = AutoModelForCausalLM.from_pretrained(engine.model_name, dtype=torch.float32)
    tokenizer = engine.tokenizer
    for row, one in zip(rows, found, strict=True):
        own = [i for i in row.token_ids if i not in engine.end_ids]
        prompt = next(problem.prompt for problem in PROBLEMS if problem.id == row.problem_id)
        turns = [{"role": "assistant", "content": "MARK"}, {"role": "user", "content": QUESTION}]
        turns = [*conversation(prompt, ""), *turns]
        whole = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        before, behind = (tokenizer(part)["input_ids"] for part in whole.split("MARK"))
        ids = before + own + behind
        with torch.inference_mode():
            probabilities = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
        assert one.score == pytest.approx(float(probabilities[find_yes_and_no(tokenizer)[0]]), rel=1e-3)
        assert one.prefix_tokens + one.question_tokens == len(ids)


def test_what_is_stored_is_not_asked_again(engine, rows, tmp_path, monkeypatch):
    first = ask_yes(engine, PROBLEMS, rows[:4], Journal(tmp_path / "confidences.jsonl", Confidence), "")
    counted, score = [], engine.score
    monkeypatch.setattr(engine, "score", lambda questions: counted.append(len(questions)) or score(questions))
    again = ask_yes(engine, PROBLEMS, rows, Journal(tmp_path / "confidences.jsonl", Confidence), "")
    assert again[:4] == first
    assert counted == [2]
    other = ask_yes(engine, PROBLEMS, rows, Journal(tmp_path / "confidences.jsonl", Confidence), "", "Sure? Yes or No.")
    assert counted == [2, 6]
    assert [one.score for one in other] != [one.score for one in again]


def test_a_model_that_says_neither_is_named(engine, rows):
    with pytest.warns(UserWarning, match="says Yes or No with 0.0"):
        ask_yes(engine, PROBLEMS, rows, system_prompt="", question="Name a colour of the rainbow.")


def test_a_completion_of_another_prompt_is_refused(engine, rows):
    with pytest.raises(ValueError, match="prompt tokens, and its completion had"):
        ask_yes(engine, PROBLEMS, rows, system_prompt="Think.")


def test_yes_and_no_must_be_one_id_each(tiny_model):
    with pytest.raises(ValueError, match="each must be one id of its own"):
        find_yes_and_no(AutoTokenizer.from_pretrained(tiny_model))

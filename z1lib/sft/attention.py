"""Attention in training: examples that lie end to end in one row, each seeing itself alone."""

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

PLAIN_TOKENS = 400  # of an example, up to which plain attention in bfloat16 is faster on a CPU


def attend_by_example(module, query, key, value, attention_mask, position_ids, **kwargs):
    """Attention for examples that lie end to end in one row: no token of one is scored against those of another.

    query, key, value: (1, heads, tokens, head size). An example begins wherever `position_ids`, (1, tokens), is 0.
    benchmarks/gpu_training.csv holds it against SDPA with a mask over the whole row.
    """
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    examples = zip(*(states.tensor_split(starts[1:], dim=2) for states in (query, key, value)))
    return torch.cat([_attend(module, *each, **kwargs)[0] for each in examples], dim=1), None


def _attend(module, query, key, value, **kwargs):
    """Causal attention within one example: SDPA, but for short ones in bfloat16 on a CPU plain matrix products.

    SDPA's backward pass is slow there (benchmarks/attention.csv). `value` tells the dtype: under autocast the other two
    are back in float32 once they are rotated.
    """
    if value.device.type == "cpu" and value.dtype == torch.bfloat16 and value.shape[2] <= PLAIN_TOKENS:
        return attend_plainly(module, query, key, value, **kwargs)
    return sdpa_attention_forward(module, query, key, value, None, **kwargs)


def attend_plainly(module, query, key, value, **kwargs):
    """Causal attention by transformers' plain matrix products: ((1, tokens, heads, head size), the weights)."""
    tokens = value.shape[2]
    query, key = query.to(value.dtype), key.to(value.dtype)
    later = torch.full((tokens, tokens), float("-inf"), dtype=value.dtype).triu(1)
    return eager_attention_forward(module, query, key, value, later, **kwargs)


AttentionInterface.register(BY_EXAMPLE := "by_example", attend_by_example)

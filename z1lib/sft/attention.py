"""Attention in training: examples that lie end to end in one row, each seeing itself alone."""

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

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

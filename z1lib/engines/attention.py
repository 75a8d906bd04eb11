"""Attention for decoding: one query a row, as products over the pages of the cache that the rows need."""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from z1lib.attention import refuse_beyond
from z1lib.engines.cache import PAGE


def paged_attention(module, query, key, value, attention_mask, **options):
    """For one new token a row over the pages of a cache (see `cache`); elsewhere sdpa.

    query (rows, heads, new tokens, size) -> (rows, new tokens, heads, size). An empty mask stands for a plainly causal
    one. The query heads that share a key head are the rows of one product, which reads it once (grouped-query
    attention).
    """
    refuse_beyond(module, options)
    if not isinstance(key, list):
        mask = None if attention_mask is None or not attention_mask.numel() else attention_mask
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    rows, heads, _, size = query.shape
    folded = (query * options["scaling"]).reshape(len(key[0]), -1, size)
    scores = folded.new_zeros(*folded.shape[:2], attention_mask.shape[-1])
    parts = [slice(start, start + PAGE) for start in range(0, scores.shape[-1], PAGE)]
    for part, keys in zip(parts, key):
        scores[: len(keys), :, part] = _score(folded[: len(keys)], keys)
    scores.view(rows, heads, -1).add_(attention_mask[:, 0])
    weights = scores.softmax(dim=-1)
    output = torch.zeros_like(folded, dtype=torch.float32)
    for part, values in zip(parts, value):
        output[: len(values)] += torch.bmm(weights[: len(values), :, part], values)
    return output.to(query.dtype).view(rows, 1, heads, size), None


def _score(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """query (n, queries, size) @ keys (n, size, positions), with few queries.

    In bfloat16 the right-hand side of a product is packed anew each time, which for few rows is most of the work: so
    the keys, which then lie position by position, stand on the left. In float32 that would be slower.
    """
    return torch.bmm(query, keys) if query.dtype == torch.float32 else torch.bmm(keys.mT, query.mT).mT


AttentionInterface.register(PAGED := "paged", paged_attention)


AttentionMaskInterface.register(PAGED, sdpa_mask)

"""Attention for decoding: one query a row, as products over the pages of the cache that the rows need."""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def paged_attention(module, query, key, value, attention_mask, **options):
    """For one new token a row over the sections of a paged cache (see `cache`); elsewhere sdpa.

    query (rows, heads, new tokens, size) -> (rows, new tokens, heads, size). An empty mask stands for a plainly causal
    one.
    """
    if not isinstance(key, list):
        mask = None if attention_mask is None or not attention_mask.numel() else attention_mask
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    query, mask = (query * options["scaling"])[:, :, 0], attention_mask[:, 0]
    parts = [
        _attend(query[start:end], keys, values, mask[start:end])
        for (start, end, keys), (_, _, values) in zip(key, value)
    ]
    return torch.cat(parts)[:, None], None


def _attend(query, keys, values, mask) -> torch.Tensor:
    """query (rows, heads, size), pages of keys (rows x key heads, size, PAGE), values (.., PAGE, size), mask to add.

    The query heads that share a key head are the rows of one product, which reads it once (grouped-query attention).
    """
    (rows, heads, size), shared = query.shape, keys[0].shape[0]
    folded = query.reshape(shared, rows * heads // shared, size)
    scores = torch.cat([_score(folded, page) for page in keys], dim=-1).float()
    scores.view(rows, heads, -1).add_(mask[:, :, : scores.shape[-1]])
    weights = scores.softmax(dim=-1).to(query.dtype).split(values[0].shape[1], dim=-1)
    output = torch.bmm(weights[0], values[0]).float()
    for weight, page in zip(weights[1:], values[1:]):
        output += torch.bmm(weight, page)
    return output.reshape(rows, heads, -1).to(query.dtype)


def _score(query: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """query (n, queries, size) @ keys (n, size, positions), with few queries.

    In bfloat16 the right-hand side of a product is packed anew each time, which for few rows is most of the work: so
    the keys, which then lie position by position, stand on the left. In float32 that would be slower.
    """
    return torch.bmm(query, keys) if query.dtype == torch.float32 else torch.bmm(keys.mT, query.mT).mT


AttentionInterface.register(PAGED := "paged", paged_attention)


AttentionMaskInterface.register(PAGED, sdpa_mask)

"""Attention for decoding: the query heads that share a key head read it once (grouped-query attention)."""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask


def grouped_attention(module, query, key, value, attention_mask, **options):
    """sdpa; for one new token, the query heads that share a key head stand as queries of that head.

    query (rows, heads, 1, size), key and value (rows, key heads, positions, size) -> (rows, 1, heads, size).
    """
    rows, heads, new, size = query.shape
    if new != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    folded = query.view(rows, key.shape[1], heads // key.shape[1], size)
    output = torch.nn.functional.scaled_dot_product_attention(
        folded, key, value, attn_mask=attention_mask, scale=options["scaling"]
    )
    return output.reshape(rows, 1, heads, size), None


AttentionInterface.register(GROUPED := "grouped_sdpa", grouped_attention)


AttentionMaskInterface.register(GROUPED, sdpa_mask)

"""Attention of one example on a CPU, forward and backward: plain matrix products against SDPA, at mini's shape.

`make bench`, or `python benchmarks/attention.py`. Training takes the plain products in bfloat16, up to
`attention.PLAIN_TOKENS`.
"""

from argparse import Namespace
from pathlib import Path

import torch
from paired import Way, compare, write_table
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from z1lib.sft import attention

HEADS, GROUPS, SIZE = 9, 3, 64  # SmolLM2-135M: 9 heads of 64, three to a key
TOKENS = (100, 200, 400, 800)
CALLS, PAIRS = 20, 7


def make_call(attend, tokens: int, dtype: torch.dtype):
    """A function that runs attention and its backward pass CALLS times on the same random states."""
    module = Namespace(num_key_value_groups=GROUPS, training=True, is_causal=True)
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(1, heads, tokens, SIZE) for heads in (HEADS, HEADS // GROUPS, HEADS // GROUPS)]
    states = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    above = torch.randn(1, tokens, HEADS, SIZE, generator=generator).to(dtype)

    def call() -> list:
        for _ in range(CALLS):
            output = attend(module, *states)
            gradients = torch.autograd.grad(output, states, above)
        return [output.detach().float(), *(gradient.float() for gradient in gradients)]

    return call


def plain(module, query, key, value):
    return attention.attend_plainly(module, query, key, value, scaling=SIZE**-0.5)[0]


def sdpa(module, query, key, value):
    return sdpa_attention_forward(module, query, key, value, None, scaling=SIZE**-0.5)[0]


def compare_at(tokens: int, dtype: torch.dtype) -> dict:
    ours, peer = (Way(way.__name__, make_call(way, tokens, dtype), lambda: (0, 0)) for way in (plain, sdpa))
    for way in (ours, peer):
        way.run()  # what is compiled on the first call
    pairs = compare(ours, peer, PAIRS, same_outputs=False)  # equal to rounding, which `apart` measures
    apart = max(float((a - b).norm() / b.norm()) for a, b in zip(ours.outputs, peer.outputs))
    row = {"tokens": tokens, "dtype": str(dtype).removeprefix("torch.")}
    row |= {"plain ms": 1000 * pairs["ours s"] / CALLS, "sdpa ms": 1000 * pairs["peer s"] / CALLS}
    return row | {key: pairs[key] for key in ("speed-up", "low", "high")} | {"apart, of the norm": apart}


def main() -> None:
    rows = [compare_at(tokens, dtype) for dtype in (torch.bfloat16, torch.float32) for tokens in TOKENS]
    write_table(rows, Path(__file__))


if __name__ == "__main__":
    main()

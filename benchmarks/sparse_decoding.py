"""A token at long contexts: dense attention beside a budget of positions, by selection, in one run.

Random weights of a model's shape: what a step costs does not depend on what it says. On a CPU SmolLM2-135M's shape, on
a GPU Qwen3-8B's. `python benchmarks/sparse_decoding.py [--contexts 500,2000] [--steps 8]`
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from paired import device_name, write_table
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from z1lib.engines.attention import PAGED
from z1lib.engines.sparse import SPARSE, Sparse
from z1lib.engines.transformers import _Batch
from z1lib.hardware import has_bf16_units

SMALL = LlamaConfig(
    vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=65536, tie_word_embeddings=True,
)  # fmt: skip
LARGE = Qwen3Config(
    vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=65536,
)  # fmt: skip
BUDGET = 64
WAYS = [None, *(Sparse(BUDGET, select) for select in ("window", "page", "last", "ridge", "now"))]


def time_steps(model, device: str, attention: Sparse | None, context: int, rows: int, steps: int) -> float:
    """Seconds a step of so many rows, median, behind a prompt that is in the cache."""
    model.set_attn_implementation(SPARSE if attention else PAGED)
    batch = _Batch(model, device, [], attention)
    batch.cache.append(rows)
    batch.rows = [None] * rows
    if batch.memory:
        batch.memory.append(rows)
    prompt = torch.randint(1000, (context,), generator=torch.Generator().manual_seed(0)).tolist()
    for row in range(rows):
        batch.read([row], [prompt])
    taken = []
    for token in range(steps + 1):
        start = time.perf_counter()
        batch.feed([token] * rows)
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return median(taken[1:])


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--contexts", default="4000,8000,16000,32000" if device == "cuda" else "250,500,1000,2000,4000")
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--steps", type=int, default=16)
    given = parser.parse_args()
    dtype = torch.bfloat16 if has_bf16_units() else torch.float32
    config = LARGE if device == "cuda" else SMALL
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=PAGED).eval()
    card = device_name()
    table = []
    for context in map(int, given.contexts.split(",")):
        for attention in WAYS:
            seconds = time_steps(model, device, attention, context, given.rows, given.steps)
            way = attention.select if attention else "dense"
            shared = {"budget": BUDGET, "rows": given.rows, "dtype": str(dtype), "on": card}
            table.append({"way": way, "context": context, "ms a token": 1000 * seconds, **shared})
            print(table[-1])
    write_table(table, Path(__file__))


if __name__ == "__main__":
    main()

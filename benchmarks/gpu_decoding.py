"""A step of decoding on one card: ours, `model.generate`, and the bound by bytes that must move, by batch.

Random weights of three models' shapes, since what a step costs does not depend on what it says. The bound is the time
in which the card copies as many bytes as the weights and the rows' keys and values have.
`python benchmarks/gpu_decoding.py [--toy]`; `--toy` takes a small shape and small batches, for a CPU.
"""

import argparse
import time
from pathlib import Path

import torch
from paired import device_name, write_table
from sparse_decoding import SMALL, time_steps
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from z1lib.engines.attention import PAGED
from z1lib.engines.cache import bytes_per_position
from z1lib.hardware import has_bf16_units

TOY = LlamaConfig(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=4096,
)  # fmt: skip
MIDDLE = Qwen2Config(
    vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12,
    num_key_value_heads=2, max_position_embeddings=32768, tie_word_embeddings=True,
)  # fmt: skip
LARGE = Qwen2Config(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
    num_key_value_heads=4, max_position_embeddings=32768,
)  # fmt: skip
SHAPES = {"SmolLM2-135M": SMALL, "Qwen2.5-1.5B": MIDDLE, "Qwen2.5-7B": LARGE}
BATCHES, CONTEXT, STEPS = (1, 16, 64, 256), 256, 32


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def measure_bandwidth(device: str, megabytes: int) -> float:
    """Bytes a second that are read in a copy, the best of ten."""
    source = torch.empty(megabytes << 20, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(10):
        wait(device)
        start = time.perf_counter()
        target.copy_(source)
        wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * len(source) / best  # read and written


def time_generate(model, device: str, rows: int, steps: int) -> float:
    """Seconds a step of transformers' own static batch: a long answer less a short one, behind the same prompts."""
    model.set_attn_implementation("sdpa")
    ids = torch.randint(500, (rows, CONTEXT), device=device)
    taken = []
    for count in (4, 4 + steps):
        wait(device)
        start = time.perf_counter()
        model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=count, max_new_tokens=count,
                       do_sample=False, pad_token_id=0)  # fmt: skip
        wait(device)
        taken.append(time.perf_counter() - start)
    return (taken[1] - taken[0]) / steps


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--toy", action="store_true")
    toy = parser.parse_args().toy
    device = "cuda" if torch.cuda.is_available() else "cpu"
    card = device_name()
    dtype = torch.bfloat16 if has_bf16_units() else torch.float32
    bandwidth = measure_bandwidth(device, 64 if toy else 1024)
    for name, config in ({"toy": TOY} if toy else SHAPES).items():
        with torch.device(device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=PAGED).eval()
        weights = sum(one.numel() * one.element_size() for one in model.parameters())
        table = []
        for rows in BATCHES[:2] if toy else BATCHES:
            ours = time_steps(model, device, None, CONTEXT, rows, STEPS)
            peer = time_generate(model, device, rows, STEPS)
            bound = (weights + rows * CONTEXT * bytes_per_position(model)) / bandwidth
            found = {"ours, tokens/s": rows / ours, "generate, tokens/s": rows / peer, "of the bound": bound / ours}
            table.append({"model": name, "rows": rows, **found, "dtype": str(dtype), "on": card})
            print(table[-1], flush=True)
        write_table(table, Path(__file__).with_name(f"gpu_decoding_{name}.py"))  # a file a shape: none is lost
        del model


if __name__ == "__main__":
    main()

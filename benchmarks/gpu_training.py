"""What the profiles for GPUs take on this card: memory against the estimate, tokens per second against the stated ones.

`python benchmarks/gpu_training.py` on a machine with a GPU; `--only paper` for some of the cases. The models have the
shapes of the profiles' own and random weights, which change neither time nor memory, so that no hub is needed. Every
case in a process of its own: a step of the longest examples for the peak, then steps of examples of the data's mean
length for the speed. `TMPDIR` must have room for the weights: 18 GB for both.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from paired import COMMIT
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

from z1lib.engines.serving import free_port
from z1lib.models import make_random_model
from z1lib.profile import Profile, load_profile
from z1lib.provenance import processor
from z1lib.records import Trajectory
from z1lib.sft import data, footprint, train

# From the models' config.json on the Hub.
SEVEN = {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28}
SEVEN |= {"num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}
ONE = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12}
ONE |= {"num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True}
SHAPES = {"7B": SEVEN, "1.5B": ONE}
# name: (profile, shape, attention), all on one card; the paper at 7B takes one of 140 GB, 16 bytes a parameter.
# The peer of attention example by example is SDPA with a mask over the whole row.
OURS, MASK = train.BY_EXAMPLE, "sdpa"
CASES = {"single_gpu": ("single_gpu", "7B", OURS), "single_gpu-mask": ("single_gpu", "7B", MASK)}
CASES |= {"colab": ("colab", "1.5B", OURS), "colab-mask": ("colab", "1.5B", MASK)}
CASES |= {"paper-1.5B": ("paper", "1.5B", OURS), "paper": ("paper", "7B", OURS)}
MEAN_PROMPT = 300  # tokens, assumed
TEMPLATE = 200  # at most, in bytes
BATCHES, STEPS = 4, 6  # batches a step, and steps: so few that they take a minute


def make_rows(profile: Profile) -> list[Trajectory]:
    """Examples whose bytes are their tokens: a step as long as can be, then others of the mean length, give or take."""
    longest = min(profile.curation.max_response_tokens, profile.sft.max_length - TEMPLATE - MEAN_PROMPT)
    mean = profile.curation.response_token_budget // profile.curation.train_problems
    shares = [0.25, 0.5, 0.75, 1, 1, 1.25, 1.5, 1.75]
    responses = [int(mean * shares[i % 8]) for i in range(STEPS * BATCHES * profile.sft.batch_size)]
    lengths = [(profile.sft.max_length - TEMPLATE - longest, longest)] * BATCHES * profile.sft.batch_size
    lengths += [(MEAN_PROMPT, response) for response in responses]
    return [
        Trajectory(f"t{i}", "q" * prompt, "a" * response, response, 1, "bytes", "z1")
        for i, (prompt, response) in enumerate(lengths)
    ]


def save_shape(shape: str, folder: Path) -> Path:
    """A model of this shape with random weights in bfloat16, made on the card."""
    if not folder.exists():
        tokenizer = make_random_model(0)[1]
        config = Qwen2Config(**SHAPES[shape], max_position_embeddings=32768, dtype="bfloat16")
        with torch.device("cuda"):
            model = Qwen2ForCausalLM(config).to(torch.bfloat16)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


class Clock(TrainerCallback):
    """When each step ended, and how many tokens had gone through the model by then."""

    def __init__(self):
        self.marks = []

    def on_step_end(self, args, state, control, **kwargs):
        torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), state.num_input_tokens_seen))

    def tokens_per_second(self) -> float:
        """Without the first step, whose examples are the longest and in which kernels are compiled."""
        (start, before), (end, after) = self.marks[0], self.marks[-1]
        return (after - before) / (end - start)


def run_case(case: str, folder: Path) -> dict:
    name, shape, attention = CASES[case]
    train.BY_EXAMPLE = attention  # where flash attention is installed the trainer takes that, and the row says so
    stated = load_profile(name)
    base = save_shape(shape, folder / shape)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    steps = {"gradient_accumulation_steps": BATCHES, "epochs": 1, "warmup_steps": 0}
    profile = load_profile(stated, hardware={"gpus": 1}, sft=steps)
    rows = make_rows(profile)
    examples = data.tokenize_rows(rows, AutoTokenizer.from_pretrained(base), profile)
    estimated = footprint.estimate(base, examples, profile).total
    with tempfile.TemporaryDirectory() as output:
        trainer = train.make_trainer(rows, base, Path(output), profile)
        trainer.args.save_strategy, trainer.args.include_num_input_tokens_seen = "no", "all"
        trainer.args.train_sampling_strategy = "sequential"
        trainer.add_callback(clock := Clock())
        trainer.train()
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    gib = {
        "peak GiB": torch.cuda.max_memory_allocated() + context,
        "estimated GiB": estimated,
        "reserved GiB": torch.cuda.max_memory_reserved() + context,
        "CUDA's own GiB": context,
    }
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {
        "profile": name,
        "model": shape,
        "tokens/s": clock.tokens_per_second(),
        "stated tokens/s": stated.training_tokens_per_second / stated.gpus,
        **{key: size / 2**30 for key, size in gib.items()},
        "losses": f"{losses[0]:.2f} to {losses[-1]:.2f}",
        "attention": trainer.model.config._attn_implementation,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
    }


def run_in_a_process(case: str, folder: str) -> dict | None:
    """The row of a case; None, and why on the screen, if it failed (a card may be too small for it)."""
    group = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    group["MASTER_PORT"] = str(free_port())  # FSDP wants a process group, of one process here
    environment = os.environ | (group if load_profile(CASES[case][0]).sft.fsdp else {})
    command = [sys.executable, __file__, "--one", case, folder]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    if run.returncode:
        print(f"  {case}: failed\n{run.stderr[-2000:]}", flush=True)
        return None
    row = json.loads(run.stdout.splitlines()[-1])
    print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--one", nargs=2, metavar=("CASE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, folder = options.one
        print(json.dumps(run_case(case, Path(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [run_in_a_process(case, folder) for case in options.only]
    write_beside_others([row for row in rows if row])
    sys.exit(None in rows)


def write_beside_others(rows: list[dict]) -> None:
    """Add the rows to the table, in the place of those of the same case and device; all others keep their commit."""
    file, case = Path(__file__).with_suffix(".csv"), ["profile", "model", "attention", "device"]
    new = pd.DataFrame(rows).assign(commit=COMMIT, processor=processor())
    old = pd.read_csv(file) if file.exists() else new[:0]
    table = pd.concat([old, new]).drop_duplicates(case, keep="last")
    table.to_csv(file, index=False, float_format="%.4f")
    print(new.round(3).to_markdown(index=False), flush=True)


if __name__ == "__main__":
    main()

"""Fine-tuning on mini's data: ours, TRL's SFTTrainer by default, given the same flags, and with packing.

`make bench`, or `python benchmarks/sft.py --examples 32 --seeds 3`. Same base model, same examples, same labels, same
batch size and learning rate; every run in a process of its own, so that its peak memory is its own. TRL by default
checkpoints gradients and computes in bfloat16, whatever the machine is good at: its third row has our flags, and what
is left between that row and ours is ours: attention example by example, scores for response tokens alone, and memory
that one step leaves to the next. Its fourth row packs: one row a step, as long as a batch's examples are together, so
that a step learns from as many tokens; on a CPU SDPA with a mask over the row keeps the examples apart.
"""

import argparse
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from datasets import Dataset
from paired import print_bounds, write_table
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from z1lib.curation import gather
from z1lib.models import save_base_model
from z1lib.problems import tracing
from z1lib.profile import load_profile
from z1lib.sft import data, footprint, train

WAYS = {"ours": "ours", "trl": "TRL, default arguments", "trl_same_flags": "TRL, the same flags"}
WAYS["trl_packing"] = "TRL, the same flags and packing"
HELD_OUT = 24
LEAST_SPEED_UP = 1.8


def make_rows(profile, tokenizer, count: int, seed: int) -> tuple[list, list]:
    """Examples to train on, and others to take the final loss on."""
    problems = tracing.make_problems(count + HELD_OUT, profile.curation.train_levels, seed, "tracing", set())
    told = gather.tell(problems, "z1", profile.sft.runs["z1"], tokenizer, seed)
    return told[:count], told[count:]


def make_trl(way: str, rows: list, base: Path, folder: Path, profile) -> SFTTrainer:
    """TRL's trainer on our tokenised examples, in the same random order."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    given = {"per_device_train_batch_size": profile.sft.batch_size, "learning_rate": profile.sft.learning_rate}
    given |= {
        "lr_scheduler_type": "cosine",
        "warmup_steps": profile.sft.warmup_steps,
        "num_train_epochs": profile.sft.epochs,
    }
    given |= {"output_dir": str(folder), "seed": profile.seed, "data_seed": profile.seed, "report_to": "none"}
    examples = data.tokenize_rows(rows, tokenizer, profile)
    if way != "trl":
        ours = train.make_config(profile, folder)
        given |= {
            key: getattr(ours, key)
            for key in ("gradient_checkpointing", "padding_free", "bf16", "fp16", "logging_steps")
        }
        given |= {"max_length": None}
    if way == "trl_packing":
        lengths = [len(example["input_ids"]) for example in examples]
        row = max(max(lengths), profile.sft.batch_size * sum(lengths) // len(lengths))
        given |= {"packing": True, "max_length": row, "per_device_train_batch_size": 1}
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=SFTConfig(use_cpu=not torch.cuda.is_available(), **given),
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
    )


def held_out_loss(model, examples: list[dict]) -> float:
    """Mean loss of a response token, in float32, the same code for all ways."""
    model = model.eval().float()
    total, count = 0.0, 0
    with torch.no_grad():
        for example in examples:
            labels = torch.tensor(example["labels"][1:])
            logits = model(input_ids=torch.tensor([example["input_ids"]], device=model.device)).logits[0, :-1].cpu()
            total += torch.nn.functional.cross_entropy(logits, labels, ignore_index=data.IGNORE, reduction="sum").item()
            count += int((labels != data.IGNORE).sum())
    return total / count


def peak_bytes() -> int:
    """The most this process has held. Linux counts the process that forked it in `ru_maxrss` too, so not that one."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def run_one(way: str, base: Path, count: int, seed: int) -> dict:
    """Train once and return what it took; the time is that of `train()`, without loading and saving."""
    profile = load_profile("mini", seed=seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows, held_out = make_rows(profile, tokenizer, count, seed)
    examples = data.tokenize_rows(rows, tokenizer, profile)
    estimated = footprint.estimate(base, examples, profile).total
    with tempfile.TemporaryDirectory() as folder:
        make = train.make_trainer if way == "ours" else partial(make_trl, way)
        trainer = make(rows, base, Path(folder), profile)
        trainer.args.save_strategy = "no"
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    peak = peak_bytes()  # before the held-out loss
    loss = held_out_loss(trainer.model, data.tokenize_rows(held_out, tokenizer, profile))
    tokens = sum(row.token_count for row in rows)
    measured = {"response_tokens_per_second": tokens / seconds, "seconds": seconds, "held_out_loss": loss}
    gib = {"peak_gib": peak / 2**30, "estimated_gib": estimated / 2**30 if way == "ours" else None}
    return {"way": WAYS[way], "seed": seed, "response_tokens": tokens, **measured, **gib}


def run_in_a_process(way: str, base: Path, count: int, seed: int) -> dict:
    command = [sys.executable, __file__, "--one", way, str(base), str(count), str(seed)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    row = json.loads(run.stdout.splitlines()[-1])
    print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    return row


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """A row a way: medians over seeds; the speed-up over TRL's default is the median over seeds of the ratio."""
    speed = runs.pivot(index="seed", columns="way", values="response_tokens_per_second")[list(WAYS.values())]
    over_default = speed.div(speed[WAYS["trl"]], axis=0)
    loss = runs.groupby("way").held_out_loss
    table = pd.DataFrame({"response tok/s": speed.median(), "over TRL's default": over_default.median()})
    table["lowest"], table["highest"] = over_default.min(), over_default.max()
    table["held-out loss"], table["its range"] = loss.mean(), loss.max() - loss.min()
    table["peak GiB"] = runs.groupby("way").peak_gib.max()
    return table.assign(**{"estimated GiB": runs.groupby("way").estimated_gib.max()}).reset_index(names="way")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", nargs=4, metavar=("WAY", "BASE", "EXAMPLES", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, base, count, seed = options.one
        print(json.dumps(run_one(way, Path(base), int(count), int(seed))))
        return
    mini, runs = load_profile("mini"), Path(__file__).parent.parent / "runs"
    source = mini.model.base, mini.model.revision, mini.model.package
    base = save_base_model(runs / "bench" / "base", *source, mini.seed)
    print(f"{options.examples} examples of mini, {options.seeds} seeds")
    # The ways take turns, so that a machine that slows down slows all of them.
    turns = [(way, seed) for seed in range(options.seeds) for way in WAYS]
    frame = pd.DataFrame([run_in_a_process(way, base, options.examples, seed) for way, seed in turns])
    table = summarise(frame)
    write_table(table.to_dict("records"), Path(__file__))
    print_verdicts(table.set_index("way"))


def print_verdicts(table: pd.DataFrame) -> None:
    """The bounds it should keep: speed, the same final loss within the noise of the seeds, the estimate of memory."""
    ours, default = table.loc[WAYS["ours"]], table.loc[WAYS["trl"]]
    apart, noise = abs(ours["held-out loss"] - default["held-out loss"]), table["its range"].max()
    share, speed_up = ours["estimated GiB"] / ours["peak GiB"], ours["over TRL's default"]
    bounds = [
        (f"{speed_up:.2f} times TRL's default, at least {LEAST_SPEED_UP}", speed_up >= LEAST_SPEED_UP),
        (f"held-out losses {apart:.3f} apart, at most the {noise:.3f} that seeds make", apart <= noise),
        (f"memory estimated at {share:.2f} of the peak, within a quarter", abs(share - 1) <= 0.25),
    ]
    print_bounds(bounds)


if __name__ == "__main__":
    main()

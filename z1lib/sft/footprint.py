"""Memory and time of a training run before they are spent, and a refusal of what does not fit.

Weights, gradients and optimiser follow from the parameters; activations are counted, not guessed: the backbone runs on
a batch of the longest shape with tensors that have a shape and no memory, and what autograd would keep is added up.
Not in it: fragmentation, and what other processes take.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from z1lib.hardware import device_memory, say_smaller
from z1lib.profile import Profile
from z1lib.sft.attention import PLAIN_TOKENS, PLAINLY
from z1lib.sft.data import IGNORE
from z1lib.sft.train import DTYPES, mixed_precision

PARTS = ("weights", "gradients", "optimizer", "activations", "process")
CUDA_CONTEXT = 2**30  # bytes of a device that CUDA and cuBLAS take: 0.75 GiB of an H200, 1.3 with NCCL
ADAM_BYTES = 8  # two moments in float32
MEAN_BYTES = 4  # the mean of the last weights, where one is kept
# On a CPU three things come on top, measured with mini and with the small models of tests/sft/test_footprint.py.
STARTING = 150 * 2**20  # bytes of what is loaded when training starts
BACKWARD_LAYERS = 2  # layers' worth of activations that a backward pass holds for a moment
HEAP = 1.3  # the allocator keeps freed blocks that fit no later batch


class DoesNotFit(RuntimeError):
    """A training run that needs more memory than there is; the message says how much, and which profile fits."""


@dataclass(frozen=True)
class Footprint:
    """What a run takes: bytes on each device at the peak of a step, and steps, tokens and hours of the whole run."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    process: int  # before the model is there: Python and its libraries, or the CUDA context
    keeps_both: bool  # gradients do not take the place of the activations that a backward pass lets go of
    steps: int
    tokens: int  # through the model, prompt and response
    hours: float  # at the profile's training_tokens_per_second
    disk: int  # bytes of the checkpoints kept, and of the one that is being written

    @property
    def total(self) -> int:
        """Bytes at the peak. A backward pass lets go of activations as it makes gradients: unless `keeps_both`, the
        larger of the two counts."""
        together = sum if self.keeps_both else max
        return self.process + self.weights + self.optimizer + together((self.gradients, self.activations))


def estimate(base: str | Path, examples: list[dict], profile: Profile) -> Footprint:
    """The footprint of training on tokenised examples (`sft_data.tokenize_rows` or a dataset of them)."""
    longest = max(len(example["input_ids"]) for example in examples)
    model = _model(AutoConfig.from_pretrained(base), profile, longest)
    devices, cuda = max(1, profile.hardware.gpus), torch.cuda.is_available()
    shards = devices if profile.sft.fsdp else 1
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    beside = (ADAM_BYTES + (MEAN_BYTES if profile.sft.average_last else 0)) * trained
    tokens = profile.sft.epochs * sum(len(example["input_ids"]) for example in examples)
    return Footprint(
        weights=sum(p.nbytes for p in model.parameters()) // shards + (_gathered(model) if profile.sft.fsdp else 0),
        gradients=4 * trained // shards,
        optimizer=beside // shards,
        activations=_activations(model, examples, longest, profile),
        process=CUDA_CONTEXT if cuda else psutil.Process().memory_info().rss + STARTING,
        # On a CPU the sum is nearer to what was measured: blocks that activations leave seldom fit a gradient.
        keeps_both=profile.sft.gradient_accumulation_steps > 1 or bool(profile.sft.fsdp) or not cuda,
        steps=count_steps(len(examples), profile),
        tokens=tokens,
        hours=tokens / profile.sft.tokens_per_second / 3600,
        # FSDP writes the weights of a whole checkpoint twice, for itself and for transformers.
        disk=(profile.sft.keep_checkpoints + 1) * (4 * (2 if profile.sft.fsdp else 1) * trained + beside),
    )


def tabulate(needs: dict[str, Footprint]) -> pd.DataFrame:
    """Footprints side by side, a column a run: GiB of each part, of the peak and of the disk; steps, tokens, hours."""
    table = {}
    for run, need in needs.items():
        sizes = {part: getattr(need, part) for part in PARTS} | {"peak, a device": need.total, "disk": need.disk}
        table[run] = {f"{name} (GiB)": size / 2**30 for name, size in sizes.items()}
        table[run] |= {name: getattr(need, name) for name in ("steps", "tokens", "hours")}
    return pd.DataFrame(table)


def check_fits(footprint: Footprint, profile: Profile, folder: Path, device_bytes: int | None = None) -> None:
    """Raises DoesNotFit if a device has less memory than the run takes (default: what this machine's devices have), or
    the disk of `folder` less space than its checkpoints."""
    free = shutil.disk_usage(folder).free
    if footprint.disk > free:
        raise DoesNotFit(
            f"profile {profile.name} writes {footprint.disk / 2**30:.1f} GiB of checkpoints, the disk of {folder} has "
            f"{free / 2**30:.1f} GiB left: make room, or lower `keep_checkpoints`"
        )
    has = device_bytes or device_memory()
    if footprint.total > has:
        parts = ", ".join(f"{name} {getattr(footprint, name) / 2**30:.1f}" for name in PARTS)
        raise DoesNotFit(
            f"profile {profile.name} takes {footprint.total / 2**30:.1f} GiB a device ({parts}), this machine has "
            f"{has / 2**30:.1f}; {say_smaller(profile)}"
        )


def count_steps(examples: int, profile: Profile) -> int:
    """Optimiser steps of a run, by the Trainer's arithmetic: the last step of an epoch may be short."""
    batches = math.ceil(examples / (profile.sft.batch_size * max(1, profile.hardware.gpus)))
    return profile.sft.epochs * math.ceil(batches / profile.sft.gradient_accumulation_steps)


def _model(config, profile: Profile, longest: int) -> PreTrainedModel | PeftModel:
    """The model that is trained, without its memory, with the attention that the longest example gets."""
    dtype = DTYPES[mixed_precision(profile)] if profile.sft.lora else torch.float32
    plain = not torch.cuda.is_available() and mixed_precision(profile) == "bf16" and longest <= PLAIN_TOKENS
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=PLAINLY if plain else "sdpa")
        return (
            get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **profile.sft.lora)) if profile.sft.lora else model
        )


def _gathered(model: PreTrainedModel) -> int:
    """Bytes of what FSDP2 holds whole at once: embeddings and head, the layer that runs and the next one, in bf16."""
    ends = {p for module in (model.get_input_embeddings(), model.get_output_embeddings()) for p in module.parameters()}
    layer = max(sum(p.numel() for p in layer.parameters()) for layer in model.get_decoder().layers)
    return 2 * (sum(p.numel() for p in ends) + 2 * layer)


def _activations(model: PreTrainedModel | PeftModel, examples: list[dict], longest: int, profile: Profile) -> int:
    """Bytes kept for the backward pass of the longest batch, and on a CPU those of its vocabulary projection."""
    config = model.config
    learned = max(sum(label != IGNORE for label in example["labels"]) for example in examples)
    kept = _saved_bytes(model, profile.sft.batch_size, longest, mixed_precision(profile))
    layer = kept // config.num_hidden_layers
    if profile.sft.gradient_checkpointing or profile.sft.fsdp.get("activation_checkpointing"):
        # A layer's input is kept; its inside is computed again, one layer at a time.
        width = DTYPES[mixed_precision(profile)].itemsize
        kept = layer + config.num_hidden_layers * profile.sft.batch_size * longest * config.hidden_size * width
    if torch.cuda.is_available():
        return kept  # TRL's head works in tiles there
    # The scores of all learned positions and their gradients.
    head = 2 * DTYPES[mixed_precision(profile)].itemsize * profile.sft.batch_size * learned * config.vocab_size
    return int(HEAP * (kept + BACKWARD_LAYERS * layer + head))


def _saved_bytes(model: PreTrainedModel | PeftModel, batch: int, length: int, precision: str) -> int:
    """Bytes that autograd keeps of a forward pass of the decoder, weights aside."""
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    decoder = model.get_decoder()
    with FakeTensorMode():
        state = {**dict(decoder.named_parameters()), **dict(decoder.named_buffers())}
        fakes = {
            name: torch.empty(value.shape, dtype=value.dtype, requires_grad=value.requires_grad)
            for name, value in state.items()
        }
        own = {fake.untyped_storage()._cdata for fake in fakes.values()}
        inputs = {"input_ids": torch.zeros(batch, length, dtype=torch.long), "use_cache": False}
        with (
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "no"),
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        ):
            output = torch.func.functional_call(decoder, fakes, kwargs=inputs)
        kept = sum(size for key, size in storages.items() if key not in own)
        del output  # it holds the graph, and the graph the storages whose addresses are the keys
    return kept

"""Supervised fine-tuning with TRL: the recipe, the loss, LoRA, resumption. launch.py starts it on several devices."""

import ctypes
import hashlib
import json
import shutil
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate.utils import enable_fsdp_ram_efficient_loading
from accelerate.utils.memory import clear_device_cache
from datasets import Dataset
from peft import LoraConfig
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PrinterCallback
from transformers.utils import is_flash_attn_2_available
from trl import SFTConfig, SFTTrainer

from z1lib.attention import INSTEAD, UnsupportedModel
from z1lib.files import exclusive
from z1lib.hardware import has_bf16_units
from z1lib.models import ending_alone, fingerprint, save_whole
from z1lib.profile import Profile
from z1lib.records import Trajectory
from z1lib.sft.attention import BY_EXAMPLE, check_attention
from z1lib.sft.averaging import MeanOfLast
from z1lib.sft.card import write_card
from z1lib.sft.data import IGNORE, tokenize_rows
from z1lib.sft.loss import SummedLoss
from z1lib.sft.progress import Progress

# The fields of SFTConfig that change what is learned.
RECIPE = ["learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "num_train_epochs", "bf16"]
RECIPE += ["per_device_train_batch_size", "gradient_accumulation_steps", "padding_free", "seed", "data_seed"]
# glibc's malloc.h: M_MMAP_MAX, no block is a mapping of its own; M_TRIM_THRESHOLD, the heap does not shrink;
# M_TOP_PAD, it grows by this many bytes at once.
KEEPING = {-4: 0, -1: 2**31 - 1, -2: 2**26}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "no": torch.float32}


class ResponseTrainer(SFTTrainer):
    """TRL's trainer with the vocabulary projection computed at the positions that are learned from, and nowhere else.

    TRL's own fused head does so on devices with Triton, and elsewhere scores every position: with a vocabulary of
    49,152 and prompts as long as responses, that is a third of the work on a CPU. The log says how many response
    tokens each step learned from, over all devices, and how fast. `mean` is saved with every checkpoint.
    """

    def __init__(self, mean: MeanOfLast, **arguments):
        super().__init__(**arguments)
        self.mean = mean
        self.add_callback(mean)

    def save_model(self, output_dir=None, _internal_call=False):
        super().save_model(output_dir, _internal_call)  # before trainer_state.json, by which a checkpoint is whole
        if self.args.should_save:
            self.mean.save(Path(output_dir or self.args.output_dir))

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if return_outputs or inputs["input_ids"].device.type == "cuda":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        [labels] = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORE)  # a batch is one row
        learned = (labels != IGNORE).nonzero().squeeze(1)
        inputs = {key: value for key, value in inputs.items() if key != "labels"}
        [logits] = model(**inputs, use_cache=False, logits_to_keep=learned).logits
        total = SummedLoss.apply(logits, labels[learned])
        # The tokens are those of the whole step on all devices, whose gradients are then averaged, not summed.
        return total / num_items_in_batch * self.accelerator.num_processes

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.step_tokens = num_items_in_batch
        return super().training_step(model, inputs, num_items_in_batch)

    def log(self, logs, start_time=None):
        if "loss" in logs:
            now, tokens = time.time(), int(self.step_tokens)
            logs["response_tokens"] = tokens
            logs["response_tokens_per_second"] = round(tokens / (now - getattr(self, "last_log", start_time)), 1)
            self.last_log = now
        super().log(logs, start_time)


def mixed_precision(profile: Profile) -> str:
    """ "bf16", "fp16" or "no": the profile's, or what the hardware is best at where it says null."""
    return profile.sft.mixed_precision or ("bf16" if has_bf16_units() else "no")


def make_config(profile: Profile, output_dir: Path) -> SFTConfig:
    """The profile's recipe for TRL: cosine decay, AdamW without weight decay, an order of examples for each seed.

    Sharded, gradients are summed in float32, over processes after every batch: by default accelerate would reduce them
    in the compute dtype, and every device would hold those of the whole model until the last batch of a step.
    """
    config = SFTConfig(
        output_dir=str(output_dir),
        learning_rate=profile.sft.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=profile.sft.warmup_steps,
        weight_decay=0.0,
        num_train_epochs=profile.sft.epochs,
        per_device_train_batch_size=profile.sft.batch_size,
        gradient_accumulation_steps=profile.sft.gradient_accumulation_steps,
        gradient_checkpointing=profile.sft.gradient_checkpointing,
        padding_free=True,  # a batch's examples end to end in one row, each seeing itself alone: no pads to compute on
        fsdp=bool(profile.sft.fsdp),
        fsdp_config=dict(profile.sft.fsdp) or None,
        bf16=mixed_precision(profile) == "bf16",
        fp16=mixed_precision(profile) == "fp16",
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        max_length=None,  # tokenize_rows has refused what is too long
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenize_example has built the labels
        save_steps=profile.sft.save_steps,
        save_total_limit=profile.sft.keep_checkpoints,
        logging_steps=1,
        disable_tqdm=True,  # Progress takes its place
        report_to="none",
        seed=profile.seed,
        data_seed=profile.seed,
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}} if profile.sft.fsdp else None,
    )
    if profile.sft.fsdp and (dtype := DTYPES[mixed_precision(profile)]) != torch.float32:
        config.fsdp_plugin_args["mixed_precision_policy"] = MixedPrecisionPolicy(dtype, reduce_dtype=torch.float32)
    return config


def fine_tune(rows: list[Trajectory], base: Path, output: Path, profile: Profile) -> list[dict]:
    """Fine-tune `base` on `rows`, save the model to `output` (whole or absent) and return the training log.

    Nothing is done twice: a model already trained on these rows by this recipe is kept, and a run that was killed goes
    on from its last checkpoint (the profile keeps `keep_checkpoints`; to go on from an earlier one, delete those behind
    it). `output`/training.json holds the log and the hash of data and recipe. In a process
    group every process calls this with the same arguments; the first one writes.
    """
    if not rows:
        raise ValueError(f"no examples for run {output.name!r}: is it in the profile's `runs` and in sft.jsonl?")
    recipe = hash_recipe(rows, base, profile)
    if (done := read_finished(output, recipe)) is not None:
        return done
    checkpoints = output.with_name(f"{output.name}.checkpoints-{recipe}")
    trainer = make_trainer(rows, base, checkpoints, profile)
    writes = trainer.is_world_process_zero()
    with exclusive(output) if writes else nullcontext():
        if checkpoint := find_checkpoint(checkpoints):
            trainer.mean.load(Path(checkpoint), trainer.args.device)
        trainer.train(resume_from_checkpoint=checkpoint)
        trainer.mean.put_into(trainer.model)
        model = gather_model(trainer, AutoConfig.from_pretrained(base).dtype or torch.float32)
        if writes:
            training = {"recipe": recipe, "log": trainer.state.log_history}
            card = write_card(output.name, rows, base, profile, mixed_precision(profile), training)
            notes = {"training.json": json.dumps(training), "README.md": card}
            save_whole(output, model, trainer.processing_class, notes)
            shutil.rmtree(checkpoints, ignore_errors=True)
    return trainer.state.log_history


def keep_memory() -> None:
    """Give back what the run before has freed, and from now on keep what a step frees for the next step.

    glibc returns every large block to the system at once, and the system clears its pages when they are asked for
    again: about an eighth of a step on a CPU.
    """
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):  # other allocators keep memory by themselves
        libc.malloc_trim(0)
        for option, value in KEEPING.items():
            libc.mallopt(option, value)


def find_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint in a folder, None if there is none: a kill may have cut one short.

    transformers writes trainer_state.json last.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.split("-")[1])):
        try:
            json.loads((checkpoint / "trainer_state.json").read_text())
            return str(checkpoint)
        except (FileNotFoundError, json.JSONDecodeError):
            continue
    return None


def make_trainer(rows: list[Trajectory], base: Path, output_dir: Path, profile: Profile) -> ResponseTrainer:
    """The trainer of a run, seeded: full fine-tuning of float32 weights, or LoRA on weights in the compute dtype.

    Raises ValueError if it runs on another number of devices than the profile's: the batch would be another one.
    """
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = make_config(profile, output_dir)
    if config.world_size != max(1, profile.hardware.gpus):
        raise ValueError(
            f"profile {profile.name}: key 'hardware.gpus' is {profile.hardware.gpus}, started with {config.world_size} "
            "processes: set it to that number and divide `gradient_accumulation_steps` so that the batch stays the same"
        )
    clear_device_cache(garbage_collection=True)  # of the run before, whose trainer and model hold each other
    keep_memory()
    config._n_gpu = min(1, config.n_gpu)  # else the Trainer would use all cards in one process and multiply the batch
    torch.manual_seed(profile.seed)
    if profile.sft.fsdp.get("cpu_ram_efficient_loading"):
        enable_fsdp_ram_efficient_loading()  # transformers looks for it before the Trainer would say so
    examples = tokenize_rows(rows, tokenizer, profile)
    trainer = ResponseTrainer(
        MeanOfLast(profile.sft.average_last),
        model=load_model(base, profile, max(len(example["input_ids"]) for example in examples), config.process_index),
        args=config,
        train_dataset=Dataset.from_list(examples),
        processing_class=tokenizer,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **profile.sft.lora) if profile.sft.lora else None,
        callbacks=[Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def load_model(base: Path, profile: Profile, longest: int, process: int) -> PreTrainedModel:
    """The model to train, shown to learn under the attention it is given what it would under its own.

    `longest`: tokens of the longest example. Raises UnsupportedModel. Flash attention knows windows and caps by itself;
    where FSDP gives the weights to process 0, the others have nothing to try.
    """
    attention = "flash_attention_2" if is_flash_attn_2_available() and has_bf16_units() else BY_EXAMPLE
    dtype = DTYPES[mixed_precision(profile)] if profile.sft.lora else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation=attention)
    except KeyError as error:  # of a model whose attention is not to be chosen
        raise UnsupportedModel(f"{base} has an attention that cannot be replaced: {INSTEAD}") from error
    has_weights = process == 0 or not profile.sft.fsdp.get("cpu_ram_efficient_loading")
    if attention == BY_EXAMPLE and has_weights:
        check_attention(model, longest)
    return model


def gather_model(trainer: SFTTrainer, dtype: torch.dtype) -> PreTrainedModel:
    """The trained model whole, in `dtype`: shards gathered from all processes (which must all call), LoRA merged."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    weights = trainer.accelerator.get_state_dict(model)
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(model.config)
    if trainer.is_world_process_zero():
        whole.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()}, assign=True)
        whole.tie_weights()
        whole.generation_config = ending_alone(model, trainer.processing_class)
    return whole


def hash_recipe(rows: list[Trajectory], base: Path, profile: Profile) -> str:
    """A hash of all that determines a trained model: the examples' token ids, the base weights, the recipe."""
    config = make_config(profile, Path("."))
    recipe = {key: value for key, value in vars(config).items() if key in RECIPE}
    beyond = {"fp16": config.fp16, "lora": profile.sft.lora, "average_last": profile.sft.average_last}
    beyond["processes"] = profile.hardware.gpus if profile.hardware.gpus > 1 else 0
    recipe |= {key: value for key, value in beyond.items() if value}  # what is off leaves the hash as it is without it
    examples = tokenize_rows(rows, AutoTokenizer.from_pretrained(base), profile)
    whole = json.dumps([examples, fingerprint(base), recipe], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def read_finished(output: Path, recipe: str) -> list[dict] | None:
    """The log of the model at `output` if it was trained by this recipe (`hash_recipe`), else None."""
    done = read_training(output)
    return done["log"] if done and done["recipe"] == recipe else None


def read_training(output: Path) -> dict:
    """{"recipe", "log"} of a trained model, empty if there is none."""
    file = output / "training.json"
    return json.loads(file.read_text()) if file.exists() else {}

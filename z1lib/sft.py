"""Supervised fine-tuning with TRL: the data path (what is learned from), the recipe, resumption."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from z1lib.chat import Message, conversation, encode_end, encode_prompt, encode_text
from z1lib.models import fingerprint
from z1lib.profile import Profile
from z1lib.records import Trajectory, exclusive

IGNORE = -100  # the label that the loss leaves out
# The fields of SFTConfig that change what is learned.
RECIPE = ["learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "num_train_epochs", "bf16"]
RECIPE += ["per_device_train_batch_size", "gradient_accumulation_steps", "train_sampling_strategy", "seed", "data_seed"]


def tokenize_example(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> dict[str, list[int]]:
    """The templated conversation as `input_ids`, with `labels` on the last assistant message and its end token only.

    The prompt's ids are those of inference (`chat.encode_prompt`), the response is tokenised alone, so that training
    and decoding see the same boundaries. Raises ValueError if the last message is not the assistant's.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("the last message must be the assistant's: it is what is learned")
    prompt = encode_prompt(tokenizer, messages[:-1])
    response = encode_text(tokenizer, messages[-1]["content"])
    end, *after = encode_end(tokenizer, messages)
    labels = [IGNORE] * len(prompt) + response + [end] + [IGNORE] * len(after)
    return {"input_ids": prompt + response + [end] + after, "labels": labels}


def make_dataset(rows: list[Trajectory], tokenizer: PreTrainedTokenizerBase, profile: Profile) -> Dataset:
    """Tokenised examples in the order they are learned. Raises ValueError naming those longer than the maximum."""
    examples = []
    for row in rows:
        messages = [*conversation(row.question, profile.system_prompt), {"role": "assistant", "content": row.response}]
        examples.append(tokenize_example(tokenizer, messages))
    lengths = [len(example["input_ids"]) for example in examples]
    long = [row.id for row, length in zip(rows, lengths) if length > profile.max_length]
    if long:
        raise ValueError(
            f"{len(long)} examples are longer than max_length {profile.max_length} and would be cut: {long[:5]}; "
            "raise the profile's max_length or leave them out in 01_curation"
        )
    order = order_by_length(lengths, profile.batch_size, profile.seed)
    return Dataset.from_list([examples[i] for i in order])


def order_by_length(lengths: list[int], batch_size: int, seed: int, group: int = 32) -> list[int]:
    """Indices in an order whose batches hold similar lengths while batches of all lengths follow each other.

    Groups of `group` batches are drawn at random, sorted by length, cut into batches, and the batches shuffled again.
    (transformers' own "group_by_length" leaves them sorted, so that the loss follows the length up and down.)
    """
    shuffle = random.Random(seed).shuffle
    indices = list(range(len(lengths)))
    shuffle(indices)
    ordered = []
    for start in range(0, len(indices), group * batch_size):
        chunk = sorted(indices[start : start + group * batch_size], key=lambda i: lengths[i])
        batches = [chunk[i : i + batch_size] for i in range(0, len(chunk), batch_size)]
        # The very last batch may be short; it stays the last.
        last = [batches.pop()] if start + group * batch_size >= len(indices) else []
        shuffle(batches)
        ordered += [i for batch in batches + last for i in batch]
    return ordered


class ResponseTrainer(SFTTrainer):
    """TRL's trainer with the vocabulary projection computed at the positions that are learned from, and nowhere else.

    TRL's own fused head does so on devices with Triton, and elsewhere scores every position: with a vocabulary of
    49,152 and prompts as long as responses, that is a third of the work on a CPU.
    """

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        if return_outputs or inputs["input_ids"].device.type == "cuda":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=IGNORE)
        learned = (labels != IGNORE).any(dim=0).nonzero().squeeze(1)
        inputs = {key: value for key, value in inputs.items() if key != "labels"}
        logits = model(**inputs, use_cache=False, logits_to_keep=learned).logits
        total = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), labels[:, learned].flatten(), ignore_index=IGNORE, reduction="sum"
        )
        return total / num_items_in_batch


class ProgressBar(TrainerCallback):
    """One bar with the loss, instead of a table that grows by a line a step."""

    def on_train_begin(self, args, state, control, **kwargs):
        name = Path(args.output_dir).name.split(".")[0]
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"{name}: steps")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self.bar.set_postfix(loss=f"{float(logs['loss']):.3f}")

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()

    def on_train_end(self, args, state, control, **kwargs):
        self.bar.close()


def has_bf16_units() -> bool:
    """Whether bfloat16 is the faster arithmetic here: GPUs since Ampere, CPUs with AMX.

    On other CPUs it is the slower one: 130 against 250 GFLOP/s on a Xeon with AVX-512 and no AMX.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_capability() >= (8, 0)
    return torch.cpu.get_capabilities().get("amx_bf16", False)


def make_config(profile: Profile, output_dir: Path) -> SFTConfig:
    """The profile's recipe for TRL: cosine decay, AdamW without weight decay, examples in the dataset's order."""
    return SFTConfig(
        output_dir=str(output_dir),
        learning_rate=profile.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=profile.warmup_steps,
        weight_decay=0.0,
        num_train_epochs=profile.epochs,
        per_device_train_batch_size=profile.batch_size,
        gradient_accumulation_steps=profile.gradient_accumulation_steps,
        gradient_checkpointing=profile.gradient_checkpointing,
        bf16=has_bf16_units() if profile.bf16 is None else profile.bf16,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        train_sampling_strategy="sequential",
        max_length=None,  # make_dataset has refused what is too long
        dataset_kwargs={"skip_prepare_dataset": True},  # tokenize_example has built the labels
        save_steps=profile.save_steps,
        save_total_limit=1,
        logging_steps=1,
        disable_tqdm=True,  # ProgressBar takes its place
        report_to="none",
        seed=profile.seed,
        data_seed=profile.seed,
    )


def fine_tune(rows: list[Trajectory], base: Path, output: Path, profile: Profile) -> list[dict]:
    """Fine-tune `base` on `rows`, save the model to `output` (whole or absent) and return the training log.

    Nothing is done twice: a model already trained on these rows by this recipe is kept, and a run that was killed goes
    on from its last checkpoint. `output`/training.json holds the log and the hash of data and recipe.
    """
    if not rows:
        raise ValueError(f"no examples for run {output.name!r}: is it in the profile's `runs` and in sft.jsonl?")
    recipe = hash_recipe(rows, base, profile)
    done = read_training(output)
    if done.get("recipe") == recipe:
        return done["log"]
    checkpoints = output.with_name(f"{output.name}.checkpoints-{recipe}")
    with exclusive(output):
        trainer = make_trainer(rows, base, checkpoints, profile)
        last = get_last_checkpoint(checkpoints) if checkpoints.is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        _save(trainer, output, {"recipe": recipe, "log": trainer.state.log_history})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return trainer.state.log_history


def make_trainer(rows: list[Trajectory], base: Path, output_dir: Path, profile: Profile) -> ResponseTrainer:
    """The trainer of a run, from the base weights in float32, seeded."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(profile.seed)
    trainer = ResponseTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=make_config(profile, output_dir),
        train_dataset=make_dataset(rows, tokenizer, profile),
        processing_class=tokenizer,
        callbacks=[ProgressBar()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def hash_recipe(rows: list[Trajectory], base: Path, profile: Profile) -> str:
    """A hash of all that determines a trained model: the examples, the base weights, the recipe."""
    recipe = {key: value for key, value in vars(make_config(profile, Path("."))).items() if key in RECIPE}
    whole = json.dumps([[vars(row) for row in rows], fingerprint(base), profile.system_prompt, recipe], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def read_training(output: Path) -> dict:
    """{"recipe", "log"} of a trained model, empty if there is none."""
    file = output / "training.json"
    return json.loads(file.read_text()) if file.exists() else {}


def _save(trainer: SFTTrainer, output: Path, training: dict) -> None:
    writing = output.with_name(output.name + ".writing")
    trainer.save_model(writing)
    (writing / "training.json").write_text(json.dumps(training))
    if output.exists():  # trained on other data or by another recipe
        shutil.rmtree(output)
    writing.rename(output)

"""Self-Calibration: a model learns from its own answers how sure to be of them, without knowing which are right.

It answers training questions many times over; an answer's label is its share of the votes, each weighed by a score
(soft self-consistency); then P(Yes), behind the question whether the answer is right, is drawn to that label (Huang et
al., arXiv 2503.00031, section 3). Theirs is LoRA on 100,000 rows, with an entropy-dependent temperature that we leave
constant. What the majority gets wrong is learned as sure: the labels know no truth.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTTrainer

from z1lib.chat import conversation, encode_prompt, encode_question
from z1lib.engines.base import load_engine
from z1lib.files import Journal, exclusive
from z1lib.grading.judge import grade_all
from z1lib.hardware import decoding_dtype
from z1lib.inference.confidence import QUESTION, find_yes_and_no, rate
from z1lib.inference.sweep import sweep_problems
from z1lib.models import fingerprint, save_whole
from z1lib.profile import Calibrated, Profile
from z1lib.records import Completion, Confidence, Problem, Trajectory
from z1lib.selection.rules import group_answers, is_same_answer
from z1lib.sft.data import IGNORE
from z1lib.sft.progress import Progress
from z1lib.sft.train import DTYPES, gather_model, make_config, mixed_precision, read_finished
from z1lib.window import Unbounded

BIN = 0.05  # of labels, by which rows are balanced


@dataclass(frozen=True)
class Rated:
    """An answer of the model to a training question: its ids, those of the question behind it, and its label."""

    problem_id: str
    prompt_ids: list[int]
    response_ids: list[int]
    question_ids: list[int]
    label: float


def label_answers(answers: Sequence[str | None], scores: Sequence[float]) -> list[float]:
    """Soft self-consistency: the share of the scores that goes to each answer; 0 where there is none.

    Over the distinct answers to a question the labels sum to 1. Where all scores are 0 every answer counts alike.
    """
    groups = group_answers(answers, is_same_answer)
    weights = list(scores) if any(s for s, group in zip(scores, groups) if group is not None) else [1.0] * len(answers)
    whole = sum(weight for weight, group in zip(weights, groups) if group is not None)
    sums: dict[int, float] = {}
    for weight, group in zip(weights, groups):
        if group is not None:
            sums[group] = sums.get(group, 0.0) + weight
    return [0.0 if group is None else sums[group] / whole for group in groups]


def balance(rows: Sequence[Rated], most: int, seed: int) -> list[Rated]:
    """At most so many rows, from the bins of labels in turn, each shuffled: sure and unsure answers are about as many.

    Raises ValueError where there are none.
    """
    if not rows:
        raise ValueError("no answers to learn from: none of the samples was rated")
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    bins: dict[int, list[Rated]] = {}
    for row in shuffled:
        bins.setdefault(int(row.label / BIN), []).append(row)
    turns = [(place, number, row) for number, part in sorted(bins.items()) for place, row in enumerate(part)]
    return [row for *_, row in sorted(turns, key=lambda one: one[:2])[:most]]


def split_questions(rows: Sequence[Rated], share: float, seed: int) -> tuple[list[Rated], list[Rated]]:
    """(to learn from, held out): a share of the questions, whole, is held out."""
    names = sorted({row.problem_id for row in rows})
    held = set(random.Random(seed).sample(names, round(share * len(names))))
    return [row for row in rows if row.problem_id not in held], [row for row in rows if row.problem_id in held]


def draw_rows(start: Path, questions: list[Trajectory], profile: Profile, asked: Calibrated, work: Path) -> list[Rated]:
    """The model's own answers to training questions, rated and labelled; goes on from journals in `work`.

    Raises ValueError where no question is there to be asked.
    """
    problems = [Problem(row.id, row.question, "math", "", row.level, row.source) for row in questions[: asked.problems]]
    if not problems:
        raise ValueError(f"no training questions of {asked.of!r}, whose own answers were to be learned from")
    options = profile.inference.engine_options
    engine = load_engine(profile.inference.engine, str(start), decoding_dtype(profile), **options)
    sampling = (asked.n, asked.temperature, 1.0, profile.seed)
    journals = [
        Journal(work / name, kind) for name, kind in (("samples.jsonl", Completion), ("scores.jsonl", Confidence))
    ]
    groups = [[Unbounded(profile.inference.max_tokens)]] * len(problems)
    system_prompt = profile.model.system_prompt
    samples = sweep_problems(engine, problems, groups, journals[0], lambda source: system_prompt, *sampling)
    scores = rate(engine, problems, samples, journals[1], lambda source: system_prompt, tell=print)
    answers = [grade.extracted for grade in grade_all(problems, samples)]
    rows = []
    for place, problem in enumerate(problems):
        own = slice(place * asked.n, (place + 1) * asked.n)
        labels = label_answers(answers[own], [getattr(one, asked.weigh_by) for one in scores[own]])
        messages = conversation(problem.prompt, system_prompt)
        prompt = encode_prompt(engine.tokenizer, messages)
        question = encode_question(engine.tokenizer, messages, QUESTION)
        for sample, label in zip(samples[own], labels):
            ended = sample.finish_reason == "stop"
            rows.append(Rated(problem.id, prompt, sample.token_ids[: -1 if ended else None], question, label))
    return rows


def to_example(row: Rated, learn_above: float) -> dict:
    """What the trainer reads of a row: ids, labels on a response that is sure enough, and the label of P(Yes).

    The response's end is the first id of the question behind it, and is learned with it.
    """
    learned = row.label > learn_above
    response = row.response_ids if learned else [IGNORE] * len(row.response_ids)
    end = [row.question_ids[0] if learned else IGNORE]
    labels = [IGNORE] * len(row.prompt_ids) + response + end + [IGNORE] * (len(row.question_ids) - 1)
    return {"input_ids": row.prompt_ids + row.response_ids + row.question_ids, "labels": labels, "target": row.label}


def collate(examples: list[dict]) -> dict[str, torch.Tensor]:
    """Examples filled up behind to one length: ids and labels (rows, tokens), `last` and `target` (rows,)."""
    longest = max(len(one["input_ids"]) for one in examples)

    def fill(name: str, value: int) -> torch.Tensor:
        return torch.tensor([[*one[name], *[value] * (longest - len(one[name]))] for one in examples])

    lengths = torch.tensor([len(one["input_ids"]) for one in examples])
    target = torch.tensor([one["target"] for one in examples], dtype=torch.float32)
    mask = (torch.arange(longest) < lengths[:, None]).long()
    return {"input_ids": fill("input_ids", 0), "attention_mask": mask, "labels": fill("labels", IGNORE),
            "last": lengths - 1, "target": target}  # fmt: skip


def calibration_loss(
    logits: torch.Tensor, batch: dict[str, torch.Tensor], yes: int, beta: float, weight: float
) -> torch.Tensor:
    """SmoothL1 between P(Yes) and the target, mean of the rows, plus `weight` times the mean cross entropy of labels.

    logits (rows, tokens, vocabulary); `batch` as `collate` gives it.
    """
    behind = logits[torch.arange(len(logits)), batch["last"]].float().softmax(dim=-1)[:, yes]
    loss = torch.nn.functional.smooth_l1_loss(behind, batch["target"], beta=beta)
    labels = batch["labels"][:, 1:]
    learned = labels != IGNORE
    if learned.any():
        loss = loss + weight * torch.nn.functional.cross_entropy(logits[:, :-1][learned].float(), labels[learned])
    return loss


class CalibrationTrainer(SFTTrainer):
    """TRL's trainer with `calibration_loss`; `yes` is the id that P(Yes) is of."""

    def __init__(self, yes: int, asked: Calibrated, **arguments):
        super().__init__(**arguments)
        self.yes, self.asked = yes, asked
        self.model_accepts_loss_kwargs = False  # the loss is a mean, not to be divided by the tokens of a step

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        logits = model(inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
        return calibration_loss(logits, inputs, self.yes, self.asked.beta, self.asked.lm_weight)


def make_trainer(rows: list[Rated], start: Path, output_dir: Path, profile: Profile, asked: Calibrated):
    """The trainer of `rows` from the weights at `start`: full fine-tuning, or LoRA, on one device."""
    config = make_config(profile, output_dir)
    config.padding_free, config.remove_unused_columns, config.save_strategy = False, False, "no"
    config._n_gpu = min(1, config.n_gpu)
    tokenizer = AutoTokenizer.from_pretrained(start)
    torch.manual_seed(profile.seed)
    trainer = CalibrationTrainer(
        find_yes_and_no(tokenizer)[0],
        asked,
        model=AutoModelForCausalLM.from_pretrained(
            start, dtype=DTYPES[mixed_precision(profile)] if asked.lora else torch.float32
        ),
        args=config,
        train_dataset=Dataset.from_list([to_example(row, asked.learn_above) for row in rows]),
        processing_class=tokenizer,
        data_collator=collate,
        peft_config=LoraConfig(task_type="CAUSAL_LM", **asked.lora) if asked.lora else None,
        callbacks=[Progress()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def learn(rows: list[Rated], start: Path, output: Path, profile: Profile, asked: Calibrated) -> list[dict]:
    """Train on these rows from the weights at `start`; save to `output` (whole or absent) and return the log.

    Raises ValueError unless Yes and No are one id each.
    """
    names = ("learning_rate", "batch_size", "gradient_accumulation_steps", "epochs", "lora")
    changes = {name: getattr(asked, name) for name in names}
    own = profile.model_copy(update={"sft": profile.sft.model_copy(update={**changes, "fsdp": {}})})
    recipe = hash_rows(rows, start, own, asked)
    if (done := read_finished(output, recipe)) is not None:
        return done
    checkpoints = output.with_name(f"{output.name}.checkpoints-{recipe}")
    trainer = make_trainer(rows, start, checkpoints, own, asked)
    with exclusive(output):
        trainer.train()
        model = gather_model(trainer, AutoConfig.from_pretrained(start).dtype or torch.float32)
        training = {"recipe": recipe, "log": trainer.state.log_history}
        save_whole(output, model, trainer.processing_class, {"training.json": json.dumps(training)})
        shutil.rmtree(checkpoints, ignore_errors=True)
    return trainer.state.log_history


def hash_rows(rows: list[Rated], start: Path, profile: Profile, asked: Calibrated) -> str:
    """A hash of all that determines the trained model: rows, the weights it starts from, the recipe."""
    recipe = [mixed_precision(profile), profile.seed, profile.sft.warmup_steps, asked.model_dump()]
    whole = json.dumps([[asdict(row) for row in rows], fingerprint(start), recipe], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:12]


def self_calibrate(
    start: Path, output: Path, questions: list[Trajectory], profile: Profile, asked: Calibrated
) -> tuple[list[dict], list[Rated]]:
    """From a trained model one that says how sure it is: draw, rate, label, balance, learn. Returns (log, held out).

    Nothing is done twice: samples are kept in `output`.samples, and a model of the same rows and recipe is kept.
    Raises what `draw_rows`, `find_yes_and_no` and `balance` raise.
    """
    rows = draw_rows(start, questions, profile, asked, output.with_name(f"{output.name}.samples"))
    learned, held = split_questions(rows, asked.held_out, profile.seed)
    return learn(balance(learned, asked.rows, profile.seed), start, output, profile, asked), held


def calibrated_runs(profile: Profile) -> dict[str, tuple[str, Calibrated, Profile]]:
    """What is to be calibrated: model -> (the model it starts from, how, the profile with its seed)."""
    return {
        model: (start, asked, profile.model_copy(update={"seed": seed}))
        for name, asked in profile.sft.calibrated.items()
        for model, (start, seed) in zip(profile.models_of(name), profile.trained(asked.of).items(), strict=True)
    }

"""A profile: the numbers of one run of the study. The same keys in every file of `profiles/`, other values.

A profile changes numbers, never the path through the code.
"""

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml

from z1lib.window import HINTS, ShiftedWindow, check_windows, has_option, policy_named

EngineName = Literal["transformers", "vllm", "server"]  # a file of engines/ each
PROFILES = Path(os.environ.get("Z1_PROFILES", Path(__file__).parent.parent / "profiles"))


# The keys inside a key that holds several values.
INNER = {
    "repetition": {"least_tokens", "least_repeats", "least_counted", "loop_ratio", "ngram"},
    "near_duplicates": {"n_grams", "num_buckets", "hashes_per_bucket"},
    "teacher": {"model", "servers", "max_tokens", "temperature", "top_p", "gpus", "tokens_per_second"},
}


AT_LEAST_1 = ("train_problems", "response_token_budget", "epochs", "batch_size", "gradient_accumulation_steps")
AT_LEAST_1 += (
    "max_length",
    "save_steps",
    "keep_checkpoints",
    "machines",
    "training_tokens_per_second",
    "max_answer_tokens",
    "max_tokens",
    "probe_every",
)
AT_LEAST_1 += ("n", "bootstrap_draws", "curation_workers", "overlap_words")
RANGES = {"gpus": (0, 10_000), "gpu_memory_gib": (0, 10_000), "learning_rate": (0, 1), "warmup_steps": (0, 10**9)}
RANGES |= {"temperature": (0, 100), "top_p": (1e-6, 1), "decode_tokens_per_second": (1e-6, 10**9)}


class BadProfile(ValueError):
    """An unknown profile, key or value; the message names the file and the key."""


@dataclass(frozen=True)
class Profile:
    """See `profiles/mini.yaml` for what each key means; each number of `paper.yaml` stands with its source."""

    name: str
    seed: int
    # hardware it needs; 0 GPUs: a CPU will do, and a GPU is used if there is one
    gpus: int
    machines: int
    gpu_memory_gib: int
    # models
    base_model: str
    base_model_revision: str | None
    base_model_package: str | None
    released_models: dict[str, str]
    system_prompt: str | None
    evaluation_system_prompts: dict[str, str]
    # 01 curation
    train_source: str
    train_levels: list[int]
    train_problems: int
    response_token_budget: int
    test_problems: dict[str, int]
    min_response_tokens: int
    max_response_tokens: int
    repetition: dict[str, float]
    near_duplicates: dict[str, int]
    overlap_words: int
    drop_overlap: list[str]
    curation_workers: int
    teacher: dict[str, Any]
    # 02 fine-tuning
    runs: dict[str, str]
    learning_rate: float
    warmup_steps: int
    epochs: int
    batch_size: int
    gradient_accumulation_steps: int
    max_length: int
    gradient_checkpointing: bool
    mixed_precision: str | None
    lora: dict[str, Any]
    fsdp: dict[str, Any]
    save_steps: int
    keep_checkpoints: int
    training_tokens_per_second: int
    push_to_hub: str | None
    subsets: dict[str, dict[str, Any]]
    # 03 windowed inference
    engine: str
    engine_options: dict[str, Any]
    models: dict[str, str]
    max_problems: dict[str, int]
    hints: dict[str, str]
    delimiters: dict[str, str]
    other_hints: dict[str, str]
    other_hint_windows: list[int]
    windows: list[int]
    probe_every: int
    max_answer_tokens: int
    max_tokens: int
    decode_tokens_per_second: float
    n: int
    temperature: float
    top_p: float
    # 04 analysis
    bootstrap_draws: int

    def __post_init__(self):
        for field in fields(self):
            if not _fits(getattr(self, field.name), field.type):
                kind = getattr(field.type, "__name__", field.type)
                raise ValueError(f"key '{field.name}' should be {kind}, got {getattr(self, field.name)!r}")
        for key in AT_LEAST_1:
            if getattr(self, key) < 1:
                raise ValueError(f"key '{key}' must be at least 1, got {getattr(self, key)}")
        for key, (least, most) in RANGES.items():
            if not least <= getattr(self, key) <= most:
                raise ValueError(f"key '{key}' must be from {least} to {most}, got {getattr(self, key)}")
        self._check_curation()
        self._check_training()
        self._check_models()
        self._check_windows()

    def _check_curation(self) -> None:
        for key, names in INNER.items():
            if set(getattr(self, key)) != names:
                raise ValueError(f"key '{key}' should hold {sorted(names)}, got {sorted(getattr(self, key))}")
        if not 0 < self.min_response_tokens <= self.max_response_tokens:
            raise ValueError("key 'min_response_tokens' must be at least 1 and at most 'max_response_tokens'")
        if bad := [source for source, count in self.test_problems.items() if count < 1]:
            raise ValueError(f"key 'test_problems': {bad[0]} should have at least 1 problem")
        if not _fits(self.teacher["servers"], list[str]):
            raise ValueError(f"key 'teacher': servers should be a list of addresses, got {self.teacher['servers']!r}")
        if not _fits(self.teacher["tokens_per_second"], float) or self.teacher["tokens_per_second"] <= 0:
            raise ValueError("key 'teacher': tokens_per_second should be a number above 0")
        if self.train_source == "tracing" and not self.train_levels:
            raise ValueError("key 'train_levels': tracing needs at least one level")
        if set(self.drop_overlap) - {"question", "words"}:
            raise ValueError(f"key 'drop_overlap' takes 'question' and 'words', got {self.drop_overlap}")

    def _check_training(self) -> None:
        if self.mixed_precision not in (None, "bf16", "fp16", "no"):
            raise ValueError(f"key 'mixed_precision': {self.mixed_precision!r} is not one of bf16, fp16, no, null")
        if self.gpus % self.machines:
            raise ValueError(f"key 'machines': {self.gpus} GPUs cannot be spread evenly over {self.machines} machines")
        if self.lora and self.fsdp:
            raise ValueError("keys 'lora' and 'fsdp': adapters are merged on one device, they are not sharded")
        for name, subset in self.subsets.items():
            if set(subset) != {"order", "tokens", "seeds"}:
                raise ValueError(f"key 'subsets': {name} should have order, tokens and seeds, got {sorted(subset)}")
        if len({len(subset["seeds"]) for subset in self.subsets.values()}) > 1:
            raise ValueError("key 'subsets': all need as many seeds, their models are compared seed by seed")

    def _check_models(self) -> None:
        if self.engine not in (known := get_args(EngineName)):
            raise ValueError(f"key 'engine': {self.engine!r} is not one of {', '.join(known)}")
        for model, policy in self.models.items():
            try:
                policy_named(policy)
            except ValueError as error:
                raise ValueError(f"key 'models': {model} has policy {policy!r}: {error}") from None
        hinted = {name for name in self.models.values() if has_option(policy_named(name), "hint")}
        if missing := {ShiftedWindow.name, *hinted} - set(self.hints):
            raise ValueError(f"key 'hints': none for {', '.join(sorted(missing))}")

    def _check_windows(self) -> None:
        if self.windows[:1] and self.windows[0] < 0:
            raise ValueError(f"key 'windows': a window is at least 0, got {self.windows[0]}")
        try:
            check_windows(self.windows)
        except ValueError as error:
            raise ValueError(f"key 'windows': {error}") from None
        if not set(range(self.probe_every, self.windows[-1] + 1, self.probe_every)) <= set(self.windows):
            raise ValueError(
                f"key 'probe_every': the windows must hold every multiple of {self.probe_every} up to the last"
            )
        if not set(self.other_hint_windows) <= set(self.windows):
            raise ValueError(f"key 'other_hint_windows': {self.other_hint_windows} are not all among the windows")
        if self.max_tokens < self.windows[-1]:
            raise ValueError(f"key 'max_tokens': {self.max_tokens} is below the largest window, {self.windows[-1]}")

    def system_prompt_of(self, source: str) -> str | None:
        """The system prompt under which problems of a source are asked; None leaves it to the chat template."""
        return self.evaluation_system_prompts.get(source, self.system_prompt)

    def hint_of(self, policy: str) -> str:
        """The text of a policy's hint; a profile may name one of `window.HINTS`."""
        return HINTS.get(self.hints[policy], self.hints[policy])

    @property
    def is_meaningless(self) -> bool:
        """Whether the numbers mean nothing, because the model was never trained on anything."""
        return self.base_model == "random"


def _fits(value: object, annotation: Any) -> bool:
    """Whether a value has the annotated type; containers are checked inside, an int is a float, a bool is no int."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if inner:  # a union with None
        return any(value is None if kind is type(None) else _fits(value, kind) for kind in inner)
    if isinstance(value, bool):
        return annotation is bool
    return isinstance(value, (int, float) if annotation is float else annotation)


def load_profile(name_or_path: "str | Path | Profile", **overrides: Any) -> Profile:
    """The profile of that name in `profiles/`, or at that path, with some values overridden; a profile is itself.

    A file that says `like: mini` takes every key it does not name from that profile. Raises BadProfile naming the file
    and the key: unknown profile, missing or unknown key, a value of the wrong type or out of range.
    """
    if isinstance(name_or_path, Profile):  # a notebook's cell that is run again
        return replace(name_or_path, **overrides)
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PROFILES / f"{name_or_path}.yaml"
    values = {**_read(path), "name": path.stem, **overrides}
    names = {field.name for field in fields(Profile)}
    unknown, missing = sorted(set(values) - names), sorted(names - set(values))
    if unknown or missing:
        raise BadProfile(f"{path}: unknown keys {unknown}, missing keys {missing}")
    try:
        return Profile(**values)
    except ValueError as error:
        raise BadProfile(f"{path}: {error}") from None


def _read(path: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a file, over those of the profile it is like."""
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in PROFILES.glob("*.yaml")))
        raise BadProfile(f"no profile {path.stem!r}: {path} does not exist; there are {known}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise BadProfile(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise BadProfile(f"{path}: should hold keys and values")
    other = values.pop("like", None)
    if other is None:
        return values
    if other in (*seen, path.stem):
        raise BadProfile(f"{path}: is like itself, by way of {', '.join([*seen, path.stem])}")
    return {**_read(PROFILES / f"{other}.yaml", (*seen, path.stem)), **values}

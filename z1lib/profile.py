"""A profile: the numbers of one run of the study, in sections; the same keys in every file of `profiles/`.

A profile changes numbers, never the path through the code. What each key means stands in `profiles/mini.yaml`; each
number of `paper.yaml` stands with its source.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from z1lib.files import explain
from z1lib.window import HINTS, ShiftedWindow, check_windows, has_option, policy_named

Maker = Literal["hypothesis", "first only", "atheris", "unguided", "examples"]  # inference/programs.py
Select = Literal["ridge", "last", "now", "page", "window"]  # engines/budget.py
EngineName = Literal["transformers", "vllm", "server"]  # a file of engines/ each
PROFILES = Path(os.environ.get("Z1_PROFILES", Path(__file__).parent.parent / "profiles"))
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # tokens a second
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what numpy takes
COLDEST, HOTTEST = 0.01, 100.0  # below it vLLM decodes at this temperature (its _MAX_TEMP), others at their own
Limit = Annotated[int, Field(ge=0)]
UNTRAINED = "base"  # the model that nothing was trained on: it has no seed, every training is compared with the same
# A profile may write one name for a list of one.
Policies = Annotated[list[str], BeforeValidator(lambda named: [named] if isinstance(named, str) else named)]


def is_temperature(value: float) -> bool:
    """Whether every engine decodes at this temperature: 0, greedy, or one that none of them takes for another."""
    return not isinstance(value, bool) and (value == 0 or COLDEST <= value <= HOTTEST)


def _is_a_temperature(value: float) -> float:
    if not is_temperature(value):
        raise ValueError(f"must be 0 (greedy) or from {COLDEST} to {HOTTEST}, got {value}")
    return value


Temperature = Annotated[float, AfterValidator(_is_a_temperature)]


class BadProfile(ValueError):
    """An unknown profile, key or value; the message names the file and the key."""


class Section(BaseModel):
    """Keys that belong together. A value has its field's type: "1" is no number, a bool no int."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="after")
    def _hold_nothing_twice(self):
        for name, value in self:
            for one in value.values() if isinstance(value, dict) else [value]:
                if isinstance(one, list) and (twice := [item for i, item in enumerate(one) if item in one[:i]]):
                    raise ValueError(f"{name}: {one} holds {twice[0]!r} twice")
        return self


def _check_keys(name: str, model: type[Section], values: dict) -> None:
    """Raises ValueError for what a key's own keys may not be; the values stay as they are written."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{name}: {explain(error)}") from None


class Hardware(Section):
    """What the run needs; 0 GPUs: a CPU will do, and a GPU is used if there is one."""

    gpus: int = Field(ge=0, le=10_000)
    machines: Count
    gpu_memory_gib: int = Field(ge=0, le=10_000)

    @model_validator(mode="after")
    def _spread_evenly(self):
        if self.gpus % self.machines:
            raise ValueError(f"{self.gpus} gpus cannot be spread evenly over {self.machines} machines")
        return self


def _is_a_source(weights: str) -> str:
    """A folder, or a Hub id with or without a revision. What they hold is seen when they are loaded."""
    if not (Path(weights).is_dir() or re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", weights)):
        raise ValueError(f"{weights!r} is neither a folder nor owner/name or owner/name@revision of the Hub")
    return weights


class Model(Section):
    """Where weights come from, and under which system prompts they are trained and tested."""

    base: str
    revision: str | None
    package: str | None
    released: dict[str, Annotated[str, AfterValidator(_is_a_source)]]
    system_prompt: str | None
    evaluation_system_prompts: dict[str, str]


class Repetition(Section):
    min_tokens: Count
    min_repeats: int = Field(ge=2)
    min_counted: Count
    loop_ratio: float = Field(ge=0, le=1)
    ngram: Count


class NearDuplicates(Section):
    n_grams: Count
    num_buckets: Count
    hashes_per_bucket: Count


class Teacher(Section):
    model: str
    servers: list[str]
    max_tokens: Count
    temperature: Temperature
    top_p: float = Field(gt=0, le=1)
    gpus: int = Field(ge=0)
    tokens_per_second: Rate


class Curation(Section):
    train_source: str
    train_families: dict[str, Count]
    train_levels: list[Annotated[int, Field(ge=1, le=7)]]  # of the interpreter's programs
    train_problems: Count
    response_token_budget: Count
    test_problems: dict[str, Count]
    min_response_tokens: Count
    max_response_tokens: Count
    repetition: Repetition
    near_duplicates: NearDuplicates
    overlap_words: Count
    drop_overlap: list[Literal["question", "words"]]
    workers: Count
    teacher: Teacher

    @model_validator(mode="after")
    def _fit_together(self):
        if self.min_response_tokens > self.max_response_tokens:
            raise ValueError("min_response_tokens must be at most max_response_tokens")
        if self.train_source == "tracing" and not (self.train_levels and self.train_families):
            raise ValueError("train_families, train_levels: tracing needs at least one of each")
        return self


class Run(Section):
    """How the examples of a run are told, and which of the chosen questions it learns from: by default all."""

    style: str
    delimiters: bool = False
    slips: float = Field(0.0, ge=0, le=1)
    order: Literal["longest", "shortest", "random"] = "random"
    within_levels: bool = False
    tokens: Count | None = None
    seeds: list[Seed] | None = None  # some of the section's, for a run that is trained less often than the others

    @model_validator(mode="after")
    def _fit_together(self):
        if self.within_levels and self.tokens:
            raise ValueError("within_levels takes half of every level, tokens a budget: one of the two")
        return self

    @property
    def telling(self) -> tuple[str, bool, float]:
        """What decides the text of an example: runs that agree in it are curated together."""
        return self.style, self.delimiters, self.slips


class Calibrated(Section):
    """A run that starts from another's weights and learns how sure to be of its own answers (`sft.calibration`)."""

    of: str
    problems: Count
    n: int = Field(ge=2)
    temperature: Annotated[float, Field(gt=0)]
    weigh_by: Literal["yes", "mean", "weakest"]
    rows: Count
    held_out: float = Field(ge=0, lt=1)
    beta: float = Field(gt=0)
    lm_weight: float = Field(ge=0)
    learn_above: float = Field(ge=0, le=1)
    learning_rate: float = Field(ge=0, le=1)
    batch_size: Count
    gradient_accumulation_steps: Count
    epochs: Count
    lora: dict[str, Any]


class FsdpOptions(Section):
    """What `fsdp` may say: what FSDP2 reads of TrainingArguments' fsdp_config, which takes no notice of other keys."""

    version: Literal[2] = 2
    reshard_after_forward: bool = True
    auto_wrap_policy: Literal["TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"] = "TRANSFORMER_BASED_WRAP"
    transformer_layer_cls_to_wrap: list[str] = []
    min_num_params: Limit = 0
    activation_checkpointing: bool = False
    state_dict_type: Literal["FULL_STATE_DICT", "SHARDED_STATE_DICT"] = "FULL_STATE_DICT"
    cpu_ram_efficient_loading: bool = False
    cpu_offload: bool = False


def _named_by_style(run: Any) -> Any:
    """A profile may write a style for a run that has no other key."""
    return {"style": run} if isinstance(run, str) else run


class Sft(Section):
    runs: dict[str, Annotated[Run, BeforeValidator(_named_by_style)]]
    seeds: list[Seed]
    calibrated: dict[str, Calibrated]
    learning_rate: float = Field(ge=0, le=1)
    warmup_steps: int = Field(ge=0)
    epochs: Count
    batch_size: Count
    gradient_accumulation_steps: Count
    average_last: float = Field(ge=0, le=1)
    max_length: Count
    gradient_checkpointing: bool
    mixed_precision: Literal["bf16", "fp16", "no"] | None
    lora: dict[str, Any]
    fsdp: dict[str, Any]
    save_steps: Count
    keep_checkpoints: Count
    tokens_per_second: Rate
    push_to_hub: str | None

    @model_validator(mode="after")
    def _fit_together(self):
        if self.lora:
            from peft import LoraConfig  # which brings torch: only where it is asked for

            try:
                LoraConfig(task_type="CAUSAL_LM", **self.lora)
            except (TypeError, ValueError) as error:
                raise ValueError(f"lora: {error}") from None
        _check_keys("fsdp", FsdpOptions, self.fsdp)
        if self.lora and self.fsdp:
            raise ValueError("lora and fsdp: adapters are merged on one device, they are not sharded")
        for name, run in self.runs.items():
            if not set(run.seeds or ()) <= set(self.seeds):
                raise ValueError(f"runs: {name} has the seeds {run.seeds}, which are not all among {self.seeds}")
        for name, asked in self.calibrated.items():
            if name in self.runs or asked.of not in self.runs:
                raise ValueError(
                    f"calibrated: {name} needs a name of its own, and to be of one of {', '.join(self.runs)}"
                )
        if self.average_last and self.fsdp:
            raise ValueError("average_last and fsdp: the mean is kept on one device, it is not sharded")
        return self


class TransformersOptions(Section):
    """What a profile may say to the transformers engine."""

    batch_size: Count | None = None
    device: str | None = None


class ServerOptions(Section):
    """What a profile may say to the server engine."""

    base_url: str | list[str] = ""
    serve_options: dict[str, str | int | float | bool] | None = None
    api_key: str = ""
    concurrency: Count = 1
    retries: Limit = 0
    one_request: bool = True


OPTIONS = {"transformers": TransformersOptions, "server": ServerOptions}  # vLLM's are its own, see `check_options`


class Pool(Section):
    """Several answers to a problem, for notebook 05; without models there is no pool."""

    models: list[str]
    problems: dict[str, Limit]
    windows: list[Limit] = Field(min_length=1)
    n: Count
    seeds: list[Seed] = Field(min_length=1)
    temperature: Temperature
    top_p: float = Field(gt=0, le=1)

    @model_validator(mode="after")
    def _fit_together(self):
        check_windows(self.windows)
        if self.temperature == 0 and self.n * len(self.seeds) > 1:
            raise ValueError("pool: at temperature 0 all samples of a problem are alike: one is enough")
        return self


class Programs(Section):
    """Programs run on made inputs, for the end of notebook 05: those of the pool, and a test bed; no makers, none."""

    problems: Limit
    makers: list[Maker]


class Cheaper(Section):
    """Decoding with a budget of positions, for the end of notebook 05; without models there is none."""

    models: list[str]
    problems: dict[str, Limit]
    windows: list[Limit] = Field(min_length=1)
    selects: list[Select]
    budgets: list[Count]
    long_problems: dict[str, Limit]  # that are asked behind solved ones too
    long_tokens: Count  # of those solved ones, at most
    long_budgets: list[Count]

    @model_validator(mode="after")
    def _fit_together(self):
        check_windows(self.windows)
        if not set(self.long_budgets) <= set(self.budgets):
            raise ValueError(f"cheaper: long_budgets: {self.long_budgets} are not all among the budgets")
        return self


class Inference(Section):
    engine: EngineName
    engine_options: dict[str, Any]
    dtype: Literal["bfloat16", "float16", "float32"] | None
    models: dict[str, Policies]
    max_problems: dict[str, Limit | dict[str, Limit]]
    hints: dict[str, str]
    delimiters: dict[str, str]
    other_hints: dict[str, str]
    other_hint_windows: list[int]
    other_hint_problems: Count
    windows: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    probe_every: Count
    max_answer_tokens: Count
    max_tokens: Count
    tokens_per_second: Rate
    n: Count
    temperature: Temperature
    top_p: float = Field(gt=0, le=1)
    pool: Pool
    programs: Programs
    cheaper: Cheaper

    @model_validator(mode="after")
    def _fit_together(self):
        check_windows(self.windows)
        for named in self.hints:
            policy_named(named)
        used = {name for names in self.models.values() for name in names}
        hinted = {name for name in used if has_option(policy_named(name), "hint")}
        if missing := {ShiftedWindow.name, *hinted} - set(self.hints):
            raise ValueError(f"hints: none for {', '.join(sorted(missing))}")
        if ShiftedWindow.name not in used:
            raise ValueError(f"models: none is decoded under {ShiftedWindow.name}, which the study is about")
        for run, names in self.models.items():
            if run not in self.delimiters and any(has_option(policy_named(name), "delimiter") for name in names):
                raise ValueError(f"delimiters: none for {run}, which is decoded under {', '.join(names)}")
        if not set(range(self.probe_every, self.windows[-1] + 1, self.probe_every)) <= set(self.windows):
            raise ValueError(f"probe_every: the windows must hold every multiple of {self.probe_every} up to the last")
        if not set(self.other_hint_windows) <= set(self.windows):
            raise ValueError(f"other_hint_windows: {self.other_hint_windows} are not all among the windows")
        if self.engine in OPTIONS:
            _check_keys("engine_options", OPTIONS[self.engine], self.engine_options)
        if self.engine == "server" and self.dtype:
            raise ValueError("dtype: a server chooses its own, by serve_options")
        if self.max_tokens < self.windows[-1]:
            raise ValueError(f"max_tokens: {self.max_tokens} is below the largest window, {self.windows[-1]}")
        return self


class Analysis(Section):
    resamples: Count


class Profile(Section):
    """All numbers of one run."""

    name: str
    seed: Seed
    hardware: Hardware
    model: Model
    curation: Curation
    sft: Sft
    inference: Inference
    analysis: Analysis

    @model_validator(mode="after")
    def _name_what_there_is(self):
        """A name that a key takes from another key must be there: one that is misspelt would not be obeyed."""
        runs = {UNTRAINED, *self.sft.runs, *self.sft.calibrated, *self.model.released}
        sets, limits = set(self.curation.test_problems), self.inference.max_problems
        named = [
            ("model.released", self.model.released, runs),
            ("inference.delimiters", self.inference.delimiters, runs),
        ]
        named += [("model.evaluation_system_prompts", self.model.evaluation_system_prompts, sets)]
        named += [("inference.max_problems", limits, runs), ("inference.models", self.inference.models, runs)]
        named += [("inference.pool.models", self.inference.pool.models, runs)]
        named += [("inference.cheaper.models", self.inference.cheaper.models, runs)]
        named += [("inference.pool.problems", self.inference.pool.problems, sets)] * bool(self.inference.pool.models)
        for key in ("problems", "long_problems") * bool(self.inference.cheaper.models):
            named.append((f"inference.cheaper.{key}", getattr(self.inference.cheaper, key), sets))
        named += [(f"inference.max_problems.{run}", of, sets) for run, of in limits.items() if isinstance(of, dict)]
        for key, names, known in named:
            if unknown := sorted(set(names) - known):
                nearest = difflib.get_close_matches(unknown[0], known, 1, 0)[0]
                raise ValueError(f"{key} names {unknown[0]!r}, which the profile has not; the nearest is {nearest!r}")
        return self

    def system_prompt_of(self, source: str) -> str | None:
        """The system prompt under which problems of a source are asked; None leaves it to the chat template."""
        return self.model.evaluation_system_prompts.get(source, self.model.system_prompt)

    def trained(self, run: str) -> dict[str, int]:
        """The models that a run trains and the seed of each: one name a seed, the run's own where none is named."""
        seeds = self.sft.runs[run].seeds or self.sft.seeds
        return {f"{run}-{seed}": seed for seed in seeds} or {run: self.seed}

    @property
    def subject(self) -> str:
        """The run that the study is about: the first of its runs that is decoded, else the last model that is."""
        return next((run for run in self.sft.runs if run in self.inference.models), [*self.inference.models][-1])

    def models_of(self, run: str) -> list[str]:
        """The models that are decoded for a run: one a seed of those trained here, else the one of that name."""
        if run in self.sft.calibrated:
            of = self.sft.calibrated[run].of
            return [run + model.removeprefix(of) for model in self.trained(of)]
        return list(self.trained(run)) if run in self.sft.runs and run not in self.model.released else [run]

    @property
    def to_train(self) -> list[str]:
        """The runs that are trained: those that are decoded and whose weights are not released."""
        return [run for run in self.sft.runs if run in self.inference.models and run not in self.model.released]

    @property
    def decoded(self) -> dict[str, str]:
        """Every model that is decoded -> its run."""
        return {model: run for run in self.inference.models for model in self.models_of(run)}

    def hint_of(self, policy: str) -> str:
        """The text of a policy's hint; a profile may name one of `window.HINTS`."""
        hint = self.inference.hints[policy]
        return HINTS.get(hint, hint)

    @property
    def is_meaningless(self) -> bool:
        """Whether the numbers mean nothing, because the model was never trained on anything."""
        return self.model.base == "random"


SECTIONS = {
    name: field.annotation for name, field in Profile.model_fields.items() if field.annotation not in (str, int)
}


def load_profile(name_or_path: "str | Path | Profile", **overrides: Any) -> Profile:
    """The profile of that name in `profiles/`, or at that path, with some keys overridden: `sft={"epochs": 2}`.

    A file that says `like: mini` takes every key it does not name from that profile. A profile is itself. Raises
    BadProfile naming the file and the key: an unknown profile, a missing or unknown key, a value that does not fit.
    """
    if isinstance(name_or_path, Profile):
        path, values = Path(name_or_path.name), name_or_path.model_dump()
    else:
        path = Path(name_or_path)
        path = path if path.suffix in (".yaml", ".yml") else PROFILES / f"{name_or_path}.yaml"
        values = {**_read(path), "name": path.stem}
    try:
        return Profile.model_validate(_merge(values, overrides))
    except ValidationError as error:
        raise BadProfile(f"{path}: {_explain(error)}") from None


def _merge(values: dict, over: dict, model: type[Section] = Profile) -> dict:
    """`over` on top of `values`, section by section; a mapping that is a value replaces the whole value."""
    merged = {**values, **over}
    for key, field in model.model_fields.items():
        pair = values.get(key), over.get(key)
        if field.annotation in Section.__subclasses__() and all(isinstance(one, dict) for one in pair):
            merged[key] = _merge(*pair, field.annotation)
    return merged


def _keys(model: type[Section] = Profile, prefix: str = "") -> list[str]:
    """The dotted paths of all sections and keys."""
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation in Section.__subclasses__()
        keys += [prefix + name, *(_keys(field.annotation, f"{prefix}{name}.") if inner else [])]
    return keys


# Where a key of the flat profiles of before went: the sections' own names, and those that were renamed.
MOVED = {key: f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields}
MOVED |= {"base_model": "model.base", "base_model_revision": "model.revision", "base_model_package": "model.package"}
MOVED |= {"released_models": "model.released", "curation_workers": "curation.workers"}
MOVED |= {"training_tokens_per_second": "sft.tokens_per_second", "bootstrap_draws": "analysis.resamples"}
MOVED |= {"decode_tokens_per_second": "inference.tokens_per_second", "sft.subsets": "sft.runs", "subsets": "sft.runs"}


def _explain(error: ValidationError) -> str:
    """`files.explain`, and for an unknown key where it went, or which it is nearest to."""
    unknown = next((one for one in error.errors() if one["type"] == "extra_forbidden"), None)
    if unknown is None:
        return explain(error)
    key = ".".join(map(str, unknown["loc"]))
    if key in MOVED:
        return f"key {key!r} is now {MOVED[key]!r}"
    return f"no key {key!r}; the nearest is {difflib.get_close_matches(key, _keys(), 1, 0)[0]!r}"


class Plain(yaml.SafeLoader):
    """YAML without its surprises: a key twice, `010` that is 8, `1:30` that is 90, `no` that is false are errors."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key.value!r} stands there twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _as_written(construct):
    """A constructor that refuses a value that is not written as it is read."""

    def construct_plainly(loader, node):
        value = construct(loader, node)
        if str(value).lower() != node.value.lower().lstrip("+").replace("_", ""):
            said = f"YAML reads {node.value} as {value!r}: write it so, or in quotes"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        return value

    return construct_plainly


Plain.add_constructor("tag:yaml.org,2002:int", _as_written(yaml.SafeLoader.construct_yaml_int))
Plain.add_constructor("tag:yaml.org,2002:bool", _as_written(yaml.SafeLoader.construct_yaml_bool))


def _read(path: Path, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keys of a file, over those of the profile it is like."""
    if not path.exists():
        known = sorted(file.stem for file in PROFILES.glob("*.yaml"))
        nearest = difflib.get_close_matches(path.stem, known, 1)
        meant = f", did you mean {nearest[0]!r}" if nearest else ""
        raise BadProfile(f"no profile {path.stem!r}{meant}: {path} does not exist; there are {', '.join(known)}")
    try:
        values = yaml.load(path.read_text(encoding="utf-8-sig"), Plain) or {}
    except yaml.YAMLError as error:
        raise BadProfile(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise BadProfile(f"{path}: should hold keys and values")
    other = values.pop("like", None)
    if other is None:
        return values
    if other in (*seen, path.stem):
        raise BadProfile(f"{path}: is like itself, by way of {', '.join([*seen, path.stem])}")
    return _merge(_read(PROFILES / f"{other}.yaml", (*seen, path.stem)), values)

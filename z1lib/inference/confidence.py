"""How sure is the model of an answer: the probability that it says Yes when asked whether its answer is right.

One short question behind each completion, by token ids, and no decoding: the completion is never tokenised again
(Self-Calibration, arXiv 2503.00031, section 3; its released code has three definitions of this number, and tokenises
prompt and response anew).
"""

import math
import warnings
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from z1lib.chat import conversation, encode_prompt, encode_question, encode_text
from z1lib.engines.base import Engine
from z1lib.files import Journal
from z1lib.records import STRICT, Completion, Problem, by_id, checked

QUESTION = "Is the answer that you gave correct? Say Yes or No."
MASS = 0.5  # of Yes and No together, below which the model answers something else


@checked(frozen=True, config=STRICT)
class Confidence:
    """What a completion's `score` is, and what asking for it fed: the tokens of the question, and of all before it."""

    key: str  # the completion's, and of what was asked
    completion: str  # the completion's key
    score: Annotated[float, Field(ge=0, le=1)]
    question_tokens: int
    prefix_tokens: int


def find_yes_and_no(tokenizer) -> tuple[int, int]:
    """The ids with which an answer begins that says Yes, or No. Raises ValueError unless they are one id each."""
    ids = [encode_text(tokenizer, word) for word in ("Yes", "No")]
    if any(len(own) != 1 for own in ids) or ids[0] == ids[1]:
        raise ValueError(f"'Yes' and 'No' are {ids} in this tokenizer: each must be one id of its own")
    return ids[0][0], ids[1][0]


def ask_yes(
    engine: Engine,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    journal: Journal | None = None,
    system_prompt: str | None = None,
    question: str = QUESTION,
) -> list[Confidence]:
    """P(Yes) of each completion, over the whole vocabulary, in their order; those in `journal` are not asked again.

    Raises ValueError as `find_yes_and_no` and `Engine.score` do, and for a completion of other weights' prompt. Warns
    where the model says neither Yes nor No.
    """
    asked, yes_no = by_id(problems), find_yes_and_no(engine.tokenizer)
    stored = journal.rows if journal else {}
    keys = [f"{row.key}/{engine.fingerprint}/{question}" for row in completions]
    todo = [i for i, key in enumerate(keys) if key not in stored]
    prefixes = [_ask(engine, asked[completions[i].problem_id], completions[i], system_prompt, question) for i in todo]
    asking = [(before + behind, yes_no) for before, behind in prefixes]
    found = [[math.exp(one) for one in pair] for pair in engine.score(asking)]
    if found and (mass := sum(map(sum, found)) / len(found)) < MASS:
        said = f"{engine.model_name}, asked {question!r}, says Yes or No with {mass:.2f} on average: word it otherwise"
        warnings.warn(said, stacklevel=2)
    fresh = [
        Confidence(keys[i], completions[i].key, min(1.0, yes), len(behind), len(before))
        for i, (yes, _), (before, behind) in zip(todo, found, prefixes)
    ]
    journal.append(fresh) if journal else stored.update((row.key, row) for row in fresh)
    return [stored[key] for key in keys]


def _ask(engine: Engine, problem: Problem, row: Completion, system_prompt: str | None, question: str):
    """The ids up to the end of an answer, and those of the question behind it."""
    messages = conversation(problem.prompt, system_prompt)
    prompt = encode_prompt(engine.tokenizer, messages)
    if len(prompt) != row.prompt_tokens:
        raise ValueError(f"{problem.id}: {len(prompt)} prompt tokens, and its completion had {row.prompt_tokens}")
    own = row.token_ids[: -1 if row.finish_reason == "stop" else None]  # the end token is the template's
    return prompt + own, encode_question(engine.tokenizer, messages, question)

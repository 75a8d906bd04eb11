"""How sure is a model of an answer: three scores from 0 to 1, none of which decodes a token.

P(Yes): what the model says when it is asked whether its answer is right, one short question behind the completion's own
ids, which are never tokenised again (Self-Calibration, arXiv 2503.00031, section 3; its released code has three
definitions of this number, and tokenises prompt and response anew). Mean and weakest: how likely it found what it
wrote, on the whole and where it was least sure (DeepConf, arXiv 2508.15260, takes the lowest group of a trace); an
engine knows these when it decodes, so that they cost nothing.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from z1lib.chat import conversation, encode_prompt, encode_question, encode_text
from z1lib.engines.base import Engine, Question
from z1lib.files import Journal
from z1lib.progress import bar
from z1lib.records import Completion, Confidence, Problem, by_id

QUESTION = "Is the answer that you gave correct? Say Yes or No."
MASS = 0.5  # of Yes and No together, below which the model answers something else
GROUP = 16  # tokens in a row, of which the least likely are the weakest
TRIED = 32  # completions after which it is seen whether the model says Yes or No
AT_ONCE = 256  # completions between two writings of the journal


def find_yes_and_no(tokenizer) -> tuple[int, int]:
    """The ids with which an answer begins that says Yes, or No. Raises ValueError unless they are one id each."""
    ids = [encode_text(tokenizer, word) for word in ("Yes", "No")]
    if any(len(own) != 1 for own in ids) or ids[0] == ids[1]:
        raise ValueError(f"'Yes' and 'No' are {ids} in this tokenizer: each must be one id of its own")
    return ids[0][0], ids[1][0]


def rate(
    engine: Engine,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    journal: Journal | None = None,
    system_prompt_of: Callable[[str], str | None] = lambda source: None,
    question: str = QUESTION,
    tell: Callable[[str], None] = warnings.warn,
) -> list[Confidence]:
    """The scores of each completion, in their order; those in `journal` are not asked again.

    `system_prompt_of` as in `sweep.sweep_problems`. Raises ValueError as `find_yes_and_no`, `Engine.score` and
    `Engine.reread` do, and for a completion of another prompt. Tells where the model says neither Yes nor No.
    """
    asked, (yes, no) = by_id(problems), find_yes_and_no(engine.tokenizer)
    stored = journal.rows if journal else {}
    keys = [f"{row.key}/{engine.fingerprint}/{question}" for row in completions]
    todo = [i for i, key in enumerate(keys) if key not in stored]
    for start in bar(range(0, len(todo), AT_ONCE), desc="confidence", leave=False):
        part = todo[start : start + AT_ONCE]
        rows = [completions[i] for i in part]
        asking = [_ask(engine, asked[row.problem_id], row, system_prompt_of, question) for row in rows]
        if not start:
            _check_mass(engine, asking, (yes, no), question, tell)
        read = _read_once(engine, [(prompt, own + behind + [yes]) for prompt, own, behind in asking])
        fresh = [
            Confidence(keys[i], row.key, *_summarise(row, logs), len(behind), len(prompt) + len(own))
            for i, row, logs, (prompt, own, behind) in zip(part, rows, read, asking)
        ]
        journal.append(fresh) if journal else stored.update((row.key, row) for row in fresh)
    return [stored[key] for key in keys]


def _ask(engine: Engine, problem: Problem, row: Completion, system_prompt_of: Callable, question: str):
    """The ids of a prompt, of its answer without the end, which is the template's, and of the question behind it."""
    messages = conversation(problem.prompt, system_prompt_of(problem.source))
    prompt = encode_prompt(engine.tokenizer, messages)
    if len(prompt) != row.prompt_tokens:
        raise ValueError(f"{problem.id}: {len(prompt)} prompt tokens, and its completion had {row.prompt_tokens}")
    own = row.token_ids[: -1 if row.finish_reason == "stop" else None]
    return prompt, own, encode_question(engine.tokenizer, messages, question)


def _check_mass(engine: Engine, asking: list, yes_no: tuple[int, int], question: str, tell: Callable) -> None:
    """Tell where the model, asked after some of its answers, says neither Yes nor No."""
    some = [(prompt + own + behind, yes_no) for prompt, own, behind in asking[:TRIED]]
    mass = sum(math.exp(one) for pair in engine.score(some) for one in pair) / max(1, len(some))
    if some and mass < MASS:
        name = Path(engine.model_name).name
        tell(f"{name}, asked {question!r}, says Yes or No with {mass:.2f} on average: its P(Yes) may mean little")


def _read_once(engine: Engine, answers: list[Question]) -> list[list[float]]:
    """`reread`, equal ones once: windows that cut nothing have one completion."""
    distinct = {(tuple(prompt), tuple(ids)): None for prompt, ids in answers}
    found = dict(zip(distinct, engine.reread(list(distinct))))
    return [found[tuple(prompt), tuple(ids)] for prompt, ids in answers]


def _summarise(row: Completion, log_probabilities: Sequence[float]) -> tuple[float, float, float]:
    """(yes, mean, weakest) from the log-probabilities of a completion's ids, of a question's and of Yes."""
    own = log_probabilities[: len(row.token_ids)]  # where it ended, the template's end stands for its own
    return min(1.0, math.exp(log_probabilities[-1])), *summarise_likelihood(drop_forced(row, own))


def drop_forced(row: Completion, values: Sequence[float]) -> list[float]:
    """Those of a completion's values, one an id, whose ids the model chose: all but what a full window forced."""
    end = len(row.token_ids) - row.answer_tokens
    return [*values[: end - row.hint_tokens * row.overran], *values[end:]]


def summarise_likelihood(log_probabilities: Sequence[float], group: int = GROUP) -> tuple[float, float]:
    """exp of the mean of some log-probabilities, and of the lowest mean of `group` in a row; 1 of none."""
    if not len(log_probabilities):
        return 1.0, 1.0
    width = min(group, len(log_probabilities))
    means = np.convolve(log_probabilities, np.full(width, 1 / width), mode="valid")
    return min(1.0, math.exp(np.mean(log_probabilities))), min(1.0, math.exp(means.min()))

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

import numpy as np

from z1lib.chat import conversation, encode_prompt, encode_question, encode_text
from z1lib.engines.base import Engine
from z1lib.files import Journal
from z1lib.progress import bar
from z1lib.records import Completion, Confidence, Problem, by_id

QUESTION = "Is the answer that you gave correct? Say Yes or No."
MASS = 0.5  # of Yes and No together, below which the model answers something else
GROUP = 16  # tokens in a row, of which the least likely are the weakest
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
) -> list[Confidence]:
    """The scores of each completion, in their order; those in `journal` are not asked again.

    `system_prompt_of` as in `sweep.sweep_problems`. Raises ValueError as `find_yes_and_no`, `Engine.score` and
    `Engine.reread` do, and for a completion of another prompt. Warns where the model says neither Yes nor No.
    """
    asked, yes_no = by_id(problems), find_yes_and_no(engine.tokenizer)
    stored = journal.rows if journal else {}
    keys = [f"{row.key}/{engine.fingerprint}/{question}" for row in completions]
    todo = [i for i, key in enumerate(keys) if key not in stored]
    masses = []
    for start in bar(range(0, len(todo), AT_ONCE), desc="confidence", leave=False):
        part = todo[start : start + AT_ONCE]
        asking = [
            _ask(engine, asked[completions[i].problem_id], completions[i], system_prompt_of, question) for i in part
        ]
        found = _score_once(engine, asking, [completions[i] for i in part], yes_no)
        masses += [yes + no for yes, no, _ in found]
        fresh = [
            Confidence(keys[i], completions[i].key, min(1.0, yes), *liked, len(behind), len(before))
            for i, (yes, _, liked), (before, behind) in zip(part, found, asking)
        ]
        journal.append(fresh) if journal else stored.update((row.key, row) for row in fresh)
    if masses and (mass := sum(masses) / len(masses)) < MASS:
        said = f"{engine.model_name}, asked {question!r}, says Yes or No with {mass:.2f} on average: word it otherwise"
        warnings.warn(said, stacklevel=2)
    return [stored[key] for key in keys]


def _ask(engine: Engine, problem: Problem, row: Completion, system_prompt_of: Callable, question: str):
    """The ids up to the end of an answer, and those of the question behind it."""
    messages = conversation(problem.prompt, system_prompt_of(problem.source))
    prompt = encode_prompt(engine.tokenizer, messages)
    if len(prompt) != row.prompt_tokens:
        raise ValueError(f"{problem.id}: {len(prompt)} prompt tokens, and its completion had {row.prompt_tokens}")
    own = row.token_ids[: -1 if row.finish_reason == "stop" else None]  # the end token is the template's
    return prompt + own, encode_question(engine.tokenizer, messages, question)


def _score_once(engine: Engine, asking: list, rows: list[Completion], yes_no: tuple[int, int]) -> list[tuple]:
    """(P(Yes), P(No), (mean, weakest)) of each completion; equal ones, as of windows that cut nothing, scored once."""
    places = {tuple(before + behind): i for i, (before, behind) in enumerate(asking)}
    pairs = engine.score([(whole, yes_no) for whole in places])
    again = [(asking[i][0][: rows[i].prompt_tokens], rows[i].token_ids) for i in places.values()]
    liked = [summarise_likelihood(drop_forced(rows[i], own)) for i, own in zip(places.values(), engine.reread(again))]
    found = {
        whole: (math.exp(yes), math.exp(no), own) for whole, (yes, no), own in zip(places, pairs, liked, strict=True)
    }
    return [found[tuple(before + behind)] for before, behind in asking]


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

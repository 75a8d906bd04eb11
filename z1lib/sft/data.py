"""From trajectories to what the trainer reads: ids, and labels on the response alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z1lib.chat import Message, conversation, encode_end, encode_prompt, encode_text
from z1lib.curation.selection import select
from z1lib.profile import Profile
from z1lib.records import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # the label that the loss leaves out


class UnfitExamples(ValueError):
    """Examples that would be cut or from which nothing is learned; the message counts and names them."""


def training_runs(trajectories: list[Trajectory], profile: Profile) -> dict[str, tuple[list[Trajectory], Profile]]:
    """What is to be trained: name -> (examples, the profile to train them by).

    The profile's runs that are decoded later and whose weights are not released; or, where the profile names subsets,
    those of the first run's examples under their token budgets (paper, Table 2), each with each of its seeds.
    """
    if not profile.sft.subsets:
        runs = [
            run for run in profile.sft.runs if run in profile.inference.models and run not in profile.model.released
        ]
        return {run: ([row for row in trajectories if row.run == run], profile) for run in runs}
    pool = [row for row in trajectories if row.run == next(iter(profile.sft.runs))]
    counts = [row.token_count for row in pool]
    trained = {}
    for name, subset in profile.sft.subsets.items():
        for seed in subset.seeds:
            budget = subset.tokens or sum(counts)
            taken = select(counts, budget, subset.order, seed)
            trained[f"{name}-{seed}"] = ([pool[i] for i in taken], profile.model_copy(update={"seed": seed}))
    return trained


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


def tokenize_rows(rows: list[Trajectory], tokenizer: PreTrainedTokenizerBase, profile: Profile) -> list[dict]:
    """The examples of `rows`, in their order.

    Raises UnfitExamples counting and naming those longer than `max_length`, which the trainer would cut, and those
    without a learned token: none is ever dropped in silence.
    """
    examples = []
    for row in rows:
        messages = [
            *conversation(row.question, profile.model.system_prompt),
            {"role": "assistant", "content": row.response},
        ]
        examples.append(tokenize_example(tokenizer, messages))
    pairs = list(zip(rows, examples))
    _refuse(
        [row.id for row, example in pairs if len(example["input_ids"]) > profile.sft.max_length],
        f"are longer than max_length {profile.sft.max_length} and would be cut",
    )
    _refuse(
        [row.id for row, example in pairs if set(example["labels"]) <= {IGNORE}],
        "have no label: the loss would see nothing of them",
    )
    return examples


def _refuse(ids: list[str], what: str) -> None:
    if ids:
        raise UnfitExamples(
            f"{len(ids)} examples {what}: {', '.join(ids)}; raise the profile's max_length or leave them out in "
            "01_curation"
        )

"""From trajectories to what the trainer reads: ids, and labels on the response alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z1lib.chat import Message, conversation, encode_end, encode_prompt, encode_text, find_end
from z1lib.profile import Profile
from z1lib.records import Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100  # the label that the loss leaves out


class UnfitExamples(ValueError):
    """Examples that would be cut or from which nothing is learned; the message counts and names them."""


def training_runs(trajectories: list[Trajectory], profile: Profile) -> dict[str, tuple[list[Trajectory], Profile]]:
    """What is to be trained: model -> (examples, the profile to train them by).

    The profile's runs that are decoded later and whose weights are not released, each with each of its seeds; all
    trainings of a seed come before those of the next, so that whole blocks are there early.
    """
    rows = {run: [row for row in trajectories if row.run == run] for run in profile.to_train}
    models = [(seed, model, run) for run in rows for model, seed in profile.trained(run).items()]
    order = profile.sft.seeds or [profile.seed]
    return {
        model: (rows[run], profile.model_copy(update={"seed": seed}))
        for seed, model, run in sorted(models, key=lambda one: order.index(one[0]))
    }


def tokenize_example(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> dict[str, list[int]]:
    """The templated conversation as `input_ids`, with `labels` on the last assistant message and its end token only.

    The prompt's ids are those of inference (`chat.encode_prompt`), the response is tokenised alone, so that training
    and decoding see the same boundaries. The first place in the content that is the message's `unlearned`, if it has
    one, carries no label either. Raises ValueError if the last message is not the assistant's.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("the last message must be the assistant's: it is what is learned")
    prompt = encode_prompt(tokenizer, messages[:-1])
    text, (end, *after) = encode_end(tokenizer, messages)
    response = encode_text(tokenizer, text)
    learned = mask_line(tokenizer, text, response, messages[-1].get("unlearned", ""))
    labels = [IGNORE] * len(prompt) + learned + [end] + [IGNORE] * len(after)
    return {"input_ids": prompt + response + [end] + after, "labels": labels}


def mask_line(tokenizer: PreTrainedTokenizerBase, text: str, ids: list[int], line: str) -> list[int]:
    """The ids of a text, IGNORE in place of every one with a character of the first `line` in it ("": none)."""
    if not line:
        return ids
    start = text.index(line)
    spans = tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)[
        "offset_mapping"
    ]
    hidden = [first < start + len(line) and last > start for first, last in spans]
    return [IGNORE if hide else one for hide, one in zip(hidden, ids, strict=True)]


def tokenize_rows(rows: list[Trajectory], tokenizer: PreTrainedTokenizerBase, profile: Profile) -> list[dict]:
    """The examples of `rows`, in their order.

    Raises UnfitExamples counting and naming those longer than `max_length`, which the trainer would cut, and those
    without a learned token: none is ever dropped in silence. Also for a chat template that ends an answer with plain
    text: no decoding would end there (`models.end_token_ids`).
    """
    if rows and find_end(tokenizer) is None:
        raise UnfitExamples(
            "the tokenizer's chat template ends an answer without a control token, so that what is learned could not "
            "end what is decoded: take a base model whose template ends with its end token"
        )
    examples = []
    for row in rows:
        messages = [
            *conversation(row.question, profile.model.system_prompt),
            {"role": "assistant", "content": row.response, "unlearned": row.unlearned},
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

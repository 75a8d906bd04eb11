"""From a conversation to token ids through the model's chat template, the same way in training and at inference.

Text inside a message never becomes a control token: a user who writes "<|im_end|>" gets those characters.
"""

from __future__ import annotations

import re
from itertools import count, pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what only names its types should not wait for torch
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]


def conversation(prompt: str, system_prompt: str | None) -> list[Message]:
    """A one-turn conversation; without a system prompt the template's own default applies, "" is an empty one."""
    system = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    return [*system, {"role": "user", "content": prompt}]


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of plain text, tokenised alone: no special token is added, none is recognised.

    Tokenizers have control tokens that are not marked special (Qwen2.5's "</tool_call>", "<|fim_prefix|>"), which
    `split_special_tokens` does not split: text that spells one is cut behind its first character.
    """
    unmarked = "|".join(map(re.escape, set(tokenizer.get_added_vocab()) - set(tokenizer.all_special_tokens)))
    starts = [match.start() + 1 for match in re.finditer(f"(?={unmarked})", text)] if unmarked else []
    pieces = [text[start:end] for start, end in pairwise([0, *starts, len(text)])]
    return [
        i
        for piece in pieces
        for i in tokenizer(piece, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Ids of the templated conversation up to where the assistant's answer begins."""
    return _encode_around(tokenizer, messages, lambda rows: _render(tokenizer, rows, add_generation_prompt=True))


def encode_end(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Ids the template puts after the last message: the end token and, in some templates, a newline.

    Raises ValueError for a template that puts something else than the message between the generation prompt and them:
    what is trained would not be what is decoded.
    """
    *before, last = messages
    mark = _marks(before)[0]
    start, _, end = _render(tokenizer, [*before, {**last, "content": mark}]).partition(mark)
    if start != _render(tokenizer, before, add_generation_prompt=True):
        raise ValueError("the chat template writes an answered turn differently from its generation prompt")
    return tokenizer(end, add_special_tokens=False)["input_ids"]


def _render(tokenizer, messages: list[Message], **options) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, **options)


def _marks(messages: list[Message]) -> list[str]:
    """A place holder for each message and one more, of private-use characters, none of which a message holds."""
    text = "".join(row["content"] for row in messages)
    opening = next(f"\ue000{i}-" for i in count() if f"\ue000{i}-" not in text)
    return [f"{opening}{i}\ue001" for i in range(len(messages) + 1)]


def _encode_around(tokenizer, messages: list[Message], render) -> list[int]:
    """Encode the rendered text; messages that spell a control token are encoded apart, as plain text."""
    control = tokenizer.all_special_tokens + list(tokenizer.get_added_vocab())
    spelled = {i for i, row in enumerate(messages) if any(token in row["content"] for token in control)}
    marks = _marks(messages)
    marked = [{**row, "content": marks[i]} if i in spelled else row for i, row in enumerate(messages)]
    ids = []
    for piece in re.split(f"({'|'.join(marks)})", render(marked)):
        if piece in marks:
            ids += encode_text(tokenizer, messages[marks.index(piece)]["content"])
        else:
            ids += tokenizer(piece, add_special_tokens=False)["input_ids"]
    return ids

"""From a conversation to token ids through the model's chat template, the same way in training and at inference.

Text inside a message never becomes a control token: a user who writes "<|im_end|>" gets those characters. A template
that writes the date (Llama 3.1's, SmolLM3's) is given TODAY, whatever the clock says.
"""

from __future__ import annotations

import re
from datetime import date
from itertools import count, pairwise
from typing import TYPE_CHECKING

from jinja2 import TemplateError

if TYPE_CHECKING:  # what only names its types should not wait for torch
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]
TODAY = date(2025, 4, 1)  # of every prompt: the paper's day
PAD = "\v"  # white space that no template writes: where it is gone, the template has trimmed


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
    """Ids of the templated conversation up to where the assistant's answer begins.

    Raises ValueError naming a message whose content is no text.
    """
    return _encode_around(tokenizer, messages, lambda rows: _render(tokenizer, rows, add_generation_prompt=True))


def encode_end(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> tuple[str, list[int]]:
    """The last message's content as the template writes it, trimmed where it trims, and the ids that it puts behind:
    the end token and, in some templates, a newline.

    Raises ValueError for a template that puts something else than the message between the generation prompt and them:
    what is trained would not be what is decoded.
    """
    *before, last = messages
    mark = _marks(before)[0]
    rendered = _render(tokenizer, [*before, {**last, "content": PAD + mark + PAD}])
    start, *around = re.split(f"({PAD}?){mark}({PAD}?)", rendered, maxsplit=1)
    if not around or start != _render(tokenizer, before, add_generation_prompt=True):
        raise ValueError("the chat template writes an answered turn differently from its generation prompt")
    left, right, end = around
    return _trim(last["content"], left, right), tokenizer(end, add_special_tokens=False)["input_ids"]


def encode_question(tokenizer: PreTrainedTokenizerBase, messages: list[Message], question: str) -> list[int]:
    """Ids that go behind an answer, whose ids are known, to ask one question more: up to where its answer begins."""
    mark = _marks(messages)[0]
    turns = [*messages, {"role": "assistant", "content": mark}, {"role": "user", "content": question}]
    rendered = _render(tokenizer, turns, add_generation_prompt=True)
    return tokenizer(rendered.partition(mark)[2], add_special_tokens=False)["input_ids"]


def find_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The control token with which the chat template ends an answer; None if it has none, or there is no template."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        _, ids = encode_end(tokenizer, [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}])
    except (ValueError, TemplateError):
        return None
    return ids[0] if ids and ids[0] in control_ids(tokenizer) else None


def control_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The ids that no plain text becomes."""
    return {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}


def _trim(text: str, left: str, right: str) -> str:
    text = text if left else text.lstrip()
    return text if right else text.rstrip()


def _render(tokenizer, messages: list[Message], **options) -> str:
    return tokenizer.apply_chat_template(messages, tokenize=False, strftime_now=TODAY.strftime, **options)


def _marks(messages: list[Message]) -> list[str]:
    """A place holder for each message and one more, of private-use characters, none of which a message holds."""
    for i, row in enumerate(messages):
        if not isinstance(row["content"], str):
            raise ValueError(f"message {i} ({row['role']}): its content must be text, got {row['content']!r:.60}")
    text = "".join(row["content"] for row in messages)
    opening = next(f"\ue000{i}-" for i in count() if f"\ue000{i}-" not in text)
    return [f"{opening}{i}\ue001" for i in range(len(messages) + 1)]


def _encode_around(tokenizer, messages: list[Message], render) -> list[int]:
    """Encode the rendered text; messages that spell a control token are encoded apart, as plain text."""
    marks = _marks(messages)
    control = tokenizer.all_special_tokens + list(tokenizer.get_added_vocab())
    spelled = {i for i, row in enumerate(messages) if any(token in row["content"] for token in control)}
    marked = [{**row, "content": PAD + marks[i] + PAD} if i in spelled else row for i, row in enumerate(messages)]
    first, *pieces = re.split(f"({PAD}?)({'|'.join(marks)})({PAD}?)", render(marked))
    ids = tokenizer(first, add_special_tokens=False)["input_ids"]
    for left, mark, right, plain in zip(*(pieces[part::4] for part in range(4))):
        ids += encode_text(tokenizer, _trim(messages[marks.index(mark)]["content"], left, right))
        ids += tokenizer(plain, add_special_tokens=False)["input_ids"]
    return ids

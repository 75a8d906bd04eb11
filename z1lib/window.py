"""The paper's idea, the Shifted Thinking Window, and the policies it is compared with.

A policy is a pure function of the token ids generated so far. `step(ids)` says to force an id, to put some in the place
of others, or nothing; `finished(ids)` says that a token limit is reached; `account(ids, ended)` splits a completion
into thinking, forced and answer tokens (`ended`: by an end token). An engine stops at an end token by itself, before it
asks the policy, so an end token sampled as the last one a window allows is a natural end: no hint, not overran.

A policy that `reads_put` is also told at which positions an engine has put ids in the place of one the model chose:
`step(ids, put)`, `account(ids, ended, put)`. What it has forced it then knows and need not guess from ids that a model
may write itself. Engines ask through `ask` and `settle`.

A policy holds text; `bind(encode)` gives the same policy with its text as token ids, each piece tokenised alone.

There are no stop strings: only end tokens end a completion. Text such as a closing code fence or `</think>` inside the
thinking is thinking like any other (the published scripts ended the thinking at the first closing code fence).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

HINT = "\n\nI overthought it, the final answer should be:\n\n"  # paper, section 3, and its scripts

# The same sentence for each kind of problem, in our wording. The paper uses HINT for all of them.
HINTS = {
    "text": HINT,
    "math": "\n\nI overthought it, the final answer in \\boxed{} should be:\n\n",
    "choice": "\n\nI overthought it, the letter of the final choice in \\boxed{} should be:\n\n",
    "code": "\n\nI overthought it, the final code should be:\n\n```python\n",  # the answer starts inside the fence
}


@dataclass(frozen=True)
class Step:
    """What a policy asks of the next token: `force` this id; put all of `instead` where one of `of` would come; or let
    none of `forbid` come, whose probability goes to the others.
    """

    force: int | None = None
    instead: tuple[int, ...] = ()
    of: tuple[int, ...] = ()
    forbid: tuple[int, ...] = ()


FREE = Step()


@dataclass(frozen=True)
class Account:
    """Tokens by what they are; their sum is the completion's length."""

    thinking: int
    hint: int
    answer: int
    overran: bool


class Policy(Protocol):
    name: str
    window: int  # the thinking limit, in tokens
    max_tokens: int  # no completion is longer
    reads_ids: bool  # whether `step` depends on more than the number of ids

    def bind(self, encode: Callable[[str], list[int]], end_ids: frozenset[int] = frozenset()) -> "Policy": ...
    def step(self, ids: Sequence[int]) -> Step: ...
    def finished(self, ids: Sequence[int]) -> bool: ...
    def account(self, ids: Sequence[int], ended: bool) -> Account: ...


def ask(policy: Policy, ids: Sequence[int], put: Sequence[int]) -> Step:
    """The policy's step behind ids of which some were put there."""
    return policy.step(ids, put) if getattr(policy, "reads_put", False) else policy.step(ids)


def settle(policy: Policy, ids: Sequence[int], ended: bool, put: Sequence[int]) -> Account:
    """The policy's account of a completion of which some ids were put there."""
    return policy.account(ids, ended, put) if getattr(policy, "reads_put", False) else policy.account(ids, ended)


def encode_forced(encode: Callable[[str], list[int]], text: str, end_ids: frozenset[int]) -> tuple[int, ...]:
    """The ids of a text that a policy forces. Raises ValueError if there are none, or if an end token is among them."""
    ids = tuple(encode(text))
    if not ids:
        raise ValueError(f"the forced text {text!r} tokenises to nothing")
    if end_ids.intersection(ids):
        raise ValueError(f"the forced text {text!r} holds an end token: it would end the completion")
    return ids


def check_count(name: str, value: object, minimum: int = 1) -> None:
    """Raises ValueError naming the argument unless it is an integer of at least its minimum."""
    if type(value) is not int or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}")


def check_limits(policy, **limits: int) -> None:
    """Raises ValueError naming the first limit that is not an integer of at least its minimum (0, answers 1)."""
    for name, value in limits.items():
        check_count(f"{type(policy).__name__}: {name}", value, 1 if "answer" in name else 0)


def check_windows(windows: list[int]) -> None:
    """Raises ValueError unless there is a window and they rise strictly."""
    if not windows or any(a >= b for a, b in zip(windows, windows[1:])):
        raise ValueError(f"windows must rise and not repeat, got {windows}")


def probed_windows(last: int, every: int) -> list[int]:
    """The windows at which thinking is probed: every so many tokens, and at the last."""
    return [*range(every, last, every), last]


@dataclass(frozen=True)
class ShiftedWindow:
    """At most `max_thinking_tokens` of thinking; a completion that passes them gets the hint and then answers.

    (I) A completion that ends by itself inside the window is left alone. (II) Another has the hint's ids forced at
    positions W .. W + H - 1 and then at most `max_answer_tokens` more. There are no delimiters, and the policy looks
    at the number of generated ids alone (paper, section 3). W = 0 forces the hint first.
    """

    max_thinking_tokens: int
    hint: str = HINT
    max_answer_tokens: int = 512
    hint_ids: tuple[int, ...] = ()
    name: str = "shifted_window"  # a study of several hints names each
    reads_ids = False

    def __post_init__(self):
        check_limits(self, max_thinking_tokens=self.max_thinking_tokens, max_answer_tokens=self.max_answer_tokens)

    def bind(self, encode, end_ids=frozenset()):
        return replace(self, hint_ids=encode_forced(encode, self.hint, end_ids))

    @property
    def window(self) -> int:
        return self.max_thinking_tokens

    @property
    def max_tokens(self) -> int:
        return self.max_thinking_tokens + len(self.hint_ids) + self.max_answer_tokens

    def step(self, ids):
        k = len(ids) - self.max_thinking_tokens
        return Step(force=self.hint_ids[k]) if 0 <= k < len(self.hint_ids) else FREE

    def finished(self, ids):
        return len(ids) >= self.max_tokens

    def account(self, ids, ended):
        thinking = min(len(ids), self.max_thinking_tokens)
        hint = min(len(ids) - thinking, len(self.hint_ids))
        return Account(thinking, hint, len(ids) - thinking - hint, overran=hint > 0)


@dataclass(frozen=True)
class NoWait(ShiftedWindow):
    """The shifted window, with words of doubt that may not be thought (NoWait, arXiv 2506.08343): the opposite of s1.

    A word is forbidden where it is one id of the vocabulary, with or without a blank before it, as there; other words
    and the answer are left alone. Raises ValueError where none of them is one id.
    """

    words: tuple[str, ...] = ("Wait", "wait", "Hmm", "hmm", "But", "but", "Alternatively", "However", "check", "again")
    word_ids: tuple[int, ...] = ()
    name: str = "no_wait"

    def bind(self, encode, end_ids=frozenset()):
        spelled = [tuple(encode(blank + word)) for word in self.words for blank in ("", " ")]
        single = tuple(sorted({ids[0] for ids in spelled if len(ids) == 1} - end_ids))
        if not single:
            raise ValueError(f"none of the words {', '.join(self.words)} is one id of the vocabulary")
        return replace(super().bind(encode, end_ids), word_ids=single)

    def step(self, ids):
        thinks = len(ids) < self.max_thinking_tokens
        return Step(forbid=self.word_ids) if thinks else super().step(ids)


@dataclass(frozen=True)
class BudgetForcing:
    """s1's budget forcing, for models trained with delimiters (arXiv 2501.19393, section 3.1).

    Cap: after `max_thinking_tokens` without the end-of-thinking `delimiter`, the delimiter and `hint` are forced.
    The paper's treatment of R1-Distill is `hint="the final answer is:"`; `close=False` leaves the delimiter out.
    Extend: the first `extensions` times the model would close its thinking or end, `wait` comes instead, whole; what
    the model writes by itself is its own, whatever it spells. Of a delimiter of several tokens the last one is put off:
    its first may begin other text.
    A delimiter the model writes by itself is thinking, and only one that is complete within the cap counts; one that
    is begun there is finished, so that the model reads it once.
    """

    max_thinking_tokens: int
    hint: str = "\n\nFinal Answer:"
    max_answer_tokens: int = 512
    delimiter: str = "</think>"
    close: bool = True
    extensions: int = 0
    wait: str = "Wait"
    delimiter_ids: tuple[int, ...] = ()
    forced_ids: tuple[int, ...] = ()
    wait_ids: tuple[int, ...] = ()
    end_ids: tuple[int, ...] = ()
    name = "budget_forcing"
    reads_ids = reads_put = True

    def __post_init__(self):
        check_limits(self, max_thinking_tokens=self.max_thinking_tokens, max_answer_tokens=self.max_answer_tokens)
        check_limits(self, extensions=self.extensions)

    def bind(self, encode, end_ids=frozenset()):
        delimiter, wait, hint = (
            encode_forced(encode, text, end_ids) for text in (self.delimiter, self.wait, self.hint)
        )
        forced = delimiter * self.close + hint
        ends = tuple(sorted(end_ids))
        return replace(self, delimiter_ids=delimiter, forced_ids=forced, wait_ids=wait, end_ids=ends)

    @property
    def window(self) -> int:
        return self.max_thinking_tokens

    @property
    def max_tokens(self) -> int:
        return self.max_thinking_tokens + len(self.forced_ids) + self.max_answer_tokens

    def step(self, ids, put=()):
        if self._closed_at(ids) is not None:
            return FREE
        k = len(ids) - self.max_thinking_tokens
        if k >= 0:
            forced = self._forced(ids)
            return Step(force=forced[k]) if k < len(forced) else FREE
        if len(put) < self.extensions:
            *opening, last = self.delimiter_ids
            closes = tuple(ids[len(ids) - len(opening) :]) == tuple(opening)
            return Step(instead=self.wait_ids[:-k], of=(last, *self.end_ids) if closes else self.end_ids)
        return FREE

    def finished(self, ids):
        start = self._closed_at(ids)
        if start is None:
            start = self.max_thinking_tokens + len(self._forced(ids))
        return len(ids) >= start + self.max_answer_tokens

    def account(self, ids, ended, put=()):
        closed = self._closed_at(ids)
        thinking = min(len(ids), self.max_thinking_tokens) if closed is None else closed
        waits = sum(min(len(self.wait_ids), thinking - start) for start in put)
        forced = 0 if closed is not None else min(len(ids) - thinking, len(self._forced(ids)))
        return Account(thinking - waits, waits + forced, len(ids) - thinking - forced, overran=forced > 0)

    def _closed_at(self, ids) -> int | None:
        """Where the answer starts after a delimiter sampled within the cap."""
        start = find(ids[: self.max_thinking_tokens], self.delimiter_ids)
        return None if start is None else start + len(self.delimiter_ids)

    def _forced(self, ids) -> tuple[int, ...]:
        """What is forced at the cap: without the first ids of a delimiter with which the thinking broke off."""
        if not self.close or len(ids) < self.max_thinking_tokens:
            return self.forced_ids
        thinking = tuple(ids[: self.max_thinking_tokens])
        begun = range(min(len(self.delimiter_ids) - 1, len(thinking)), 0, -1)
        return self.forced_ids[next((n for n in begun if thinking[-n:] == self.delimiter_ids[:n]), 0) :]


@dataclass(frozen=True)
class Truncation:
    """The control: decode at most `max_tokens` and stop, no hint, no second chance."""

    max_tokens: int
    name = "truncation"
    reads_ids = False

    def __post_init__(self):
        check_limits(self, max_tokens=self.max_tokens)

    def bind(self, encode, end_ids=frozenset()):
        return replace(self, max_tokens=self.max_tokens)

    @property
    def window(self) -> int:
        return self.max_tokens

    def step(self, ids):
        return FREE

    def finished(self, ids):
        return len(ids) >= self.max_tokens

    def account(self, ids, ended):
        return Account(len(ids), 0, 0, overran=not ended)


@dataclass(frozen=True)
class Unbounded(Truncation):
    """The model left alone; `max_tokens` is only what the machine can bear, not a policy."""

    name = "unbounded"


POLICIES = (
    ShiftedWindow,
    BudgetForcing,
    Truncation,
    Unbounded,
    NoWait,
)  # all that a request, a profile or the demo may name


def policies_by_name() -> dict[str, type[Policy]]:
    return {policy.name: policy for policy in POLICIES}


def policy_named(name: str) -> type[Policy]:
    """The policy of POLICIES with this name. Raises ValueError naming those there are."""
    if name not in (kinds := policies_by_name()):
        raise ValueError(f"no policy {name!r}; there are {', '.join(kinds)}")
    return kinds[name]


def has_option(policy: type[Policy], name: str) -> bool:
    return name in [field.name for field in fields(policy)]


def at(policy: type[Policy], window: int, **options) -> Policy:
    """A policy of this kind at this window (its first field), with those of the options that it has."""
    return policy(window, **{name: value for name, value in options.items() if has_option(policy, name)})


def to_json(policy: Policy) -> str:
    """A bound policy as a string that travels in a request."""
    return json.dumps({"kind": type(policy).__name__, **asdict(policy)})


def from_json(text: str) -> Policy:
    """The policy `to_json` wrote. Raises ValueError for anything else, one that is not bound included."""
    try:
        values = json.loads(text)
        kind = {policy.__name__: policy for policy in POLICIES}[values.pop("kind")]
        policy = kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})
        check_bound(policy)
        return policy
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"not a policy: {text!r} ({error})") from error


def check_bound(policy: Policy) -> None:
    """Raises ValueError if a policy lacks the ids of its texts, or holds something else than ids."""
    for name, value in vars(policy).items():
        if name.endswith("_ids") and not all(type(i) is int and i >= 0 for i in value):
            raise ValueError(f"{name} should be token ids")
        if name.endswith("_ids") and name != "end_ids" and not value:
            raise ValueError(f"{name} is empty: the policy is not bound to a tokenizer")


def find(ids: Sequence[int], part: Sequence[int], start: int = 0) -> int | None:
    """The first position of `part` in `ids` from `start` on, or None."""
    ids = list(ids)
    while part[0] in ids[start:]:
        start = ids.index(part[0], start)
        if tuple(ids[start : start + len(part)]) == tuple(part):
            return start
        start += 1
    return None

"""The rules: pure functions of the candidate answers so far, in the order in which they were paid for.

`choose` gives the index of the answer, or None for one more candidate; with `budget` candidates it always gives one. A
candidate without an answer costs, and is chosen only where none has one. Ties go to the earliest.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

from z1lib.cost import Cost
from z1lib.grading.equivalence import is_equivalent

Same = Callable[[str, str], bool]
is_same_answer: Same = cache(is_equivalent)  # math-verify takes milliseconds


@dataclass(frozen=True)
class Candidate:
    """One answer and what it took beyond the candidates before it; `outcomes` of its program on some inputs."""

    answer: str | None
    score: float | None
    cost: Cost
    outcomes: tuple[str, ...] = ()


class Rule(Protocol):
    name: str
    budget: int  # candidates at most

    def choose(self, drawn: Sequence[Candidate]) -> int | None: ...


@dataclass(frozen=True)
class _Budgeted:
    """Raises ValueError for a budget, or another count, below 1."""

    budget: int

    def __post_init__(self):
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be at least 1, got {value}")


@dataclass(frozen=True)
class Vote(_Budgeted):
    """The answer that most of the candidates give."""

    same: Same = field(default=is_same_answer, repr=False)
    name = "vote"

    def choose(self, drawn):
        return None if len(drawn) < self.budget else vote([one.answer for one in drawn], range(len(drawn)), self.same)


@dataclass(frozen=True)
class FirstAgreeing(_Budgeted):
    """The latest of the first `agreement` answers in a row that are the same; else the last candidate, whatever it is.

    Along windows that is to stop thinking when the answer no longer changes, and the last candidate is the whole
    thinking. `votes`: the vote instead of the last (along samples: early-stopping self-consistency, arXiv 2401.10480).
    """

    agreement: int = 2
    votes: bool = False
    same: Same = field(default=is_same_answer, repr=False)
    name = "first_agreeing"

    def choose(self, drawn):
        answers = [one.answer for one in drawn]
        last = answers[-self.agreement :]
        if len(last) == self.agreement and None not in last and all(self.same(one, last[-1]) for one in last):
            return len(drawn) - 1
        if len(drawn) < self.budget:
            return None
        return vote(answers, range(len(answers)), self.same) if self.votes else len(drawn) - 1


@dataclass(frozen=True)
class ShortestOf(_Budgeted):
    """The vote of the `m` candidates of least depth that have an answer (short-m@k, arXiv 2505.17813).

    All are paid for in full; an engine that decodes them side by side could stop the others when `m` have ended.
    """

    m: int = 1
    same: Same = field(default=is_same_answer, repr=False)
    name = "shortest_of"

    def choose(self, drawn):
        if len(drawn) < self.budget:
            return None
        order = sorted(range(len(drawn)), key=lambda i: (drawn[i].answer is None, drawn[i].cost.depth))
        return vote([one.answer for one in drawn], order[: self.m], self.same)


@dataclass(frozen=True)
class Oracle(_Budgeted):
    """A bound: the first right candidate, which no one can choose without knowing the answer; the last if none is."""

    name = "oracle"

    def pick(self, correct: Sequence[bool]) -> Sequence[int]:
        return [list(correct).index(True) if any(correct) else len(correct) - 1]


@dataclass(frozen=True)
class Anyone(_Budgeted):
    """A bound: the mean of all candidates, which is what choosing by lot gives."""

    name = "anyone"

    def pick(self, correct: Sequence[bool]) -> Sequence[int]:
        return range(len(correct))


def vote(answers: Sequence[str | None], voters: Sequence[int], same: Same) -> int:
    """The voter with the answer that most voters give: the first in `answers` of those with as many votes."""
    voters = sorted(voters)
    groups = group_answers([answers[i] for i in voters], same)
    given = [group for group in groups if group is not None]
    return voters[max(given, key=lambda group: (given.count(group), -group))] if given else voters[0]


def group_answers(answers: Sequence[str | None], same: Same) -> list[int | None]:
    """For each answer the index of the first that is the same; None where there is none."""
    groups: list[int | None] = []
    for index, answer in enumerate(answers):
        firsts = (group for group in dict.fromkeys(groups) if group is not None and same(answers[group], answer))
        groups.append(None if answer is None else next(firsts, index))
    return groups

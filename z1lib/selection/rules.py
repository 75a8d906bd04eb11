"""The rules: pure functions of the candidate answers so far, in the order in which they were paid for.

`choose` gives the index of the answer, or None for one more candidate; with `budget` candidates it always gives one. A
candidate without an answer costs, and is chosen only where none has one. Ties go to the earliest. A score is a share
of 1, the higher the better; a candidate without one counts as 1, so that without scores a weighted vote is a vote.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Protocol

from z1lib.cost import Cost
from z1lib.grading.equivalence import is_equivalent
from z1lib.window import check_count

Same = Callable[[str, str], bool]
is_same_answer: Same = cache(is_equivalent)  # math-verify takes milliseconds


@dataclass(frozen=True)
class Candidate:
    """One answer and what it took beyond the candidates before it; `outcomes` of its program on some inputs.

    Raises ValueError for a score that is NaN or outside [0, 1].
    """

    answer: str | None
    score: float | None
    cost: Cost
    outcomes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"a score is from 0 to 1, got {self.score}")

    @property
    def weight(self) -> float:
        """What its vote counts."""
        return 1.0 if self.score is None else self.score


class Rule(Protocol):
    name: str
    budget: int | None  # candidates at most; None: as many as there are

    def choose(self, drawn: Sequence[Candidate]) -> int | None: ...


@dataclass(frozen=True)
class _Rule:
    """What the rules below share: at the budget, the vote of `voters`. Raises ValueError for a count below 1."""

    same: Same = field(default=is_same_answer, repr=False, kw_only=True)
    fitted_on: frozenset[str] = field(default=frozenset(), repr=False, kw_only=True)  # problems, see `calibrate`
    weighted = False  # whether a vote counts as much as its score
    sequential = False  # whether it may stop early, so that its candidates are drawn one after the other

    def __post_init__(self):
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type is int or (one.type == int | None and value is not None):
                check_count(f"{type(self).__name__}: {one.name}", value)
            if one.type is float and (isinstance(value, bool) or not value >= 0):
                raise ValueError(f"{type(self).__name__}: {one.name} must be a number of at least 0, got {value!r}")

    def choose(self, drawn):
        if self.budget is None or len(drawn) < self.budget:
            return None
        return self.settle(drawn)

    def settle(self, drawn: Sequence[Candidate]) -> int:
        """The answer when no more may be drawn."""
        return vote(drawn, self.voters(drawn), self.same, self.weighted)

    def voters(self, drawn: Sequence[Candidate]) -> Sequence[int]:
        return range(len(drawn))


@dataclass(frozen=True)
class Vote(_Rule):
    """The answer that most of the candidates give."""

    budget: int | None = None
    name = "vote"


@dataclass(frozen=True)
class WeightedVote(Vote):
    """The answer with the largest sum of scores (Self-Calibration, arXiv 2503.00031; CISC, 2502.06233)."""

    name = "weighted_vote"
    weighted = True


@dataclass(frozen=True)
class BestOf(_Rule):
    """The answer of the highest score."""

    budget: int | None = None
    name = "best_of"

    def settle(self, drawn):
        return max(range(len(drawn)), key=lambda i: (drawn[i].answer is not None, drawn[i].weight))


@dataclass(frozen=True)
class FirstConfident(_Rule):
    """The first answer whose score reaches `threshold`; where none does, the weighted vote of all.

    Self-Calibration's early stopping, whose code falls back on the last sample in one place and on the weighted vote in
    another. Along windows it stops thinking where the model is sure (DEER, arXiv 2504.15895).
    """

    threshold: float = 0.5
    budget: int | None = None
    name = "first_confident"
    sequential = True
    weighted = True
    tuned = "threshold"

    def choose(self, drawn):
        if drawn[-1].answer is not None and drawn[-1].weight >= self.threshold:
            return len(drawn) - 1
        return super().choose(drawn)


@dataclass(frozen=True)
class AdaptiveVote(_Rule):
    """The leading answer as soon as, of two candidates or more, its share of the scores reaches `share`.

    Adaptive consistency (arXiv 2305.11860) as Self-Calibration weighs it; without scores a plain count.
    """

    share: float = 0.95
    budget: int | None = None
    name = "adaptive_vote"
    sequential = True
    weighted = True
    tuned = "share"

    def choose(self, drawn):
        sums = sum_by_answer(drawn, range(len(drawn)), self.same, weighted=True)
        most = max(sums.values(), default=0)
        if len(drawn) >= 2 and most > 0 and most >= self.share * sum(sums.values()):
            return max(sums, key=sums.get)
        return super().choose(drawn)


@dataclass(frozen=True)
class FirstAgreeing(_Rule):
    """The latest of the first `agreement` answers in a row that are the same; else the last candidate, whatever it is.

    Along windows that is to stop thinking when the answer no longer changes, and the last candidate is the whole
    thinking. `votes`: the vote instead of the last (along samples: early-stopping self-consistency, arXiv 2401.10480).
    """

    agreement: int = 2
    budget: int | None = None
    votes: bool = False
    name = "first_agreeing"
    sequential = True

    def choose(self, drawn):
        last = [one.answer for one in drawn[-self.agreement :]]
        if len(last) == self.agreement and None not in last and all(self.same(one, last[-1]) for one in last):
            return len(drawn) - 1
        return super().choose(drawn)

    def voters(self, drawn):
        return range(len(drawn)) if self.votes else [len(drawn) - 1]


@dataclass(frozen=True)
class ShortestOf(_Rule):
    """The vote of the `m` candidates of least depth that have an answer (short-m@k, arXiv 2505.17813).

    All are paid for in full; an engine that decodes them side by side could stop the others when `m` have ended.
    """

    m: int = 1
    budget: int | None = None
    name = "shortest_of"

    def voters(self, drawn):
        order = sorted(range(len(drawn)), key=lambda i: (drawn[i].answer is None, drawn[i].cost.depth))
        return sorted(order[: self.m])


@dataclass(frozen=True)
class Oracle(Vote):
    """A bound: the first right candidate, which no one can choose without knowing the answer; the last if none is."""

    name = "oracle"

    def pick(self, correct: Sequence[bool]) -> Sequence[int]:
        return [list(correct).index(True) if any(correct) else len(correct) - 1]


@dataclass(frozen=True)
class Anyone(Vote):
    """A bound: the mean of all candidates, which is what choosing by lot gives."""

    name = "anyone"

    def pick(self, correct: Sequence[bool]) -> Sequence[int]:
        return range(len(correct))


def vote(drawn: Sequence[Candidate], voters: Sequence[int], same: Same, weighted: bool = False) -> int:
    """The first voter with the answer that most give, of rising indices; the first of all where none has one.

    `weighted`: the answer whose voters' weights have the largest sum.
    """
    sums = sum_by_answer(drawn, voters, same, weighted)
    return max(sums, key=sums.get) if sums else voters[0]


def sum_by_answer(
    drawn: Sequence[Candidate], voters: Sequence[int], same: Same, weighted: bool = False
) -> dict[int, float]:
    """The first voter with each answer -> how many give it, or the sum of their weights."""
    sums: dict[int, float] = {}
    for voter, group in zip(voters, group_answers([drawn[i].answer for i in voters], same)):
        if group is not None:
            first = voters[group]
            sums[first] = sums.get(first, 0) + (drawn[voter].weight if weighted else 1)
    return sums


def group_answers(answers: Sequence[str | None], same: Same) -> list[int | None]:
    """For each answer the index of the first that is the same; None where there is none."""
    if same is operator.eq:
        firsts: dict[str, int] = {}
        return [None if answer is None else firsts.setdefault(answer, i) for i, answer in enumerate(answers)]
    groups: list[int | None] = []
    for index, answer in enumerate(answers):
        firsts = (group for group in dict.fromkeys(groups) if group is not None and same(answers[group], answer))
        groups.append(None if answer is None else next(firsts, index))
    return groups

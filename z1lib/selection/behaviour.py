"""Choosing among programs by what they do: run all on the same inputs, cluster by behaviour, answer with a medoid.

After DiffCodeGen (He et al., arXiv 2605.20473), of which no code is public: no tests, no further model call. The
distance of two programs is the share of the inputs valid for both on which their records differ; average linkage is cut
at two clusters; the answer is the medoid of the larger one. A program that only crashes is never the answer while
another gives a value.
"""

import importlib.util
import json
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from os import cpu_count

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from z1lib.cost import Cost
from z1lib.records import Problem
from z1lib.sandbox.host import execute_code
from z1lib.selection.inputs import NoInput, Target, draw_inputs, put_new_first, target_of
from z1lib.selection.rules import Candidate, _Rule
from z1lib.window import check_count

OBSERVER = "import sandbox_observer\nsandbox_observer.main()"
FUZZER = "import sandbox_fuzzer\nsandbox_fuzzer.main()"
LIMIT_S, DEFINE_S, WHOLE_S, MEMORY_MB = 1.0, 5.0, 60.0, 1024
RUNS, FUZZ_S = 1000, 10.0  # of one program by the fuzzer, and the time for them
CRASH = '["raises", '  # how the record of an input begins on which the program raised or took too long


@dataclass(frozen=True)
class Observed:
    """What one program did: a record an input, "" where it is not valid or not the same twice; and what that cost."""

    outcomes: tuple[str, ...]
    arcs: tuple[tuple[str, ...], ...]
    error: str | None  # of the definition: the program does nothing at all
    cost: Cost


@dataclass(frozen=True)
class Choice:
    """Which program, the cluster of each, the inputs they were run on, what that took; and what there is to say."""

    index: int
    clusters: list[int]
    inputs: list[str]
    cost: Cost
    note: str = ""


def observe(code: str, target: Target, inputs: Sequence[str], arcs: bool = False) -> Observed:
    """One program on all inputs, in one start of the sandbox, twice; what differs between the two does not count."""
    asked = {**_ask(code, target), "inputs": list(inputs), "arcs": arcs, "passes": 1 if arcs else 2}
    most = max(1 << 22, 20_000 * len(inputs))
    result = execute_code(OBSERVER, json.dumps(asked), WHOLE_S, MEMORY_MB, most)
    nothing = ("",) * len(inputs)
    try:
        found = json.loads(result.stdout)
        error, passes = found["error"], found["records"]
        taken = tuple(tuple(one) for one in found["arcs"])
    except (ValueError, KeyError, TypeError):  # it was stopped, or wrote over what was to be said
        return Observed(nothing, (), result.error or "no report", result.cost)
    if error or len({len(one) for one in passes}) != 1 or len(passes[0]) != len(inputs):
        return Observed(nothing, (), error or "no report", result.cost)
    outcomes = tuple(one[0] if len(set(one)) == 1 and isinstance(one[0], str) else "" for one in zip(*passes))
    return Observed(outcomes, taken, None, result.cost)


def _ask(code: str, target: Target) -> dict:
    """What every module in the sandbox that runs a program wants to know."""
    asked = {"answer": code, "setup": target.setup, "kind": target.kind, "name": target.name}
    return {**asked, "limit_s": LIMIT_S, "define_s": DEFINE_S}


def fuzz(code: str, target: Target, seed: int) -> tuple[list[str], Cost]:
    """Inputs that take a program somewhere new, by libFuzzer (sandbox/fuzzer.py); none of one that does not run.

    Raises ModuleNotFoundError where atheris is not installed.
    """
    if importlib.util.find_spec("atheris") is None:
        raise ModuleNotFoundError("the maker 'atheris' is the extra `fuzz`: pip install -e '.[fuzz]'; or 'hypothesis'")
    drawn = {"annotations": target.annotations, "examples": target.examples}
    asked = {**_ask(code, target), **drawn, "runs": RUNS, "seed": seed, "seconds": FUZZ_S}
    result = execute_code(FUZZER, json.dumps(asked), 2 * FUZZ_S, MEMORY_MB)
    with suppress(ValueError):  # it was stopped, or wrote over what was to be said
        return [text for text in json.loads(result.stdout) if isinstance(text, str)], result.cost
    return [], result.cost


def distances(outcomes: Sequence[Sequence[str]]) -> np.ndarray:
    """The share of the inputs valid for both on which two programs differ: (programs, programs); 1 where none is."""
    names: dict[str, int] = {"": 0}
    spelled = [[names.setdefault(one, len(names)) for one in own] for own in outcomes]
    numbers = np.array(spelled).reshape(len(outcomes), -1)
    both = (numbers[:, None] > 0) & (numbers[None] > 0)
    differ = (both & (numbers[:, None] != numbers[None])).sum(axis=2)
    table = np.where(both.any(axis=2), differ / np.maximum(both.sum(axis=2), 1), 1.0)
    np.fill_diagonal(table, 0.0)
    return table


def cluster(table: np.ndarray, count: int = 2) -> list[int]:
    """A label a program, from 0 in the order of their first: average linkage of distances, cut at `count` clusters.

    Programs at distance 0 are in one; where all are, there is one cluster.
    """
    if len(table) < 2 or not table.any():
        return [0] * len(table)
    found = fcluster(linkage(squareform(table, checks=False), "average"), count, "maxclust")
    names: dict[int, int] = {}
    return [names.setdefault(int(one), len(names)) for one in found]


def medoid(table: np.ndarray, members: Sequence[int]) -> int:
    """The member that lies nearest to all others of its cluster; the earliest of several."""
    sums = table[np.ix_(members, members)].sum(axis=1)
    return members[int(np.flatnonzero(np.isclose(sums, sums.min()))[0])]


def crashes(outcomes: Sequence[str]) -> bool:
    """Whether a program never gives a value."""
    return not any(one and not one.startswith(CRASH) for one in outcomes)


def choose_by_behaviour(outcomes: Sequence[Sequence[str]]) -> tuple[int, list[int], str]:
    """(index of the answer, a label a program, note). Programs that never give a value are a cluster of their own."""
    alive = [i for i, own in enumerate(outcomes) if not crashes(own)]
    labels = [-1] * len(outcomes)
    if not alive:
        return 0, labels, "no program gave a value on any input: the first"
    table = distances([outcomes[i] for i in alive])
    found = cluster(table)
    for i, label in zip(alive, found):
        labels[i] = label
    largest = max(range(max(found) + 1), key=lambda label: (found.count(label), -label))
    members = [place for place, label in enumerate(found) if label == largest]
    note = "all programs that give values behave alike" if max(found) == 0 else ""
    return alive[medoid(table, members)], labels, note


@dataclass(frozen=True)
class Medoid(_Rule):
    """The medoid of the larger of two clusters of programs, by their `outcomes` (DiffCodeGen)."""

    budget: int | None = None
    name = "medoid"

    def settle(self, drawn: Sequence[Candidate]) -> int:
        return choose_by_behaviour([one.outcomes for one in drawn])[0]


@dataclass(frozen=True)
class LargestGroup(_Rule):
    """The first of the most programs that do the same on all inputs (AlphaCode, arXiv 2203.07814, by outputs)."""

    budget: int | None = None
    name = "largest_group"

    def settle(self, drawn: Sequence[Candidate]) -> int:
        alive = [i for i, one in enumerate(drawn) if not crashes(one.outcomes)]
        groups = Counter(drawn[i].outcomes for i in alive)
        return max(alive, key=lambda i: (groups[drawn[i].outcomes], -i), default=0)


@dataclass(frozen=True)
class MostMatching(_Rule):
    """The first program whose records are most often others' too; a crash matches nothing (MBR-exec, 2204.11454)."""

    budget: int | None = None
    name = "most_matching"

    def settle(self, drawn: Sequence[Candidate]) -> int:
        values = [[one if one and not one.startswith(CRASH) else None for one in each.outcomes] for each in drawn]
        counts = [Counter(column) for column in zip(*values)]
        matches = [sum(count[one] for one, count in zip(own, counts) if one is not None) for own in values]
        return max(range(len(drawn)), key=lambda i: (matches[i], -i))


def choose_program(
    problem: Problem, programs: Sequence[str], max_inputs: int = 48, seed: int = 0, maker: str = "hypothesis"
) -> Choice:
    """The program to answer with, among some of any model's: made to run on the same inputs, chosen by what they do.

    Equal programs run once. Inputs are guided by every program in turn, each giving its share of them. Where no input
    can be made, the first program that is one is taken, and the note says so. Raises ValueError for fewer than two
    programs.
    """
    if len(programs) < 2:
        raise ValueError(f"{problem.id}: {len(programs)} programs: there is nothing to choose from")
    check_count("max_inputs", max_inputs)
    try:
        inputs, cost = gather_inputs(target_of(problem), list(dict.fromkeys(programs)), max_inputs, seed, maker)
    except NoInput as error:
        return Choice(0, [0] * len(programs), [], Cost(), f"no input can be made, so the first is taken: {error}")
    seen, spent = observe_all(target_of(problem), programs, inputs)
    index, labels, note = choose_by_behaviour([one.outcomes for one in seen])
    return Choice(index, labels, inputs, cost + spent, note)


def observe_all(target: Target, programs: Sequence[str], inputs: Sequence[str]) -> tuple[list[Observed], Cost]:
    """Every program on the same inputs, equal ones once, as many at once as there are processors."""
    distinct = list(dict.fromkeys(programs))
    with ThreadPoolExecutor(cpu_count()) as pool:  # programs run in processes of their own
        found = dict(zip(distinct, pool.map(lambda code: observe(code, target, inputs), distinct)))
    return [found[code] for code in programs], sum((one.cost for one in found.values()), Cost())


def gather_inputs(
    target: Target, references: Sequence[str], max_inputs: int, seed: int, maker: str
) -> tuple[list[str], Cost]:
    """At most so many inputs, each reference giving in turn what takes it somewhere new; and what that took.

    Raises NoInput where none can be made.
    """
    drawn = draw_inputs(target, max_inputs, seed, maker)
    if maker in ("unguided", "examples"):
        return drawn, Cost()

    def guide(code: str) -> tuple[list[str], Cost]:
        if maker == "atheris":
            return fuzz(code, target, seed)
        seen = observe(code, target, drawn, arcs=True)
        return put_new_first(drawn, seen.arcs or [()] * len(drawn)), seen.cost

    with ThreadPoolExecutor(cpu_count()) as pool:  # programs run in processes of their own
        guided = list(pool.map(guide, references))
    first = target.examples if maker == "atheris" else ()
    turns = [text for row in zip_longest(*(texts for texts, _ in guided)) for text in row if text is not None]
    return list(dict.fromkeys([*first, *turns, *drawn]))[:max_inputs], sum((cost for _, cost in guided), Cost())

"""Problems "what does this program print?" in three families; their teacher is the interpreter (`telling`).

`tracing`: a program starts as a straight line of assignments (level 1) and is evolved by moves in the manner of Code
Evol-Instruct: `deepen` moves add steps (a loop, more rounds, a loop around the loop), `broaden` moves add constructs
(a second variable, a branch, a list to walk over). A program of level k has seen k - 1 moves; `MAX_LEVEL` uses all.
Nothing is known before its end: a trace that is cut has no answer yet. `running_best` and `first_hit` walk over a list,
the longer the higher the level, and there a cut trace knows something: the best so far is the best of k of m items with
probability k / m; and what follows the first hit is thinking too much.
"""

import ast
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from z1lib.problems.telling import Telling, count_steps, narrate
from z1lib.records import Problem

RECHECK = "Wait, let me check that again."  # between two tellings
ANNOUNCE = "\n\nThe final answer is:\n\n"  # between the last telling and the box, as the paper's teacher does
PROMPT = "What does this program print?\n\n{program}"
MAX_LEVEL = 7


@dataclass
class Sketch:
    """A program before it is written out: one accumulator, at most two loops, one branch."""

    kind: str  # type of the accumulator: "int", "str" or "list"
    straight: int = 0  # updates before the body: the low levels need them to have enough different programs
    rounds: int = 0  # iterations of the inner loop; 0 means no loop
    outer: int = 0  # iterations of the loop around it; 0 means none
    second: bool = False  # a second variable that changes every round and feeds the accumulator
    branch: bool = False
    walk: bool = False  # the inner loop walks over a list instead of a range
    names: list[str] = field(default_factory=list)


def deepen(sketch: Sketch, move: str, rng: random.Random) -> None:
    """More steps: `loop` wraps the update, `more` adds rounds, `nest` puts a loop around the loop."""
    if move == "loop":
        sketch.rounds = rng.randint(2, 3)
    elif move == "more":
        sketch.rounds = 3 if sketch.outer else 4
    else:
        sketch.outer = sketch.rounds = 2


def broaden(sketch: Sketch, move: str, rng: random.Random) -> None:
    """More constructs: `second` adds a variable, `branch` an if/else, `walk` a list to loop over."""
    setattr(sketch, move, True)


# Strings and lists grow with every step, so they are not nested: their traces would outgrow the small model.
MOVES = {
    "int": ["nest", "second", "branch", "walk", "more"],
    "list": ["second", "branch", "walk", "more"],
    "str": ["branch", "walk", "more"],
}


def evolve(level: int, rng: random.Random) -> Sketch:
    """A sketch of the given level (1 to MAX_LEVEL): the first move is always the loop, the others are drawn."""
    if not 1 <= level <= MAX_LEVEL:
        raise ValueError(f"level must be 1 to {MAX_LEVEL}, got {level}")
    kinds = [kind for kind in ("int", "int", "int", "list", "str") if level <= len(MOVES[kind]) + 2]
    straight = rng.randint(0, max(0, 3 - level))
    sketch = Sketch(kind=rng.choice(kinds), straight=straight, names=rng.sample("abcdefgh", 2))
    drawn = rng.sample(MOVES[sketch.kind], max(0, level - 2))
    for move in (["loop"] + sorted(drawn, key=MOVES[sketch.kind].index))[: level - 1]:
        step = broaden if move in ("second", "branch", "walk") else deepen
        step(sketch, move, rng)
    return sketch


def write_tracing(level: int, rng: random.Random) -> str:
    return write_program(evolve(level, rng), rng)


def write_program(sketch: Sketch, rng: random.Random) -> str:
    """The source of a sketch, numbers and letters drawn from `rng`.

    Numbers are small and only grow: carries and signs are hard for a model of 135M parameters, and not what is studied.
    No update stands in a program twice: after a line that does, a model cannot tell which of the two it has just told.
    """
    name, other = sketch.names
    start = {"int": str(rng.randint(1, 6)), "str": repr(rng.choice("pqrst")), "list": f"[{rng.randint(1, 9)}]"}
    operand = other if sketch.second else ""
    updates: list[str] = []
    for own in [""] * sketch.straight + [operand] + [""] * sketch.branch:
        updates.append(_update(sketch, rng, updates, own))
    before, (update, *otherwise) = updates[: sketch.straight], updates[sketch.straight :]
    lines = [f"{name} = {start[sketch.kind]}", *before] + [f"{other} = {rng.randint(1, 3)}"] * sketch.second
    body = [f"if {_condition(sketch, rng)}:", *_indent([update]), "else:", *_indent(otherwise)]
    body = body if sketch.branch else [update]
    if sketch.second:
        body.append(f"{other} = {other} + 1")
    if sketch.rounds:
        items = str(rng.sample(range(1, 6), sketch.rounds)) if sketch.walk else f"range({sketch.rounds})"
        body = [f"for {_loop_variable(sketch)} in {items}:"] + _indent(body)
    if sketch.outer:
        body = [f"for j in range({sketch.outer}):"] + _indent(body)
    return "\n".join(lines + body + [f"print({name})"])


def _loop_variable(sketch: Sketch) -> str:
    return "x" if sketch.walk else "i"


def _indent(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def _update(sketch: Sketch, rng: random.Random, taken: list[str], operand: str) -> str:
    """An assignment to the accumulator that is not in `taken`; `operand` is the other variable, if it is to be read."""
    name = sketch.names[0]
    while True:
        number = operand or ("x" if sketch.walk and rng.random() < 0.5 else str(rng.randint(1, 3)))
        added = {"int": number, "list": f"[{number}]", "str": f"'-{rng.choice('pqrst')}'"}[sketch.kind]
        if (line := f"{name} = {name} + {added}") not in taken:
            return line


def _condition(sketch: Sketch, rng: random.Random) -> str:
    """Of a branch: it looks at the loop variable or at an integer accumulator."""
    subject = rng.choice([_loop_variable(sketch)] + [sketch.names[0]] * (sketch.kind == "int"))
    return f"{subject} {rng.choice('<>')} {rng.randint(1, 2) if subject == 'i' else rng.randint(2, 6)}"


LENGTHS = {1: (2, 3), 2: (4, 5), 3: (6, 6), 4: (7, 8), 5: (9, 9)}  # of a list, by level


def draw_items(level: int, rng: random.Random) -> list[int]:
    """A list to walk over: digits, each once, so that an item says where the program is.

    They are near one another, so that the largest is not always 9. Raises ValueError above level 5: digits run out.
    """
    if level not in LENGTHS:
        raise ValueError(f"level must be 1 to {max(LENGTHS)}, got {level}")
    length = rng.randint(*LENGTHS[level])
    start = rng.randint(1, max(1, 9 - length))
    return rng.sample(range(start, min(10, start + length + 1)), length)


def write_running_best(level: int, rng: random.Random) -> str:
    """The largest or the smallest of a list, or whether any passes a limit."""
    name, items, kind = rng.choice("abcdefgh"), draw_items(level, rng), rng.choice(["max", "min", "any"])
    limit = max(items) - rng.randint(0, 1)  # passed or not
    start, test, value = {
        "max": ("0", f"x > {name}", "x"), "min": ("9", f"x < {name}", "x"), "any": ("0", f"x > {limit}", "1")
    }[kind]  # fmt: skip
    return f"{name} = {start}\nfor x in {items}:\n    if {test}:\n        {name} = {value}\nprint({name})"


def write_first_hit(level: int, rng: random.Random) -> str:
    """The first item of a list above a limit: anywhere in it, so that the level does not tell how long it takes.

    A third of the items are above it.
    """
    items = draw_items(level, rng)
    limit = sorted(items)[-1 - max(1, len(items) // 3)]
    hits, others = [x for x in items if x > limit], [x for x in items if x <= limit]
    place = rng.randint(0, len(others))
    after = others[place:] + hits[1:]
    rng.shuffle(after)
    return f"for x in {[*others[:place], hits[0], *after]}:\n    if x > {limit}:\n        break\nprint(x)"


FAMILIES = {"tracing": write_tracing, "running_best": write_running_best, "first_hit": write_first_hit}
DEEPER = "_deeper"  # a family's levels beyond those trained on are a source of their own


def family_of(source: str) -> str | None:
    """The family that a source of problems is of, None where it is not of this module's."""
    family = source.removesuffix(DEEPER)
    return family if family in FAMILIES else None


def make_problems(
    count: int, levels: list[int], seed: int, source: str, taken: set[str] = frozenset()
) -> list[Problem]:
    """`count` different problems of a source's family, the levels in turn; the same for the same seed.

    Programs that differ in the names of variables alone are the same, among themselves and with the canonical ones in
    `taken` (`canonical`). Raises ValueError where a level has no further program.
    """
    rng = random.Random(f"{source}/{seed}")
    problems, seen = [], set(taken)
    while len(problems) < count:
        level = levels[len(problems) % len(levels)]
        program = _write_new(FAMILIES[family_of(source)], level, rng, seen)
        prompt, printed = PROMPT.format(program=program), narrate(program).printed
        problems.append(Problem(f"{source}-{len(problems)}", prompt, "text", printed, level, source))
    return problems


def _write_new(write: Callable, level: int, rng: random.Random, seen: set[str], tries: int = 2000) -> str:
    """A program that is not in `seen`, which it joins."""
    for _ in range(tries):
        program = write(level, rng)
        if canonical(program) not in seen:
            seen.add(canonical(program))
            return program
    raise ValueError(
        f"level {level} has hardly a program left that is not taken ({len(seen)} are): ask for fewer, or more levels"
    )


def canonical(program: str) -> str:
    """The program with its variables named by their order: equal for programs that differ in names alone."""
    names: dict[str, str] = {}
    return re.sub(r"\b[a-h]\b", lambda found: names.setdefault(found[0], f"v{len(names)}"), program)


def program_of(problem: Problem) -> str:
    """The program inside a problem's prompt."""
    return problem.prompt.removeprefix(PROMPT.format(program=""))


@dataclass(frozen=True)
class Response:
    """A trajectory as text; `unlearned` is the line in it that is a slip, "" where there is none."""

    text: str
    unlearned: str = ""


def tell_once(problem: Problem, manner: str = "lean") -> Response:
    """The execution once, short for simple programs and long for complex ones, then the answer."""
    told = narrate(program_of(problem), manner)
    return Response("\n".join(told.steps) + ANNOUNCE + box(told.printed))


def tell_rechecked(problem: Problem, rng: random.Random, slips: float = 0.0) -> Response:
    """Every problem at length, after the habits of R1-style traces: told, doubted, told again.

    The second telling goes another way where there is one: a running best is looked for from the list's other end. A
    list that is searched is read to its end, both times. In a share `slips` of the problems the first telling holds a
    slip that the second repairs, so that thinking twice can pay.
    """
    program = program_of(problem)
    slip = rng.randrange(count_steps(read_on(program))) if rng.random() < slips else None
    first, second = narrate(read_on(program), slip=slip), narrate(read_backwards(read_on(program)))
    same = conclude(program, first) == problem.reference
    found = "The same as before." if same else "Not the same as before: this one is right."
    told = ["\n".join(one.steps) for one in (first, second)]
    text = f"{told[0]}\n\n{RECHECK}\n\n{told[1]}\n\n{found}"
    unlearned = "" if first.slipped is None else first.steps[first.slipped]
    return Response(text + ANNOUNCE + box(problem.reference), unlearned)


def box(answer: str) -> str:
    return f"\\boxed{{{answer}}}"


def conclude(program: str, told: Telling) -> str:
    """What a telling comes to: what it printed, or of a search, which may have been read on, its first hit."""
    hits = (step[0] for step in told.steps if step.endswith(" yes"))
    return next(hits, "") if "break" in program else told.printed


def read_on(program: str) -> str:
    """A search that does not stop at its hit."""
    return program.replace("        break\n", "        pass\n")


def read_backwards(program: str) -> str:
    """A running best with its list turned round; any other program as it is."""
    if not re.search(r"if x [<>] .*:\n {8}\w = (x|1)\nprint", program):
        return program
    return re.sub(r"\[.*\]", lambda found: str([*reversed(ast.literal_eval(found[0]))]), program)


def think(response: Response) -> Response:
    """The response with its reasoning between delimiters."""
    thinking, answer = response.text.split(ANNOUNCE)
    return Response(f"<think>\n{thinking}\n</think>{ANNOUNCE}{answer}", response.unlearned)


STYLES = ("terse", "lean", "full", "rechecked")


def tell(problem: Problem, style: str, delimiters: bool = False, slips: float = 0.0, seed: int = 0) -> Response:
    """The trajectory of a problem in a style of STYLES: a manner of telling it once, or told and rechecked."""
    if style == "rechecked":
        response = tell_rechecked(problem, random.Random(f"{seed}/{problem.id}"), slips)
    else:
        response = tell_once(problem, style)
    return think(response) if delimiters else response

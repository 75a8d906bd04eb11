"""Problems "what does this program print?" and their teacher, the Python interpreter.

A program starts as a straight line of assignments (level 1) and is evolved by moves in the manner of Code
Evol-Instruct: `deepen` moves add steps (a loop, more rounds, a loop around the loop), `broaden` moves add constructs
(a second variable, a branch, a list to walk over). A program of level k has seen k - 1 moves; `MAX_LEVEL` uses all.

The teacher's trajectory is the program's real execution (`sys.settrace`), told one executed statement a line with the
operands filled in, so it is correct by construction and exactly as long as the program runs.
"""

import ast
import random
import re
import sys
from dataclasses import dataclass, field

from z1lib.records import Problem

PROMPT = "What does this program print?\n\n{program}"
ANSWER = "The final answer should be:\n\n\\boxed{{{answer}}}"
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
        sketch.rounds += 1
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


def make_program(level: int, rng: random.Random) -> tuple[str, list[str], str]:
    """A program of this level, its narration and what it prints (see `narrate`)."""
    program = write_program(evolve(level, rng), rng)
    return program, *narrate(program)


def write_program(sketch: Sketch, rng: random.Random) -> str:
    """The source of a sketch, numbers and letters drawn from `rng`.

    Numbers are small and only grow: carries and signs are hard for a model of 135M parameters, and not what is studied.
    """
    name, other = sketch.names
    start = {"int": str(rng.randint(1, 9)), "str": repr(rng.choice("pqrst")), "list": f"[{rng.randint(1, 9)}]"}
    lines = [f"{name} = {start[sketch.kind]}"] + [_update(sketch, rng) for _ in range(sketch.straight)]
    lines += [f"{other} = {rng.randint(1, 3)}"] * sketch.second
    operand = other if sketch.second else ""
    body = _branch(sketch, rng, operand) if sketch.branch else [_update(sketch, rng, operand)]
    if sketch.second:
        body.append(f"{other} = {other} + 1")
    if sketch.rounds:
        items = str([rng.randint(1, 6) for _ in range(sketch.rounds)]) if sketch.walk else f"range({sketch.rounds})"
        body = [f"for {_loop_variable(sketch)} in {items}:"] + _indent(body)
    if sketch.outer:
        body = [f"for j in range({sketch.outer}):"] + _indent(body)
    return "\n".join(lines + body + [f"print({name})"])


def _loop_variable(sketch: Sketch) -> str:
    return "x" if sketch.walk else "i"


def _indent(lines: list[str]) -> list[str]:
    return ["    " + line for line in lines]


def _update(sketch: Sketch, rng: random.Random, operand: str = "") -> str:
    """One assignment to the accumulator; `operand` is the other variable, if the caller wants it read."""
    name = sketch.names[0]
    if sketch.kind == "str":
        return f"{name} = {name} + '-{rng.choice('pqrst')}'"
    if not operand:
        operand = "x" if sketch.walk and rng.random() < 0.5 else str(rng.randint(1, 4))
    if sketch.kind == "list":
        return f"{name} = {name} + [{operand}]"
    return f"{name} = {name} + {operand}"


def _branch(sketch: Sketch, rng: random.Random, operand: str) -> list[str]:
    """An if with an else; the condition looks at the loop variable or at an integer accumulator."""
    subject = rng.choice([_loop_variable(sketch)] + [sketch.names[0]] * (sketch.kind == "int"))
    limit = rng.randint(0, 1) if subject == "i" else rng.randint(2, 5)
    condition = rng.choice([f"{subject} % 2 == 0", f"{subject} > {limit}"])
    return [f"if {condition}:", "    " + _update(sketch, rng, operand), "else:", "    " + _update(sketch, rng)]


def narrate(program: str) -> tuple[list[str], str]:
    """Run `program` and tell it: (one line for each executed statement that works something out, what it printed).

    Understands what this module writes: assignments, `for` over ranges and lists, `if`/`else`, `print` of a name.
    It executes the program in this process, so it is for our own programs only, never for a model's output.
    """
    teller = _Teller(ast.parse(program))
    code = compile(program, "<traced>", "exec")
    before = sys.gettrace()

    def trace(frame, event, arg):
        if frame.f_code is not code:
            return None
        if event in ("line", "return"):
            teller.arrive(frame.f_lineno if event == "line" else None, frame.f_locals)
        return trace

    sys.settrace(trace)
    try:
        exec(code, {"__builtins__": {"print": teller.print, "range": range}})
    finally:
        sys.settrace(before)
    return teller.steps, "\n".join(teller.printed)


class _Teller:
    """Turns trace events into lines: a statement is told when execution arrives at the next one."""

    def __init__(self, tree: ast.Module):
        self.statements = {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.stmt)}
        self.steps: list[str] = []
        self.printed: list[str] = []
        self.left: dict[int, list] = {}  # values still to come, by the line of the `for`
        self.previous: tuple[ast.stmt, dict] | None = None

    def print(self, value) -> None:
        self.printed.append(str(value))

    def arrive(self, line: int | None, variables: dict) -> None:
        now = {name: value for name, value in variables.items() if name != "__builtins__"}
        if self.previous:
            statement, then = self.previous
            tell = getattr(self, "_tell_" + type(statement).__name__.lower())
            step = tell(statement, then, now, line)
            self.steps += [step] if step else []
        self.previous = (self.statements[line], now) if line else None

    def _tell_assign(self, node, then, now, line):
        source, filled = ast.unparse(node.value), _fill(node.value, then)
        if source == filled:  # a literal: nothing to work out
            return None
        name = node.targets[0].id
        return f"{name} = {source} = {filled} = {now[name]!r}"

    def _tell_for(self, node, then, now, line):
        left = self.left.setdefault(node.lineno, list(_evaluate(node.iter, then)))
        if line is None or not node.lineno < line <= node.end_lineno:
            del self.left[node.lineno]
            return f"{node.target.id} done"
        left.pop(0)
        return f"{node.target.id} = {now[node.target.id]!r}, left {left}"

    def _tell_if(self, node, then, now, line):
        test, verdict = node.test, "yes" if _evaluate(node.test, then) else "no"
        if isinstance(test.left, ast.BinOp):  # spell the remainder out before it is compared
            value, bound = _evaluate(test.left, then), ast.unparse(test.comparators[0])
            return f"if {ast.unparse(test)}: {_fill(test.left, then)} = {value}, {value} == {bound}, {verdict}"
        return f"if {ast.unparse(test)}: {_fill(test, then)}, {verdict}"

    def _tell_expr(self, node, then, now, line):
        return f"{ast.unparse(node)}: {self.printed[-1]}"


def _fill(expression: ast.expr, variables: dict) -> str:
    """The expression's source with every variable replaced by its value."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node):
            return ast.Constant(variables[node.id])

    return ast.unparse(Fill().visit(ast.parse(ast.unparse(expression), mode="eval")))


def _evaluate(expression: ast.expr, variables: dict):
    source = compile(ast.Expression(expression), "<expression>", "eval")
    return eval(source, {"__builtins__": {"range": range}}, variables)


def make_problems(
    count: int, levels: list[int], seed: int, source: str, taken: set[str] = frozenset()
) -> list[Problem]:
    """`count` different problems, the levels in turn; the same for the same seed.

    Programs that differ in the names of variables alone are the same, among themselves and with the canonical ones in
    `taken` (`canonical`). Raises ValueError where a level has no further program.
    """
    rng = random.Random(f"{source}/{seed}")
    problems, seen = [], set(taken)
    while len(problems) < count:
        level = levels[len(problems) % len(levels)]
        program, printed = _make_new(level, rng, seen)
        prompt = PROMPT.format(program=program)
        problems.append(Problem(f"{source}-{len(problems)}", prompt, "text", printed, level, source))
    return problems


def _make_new(level: int, rng: random.Random, seen: set[str], tries: int = 2000) -> tuple[str, str]:
    """A program that is not in `seen`, which it joins, and what it prints."""
    for _ in range(tries):
        program = write_program(evolve(level, rng), rng)
        if canonical(program) not in seen:
            seen.add(canonical(program))
            return program, narrate(program)[1]
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


def tell_plain(problem: Problem) -> str:
    """z1's trajectory: the execution once, short for simple programs and long for complex ones, then the answer."""
    steps, printed = narrate(program_of(problem))
    return "\n".join(steps) + "\n\n" + ANSWER.format(answer=printed)


def tell_rechecked(problem: Problem) -> str:
    """r1's trajectory, made by us after the habits of R1-style traces: delimiters, and every problem at length.

    It says what it is about to do, tells the execution, doubts it and tells it again, however simple the program.
    """
    steps, printed = narrate(program_of(problem))
    told = "\n".join(steps)
    return (
        "<think>\nOkay, so I need to find out what this program prints. Let me go through it line by line.\n\n"
        f"{told}\n\nWait, let me double-check that by going through it once more.\n\n{told}\n\n"
        "Good, that is the same as before, so I am confident.\n</think>\n\n" + ANSWER.format(answer=printed)
    )


STYLES = {"plain": tell_plain, "rechecked": tell_rechecked}

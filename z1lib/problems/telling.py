"""The teacher of the study's own problems: the Python interpreter, telling what it does.

A trajectory is a program's real execution (`sys.settrace`), told one executed statement a line with the operands filled
in, so it is correct by construction and exactly as long as the program runs. A *manner* says how much a line spells
out; a *slip* is one step that comes out wrong and is carried on from, as when a student errs.
"""

import ast
import sys
from dataclasses import dataclass
from types import CodeType


@dataclass(frozen=True)
class Telling:
    """A program told: a line for each executed statement that works something out, and what was printed.

    `slipped` is the index of the line that came out wrong, None where none did.
    """

    steps: list[str]
    printed: str
    slipped: int | None = None


def narrate(program: str, manner: str = "lean", slip: int | None = None) -> Telling:
    """Run `program` and tell it in a manner of MANNERS.

    Understands what `tracing` writes: assignments, `for` over ranges and lists, `if` with or without `else`, `break`,
    `pass`, `print` of a name; what an `if` asks is whether one value is above or below another. `slip`: the number, of
    the assignments and verdicts that are worked out, of the one that comes out wrong; the program goes on from it. It
    executes the program in this process, so it is for our own programs only, never for a model's output. Raises
    ValueError for an unknown manner, or a slip the program never comes to.
    """
    if manner not in MANNERS:
        raise ValueError(f"no manner {manner!r} of telling; there are {', '.join(MANNERS)}")
    teller = MANNERS[manner](ast.parse(program), slip)
    code, names = _prepare(program, teller)
    before = sys.gettrace()

    def trace(frame, event, arg):
        if frame.f_code is not code:
            return None
        if event in ("line", "return"):
            teller.arrive(frame.f_lineno if event == "line" else None, frame.f_locals)
        return trace

    sys.settrace(trace)
    try:
        exec(code, names)
    finally:
        sys.settrace(before)
    if slip is not None and teller.slipped is None:
        raise ValueError(f"no step {slip}: the program works out {teller.worked_out} things")
    return Telling(teller.steps, "\n".join(teller.printed), teller.slipped)


def count_steps(program: str) -> int:
    """How many assignments and verdicts a program works out: the numbers that a slip can have are below it."""
    teller = _Lean(ast.parse(program), None)
    exec(*_prepare(program, teller))
    return teller.worked_out


def _prepare(program: str, teller: "_Lean") -> tuple[CodeType, dict]:
    """The program's code, which hands what it works out to the teller, and the names that it may use."""
    code = compile(ast.fix_missing_locations(_Watched().visit(ast.parse(program))), "<traced>", "exec")
    return code, {"__builtins__": {"print": teller.print, "range": range, WATCH: teller.work_out}}


WATCH = "_worked_out"


class _Watched(ast.NodeTransformer):
    """Hands what is worked out, the values of assignments and the verdicts of `if`s, to the teller."""

    def visit_Assign(self, node):
        if not _is_start(node):
            node.value = _watch(node.value)
        return node

    def visit_If(self, node):
        node.test = _watch(node.test)
        return self.generic_visit(node)


def _watch(value: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Call(ast.Name(WATCH, ast.Load()), [value], []), value)


def _is_start(node: ast.Assign) -> bool:
    """Whether there is nothing to tell: a value that stands in the program's first column as it is."""
    return not node.col_offset and not any(isinstance(part, ast.Name) for part in ast.walk(node.value))


def make_wrong(value):
    """A wrong value that looks like a right one: the other verdict, one more, a letter or an item lost."""
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value[:-1]


class _Lean:
    """Turns trace events into lines: a statement is told when execution arrives at the next one.

    A line begins or ends with what stands in the program, which says where the program is: the next line tells what
    follows it there. Without that a small model takes the operands of another line.
    """

    def __init__(self, tree: ast.Module, slip: int | None):
        self.statements = {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.stmt)}
        self.slip = slip
        self.worked_out = 0
        self.verdict = False  # of the last `if`
        self.steps: list[str] = []
        self.slipped: int | None = None
        self.printed: list[str] = []
        self.left: dict[int, list] = {}  # values still to come, by the line of the `for`
        self.previous: tuple[ast.stmt, dict] | None = None

    def print(self, value) -> None:
        self.printed.append(str(value))

    def work_out(self, value):
        if self.worked_out == self.slip:
            value, self.slipped = make_wrong(value), len(self.steps)  # it is told next
        self.worked_out += 1
        self.verdict = value
        return value

    def arrive(self, line: int | None, variables: dict) -> None:
        now = {name: value for name, value in variables.items() if name != "__builtins__"}
        if self.previous:
            statement, then = self.previous
            tell = getattr(self, "tell_" + type(statement).__name__.lower(), self.tell_nothing)
            step = tell(statement, then, now, line)
            self.steps += [step] if step else []
        self.previous = (self.statements[line], now) if line else None

    def tell_nothing(self, node, then, now, line):
        """`print`, `break` and `pass` work nothing out."""

    def tell_assign(self, node, then, now, line):
        if _is_start(node):
            return None
        now_is = pack(repr(now[node.targets[0].id]))
        filled = "" if isinstance(node.value, ast.Name | ast.Constant) else pack(fill(node.value, then)) + "="
        return f"{ast.unparse(node)}: {filled}{now_is}"

    def tell_for(self, node, then, now, line):
        """Nothing where a list is walked over and all that is done is an `if` without `else`, which tells the item."""
        [first, *more] = node.body
        if isinstance(node.iter, ast.List) and isinstance(first, ast.If) and not first.orelse and not more:
            return None
        return self.tell_rounds(node, then, now, line)

    def tell_rounds(self, node, then, now, line):
        """A round, with the values still to come: a small model cannot count rounds."""
        left = self.left.setdefault(node.lineno, list(evaluate(node.iter, then)))
        if line is None or not node.lineno < line <= node.end_lineno:
            del self.left[node.lineno]
            return f"{node.target.id} done"
        left.pop(0)
        return self.tell_round(node.target.id, now[node.target.id], left)

    def tell_round(self, name, value, left):
        return f"{name}={value} left {','.join(map(str, left))}" if left else f"{name}={value} last"

    def tell_if(self, node, then, now, line):
        told = f"{pack(self.tell_test(node.test, then))} {'yes' if self.verdict else 'no'}"
        if not node.orelse:
            return told
        return f"{told}, if {ast.unparse(node.test)}:" if self.verdict else f"{told}, else:"

    def tell_test(self, test, then):
        """The difference, which is above 0 where the comparison holds."""
        sides = [evaluate(side, then) for side in (test.left, test.comparators[0])]
        more, less = sides if isinstance(test.ops[0], ast.Gt) else sides[::-1]
        difference = more - less if (more > less) == self.verdict else less - more + (more == less)
        return f"{more}-{less}={difference}"


class _Full(_Lean):
    """Every line with its source, every operand twice, and a line for `print`."""

    def tell_assign(self, node, then, now, line):
        if _is_start(node):
            return None
        return (
            f"{node.targets[0].id} = {ast.unparse(node.value)} = {fill(node.value, then)} = {now[node.targets[0].id]!r}"
        )

    tell_for = _Lean.tell_rounds

    def tell_round(self, name, value, left):
        return f"{name} = {value}, left {left}"

    def tell_if(self, node, then, now, line):
        return f"if {ast.unparse(node.test)}: {fill(node.test, then)}, {'yes' if self.verdict else 'no'}"

    def tell_expr(self, node, then, now, line):
        return f"{ast.unparse(node)}: {self.printed[-1]}"


class _Terse(_Lean):
    """Only what changes: the new value of every assignment."""

    def tell_assign(self, node, then, now, line):
        return None if _is_start(node) else f"{node.targets[0].id} = {now[node.targets[0].id]!r}"

    tell_for = tell_if = _Lean.tell_nothing


MANNERS = {"terse": _Terse, "lean": _Lean, "full": _Full}


def fill(expression: ast.expr, variables: dict) -> str:
    """The expression's source with every variable replaced by its value."""

    class Fill(ast.NodeTransformer):
        def visit_Name(self, node):
            return ast.Constant(variables[node.id])

    return ast.unparse(Fill().visit(ast.parse(ast.unparse(expression), mode="eval")))


def pack(told: str) -> str:
    """A line without its spaces: with them every digit is two tokens. No string of ours holds one."""
    return told.replace(" ", "")


def evaluate(expression: ast.expr, variables: dict):
    source = compile(ast.Expression(expression), "<expression>", "eval")
    return eval(source, {"__builtins__": {"range": range}}, variables)

"""Wrong programs with a known cause: one change each to a program that is right, by a table of changes.

What mutation testing does to find weak tests, here to have pools of programs whose truth is known.
"""

import ast
import copy
from collections.abc import Iterator

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip


def make_mutants(code: str) -> list[tuple[str, str]]:
    """(kind, program) of every single change that is known, in the order of the text, none of them twice.

    Kinds: comparison, boundary, operator, constant, branch, arguments. Whether a mutant is wrong, its tests say.
    Raises SyntaxError for what is no program.
    """
    tree = ast.parse(code)
    found: dict[str, str] = {}
    for place, node in enumerate(ast.walk(tree)):
        for kind, change in _changes(node):
            changed = copy.deepcopy(tree)
            change(next(one for i, one in enumerate(ast.walk(changed)) if i == place))
            found.setdefault(ast.unparse(ast.fix_missing_locations(changed)), kind)
    found.pop(ast.unparse(tree), None)
    return [(kind, program) for program, kind in found.items()]


def _changes(node: ast.AST) -> Iterator[tuple[str, object]]:
    """(kind, what changes such a node in place) of every change that fits it."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield "comparison", lambda one: one.ops.__setitem__(0, COMPARISONS[type(one.ops[0])]())
    if isinstance(node, ast.BinOp | ast.AugAssign | ast.BoolOp) and type(node.op) in OPERATORS:
        yield "operator", lambda one: setattr(one, "op", OPERATORS[type(one.op)]())
    if isinstance(node, ast.Constant) and type(node.value) is int:
        yield "boundary", lambda one: setattr(one, "value", one.value + 1)
        yield "boundary", lambda one: setattr(one, "value", one.value - 1)
    if isinstance(node, ast.Constant) and type(node.value) in (bool, str) and not _is_docstring(node):
        yield (
            "constant",
            lambda one: setattr(one, "value", not one.value if type(one.value) is bool else one.value[:-1]),
        )
    if isinstance(node, ast.If):
        yield "branch", lambda one: setattr(one, "test", ast.Constant(False))
        yield "branch", lambda one: setattr(one, "test", ast.Constant(True))
    if isinstance(node, ast.Call) and len(node.args) > 1 and not any(isinstance(one, ast.Starred) for one in node.args):
        yield "arguments", lambda one: one.args.__setitem__(slice(0, 2), [one.args[1], one.args[0]])


def _is_docstring(node: ast.Constant) -> bool:
    return type(node.value) is str and ("\n" in node.value or ">>>" in node.value)

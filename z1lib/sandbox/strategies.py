"""Which inputs a target of a program may be fed, as hypothesis strategies that draw them as text.

A module of every sandbox as well: there a fuzzer's bytes choose among the same inputs.
"""

import ast
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress

from hypothesis import strategies as st

NUMBER = re.compile(r"-?\d+")
SIMPLE = {
    "int": st.integers(-100, 100) | st.integers(-3, 12),
    "float": st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 2)),
    "str": st.text("abcdeABC 0123.,()[]-_", max_size=12),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=8),
    "None": st.none(),
}
HOLDING = ("list", "set", "tuple", "dict", "optional", "union", "sequence", "iterable")


class NoInput(ValueError):
    """No input can be made for a target; the message says what it lacks."""


def strategy_of(kind: str, annotations: Sequence[str], examples: Sequence[str]) -> st.SearchStrategy[str]:
    """What draws inputs for a target (`selection.inputs.Target`), as text. Raises NoInput where nothing says what."""
    if kind == "stdin":
        if not examples:
            raise NoInput("the problem shows no sample input, and nothing else says what the program reads")
        return st.one_of([_vary_numbers(text) for text in examples])
    ways = []
    if annotations and all(annotations):
        with suppress(NoInput):
            ways.append(st.tuples(*(_of_annotation(ast.parse(one, mode="eval").body) for one in annotations)))
    values = [ast.literal_eval(text) for text in examples]
    ways += [st.tuples(*(_like(one) for one in value)) for value in values]
    if not ways:
        raise NoInput("no annotations say what the function takes, and the problem shows no call of it")
    return st.one_of(ways).map(repr)


def _of_annotation(node: ast.expr) -> st.SearchStrategy:
    """Values of a type as it is written. Raises NoInput for one that is not plain."""
    if isinstance(node, ast.Constant) and node.value is None:
        return st.none()
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _of_annotation(ast.parse(node.value, mode="eval").body)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _of_annotation(node.left) | _of_annotation(node.right)
    name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node).removeprefix("typing.")
    if name in SIMPLE:
        return SIMPLE[name]
    if name == "Any":
        return SIMPLE["int"] | SIMPLE["str"]
    inner = [SIMPLE["int"]]
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        inner = [_of_annotation(part) for part in parts if ast.unparse(part) != "..."]
    if name.lower() not in HOLDING:
        raise NoInput(f"{name} is no plain type")
    return _holding(name.lower(), inner)


def _holding(kind: str, inner: list[st.SearchStrategy]) -> st.SearchStrategy:
    if kind == "optional":
        return st.none() | inner[0]
    if kind == "union":
        return st.one_of(inner)
    if kind == "dict":
        return st.dictionaries(inner[0], inner[-1], max_size=5)
    if kind == "set":
        return st.sets(inner[0], max_size=6)
    if kind == "tuple" and len(inner) > 1:
        return st.tuples(*inner)
    drawn = st.lists(inner[0], max_size=8)
    return drawn.map(tuple) if kind == "tuple" else drawn


def _like(value) -> st.SearchStrategy:
    """Values of the kind of an example."""
    if type(value).__name__ in SIMPLE and not isinstance(value, str):
        return st.just(value) | SIMPLE[type(value).__name__]
    if isinstance(value, str):
        return st.just(value) | st.text(value or "abc", max_size=2 * len(value) + 4)
    if isinstance(value, dict):
        if not value:
            return st.just(value)
        keys, values = (st.one_of([_like(one) for one in part]) for part in (value.keys(), value.values()))
        return st.dictionaries(keys, values, max_size=5)
    if isinstance(value, list | tuple | set):
        inner = st.one_of([_like(one) for one in value]) if value else SIMPLE["int"]
        drawn = st.lists(inner, max_size=2 * len(value) + 3)
        return st.just(value) | drawn.map(type(value))
    return st.just(value)


def _vary_numbers(text: str) -> st.SearchStrategy[str]:
    """A sample input with some of its numbers changed a little; its shape stays."""
    numbers = [int(one) for one in NUMBER.findall(text)]
    drawn = st.tuples(*(st.just(one) | st.integers(min(one, 1), max(one + 3, 2)) for one in numbers))

    def fill(values: Iterable[int]) -> str:
        left = iter(values)
        return NUMBER.sub(lambda _: str(next(left)), text)

    return drawn.map(fill)

"""Inputs on which programs may differ: made from a problem's annotations and example calls, never from its outputs.

Of what hypothesis draws, those inputs come first that take a reference program somewhere new. Values are plain and
travel as Python literals; nothing that a model wrote is evaluated here.
"""

import ast
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from z1lib.records import Problem

DRAWN = 3  # inputs drawn for one that is kept
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


@dataclass(frozen=True)
class Target:
    """What of a program is called: a function, a method of `Solution`, or all of it with text on standard input.

    `annotations`: of its parameters, as written, "" where there is none. `examples`: inputs that the problem shows.
    """

    kind: str  # "function", "method" or "stdin"
    name: str
    setup: str
    annotations: tuple[str, ...]
    examples: tuple[str, ...]


def target_of(problem: Problem) -> Target:
    """What of an answer to a code problem is called. Raises NoInput for other problems and for files of tests."""
    given = json.loads(problem.reference) if problem.kind == "code" else {}
    if "unittest" in given or not given:
        raise NoInput(f"{problem.id}: behind a file of tests, or without a program, nothing can be called by itself")
    if "cases" in given:
        return Target("stdin", "", given.get("setup", ""), (), tuple(find_sample_inputs(problem.prompt)))
    call = given.get("call", given["function"])
    method = re.fullmatch(r"Solution\(\)\.(\w+)", call)
    name = method[1] if method else given["function"]
    written = find_signature(problem.prompt, name)
    return Target(
        "method" if method else "function",
        name,
        given.get("setup", ""),
        tuple(ast.unparse(one.annotation) if one.annotation else "" for one in written if one.arg != "self"),
        tuple(find_example_calls(problem.prompt, name)),
    )


def find_signature(prompt: str, name: str) -> list[ast.arg]:
    """The parameters of a function as the prompt writes them; [] where it does not."""
    for start in re.finditer(rf"^[ \t]*def {re.escape(name)}\(", prompt, re.M):
        for end in re.finditer(r":[ \t]*(#.*)?$", prompt[start.start() :], re.M):
            head = prompt[start.start() : start.start() + end.start()].strip()
            try:
                return ast.parse(f"{head}: pass").body[0].args.args
            except SyntaxError:
                continue
    return []


def find_example_calls(prompt: str, name: str) -> list[str]:
    """The arguments of the calls that a prompt shows of a function, where they are literals; not what they give."""
    found = []
    for start in re.finditer(rf"\b{re.escape(name)}\(", prompt):
        for end in (i for i, character in enumerate(prompt[start.end() :], start.end()) if character == ")"):
            try:
                call = ast.parse(prompt[start.start() : end + 1], mode="eval").body
                if not call.keywords:
                    found.append(repr(tuple(ast.literal_eval(one) for one in call.args)))
                break
            except (SyntaxError, ValueError):
                if "\n" in prompt[start.end() : end]:
                    break
    return list(dict.fromkeys(text for text in found if text != "()"))


def find_sample_inputs(prompt: str) -> list[str]:
    """What a contest's problem shows as sample inputs: the lines between "Sample Input" and what comes out."""
    blocks = re.findall(
        r"(?is)(?:sample|example)?\s*\binput\b[^\n]*\n+(.*?)(?=\n\s*(?:sample |example )?output|\Z)", prompt
    )
    texts = [block.strip().strip("`").strip() + "\n" for block in blocks]
    return [text for text in dict.fromkeys(texts) if NUMBER.search(text) and len(text) < 2000]


def strategy_of(target: Target) -> st.SearchStrategy[str]:
    """What draws inputs for a target, as text. Raises NoInput where it has neither annotations nor examples."""
    if target.kind == "stdin":
        if not target.examples:
            raise NoInput("the problem shows no sample input, and nothing else says what the program reads")
        return st.one_of([_vary_numbers(text) for text in target.examples])
    ways = []
    if target.annotations and all(target.annotations):
        with suppress(NoInput):
            ways.append(st.tuples(*(_of_annotation(ast.parse(one, mode="eval").body) for one in target.annotations)))
    values = [ast.literal_eval(text) for text in target.examples]
    ways += [st.tuples(*(_like(one) for one in value)) for value in values]
    if not ways:
        raise NoInput(f"{target.name} has no annotations that say what it takes, and no example call")
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
        keys, values = (st.one_of([_like(one) for one in part]) for part in (value.keys(), value.values()) if value)
        return st.dictionaries(keys, values, max_size=5) if value else st.just(value)
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


def draw(strategy: st.SearchStrategy[str], count: int, number: int) -> list[str]:
    """Distinct texts of a strategy, at most so many, the same for the same number."""
    found: dict[str, None] = {}

    @seed(number)
    @settings(max_examples=4 * count, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(text: str) -> None:
        if len(found) < count and len(text) < 4000:
            found[text] = None

    collect()
    return list(found)


def draw_inputs(target: Target, max_inputs: int, number: int = 0, maker: str = "hypothesis") -> list[str]:
    """Inputs for a target: the problem's examples, then drawn ones, the same for the same number.

    `maker`: "hypothesis" draws more than are kept, for a reference to choose from; "unguided" as many as are kept;
    "examples" none. Raises NoInput where none can be made.
    """
    if maker == "examples":
        if not target.examples:
            raise NoInput(f"{target.name or 'the problem'} shows no example")
        return list(target.examples[:max_inputs])
    most = max_inputs * (DRAWN if maker == "hypothesis" else 1)
    return list(dict.fromkeys([*target.examples, *draw(strategy_of(target), most, number)]))[:most]


def put_new_first(texts: Sequence[str], arcs: Sequence[Iterable[str]]) -> list[str]:
    """Those inputs first that take a program somewhere new, by its arcs on each; the others behind, in their order."""
    seen: set[str] = set()
    new, old = [], []
    for text, taken in zip(texts, arcs, strict=True):
        (new if set(taken) - seen else old).append(text)
        seen |= set(taken)
    return [*new, *old]

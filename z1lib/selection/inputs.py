"""Inputs on which programs may differ: made from a problem's annotations and example calls, never from its outputs.

Of what hypothesis draws, those inputs come first that take a reference program somewhere new. Values are plain and
travel as Python literals; nothing that a model wrote is evaluated here.
"""

import ast
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from z1lib.records import Problem
from z1lib.sandbox.strategies import NUMBER, NoInput, strategy_of

DRAWN = 3  # inputs drawn for one that is kept


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
                if isinstance(call, ast.Call) and not call.keywords:  # not the first term of "f(x) + (y)"
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

    `maker`: "hypothesis" draws more than are kept, for a reference to choose from; "unguided" as many as
    are kept, which is what "atheris" fills up its own with; "examples" none. Raises NoInput where none can be made.
    """
    strategy = strategy_of(target.kind, target.annotations, target.examples)
    if maker == "examples":
        if not target.examples:
            raise NoInput(f"{target.name or 'the problem'} shows no example")
        return list(target.examples[:max_inputs])
    most = max_inputs * (DRAWN if maker == "hypothesis" else 1)
    return list(dict.fromkeys([*target.examples, *draw(strategy, most, number)]))[:most]


def put_new_first(texts: Sequence[str], arcs: Sequence[Iterable[str]]) -> list[str]:
    """Those inputs first that take a program somewhere new, by its arcs on each; the others behind, in their order."""
    seen: set[str] = set()
    new, old = [], []
    for text, taken in zip(texts, arcs, strict=True):
        (new if set(taken) - seen else old).append(text)
        seen |= set(taken)
    return [*new, *old]

"""The fenced blocks of a text, line by line as CommonMark has them (spec 0.31, 4.5), and the program among them."""

import ast
import re
from collections.abc import Collection
from itertools import chain
from typing import NamedTuple

OPENING = re.compile(r"((?:[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]+|[ ]{0,3}>[ \t]?)*)([ ]*)(`{3,}|~{3,})(.*)")
LONGEST = 200_000  # characters of a program: to parse more would hold the interpreter for a second
PYTHON = re.compile(r"(?i)(?:i?python|py)?[\d.]*|[\w./-]*\.py")


class Block(NamedTuple):
    """A block's code and its language, "" if none is stated; one that is not `closed` runs to the end of the text."""

    code: str
    language: str
    closed: bool = True

    @property
    def is_python(self) -> bool:
        return bool(PYTHON.fullmatch(self.language))


def find_blocks(text: str, inside: bool = False) -> list[Block]:
    """The blocks of a text in order; `inside`: it starts within one, which a hint has opened.

    A fence closes alone on its line, with the same sign, no shorter, no further in; at the very end of a text also
    behind the last code. What a list item or a quotation puts before every line is taken away. A line that opens
    another block with a language ends one that was left open: that one is no block.
    """
    blocks: list[Block] = []
    fence, margin, language, lines = ("```", 0, "", []) if inside else ("", 0, "", [])
    for line in re.split(r"\r\n|\r|\n", text.removesuffix("\n")) if text else ():  # other signs are no ends of lines
        signed = "```" in line or "~~~" in line
        closes = signed and fence and _closes(line, fence, margin)
        opening = OPENING.fullmatch(line) if signed and not closes else None
        if closes:
            blocks.append(Block(_join(lines), language))
            fence = ""
        elif opening and _opens(opening, fence, margin):
            if fence and inside and not blocks:  # what the hint had opened was left open, and may be the program
                blocks.append(Block(_join(lines), language, closed=False))
            margin = len(opening[1].expandtabs()) + len(opening[2])
            fence, language, lines = opening[3], _language(opening[4]), []
        elif fence:
            lines.append(_dedent(line, margin))
    if fence:
        code = _join(lines)
        ended = code.rstrip().endswith(fence) and not code.rstrip().removesuffix(fence).endswith("`")
        blocks.append(Block(code.rstrip().removesuffix(fence) if ended else code, language, closed=ended))
    return blocks


def _closes(line: str, fence: str, margin: int) -> bool:
    mark = line.strip(" \t>")
    indent = len(line) - len(line.lstrip(" "))
    return len(mark) >= len(fence) and not mark.strip(fence[0]) and indent <= margin + 3


def _opens(opening: re.Match, fence: str, margin: int) -> bool:
    if opening[3][0] == "`" and "`" in opening[4]:  # code within a line
        return False
    if not fence:
        return len(opening[2]) <= 3
    return bool(opening[4].strip()) and opening[3][0] == fence[0] and len(opening[2]) <= margin


def _language(info: str) -> str:
    words = info.strip().strip("{}").split()
    return words[0].lstrip(".") if words else ""


def _dedent(line: str, margin: int) -> str:
    bare = line.lstrip(" >") if line.startswith(">") else line
    return bare[min(margin, len(bare) - len(bare.lstrip(" "))) :]


def _join(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def find_program(blocks: list[Block], names: Collection[str] = ()) -> str | None:
    """The last block that is a program and defines one of `names` (if any is asked for), stated to be Python first.

    Where no block does, the last program; where none parses, the last that is stated to be Python: its error is the
    answer's. None where there is no block of Python.
    """
    python = [block for block in blocks if block.code.strip() and block.is_python]
    ordered = [block for stated in (True, False) for block in reversed(python) if bool(block.language) == stated]
    programs = (block for block in ordered if is_program(block.code))
    if last := next(programs, None):
        defining = (block for block in chain([last], programs) if not names or defines(block.code, names))
        return next(defining, last).code
    whole = (block for block in ordered if block.closed and (block.language or not _reads_as_prose(block)))
    return next((block.code for block in whole), None)


def is_program(text: str) -> bool:
    """Whether a text is Python and does something: a word or a number alone, or a heading with a colon, parses too."""
    if len(text) > LONGEST:
        return False
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return any(not _does_nothing(line) for line in body)


def _does_nothing(line: ast.stmt) -> bool:
    if isinstance(line, ast.AnnAssign):
        return line.value is None
    if not isinstance(line, ast.Expr):
        return False
    return not any(isinstance(node, ast.Call | ast.Await | ast.Yield | ast.NamedExpr) for node in ast.walk(line))


def defines(text: str, names: Collection[str]) -> bool:
    """Whether a program defines one of these names at its top level."""
    found = set()
    for line in ast.parse(text).body:
        if isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(line.name)
        elif isinstance(line, ast.Assign):
            found |= {target.id for target in line.targets if isinstance(target, ast.Name)}
        elif isinstance(line, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name for alias in line.names}
    return bool(found & set(names))


def _reads_as_prose(block: Block) -> bool:
    """Whether a block of no stated language looks like a shell's or a program's output, or like words."""
    return not re.search(r"\b(?:def|import|print|return|for|while|if|class)\b", block.code)

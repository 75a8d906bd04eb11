"""The answer in what a model wrote: a value, a letter, a program; and the rule that found it.

Every reader is one pass over the text, whatever the text is.
"""

import json
import re
from collections.abc import Collection

from z1lib.grading.fences import Block, find_blocks, find_program
from z1lib.records import Completion, Problem

LETTERS = "ABCDEFGHIJ"
BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,9}\{|\\[{}]|[{}]")
BARE_BOX = re.compile(r"\\boxed\s{0,9}([A-Za-z0-9])(?![A-Za-z0-9])")
# What a value may be dressed in; undressed it is what was meant.
WRAPPED = re.compile(
    r"\\(?:textbf|textrm|textit|texttt|text|mathrm|mathbf|mathit|mathsf|mathtt|underline|boldsymbol|mbox)\s?\{([^{}]*)\}"
)
MARKS = re.compile(r"\*\*|__|`+|^\s*#{1,6}\s+", re.M)
DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
LEAD_IN = re.compile(
    r"(?i)(?:so |thus |hence |therefore |and )?(?:the |my |our )?(?:final |correct )?(?:answer|result|solution)\b"
    r"(?: is| are| should be| would be)?\s?[:=]?\s?"
)

# An expression: numbers, roots and pi, with operators between them, or a tuple or interval of such.
NUMBER = r"\d[\d,]*(?:\{,\}\d{3})*(?:\.\d+)?"
ATOM = rf"(?:{NUMBER}(?:\s?(?:\\?sqrt\s?[({{]\d+[)}}]|\\?pi\b))?|\\?sqrt\s?[({{]\d+[)}}]|\\?pi\b)%?!?"
TERM = rf"(?:(?<![\w)])[-+]\s?)?{ATOM}(?:\s?[-+*/^]\s?{ATOM})*"
EXPRESSION = re.compile(
    rf"[(\[]\s?{TERM}(?:\s?,\s?{TERM})+\s?[)\]]|{TERM}|\$([^$\n]{{1,400}})\$|\\\((.{{1,400}}?)\\\)|\\\[(.{{1,400}}?)\\\]"
)
PROSE = re.compile(r"(?<![\\A-Za-z])(?!sqrt|frac|log|sin|cos|tan|exp|pi)[A-Za-z]{3,}")
STATED = re.compile(r"(?i)\b(?:answer|result)\s{0,3}(?:is|are|:|=|should be|would be)|^####", re.M)


def find_boxed(text: str) -> list[str]:
    """The contents of every `\\boxed{...}` and `\\fbox{...}` with matching braces, in order; empty ones are none."""
    open_at: list[tuple[int, int] | None] = []  # of every brace that is open: where its box and content begin
    found = [(match.start(), match[1]) for match in BARE_BOX.finditer(text)]
    for match in BRACES.finditer(text):
        if match[0] == "{":
            open_at.append(None)
        elif match[0] == "}":
            box = open_at.pop() if open_at else None
            if box and (content := text[box[1] : match.start()].strip()):
                found.append((box[0], content))
        elif match[0].startswith(("\\boxed", "\\fbox")):
            open_at.append((match.start(), match.end()))
    return [content for _, content in sorted(found)]


def undress(text: str) -> str:
    """A value without its dress: emphasis, code marks, headings, delimiters of mathematics, text commands."""
    text = MARKS.sub("", text).strip()
    for left, right in DELIMITERS:
        inner = text[len(left) : len(text) - len(right)]
        if text.startswith(left) and text.endswith(right) and len(text) > len(left) and left not in inner:
            text = inner.strip()
    while whole := WRAPPED.fullmatch(text):
        text = whole[1].strip()
    return text


def extract_answer(completion: Completion) -> tuple[str | None, str]:
    """(the text to compare or None, the rule that found it)."""
    if completion.overran and completion.answer_text:
        boxed = find_boxed(completion.answer_text)
        if boxed:
            return boxed[0], "first boxed after the hint"
        line = first_content(completion.answer_text)
        return line, "first line after the hint" if line else "none"
    text = completion.answer_text or completion.thinking_text
    boxed = find_boxed(text)
    if boxed:
        return boxed[-1], "last boxed"
    if completion.finish_reason == "length" and not completion.answer_text:  # an unfinished trace
        return None, "none"
    for stated in reversed(list(STATED.finditer(text))):
        if value := first_expression(text[stated.end() : stated.end() + 400].partition("\n")[0]):
            return value, "stated as the answer"
    value = last_expression(text)
    return value, "last expression" if value else "none"


def first_content(text: str) -> str | None:
    """The first line that holds more than dress and lead-in; of one that opens with mathematics, that alone."""
    for line in text.splitlines():
        if line.strip(" \t`~$") in ("", "\\[", "\\]", "\\(", "\\)") or re.match(r"\s*(?:```|~~~)", line):
            continue
        bare = undress(line)
        rest = LEAD_IN.sub("", bare, count=1) if LEAD_IN.match(bare) else bare
        if rest.strip(" :.*#"):
            opens = re.match(r"\$([^$\n]+)\$(?=[\s.,;])|\\\((.+?)\\\)(?=[\s.,;])", rest)
            return (opens[1] or opens[2]).strip() if opens else rest.strip()
    return None


def first_expression(text: str) -> str | None:
    return next((value for match in EXPRESSION.finditer(text) if (value := _value(match))), None)


def last_expression(text: str) -> str | None:
    """The last expression of a text: mathematics in delimiters, a number with its sign, a quotient, a root, a pair."""
    last = None
    for match in EXPRESSION.finditer(text):
        last = _value(match) or last
    return last


def _value(match: re.Match) -> str | None:
    """What an expression stands for: of mathematics in delimiters what is behind the last sign of equality."""
    spans = [span for span in match.groups() if span is not None]
    if not spans:
        return match[0].strip().rstrip(",")
    if PROSE.search(spans[0]):  # two prices are no delimiters
        return last_expression(spans[0])
    return spans[0].rpartition("=")[2].strip() or None


LABEL = re.compile(r"\W{0,9}([A-Za-z])(?:\W{0,9}$|\s?[).:,\]}](?=\s|$)|\s?[-–—](?=\s)|\s(?:because|since|as|is)\b)")
_GAP = r"(?:\s?(?:therefore|thus|hence|then|clearly|simply|definitely|option|choice|letter|the|is|be|:|=))*"
CHOICE = re.compile(
    rf"(?:(?i:\b(?:answer|choice|option)\b(?:\s?\([^()]{{0,40}}\))?\s?(?:is|:|=|should be|would be|must be))(?i:{_GAP})"
    r"|\b(?i:so|thus|hence|therefore|choose|pick|select),?\s?(?=\())"
    r"\s?[\W_]{0,4}([A-J])\b(?!['’])(?!\s(?!(?:because|since|as|and|which|for|due|is)\b)[a-z])"
)
NAMED = re.compile(r"\b([A-J])\)?\s(?i:is)\s(?:the\s)?(?i:correct|right|best|answer)\b")


def extract_letter(text: str, letters: str = LETTERS) -> str | None:
    """The choice letter that a text is or names.

    The last one that is stated (`the answer is (C)`, `B is correct`), else the label that the text begins with (`C`,
    `(C)`, `c.`, `\\text{C}`, `C) because`). A mention of an option is none, and neither are `A careful look` and
    `I think`.
    """
    plain = re.sub(r"\s+", " ", _plain(text)).strip()
    stated = [(match.start(1), match[1]) for rule in (CHOICE, NAMED) for match in rule.finditer(plain)]
    if stated := [letter for _, letter in sorted(stated) if letter in letters]:
        return stated[-1]
    match = LABEL.match(plain)
    label = match[1].upper() if match else None
    return label if label and label in letters and not _is_numeral(plain, label) else None


def _plain(text: str) -> str:
    return re.sub(r"[$*`]|\\[()\[\]]", "", WRAPPED.sub(r"\1", text))


def _is_numeral(text: str, label: str) -> bool:
    """Whether a text begins with a Roman numeral of its sections."""
    return label == "I" and bool(re.search(r"\bII[.)]", text))


def boxed_letters(text: str, letters: str = LETTERS) -> list[str]:
    """The letter of every box that has one, in order; what follows a letter in a box is its content."""
    found = []
    for box in find_boxed(text):
        first = re.match(r"\W{0,9}([A-J])(?=\s{0,9}\(|$)", _plain(box))
        if letter := first[1] if first else extract_letter(box, letters):
            found.append(letter)
    return found


def extract_choice(completion: Completion, letters: str = LETTERS) -> tuple[str | None, str]:
    """(the choice letter or None, the rule that found it): a boxed letter, else one that the text names."""
    text = completion.answer_text or completion.thinking_text
    cut = completion.overran and bool(completion.answer_text)
    boxed = boxed_letters(text, letters)
    if boxed:
        return boxed[0 if cut else -1], "first boxed after the hint" if cut else "last boxed"
    if completion.finish_reason == "length" and not completion.answer_text:  # an unfinished trace
        return None, "none"
    first = first_content(text) if cut else None
    letter = (extract_letter(first, letters) if first else None) or extract_letter(text, letters)
    return letter, "letter named in the text" if letter else "none"


def extract_code(completion: Completion, names: Collection[str] = ()) -> tuple[str | None, str]:
    """(the program to run or None, the rule that found it); `names`: one of which it should define.

    The program among the blocks of the answer, else of the thinking. A hint that opens a block leaves its code before
    the first fence of the answer.
    """
    if completion.overran and completion.answer_text:
        blocks = find_blocks(completion.answer_text, inside=True)
        if program := find_program(blocks, names):
            return program, _found(program, blocks)
    for part, text in (("answer", completion.answer_text), ("thinking", completion.thinking_text)):
        if program := find_program([block for block in find_blocks(text) if block.closed], names):
            return program, f"last block of the {part}"
    return None, "none"


def _found(program: str, blocks: list[Block]) -> str:
    if program != blocks[0].code:
        return "last block of the answer"
    return "code after the hint" + ("" if blocks[0].closed else ", not closed")


def find_code(text: str) -> list[str]:
    """The complete fenced blocks of Python, or of no stated language, in order."""
    return [block.code for block in find_blocks(text) if block.closed and block.is_python]


def extract_before_hint(problem: Problem, completion: Completion) -> str | None:
    """The last boxed value, or the program in a whole block, of a thinking that the policy cut."""
    if not (completion.overran and completion.hint_tokens):
        return None
    text = completion.thinking_text
    if problem.kind == "code":
        whole = [block for block in find_blocks(text) if block.closed]
        return find_program(whole, names_wanted(problem.reference))
    found = boxed_letters(text) if problem.kind == "choice" else find_boxed(text)
    return found[-1] if found else None


def names_wanted(reference: str) -> tuple[str, ...]:
    """The names one of which a program must define for these tests; none for one that reads and prints."""
    given = json.loads(reference)
    called = given.get("call", given.get("function", "task_func" if "unittest" in given else ""))
    return tuple(name for name in re.split(r"\W+", called) if name)

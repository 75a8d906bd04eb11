"""Where a traced completion goes wrong: the first line that the interpreter would not have told, and what kind it is.

Only the study's own families can be read so: their teacher is at hand. And what a second telling changes: how often it
turns a wrong conclusion into a right one, and the other way round.
"""

import re
from collections.abc import Iterable

import pandas as pd

from z1lib.problems import tracing
from z1lib.problems.telling import narrate
from z1lib.records import Completion, Problem

KINDS = ("comparison", "other branch", "statement", "operand", "sum", "text or list", "loop", "answer", "form")


def split_tellings(text: str) -> list[str]:
    """The tellings in a completion's text, without delimiters: one, or two where it was rechecked."""
    bare = re.sub(r"</?think>\n*", "", text)
    return [part.strip("\n") for part in bare.split(tracing.RECHECK)]


def find_error(problem: Problem, text: str) -> tuple[str, str, str] | None:
    """(kind, what the interpreter tells, what is said) of the first line that differs; None where none does.

    The first telling in `text` against the lean telling of the problem, its answer's line included. A search that is
    read on differs only where it goes wrong before its hit.
    """
    steps, box = narrate(tracing.program_of(problem)).steps, tracing.box(problem.reference)
    lines = split_tellings(text)[0].split("\n")
    for before, line, found in zip(["", *steps], steps, lines + [""] * len(steps)):
        if found != line:
            return classify(line, found, before), line, found
    last = text.rstrip().rpartition("\n")[2]
    return None if last == box else ("answer", box, last)


def classify(told: str, found: str, before: str) -> str:
    """The kind, of KINDS, of a wrong line: by what the right one works out and where the wrong one begins to differ."""
    if told.endswith((" yes", " no", ":")):
        return "comparison" if re.match(r"-?\w+-", found) else "form"
    source, colon, values = told.partition(": ")
    if not colon:
        return "loop"
    if not found.startswith(source + colon):
        return "other branch" if before.endswith(":") else "statement"
    if "=" not in values or found.rpartition("=")[0] != told.rpartition("=")[0]:
        return "operand"
    return "sum" if values.rpartition("=")[2].isdigit() else "text or list"


def errors_by_kind(problems: list[Problem], completions: Iterable[Completion]) -> pd.DataFrame:
    """Counts of first errors of uncut completions: a row a model, family and kind, with how many were told at all.

    Completions of other problems than the families' are passed over.
    """
    by_id = {problem.id: problem for problem in problems if tracing.family_of(problem.source)}
    rows = []
    for one in completions:
        problem = by_id.get(one.problem_id)
        if problem is not None and one.policy == "unbounded":
            error = find_error(problem, one.thinking_text + one.answer_text)
            rows.append((one.model, tracing.family_of(problem.source), error[0] if error else "none"))
    table = pd.DataFrame(rows, columns=["model", "family", "kind"])
    return table.value_counts(["model", "family", "kind"]).sort_index().rename("completions").reset_index()


def conclusion(program: str, telling: str) -> str | None:
    """What a telling comes to: the first hit of a search, else the last value of the name that is printed.

    None where it never says; a name that keeps its first value has that one.
    """
    lines = telling.split("\n")
    if "break" in program:
        return next((line[0] for line in lines if line.endswith(" yes")), None)
    name = re.search(r"print\((\w)\)", program)[1]
    values = [re.split("=|: ", line)[-1] for line in lines if line.startswith(name + " = ")]
    first = re.match(rf"{name} = (.+)", program)
    return values[-1] if values else first[1] if first else None


def recheck_outcomes(problems: list[Problem], completions: Iterable[Completion]) -> pd.DataFrame:
    """What second tellings did, in uncut completions that hold two: counts by model, family and outcome.

    An outcome is "right to right", "right to wrong", "wrong to right" or "wrong to wrong".
    """
    by_id = {problem.id: problem for problem in problems if tracing.family_of(problem.source)}
    rows = []
    for one in completions:
        problem = by_id.get(one.problem_id)
        tellings = split_tellings(one.thinking_text + one.answer_text) if one.policy == "unbounded" else []
        if problem is None or len(tellings) != 2:
            continue
        program, right = tracing.program_of(problem), problem.reference.replace(" ", "")
        came_to = [(conclusion(program, telling) or "").strip("'") == right for telling in tellings]
        outcome = " to ".join("right" if good else "wrong" for good in came_to)
        rows.append((one.model, tracing.family_of(problem.source), outcome))
    table = pd.DataFrame(rows, columns=["model", "family", "outcome"])
    return table.value_counts(["model", "family", "outcome"]).sort_index().rename("completions").reset_index()

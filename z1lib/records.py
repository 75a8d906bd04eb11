"""The rows that pass from one notebook to the next; a row that is made or read has values of its fields' types."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

STRICT = ConfigDict(strict=True, extra="forbid")  # "1" is no number, a bool no int


@checked(frozen=True, config=STRICT)
class Problem:
    """One task. `kind` says how it is graded: "math", "choice", "code" or "text"."""

    UNIQUE: ClassVar = "id"  # completions and grades name their problem by it

    id: Annotated[str, Field(min_length=1)]
    prompt: str
    kind: Literal["math", "choice", "code", "text"]
    reference: str
    level: int = 0
    source: str = ""


def by_id(problems: Iterable[Problem]) -> dict[str, Problem]:
    """The problems by their ids. Raises ValueError naming an id that two have."""
    found: dict[str, Problem] = {}
    for problem in problems:
        if found.setdefault(problem.id, problem) is not problem:
            raise ValueError(f"two problems have the id {problem.id!r}")
    return found


@checked(frozen=True, config=STRICT)
class Trajectory:
    """One supervised example: a question, a teacher's response, its length in tokens of the model to be trained."""

    id: str
    question: str
    response: str
    token_count: int
    level: int
    source: str
    run: str  # the model this row trains: "z1", "r1", ...
    unlearned: str = ""  # a line of the response that is read and not learned: a slip that the rest repairs


@checked(frozen=True, config=STRICT)
class Completion:
    """What a model wrote for one problem under one policy, with every token accounted for.

    `thinking_tokens + hint_tokens + answer_tokens == len(token_ids)`; `probe_tokens` were decoded beside it.
    `token_ids` include the end token and nothing after it. `overran`: the policy cut the thinking.
    `key` is a hash of all that determines the row (model weights, policy, prompt, sampling, seed).
    """

    problem_id: str
    model: str
    policy: str
    window: int
    sample: int
    seed: int
    prompt_tokens: int
    thinking_tokens: int
    hint_tokens: int
    answer_tokens: int
    probe_tokens: int
    overran: bool
    finish_reason: str  # "stop": an end token; "length": a token limit
    thinking_text: str
    answer_text: str
    token_ids: list[int]
    key: str = ""


@checked(frozen=True, config=STRICT)
class Grade:
    """Whether a completion is right, and why: the text that was compared, the rule that found it, the error if any."""

    problem_id: str
    correct: bool
    extracted: str | None
    rule: str
    error: str | None
    key: str = ""  # the completion's key
    version: str = ""  # of the grader
    before: str | None = None  # what was answered before a forced hint
    before_correct: bool | None = None
    sandbox: str = ""  # the isolation a program ran in (sandbox/host.py)


Share = Annotated[float, Field(ge=0, le=1)]


@checked(frozen=True, config=STRICT)
class Confidence:
    """How sure a model is of a completion (`inference.confidence`), and what asking it fed: a question, all before."""

    key: str  # the completion's, and of what was asked
    completion: str  # the completion's key
    yes: Share
    mean: Share
    weakest: Share
    question_tokens: int
    prefix_tokens: int


@checked(frozen=True, config=STRICT)
class Shape:
    """What an answer of a model costs by (`cost.count_eflops`): numbers and not weights."""

    model: str
    parameters: int
    cache_elements: int  # of keys and values, for one position in all layers
    group: int  # query heads to a key head


@checked(frozen=True, config=STRICT)
class Behaviour:
    """What one program whose truth is known did on the inputs of its problem (`inference.programs`).

    `outcomes`: one text an input, "" where it is not valid for the program. `maker`: how the inputs were made.
    """

    key: str  # where a model wrote the program, its completion's
    problem_id: str
    model: str  # that wrote it; "" of a solution that came with the problem, and of a change of that
    maker: str
    kind: str  # "right", "wrong", or the change that made it wrong
    program: str
    inputs: list[str]  # of the first program of a problem alone
    outcomes: list[str]
    seconds: float  # of the sandbox, this program's share of making inputs included


@checked(frozen=True, config=STRICT)
class Recall:
    """What a selection finds of the positions that a token wants, along one completion (`engines.diagnose`)."""

    key: str
    completion: str  # the completion's key
    problem_id: str
    layer: int
    select: str
    budget: int
    recall: float
    chance: float
    mass: float
    most: float
    overlap: float


# What notebooks 01 and 03 leave for the analysis: <name>.jsonl and its rows.
ARTIFACTS = {"problems": Problem, "completions": Completion, "grades": Grade}
# What 03 leaves of a pool, where a profile draws one.
POOL = {"samples": Completion, "sample_grades": Grade, "confidences": Confidence, "shapes": Shape}
# And what programs do, where a profile asks for that.
PROGRAMS = {"behaviours": Behaviour}
# And what a budget of positions does.
SPARSE = {"sparse": Completion, "sparse_grades": Grade, "recalls": Recall}
MORE = POOL | PROGRAMS | SPARSE

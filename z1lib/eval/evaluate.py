"""One model under one policy at several windows on one set of problems; all that comes of it in one folder.

Nothing here decodes, grades or counts: `inference.sweep`, `grading` and `analysis.tables` do, as for the notebooks.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd

from z1lib.analysis import figures, tables
from z1lib.curation.gather import TEST_SEED
from z1lib.engines.base import Engine, load_engine
from z1lib.files import Journal, read_jsonl, write_jsonl, written_whole
from z1lib.grading import grade_all
from z1lib.inference.decode import check_sampling
from z1lib.inference.sweep import sweep_problems
from z1lib.models import find_released
from z1lib.plots import save_figure
from z1lib.problems import BENCHMARKS, make_benchmark, reasoning_gym, tracing
from z1lib.records import Completion, Grade, Problem
from z1lib.selection import Anyone, FirstAgreeing, Oracle, ShortestOf, Vote, replay
from z1lib.window import HINTS, Policy, at, check_windows, policy_named

RULES = {rule.name: rule for rule in (Vote(), FirstAgreeing(2), ShortestOf(1), Anyone(), Oracle())}
PART = 64  # problems decoded together, after which the curve so far is shown
GENERATED, LEVELS = 240, [1, 2, 3, 4, 5]  # problems of a set that has no end, and those of `mini`
SETS = (*BENCHMARKS, *tracing.FAMILIES, *reasoning_gym.FAMILIES)
RESAMPLES = 10_000


@dataclass(frozen=True)
class Asked:
    """What is evaluated; a folder holds one such run, and a rerun of the same goes on where it stopped.

    `problems`: the name of a set, or a .jsonl file whose rows have `id`, `prompt`, `kind` and `reference`. `limit`: the
    first so many. `system_prompt` None: the chat template's own. `rule` chooses among the `n` samples.
    """

    model: str
    problems: str
    windows: tuple[int, ...]
    policy: str = "shifted_window"
    engine: str = "transformers"
    base_url: str | None = None
    dtype: str | None = None
    limit: int | None = None
    max_answer_tokens: int = 256
    n: int = 1
    rule: str | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    system_prompt: str | None = None

    def check(self) -> None:
        """Raises ValueError for what cannot be meant: windows that do not rise, n that has no use, a rule without n."""
        check_windows(list(self.windows))
        policy_named(self.policy)
        check_sampling(self.n, self.temperature, self.top_p, self.seed)
        if self.n > 1 and self.temperature == 0:
            raise ValueError(
                f"--n {self.n} at temperature 0 gives the same answer each time: set --temperature, say 0.8"
            )
        if self.rule is not None and self.rule not in RULES:
            raise ValueError(f"no rule {self.rule!r}; there are {', '.join(RULES)}")
        if self.rule is not None and self.n < 2:
            raise ValueError(f"--rule {self.rule} chooses among samples: set --n to 2 or more, and --temperature")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit must be at least 1, got {self.limit}")
        if self.engine == "server" and not self.base_url:
            raise ValueError("--engine server needs --base-url, such as http://127.0.0.1:8000/v1")


def evaluate(asked: Asked, out: Path) -> pd.DataFrame:
    """Decode, grade and count; returns the summary (`tables.summarise`) and leaves everything in `out`.

    There: `problems.jsonl`, `completions.jsonl`, `grades.jsonl`, `summary.csv`, `accuracy_by_total.png`, `asked.json`.
    Raises ValueError for what cannot be meant and if `out` holds another run; what loading and decoding raise.
    """
    asked.check()
    problems = find_problems(asked.problems, asked.limit, asked.seed)
    check_folder(asked, out)
    engine = open_engine(asked)
    completions, grades = [], []
    for part, rows in decode(engine, asked, problems, Journal(out / "completions.partial.jsonl", Completion)):
        write_asked(asked, out)  # now that the model, the windows and the folder were good for something
        completions += rows
        grades += grade_all(part, rows)
        print(say_so_far(completions, grades, len(problems)), flush=True)
    for name, every in (("problems", problems), ("completions", completions), ("grades", grades)):
        write_jsonl(out / f"{name}.jsonl", every)
    frame = with_rule(tables.join(problems, completions, grades), asked)
    with written_whole(out / "summary.csv") as unfinished:
        (summary := tables.summarise(frame)).to_csv(unfinished, index=False, float_format="%.4f")
    curves = figures.accuracy_curves(frame, list(frame.problem_set.unique()), RESAMPLES, 0, "decoded_tokens")
    save_figure(curves, out, "accuracy_by_total", f"{asked.model} on {asked.problems}")
    return summary


def open_engine(asked: Asked) -> Engine:
    """Raises ModelUnavailable for a model that is neither a folder nor to be had from the Hub."""
    if asked.base_url:  # the server has the weights
        return load_engine(asked.engine, asked.model, asked.dtype, base_url=asked.base_url)
    engine = load_engine(asked.engine, str(find_released(asked.model)), asked.dtype)
    engine.model_name = asked.model.partition("@")[0]  # and not the folder in a cache
    return engine


def find_problems(name: str, limit: int | None, seed: int) -> list[Problem]:
    """The problems of a set that notebook 01 knows, or of a file. Raises ValueError for neither, BadRecord for a row.

    A published set is taken whole where no limit is given, of a generated one GENERATED.
    """
    if name in BENCHMARKS:
        return make_benchmark(name, limit or sys.maxsize, seed)
    if name in reasoning_gym.FAMILIES:
        return reasoning_gym.make_problems(name, limit or GENERATED, seed)
    if name in tracing.FAMILIES:
        return tracing.make_problems(limit or GENERATED, LEVELS, TEST_SEED, name, set())
    if not name.endswith(".jsonl"):
        raise ValueError(f"no problems {name!r}: name a .jsonl file, or one of {', '.join(SETS)}")
    problems = read_jsonl(name, Problem)[:limit]
    if not problems:
        raise ValueError(f"{name} holds no problems")
    return [one if one.source else replace(one, source=Path(name).stem) for one in problems]


def check_folder(asked: Asked, out: Path) -> None:
    """Raises ValueError naming the first key in which `out` holds another run, or if it holds a run of another kind."""
    if (file := out / "asked.json").exists():
        here = json.loads(to_json(asked))
        for key, there in json.loads(file.read_text()).items():
            if there != here.get(key):
                raise ValueError(f"{out} holds another run: {key} is {there!r} there, {here.get(key)!r} here")
    elif (out / "completions.jsonl").exists():
        raise ValueError(f"{out} holds completions that are not of this command: take another folder")


def to_json(asked: Asked) -> str:
    return json.dumps(asdict(asked), indent=1)


def write_asked(asked: Asked, out: Path) -> None:
    with written_whole(out / "asked.json") as unfinished:
        unfinished.write_text(to_json(asked))


def policies_for(asked: Asked, kind: str) -> list[Policy]:
    """The policy at every window, with the hint for this kind of problem."""
    options = {"hint": HINTS[kind], "max_answer_tokens": asked.max_answer_tokens}
    return [at(policy_named(asked.policy), window, **options) for window in asked.windows]


def decode(
    engine, asked: Asked, problems: list[Problem], journal: Journal
) -> Iterator[tuple[list[Problem], list[Completion]]]:
    """The problems in parts, each with its completions."""
    for part in (problems[start : start + PART] for start in range(0, len(problems), PART)):
        groups = [policies_for(asked, problem.kind) for problem in part]
        sampling = (asked.n, asked.temperature, asked.top_p, asked.seed)
        yield part, sweep_problems(engine, part, groups, journal, lambda _: asked.system_prompt, *sampling)


def say_so_far(completions: list[Completion], grades: list[Grade], of: int) -> str:
    right = {(grade.problem_id, grade.key): grade.correct for grade in grades}
    by_window: dict[int, list[bool]] = {}
    for row in completions:
        by_window.setdefault(row.window, []).append(right[row.problem_id, row.key])
    done = len({row.problem_id for row in completions})
    curve = ", ".join(f"window {window}: {sum(rows) / len(rows):.2f}" for window, rows in by_window.items())
    return f"{done} of {of} problems; right at {curve}"


def with_rule(frame: pd.DataFrame, asked: Asked) -> pd.DataFrame:
    """The frame, and what the rule gives of the samples at each window."""
    if asked.rule is None:
        return frame
    parts = [replay(part, RULES[asked.rule], along="sample") for _, part in frame.groupby("window")]
    return pd.concat([frame, *parts], ignore_index=True)

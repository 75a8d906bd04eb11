"""From questions to supervised trajectories: gather, filter, select under a token budget, describe.

Here are the study's own steps; the jobs behind them have a file each: `reader`, `filters`, `pipeline`, `teacher`,
`selection`, `statistics`, `release`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from z1lib.chat import encode_text
from z1lib.curation.pipeline import Curated, LocalExecutor, Rejected, Row
from z1lib.curation.reader import find_files
from z1lib.curation.selection import select
from z1lib.curation.teacher import find_teacher, teach
from z1lib.files import write_jsonl
from z1lib.problems import BENCHMARKS, make_benchmark, reasoning_gym, tracing
from z1lib.profile import Profile
from z1lib.records import STRICT, Problem, Trajectory, checked


def make_test_problems(profile: Profile) -> list[Problem]:
    """The problems of every test set the profile names, in its order. No program is in two, whatever its names."""
    problems: list[Problem] = []
    for source, count in profile.curation.test_problems.items():
        if source in reasoning_gym.FAMILIES:
            problems += reasoning_gym.make_problems(source, count, profile.seed)
        elif source in BENCHMARKS:
            problems += make_benchmark(source, count, profile.seed)
        else:
            taken = canonical_programs(problems)
            problems += tracing.make_problems(count, _levels(profile, source), profile.seed + 1, source, taken)
    return problems


def make_train_problems(profile: Profile, test: list[Problem]) -> list[Problem]:
    """Training problems of the profile's levels, none of them a program of the test sets, whatever its names."""
    levels, taken = profile.curation.train_levels, canonical_programs(test)
    problems = tracing.make_problems(profile.curation.train_problems, levels, profile.seed, "tracing", taken)
    return [Problem(**{**vars(problem), "id": f"train-{i}"}) for i, problem in enumerate(problems)]


def canonical_programs(problems: list[Problem]) -> set[str]:
    """The canonical programs of the traced problems among these."""
    traced = [problem for problem in problems if problem.source.startswith("tracing")]
    return {tracing.canonical(tracing.program_of(problem)) for problem in traced}


def _levels(profile: Profile, source: str) -> list[int]:
    """The levels of a tracing test set: those trained on, or the deeper ones, never trained on."""
    sets = {
        "tracing": profile.curation.train_levels,
        "tracing_deeper": list(range(max(profile.curation.train_levels) + 1, 8)),
    }
    if source not in sets:
        known = [*sets, *reasoning_gym.FAMILIES, *BENCHMARKS]
        raise ValueError(f"profile {profile.name}: key 'test_problems': no source {source!r}; there are {known}")
    return sets[source]


def tell(problems: list[Problem], run: str, style: str, tokenizer: PreTrainedTokenizerBase) -> list[Trajectory]:
    """The trajectory of every problem in a style of `tracing.STYLES`; its tokens counted with the end token."""
    rows = []
    for problem in problems:
        response = tracing.STYLES[style](problem)
        tokens = len(encode_text(tokenizer, response)) + 1
        rows.append(Trajectory(problem.id, problem.prompt, response, tokens, problem.level, problem.source, run))
    return rows


@checked(frozen=True, config=STRICT)
class Told(Trajectory):
    """A trajectory with the answer it must come to."""

    reference: str
    kind: str


@dataclass(frozen=True)
class Raw:
    """What a run starts from: files of rows, what they call our columns, and rows no teacher could be asked about."""

    files: list[Path]
    names: dict[str, str] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)


def gather(
    profile: Profile,
    run: str,
    test: list[Problem],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    executor: Callable = LocalExecutor,
) -> Raw:
    """The raw rows of a run, for `curate`.

    The run's style says who answers: the interpreter (a style of `tracing.STYLES`), whoever made the responses that
    the profile's `train_source` has ("released"), or the profile's teacher ("taught"): through its servers, or, where
    the profile names none, on vLLM in this process, over as many GPUs as a copy of the teacher takes. `executor` is
    for asking servers, as in `curate`. Raises ValueError for another style, for a style of the interpreter where the
    `train_source` is not its own programs, and what `find_files`, `teach` and `find_teacher` raise.
    """
    style = profile.sft.runs[run]
    if style in tracing.STYLES and profile.curation.train_source != "tracing":
        raise ValueError(
            f"profile {profile.name}: run {run!r} is told by the interpreter ({style}), which knows the programs of "
            f"'train_source: tracing' and not {profile.curation.train_source!r}; its style should be 'released' or "
            "'taught'"
        )
    if style in tracing.STYLES:
        problems = make_train_problems(profile, test)
        pairs = zip(tell(problems, run, style, tokenizer), problems)
        told = [Told(**vars(row), reference=problem.reference, kind=problem.kind) for row, problem in pairs]
        return Raw([write_jsonl(folder / f"told-{run}.jsonl", told)])
    if style not in ("released", "taught"):
        known = [*tracing.STYLES, "released", "taught"]
        raise ValueError(f"profile {profile.name}: key 'runs': no style {style!r}; there are {known}")
    files, names = find_files(profile.curation.train_source)
    if style == "released":
        return Raw(files, names)
    answers, rejected = teach(files, names, find_teacher(profile), profile, folder / "teacher", executor=executor)
    return Raw([write_jsonl(folder / f"taught-{run}.jsonl", answers)], {}, rejected)


def to_trajectory(row: Row, run: str) -> Trajectory:
    """A curated row as an example of `run`."""
    return Trajectory(row.id, row.question, row.response, row.tokens, row.level, row.source, run)


def choose(curated: dict[str, Curated], profile: Profile, order: str = "random") -> dict[str, list[Trajectory]]:
    """The examples of each run under the token budget (`selection.select`).

    The first run takes them in this order; each other run out of the questions of the first, from the levels in turn.
    """
    budget, seed = profile.curation.response_token_budget, profile.seed
    pools = {run: [to_trajectory(row, run) for row in result.rows] for run, result in curated.items()}
    first, *others = pools
    chosen = {first: [pools[first][i] for i in select([row.token_count for row in pools[first]], budget, order, seed)]}
    ids = {row.id for row in chosen[first]}
    for run in others:
        pool = [row for row in pools[run] if row.id in ids]
        counts, levels = [row.token_count for row in pool], [row.level for row in pool]
        chosen[run] = [pool[i] for i in select(counts, budget, "stratified", seed, strata=levels)]
    return chosen


def check_disjoint(trajectories: list[Trajectory], test: list[Problem]) -> None:
    """Raises ValueError naming the first test problem that is also trained on: its prompt, or its program renamed."""
    trained = {}
    for row in trajectories:
        trained |= {row.question: row.id, tracing.canonical(row.question): row.id}
    for problem in test:
        key = tracing.canonical(problem.prompt) if problem.source.startswith("tracing") else problem.prompt
        if key in trained:
            raise ValueError(f"test problem {problem.id!r} is also training example {trained[key]!r}")

"""From questions to supervised trajectories: gather, filter, select under a token budget, describe.

Here are the study's own steps; the jobs behind them have a file each: `reader`, `filters`, `pipeline`, `teacher`,
`selection`, `statistics`, `release`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from z1lib.chat import encode_text
from z1lib.curation.pipeline import Curated, LocalExecutor, Rejected, Row
from z1lib.curation.reader import find_files
from z1lib.curation.selection import halve_levels, select
from z1lib.curation.teacher import find_teacher, teach
from z1lib.files import write_jsonl
from z1lib.problems import BENCHMARKS, make_benchmark, reasoning_gym, tracing
from z1lib.profile import Profile, Run
from z1lib.records import STRICT, Problem, Trajectory, checked

TEST_SEED = 1  # of every profile: a test set is the same whatever is trained, and so are published results


def make_test_problems(profile: Profile) -> list[Problem]:
    """The problems of every test set the profile names, in its order. No program is in two, whatever its names."""
    problems: list[Problem] = []
    for source, count in profile.curation.test_problems.items():
        if source in reasoning_gym.FAMILIES:
            problems += reasoning_gym.make_problems(source, count, profile.seed)
        elif source in BENCHMARKS:
            problems += make_benchmark(source, count, profile.seed)
        else:
            taken, levels = canonical_programs(problems), _levels(profile, source)
            problems += tracing.make_problems(count, levels, TEST_SEED, source, taken)
    return problems


def make_train_problems(profile: Profile, test: list[Problem]) -> list[Problem]:
    """Training problems of the profile's families and levels, none a program of the test sets, whatever its names.

    Of each family its share of `train_problems`. Raises ValueError for a family that is not in `tracing.FAMILIES`.
    """
    asked, taken = profile.curation, canonical_programs(test)
    if unknown := set(asked.train_families) - set(tracing.FAMILIES):
        raise ValueError(
            f"profile {profile.name}: key 'curation.train_families': no family {', '.join(sorted(unknown))}; there are "
            f"{', '.join(tracing.FAMILIES)}"
        )
    problems, whole = [], sum(asked.train_families.values())
    for family, share in asked.train_families.items():
        count = max(1, asked.train_problems * share // whole)
        made = tracing.make_problems(count, asked.train_levels, profile.seed, family, taken)
        problems += [replace(problem, id=f"train-{problem.id}") for problem in made]
    return problems


def canonical_programs(problems: list[Problem]) -> set[str]:
    """The canonical programs of the problems among these that the interpreter teaches."""
    traced = [problem for problem in problems if tracing.family_of(problem.source)]
    return {tracing.canonical(tracing.program_of(problem)) for problem in traced}


def _levels(profile: Profile, source: str) -> list[int]:
    """The levels of a family's test set: those trained on, or the deeper ones, never trained on."""
    levels = profile.curation.train_levels
    sets = dict.fromkeys(tracing.FAMILIES, levels)
    sets["tracing" + tracing.DEEPER] = list(range(max(levels) + 1, tracing.MAX_LEVEL + 1))
    if source not in sets:
        known = [*sets, *reasoning_gym.FAMILIES, *BENCHMARKS]
        raise ValueError(f"profile {profile.name}: key 'test_problems': no source {source!r}; there are {known}")
    return sets[source]


def tell(
    problems: list[Problem], name: str, run: Run, tokenizer: PreTrainedTokenizerBase, seed: int
) -> list[Trajectory]:
    """The trajectory of every problem as `run` tells it (`tracing.tell`); its tokens counted with the end token."""
    rows = []
    for problem in problems:
        told = tracing.tell(problem, *run.telling, seed)
        tokens = len(encode_text(tokenizer, told.text)) + 1
        where = (problem.level, problem.source, name, told.unlearned)
        rows.append(Trajectory(problem.id, problem.prompt, told.text, tokens, *where))
    return rows


@checked(frozen=True, config=STRICT, kw_only=True)
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
    style = profile.sft.runs[run].style
    if style in tracing.STYLES and profile.curation.train_source != "tracing":
        raise ValueError(
            f"profile {profile.name}: run {run!r} is told by the interpreter ({style}), which knows the programs of "
            f"'train_source: tracing' and not {profile.curation.train_source!r}; its style should be 'released' or "
            "'taught'"
        )
    if style in tracing.STYLES:
        problems = make_train_problems(profile, test)
        pairs = zip(tell(problems, run, profile.sft.runs[run], tokenizer, profile.seed), problems)
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
    where = (row.level, row.source, run, row.unlearned)
    return Trajectory(row.id, row.question, row.response, row.tokens, *where)


def tellings(profile: Profile) -> dict[str, str]:
    """Every run -> the first run whose examples are told the same way: those two are gathered and curated once."""
    first: dict[tuple, str] = {}
    return {name: first.setdefault(run.telling, name) for name, run in profile.sft.runs.items()}


def choose(curated: dict[str, Curated], profile: Profile) -> dict[str, list[Trajectory]]:
    """The examples of each run: `curated` holds one of each of `tellings`.

    The questions are those that every telling has, at random while the first run's responses fit the token budget
    (`selection.select`), and every run has them in that order. Of these a run takes all, or what its own keys say.
    """
    rows = {name: {row.id: row for row in result.rows} for name, result in curated.items()}
    shared = [row for row in curated[next(iter(curated))].rows if all(row.id in own for own in rows.values())]
    counts = [row.tokens for row in shared]
    ids = [shared[i].id for i in select(counts, profile.curation.response_token_budget, "random", profile.seed)]
    chosen = {}
    for name, told in tellings(profile).items():
        pool = [to_trajectory(rows[told][one], name) for one in ids]
        chosen[name] = take(pool, profile.sft.runs[name], profile.seed)
    return chosen


def take(pool: list[Trajectory], run: Run, seed: int) -> list[Trajectory]:
    """What a run takes of the shared questions, in their order: all, what fits its tokens, or half of every level."""
    counts = [row.token_count for row in pool]
    if run.within_levels:
        taken = halve_levels(counts, [row.level for row in pool], run.order, seed)
    else:
        taken = select(counts, run.tokens or sum(counts), run.order, seed)
    return [pool[i] for i in sorted(taken)]


def check_disjoint(trajectories: list[Trajectory], test: list[Problem]) -> None:
    """Raises ValueError naming the first test problem that is also trained on: its prompt, or its program renamed."""
    trained = {}
    for row in trajectories:
        trained |= {row.question: row.id, tracing.canonical(row.question): row.id}
    for problem in test:
        key = tracing.canonical(problem.prompt) if tracing.family_of(problem.source) else problem.prompt
        if key in trained:
            raise ValueError(f"test problem {problem.id!r} is also training example {trained[key]!r}")

"""Cheaper tokens: the same problems under a budget of positions, by selection, beside dense attention.

Once as they are, some 200 tokens, and once behind a conversation of solved ones, where a budget has something to leave
out. And teacher-forced over the dense completions: which of the wanted positions each selection finds.
"""

from collections.abc import Iterator

from z1lib.chat import Message, conversation, encode_prompt
from z1lib.engines.base import Engine, load_engine
from z1lib.engines.budget import DENSE, Sparse
from z1lib.engines.diagnose import diagnose
from z1lib.files import Journal, read_jsonl
from z1lib.hardware import check_hardware, decoding_dtype
from z1lib.inference.decode import sweep
from z1lib.inference.sweep import first_of_each
from z1lib.profile import Cheaper
from z1lib.progress import bar
from z1lib.records import SPARSE, Completion, Problem, Recall, Trajectory
from z1lib.study import Study
from z1lib.window import Policy, ShiftedWindow

SHORT, LONG = "short", "long"
FOUND = ["recall", "chance", "mass", "most", "overlap"]


def decode_sparse(study: Study, problems: list[Problem]) -> tuple[list[Completion], list[Recall]]:
    """What the profile asks for under each selection and budget, and what the selections find along the dense ones.

    A completion's `model` says how it was decoded: "z1-0 ridge 64 long" (`label`). Goes on from journals; the committed
    ones where the study reads those. Raises what `sweep.decode_study` raises.
    """
    profile = study.profile
    asked = profile.inference.cheaper
    if not asked.models or (study.reads_committed and not study.offers("sparse.jsonl")):
        return [], []
    if study.reads_committed:
        names = ("sparse", "recalls")
        return tuple(read_jsonl(study.need(f"{name}.jsonl", "03_windowed_inference"), SPARSE[name]) for name in names)
    check_hardware(profile)
    journals = [Journal(study.path(f"{name}.partial.jsonl"), SPARSE[name]) for name in ("sparse", "recalls")]
    known = dict.fromkeys(profile.curation.test_problems, 0)
    chosen = {SHORT: first_of_each(problems, {**known, **asked.problems})}
    chosen[LONG] = first_of_each(problems, {**known, **asked.long_problems})
    hint = profile.hint_of(ShiftedWindow.name)
    policies = [ShiftedWindow(window, hint, profile.inference.max_answer_tokens) for window in asked.windows]
    rows, found = [], []
    runs = {model: run for run in asked.models for model in profile.models_of(run)}
    for model, run in runs.items():
        for attention, lengths in list_attentions(asked):
            options = {**profile.inference.engine_options, "attention": attention}
            engine = load_engine("transformers", study.model(model), decoding_dtype(profile), **options)
            before = {SHORT: [], LONG: take_examples(study, engine, run, asked.long_tokens)}
            for length in lengths:
                prompts = encode(study, engine, chosen[length], before[length])
                own = decode(engine, chosen[length], prompts, policies, journals[0], label(model, attention, length))
                rows += own
                if attention is None and length == SHORT:  # along as many as are asked behind others too
                    found += find(engine, asked, prompts[: len(chosen[LONG])], own, journals[1])
            del engine  # before the next is loaded
    return rows, found


def list_attentions(asked: Cheaper) -> Iterator[tuple[Sparse | None, list[str]]]:
    """(attention, which problems are decoded with it), dense attention first."""
    yield None, [SHORT, LONG]
    for select in asked.selects:
        for budget in asked.budgets:
            yield Sparse(budget, select), [SHORT, *[LONG] * (budget in asked.long_budgets)]


def label(model: str, attention: Sparse | None, length: str) -> str:
    select, budget = (attention.select, attention.budget) if attention else (DENSE, 0)
    return f"{model} {select} {budget} {length}"


def take_examples(study: Study, engine: Engine, run: str, tokens: int) -> list[Message]:
    """Training problems of the run and their solutions, as turns before the question: at most so many tokens."""
    turns: list[Message] = []
    for row in read_jsonl(study.need("sft.jsonl", "01_curation"), Trajectory):
        if row.run == run:
            more = [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.response}]
            if len(encode_prompt(engine.tokenizer, [*turns, *more, *conversation("", None)])) > tokens:
                break
            turns += more
    return turns


def encode(study: Study, engine: Engine, problems: list[Problem], turns: list[Message]) -> list[list[int]]:
    """The ids of each problem behind those turns."""
    prompts = []
    for problem in problems:
        *system, question = conversation(problem.prompt, study.profile.system_prompt_of(problem.source))
        prompts.append(encode_prompt(engine.tokenizer, [*system, *turns, question]))
    return prompts


def decode(
    engine: Engine, problems: list[Problem], prompts: list, policies: list[Policy], journal: Journal, name: str
) -> list[Completion]:
    names = [problem.id for problem in problems]
    rows = sweep(engine, prompts, [policies] * len(prompts), names=names, journal=journal)
    return [Completion(**{**vars(row), "model": name}) for own in rows for row in own]


def find(
    engine: Engine, asked: Cheaper, prompts: list[list[int]], rows: list[Completion], journal: Journal
) -> list[Recall]:
    """`diagnose` along the longest completions of the first problems, those of `prompts`, the mean of the key heads."""
    whole = {row.problem_id: row for row in rows if row.window == asked.windows[-1]}
    done = {one.completion for one in journal.rows.values()}
    for prompt, row in bar(list(zip(prompts, whole.values())), desc="selections"):
        if row.key not in done:
            table = diagnose(engine, [prompt], [row], asked.budgets, asked.selects)
            means = table.groupby(["layer", "select", "budget"], sort=False)[FOUND].mean().reset_index()
            journal.append([_to_recall(row, one) for one in means.to_dict("records")])
    return [one for one in journal.rows.values() if one.completion in {row.key for row in whole.values()}]


def _to_recall(row: Completion, found: dict) -> Recall:
    key = f"{row.key}/{found['layer']}/{found['select']}/{found['budget']}"
    return Recall(key=key, completion=row.key, problem_id=row.problem_id, **found)

"""What notebook 03 decodes: all policies of a profile from one trace a problem; its cost, controls, resumption."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Engine, load_engine
from z1lib.files import Journal, read_jsonl
from z1lib.hardware import check_hardware, decoding_dtype
from z1lib.inference.decode import sweep, to_text
from z1lib.profile import Profile
from z1lib.records import Completion, Problem
from z1lib.study import Study
from z1lib.window import Policy, ShiftedWindow, Truncation, Unbounded, at, policy_named


def first_of_each(problems: list[Problem], limit: int | None) -> list[Problem]:
    """The first `limit` problems of every source, all for None."""
    seen: Counter = Counter()
    kept = []
    for problem in problems:
        seen[problem.source] += 1
        if limit is None or seen[problem.source] <= limit:
            kept.append(problem)
    return kept


def study_policies(profile: Profile, model: str) -> list[Policy]:
    """All policies one long decode of a model serves, the longest last.

    The model's own policy at every window, truncation there, the shifted window under the profile's other hints, the
    model left alone.
    """
    windows, max_answer, kind = (
        profile.inference.windows,
        profile.inference.max_answer_tokens,
        profile.inference.models[model],
    )
    texts = {"hint": profile.hint_of(kind)} if kind in profile.inference.hints else {}
    texts |= {"delimiter": profile.inference.delimiters[model]} if model in profile.inference.delimiters else {}
    windowed = [at(policy_named(kind), window, max_answer_tokens=max_answer, **texts) for window in windows]
    other_hints = [
        ShiftedWindow(window, hint, max_answer, name=f"hint: {name}")
        for window in profile.inference.other_hint_windows
        for name, hint in profile.inference.other_hints.items()
        if kind == ShiftedWindow.name
    ]
    controls = [*(Truncation(window) for window in windows), Unbounded(profile.inference.max_tokens)]
    return [*windowed, *other_hints, *(policy for policy in controls if policy not in windowed)]


def estimate_decoding(profile: Profile, problems: list[Problem]) -> pd.DataFrame:
    """What the decoding of a profile takes at most, a row a model: requests, tokens, hours on all its devices.

    At most, since completions that end by themselves take less (in `mini` a third); prompts are not counted.
    """
    rows = []
    for model, kind in profile.inference.models.items():
        policies = study_policies(profile, model)
        requests = len(first_of_each(problems, profile.inference.max_problems.get(model))) * profile.inference.n
        # a hint is some 15 tokens, in every tokenizer of the study
        answers = sum(15 + answer for policy in policies if (answer := getattr(policy, "max_answer_tokens", 0)))
        tokens = requests * (profile.inference.max_tokens + answers)
        hours = tokens / profile.inference.tokens_per_second / max(1, profile.hardware.gpus) / 3600
        rows.append((model, kind, requests, tokens, hours, hours * profile.hardware.gpus))
    columns = ["model", "policy", "requests", "tokens at most", "hours at most", "GPU hours at most"]
    return pd.DataFrame(rows, columns=columns)


def decode_study(study: Study, problems: list[Problem]) -> list[Completion]:
    """Everything the study's profile asks of its models, one after the other, and the control at equal cost.

    Goes on from the journal `completions.partial.jsonl`. The committed completions where the study reads those. Raises
    what `check_hardware`, `Study.model` and `load_engine` raise.
    """
    if study.reads_committed:
        return read_jsonl(study.need("completions.jsonl", "03_windowed_inference"), Completion)
    profile, asked = study.profile, study.profile.inference
    check_hardware(profile)
    journal = Journal(study.path("completions.partial.jsonl"), Completion)
    sampling = (asked.n, asked.temperature, asked.top_p, profile.seed)
    completions = []
    for model in asked.models:
        engine = load_engine(asked.engine, study.model(model), decoding_dtype(profile), **asked.engine_options)
        chosen, policies = first_of_each(problems, asked.max_problems.get(model)), study_policies(profile, model)
        rows = sweep_problems(engine, chosen, policies, journal, profile.system_prompt_of, *sampling)
        completions += rows + match_truncation(engine, rows)
        del engine  # before the next model is loaded
    return completions


def sweep_problems(
    engine: Engine,
    problems: list[Problem],
    policies: list[Policy],
    journal: Journal,
    system_prompt_of: Callable[[str], str | None],
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[Completion]:
    """Completions of every problem, sample and policy (the longest policy last), decoded once a problem and sample.

    `system_prompt_of` gives the system prompt of a source of problems, None for the chat template's own.
    `journal` as in `decode.sweep`, which this is. The order is: problem, sample, policy.
    """
    asked = [conversation(problem.prompt, system_prompt_of(problem.source)) for problem in problems]
    prompts = [encode_prompt(engine.tokenizer, messages) for messages in asked]
    names, groups = [problem.id for problem in problems], [policies] * len(problems)
    rows = sweep(engine, prompts, groups, n, temperature, top_p, seed, names, journal)
    return [row for own in rows for row in own]


def match_truncation(engine: Engine, completions: list[Completion]) -> list[Completion]:
    """The control at equal cost: the uncut completion cut at the total tokens each windowed one spent.

    `completions` are of one model and hold the "unbounded" and the "shifted_window" rows of the same problems; the
    result is one "truncation_matched" row for each windowed one.
    """
    full = {(row.problem_id, row.sample): row for row in completions if row.policy == Unbounded.name}
    windowed = [row for row in completions if row.policy == ShiftedWindow.name]
    return [_cut(engine, full[row.problem_id, row.sample], row) for row in windowed]


def _cut(engine: Engine, full: Completion, other: Completion) -> Completion:
    ids = full.token_ids[: len(other.token_ids)]
    ended = len(ids) == len(full.token_ids) and full.finish_reason == "stop"
    return replace(
        full,
        policy="truncation_matched",
        window=other.window,
        thinking_tokens=len(ids),
        overran=not ended,
        finish_reason="stop" if ended else "length",
        thinking_text=to_text(engine, ids),
        token_ids=ids,
        key=f"{full.key}/{other.key}",
    )

"""What notebook 03 decodes: all policies of a profile from one trace a problem; its cost, controls, resumption."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Engine, load_engine
from z1lib.files import Journal, read_jsonl
from z1lib.hardware import check_hardware, decoding_dtype
from z1lib.inference.decode import sweep, to_text
from z1lib.profile import Profile
from z1lib.records import Completion, Problem, by_id
from z1lib.study import Study
from z1lib.window import Policy, ShiftedWindow, Truncation, Unbounded, at, has_option, policy_named


def first_of_each(problems: list[Problem], limit: int | dict[str, int] | None) -> list[Problem]:
    """The first `limit` problems of every source, or as many as it says of each; all where it says nothing."""
    limits = limit if isinstance(limit, dict) else {problem.source: limit for problem in problems}
    seen: Counter = Counter()
    kept = []
    for problem in problems:
        seen[problem.source] += 1
        most = limits.get(problem.source)
        if most is None or seen[problem.source] <= most:
            kept.append(problem)
    return kept


def study_policies(profile: Profile, run: str, other_hints: bool = True) -> list[Policy]:
    """All policies one long decode of a model of `run` serves, the longest last.

    The policies that the profile names for it at every window, truncation there, the shifted window under the
    profile's other hints if asked for, the model left alone.
    """
    asked = profile.inference
    windowed = [one for kind in asked.models[run] for one in _windowed(profile, run, kind)]
    hints = asked.other_hints if other_hints and ShiftedWindow.name in asked.models[run] else {}
    hinted = [
        ShiftedWindow(window, hint, asked.max_answer_tokens, name=f"hint: {name}")
        for window in asked.other_hint_windows
        for name, hint in hints.items()
    ]
    controls = [*(Truncation(window) for window in asked.windows), Unbounded(asked.max_tokens)]
    return [*windowed, *hinted, *(policy for policy in controls if policy not in windowed)]


def _windowed(profile: Profile, run: str, kind: str) -> list[Policy]:
    """The policy of that name at every window of the profile, with the texts that the profile gives it."""
    asked = profile.inference
    texts = {"hint": profile.hint_of(kind)} if kind in asked.hints else {}
    if run in asked.delimiters and has_option(policy_named(kind), "delimiter"):
        texts["delimiter"] = asked.delimiters[run]
    return [
        at(policy_named(kind), window, max_answer_tokens=asked.max_answer_tokens, **texts) for window in asked.windows
    ]


def requests_of(profile: Profile, run: str, problems: list[Problem]) -> list[tuple[Problem, list[Policy]]]:
    """The problems that a model of `run` is asked and the policies for each: other hints for the first of each set."""
    chosen = first_of_each(problems, profile.inference.max_problems.get(run))
    hinted = {problem.id for problem in first_of_each(chosen, profile.inference.other_hint_problems)}
    policies = {also: study_policies(profile, run, also) for also in (True, False)}
    return [(problem, policies[problem.id in hinted]) for problem in chosen]


def estimate_decoding(profile: Profile, problems: list[Problem]) -> pd.DataFrame:
    """What the decoding of a profile takes at most, a row a model: requests, tokens, hours on all its devices.

    At most, since completions that end by themselves take less (in `mini` a third); prompts are not counted.
    """
    rows = []
    for run, kinds in profile.inference.models.items():
        asked = requests_of(profile, run, problems)
        models = len(profile.models_of(run))
        requests = len(asked) * profile.inference.n * models
        # a hint is some 15 tokens, in every tokenizer of the study
        answers = [15 + most for _, group in asked for one in group if (most := getattr(one, "max_answer_tokens", 0))]
        tokens = requests * profile.inference.max_tokens + sum(answers) * profile.inference.n * models
        hours = tokens / profile.inference.tokens_per_second / max(1, profile.hardware.gpus) / 3600
        rows.append((run, ", ".join(kinds), requests, tokens, hours, hours * profile.hardware.gpus))
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
    for model, run in profile.decoded.items():
        engine = load_engine(asked.engine, study.model(model), decoding_dtype(profile), **asked.engine_options)
        chosen, groups = zip(*requests_of(profile, run, problems))
        rows = sweep_problems(engine, chosen, groups, journal, profile.system_prompt_of, *sampling)
        completions += rows + match_truncation(engine, rows)
        del engine  # before the next model is loaded
    return completions


def sweep_problems(
    engine: Engine,
    problems: Sequence[Problem],
    groups: Sequence[list[Policy]],
    journal: Journal,
    system_prompt_of: Callable[[str], str | None],
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[Completion]:
    """Completions of every problem under its group of policies, the longest last, decoded once a problem and sample.

    `system_prompt_of` gives the system prompt of a source of problems, None for the chat template's own.
    `journal` as in `decode.sweep`, which this is. The order is: problem, sample, policy. Raises ValueError naming an id
    that two problems have.
    """
    names = [*by_id(problems)]
    asked = [conversation(problem.prompt, system_prompt_of(problem.source)) for problem in problems]
    prompts = [encode_prompt(engine.tokenizer, messages) for messages in asked]
    rows = sweep(engine, prompts, list(groups), n, temperature, top_p, seed, names, journal)
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

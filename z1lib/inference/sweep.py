"""What notebook 03 decodes: all policies of a profile from one trace a problem; its cost, controls, resumption."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Engine
from z1lib.files import Journal, exclusive
from z1lib.inference.decode import complete, completion_key, make_policy, make_request, stop_early, to_text
from z1lib.profile import Profile
from z1lib.records import Completion, Problem
from z1lib.window import BudgetForcing, ConfidenceStop, Policy, ShiftedWindow, Truncation, Unbounded

POLICIES = {policy.name: policy for policy in (ShiftedWindow, BudgetForcing)}


def first_of_each(problems: list[Problem], most: int | None) -> list[Problem]:
    """The first `most` problems of every source, all for None."""
    seen: Counter = Counter()
    kept = []
    for problem in problems:
        seen[problem.source] += 1
        if most is None or seen[problem.source] <= most:
            kept.append(problem)
    return kept


def study_policies(profile: Profile, model: str) -> list[Policy]:
    """All policies one long decode of a model serves, the longest last.

    The model's own policy at every window, truncation there, the shifted window under the profile's other hints, the
    model left alone.
    """
    windows, most, kind = profile.windows, profile.max_answer_tokens, profile.models[model]
    windowed = [make_policy(POLICIES[kind], window, profile.hint_of(kind), most) for window in windows]
    if model in profile.delimiters:
        windowed = [replace(policy, delimiter=profile.delimiters[model]) for policy in windowed]
    other_hints = [
        ShiftedWindow(window, hint, most, name=f"hint: {name}")
        for window in profile.other_hint_windows
        for name, hint in profile.other_hints.items()
        if kind == ShiftedWindow.name
    ]
    return [*windowed, *other_hints, *(Truncation(window) for window in windows), Unbounded(profile.max_tokens)]


def estimate_decoding(profile: Profile, problems: list[Problem]) -> pd.DataFrame:
    """What the decoding of a profile takes at most, a row a model: requests, tokens, hours on all its devices.

    At most, since completions that end by themselves take less (in `mini` a third); prompts are not counted.
    """
    rows = []
    for model, kind in profile.models.items():
        policies = study_policies(profile, model)
        requests = len(first_of_each(problems, profile.max_problems.get(model))) * profile.n
        # a hint is some 15 tokens, in every tokenizer of the study
        answers = sum(15 + policy.max_answer_tokens for policy in policies if not isinstance(policy, Truncation))
        tokens = requests * (profile.max_tokens + answers)
        hours = tokens / profile.decode_tokens_per_second / max(1, profile.gpus) / 3600
        rows.append((model, kind, requests, tokens, hours, hours * profile.gpus))
    columns = ["model", "policy", "requests", "tokens at most", "hours at most", "GPU hours at most"]
    return pd.DataFrame(rows, columns=columns)


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
    Rows already in `journal` are not decoded again; new ones are appended as their problem finishes, so a rerun after
    a kill goes on where it stopped. The order is: problem, sample, policy.
    """
    requests = []
    for problem in problems:
        prompt_ids = encode_prompt(engine.tokenizer, conversation(problem.prompt, system_prompt_of(problem.source)))
        requests += [
            (problem.id, make_request(engine, prompt_ids, policies, i, temperature, top_p, seed)) for i in range(n)
        ]
    keys = [[completion_key(engine, r, p) for p in (*r.branches, r.policy)] for _, r in requests]
    todo = [pair for pair, own in zip(requests, keys) if any(key not in journal.rows for key in own)]
    with exclusive(journal.path):
        decoding = engine.decode([request for _, request in todo])
        model = Path(engine.model_name).name
        waiting = {"total": len(requests), "initial": len(requests) - len(todo), "desc": f"{model}: problems"}
        for index, decoded in tqdm(decoding, **waiting):
            problem_id, request = todo[index]
            rows = complete(engine, request, decoded, problem_id)
            journal.append([row for row in rows if row.key not in journal.rows])
    # The same weights may go by two names, and two problems may ask the same: the key knows neither name.
    named = [(problem_id, key) for (problem_id, _), own in zip(requests, keys) for key in own]
    return [replace(journal.rows[key], model=model, problem_id=problem_id) for problem_id, key in named]


def confidence_stops(completions: list[Completion], policy: ConfidenceStop) -> list[Completion]:
    """What a confidence stop gives, from the "shifted_window" rows of a sweep over its probes' windows.

    No token is decoded. Raises ValueError naming a probe's window that is not among the rows.
    """
    windows = [probe.window for probe in policy.probes()]
    found: dict[tuple, dict[int, Completion]] = {}
    for row in completions:
        if row.policy == ShiftedWindow.name:
            found.setdefault((row.problem_id, row.sample), {})[row.window] = row
    stopped = []
    for (problem_id, _), rows in found.items():
        missing = sorted(set(windows) - set(rows))
        if missing:
            raise ValueError(f"{problem_id}: a confidence stop probes at {windows}, the sweep has no window {missing}")
        stopped.append(stop_early(policy, [rows[window] for window in windows]))
    return stopped


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

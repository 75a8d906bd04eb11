"""Completions under a policy, and the sweep: the completions of many windows from one long decode.

Prompts and continuations are token ids everywhere, text is never tokenised twice. Every completion carries its token
account (`records.Completion`) and a key of all that determines it.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

from tqdm.auto import tqdm

from z1lib.engines.base import Decoded, Engine, Request, check_context
from z1lib.grading.answers import extract_answer, extract_code
from z1lib.records import Completion
from z1lib.window import HINT, ConfidenceStop, Policy, ShiftedWindow, Truncation, check_windows

Prompt = str | list[int]


def generate(
    engine: Engine,
    prompts: list[Prompt],
    policy: Policy | ConfidenceStop | list[Policy],
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[Completion]]:
    """`n` completions of every prompt under `policy` (one for all, or one a prompt), in the caller's order.

    A prompt is a string, already templated, or a list of token ids. `temperature` 0 is greedy. Raises ValueError for
    n < 1, an empty prompt, or a prompt that does not fit the context with all the policy may write.
    """
    if isinstance(policy, ConfidenceStop):
        return _generate_probing(engine, prompts, policy, n, temperature, top_p, seed)
    policies = policy if isinstance(policy, list) else [policy] * len(prompts)
    if len(policies) != len(prompts):
        raise ValueError(f"{len(policies)} policies for {len(prompts)} prompts")
    groups = [[one] for one in policies]
    return [[row for [row] in samples] for samples in _decode(engine, prompts, groups, n, temperature, top_p, seed)]


def window_sweep(
    engine: Engine,
    prompts: list[Prompt],
    windows: list[int],
    policy: type[Policy] = ShiftedWindow,
    hint: str = HINT,
    max_answer_tokens: int = 512,
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> dict[int, list[list[Completion]]]:
    """The completions `generate` gives at every window, for less work: {window: one inner list a prompt}.

    Each prompt is decoded once, under the largest window; where its thinking passes a smaller one, a branch takes the
    hint and answers. On the transformers engine the branch goes on from the same cache; sampled completions are those
    of `generate`, since the noise is keyed by seed, sample and position. Raises ValueError unless the windows rise.
    """
    check_windows(windows)
    policies = [make_policy(policy, window, hint, max_answer_tokens) for window in windows]
    rows = _decode(engine, prompts, [policies] * len(prompts), n, temperature, top_p, seed)
    return {w: [[sample[i] for sample in samples] for samples in rows] for i, w in enumerate(windows)}


def make_policy(policy: type[Policy], window: int, hint: str, max_answer_tokens: int) -> Policy:
    """A policy of this kind at this window; truncation has neither hint nor answer."""
    if issubclass(policy, Truncation):
        return policy(window)
    return policy(window, hint=hint, max_answer_tokens=max_answer_tokens)


def _decode(engine, prompts, policies, n, temperature, top_p, seed) -> list[list[list[Completion]]]:
    """Completions by prompt, sample and policy; `policies[i]` are prompt i's, the longest last."""
    check_sampling(n, temperature, top_p)
    encoded = [encode_templated(engine, prompt) for prompt in prompts]
    requests = [
        make_request(engine, ids, group, sample, temperature, top_p, seed)
        for ids, group in zip(encoded, policies)
        for sample in range(n)
    ]
    rows: list = [None] * len(requests)
    for index, decoded in tqdm(engine.decode(requests), total=len(requests), desc="decoding", leave=False):
        rows[index] = complete(engine, requests[index], decoded, problem_id=str(index // n))
    return [rows[i * n : (i + 1) * n] for i in range(len(prompts))]


def check_sampling(n: int, temperature: float, top_p: float) -> None:
    """Raises ValueError naming the first value that is out of range."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ValueError(f"n must be an integer of at least 1, got {n!r}")
    if temperature < 0 or not 0 < top_p <= 1:
        raise ValueError(f"temperature must be at least 0 and top_p in (0, 1], got {temperature} and {top_p}")


def _generate_probing(engine, prompts, policy: ConfidenceStop, n, temperature, top_p, seed) -> list[list[Completion]]:
    """Confidence stop: each probe is a request behind the trace of the one before, sent as soon as that is answered."""
    check_sampling(n, temperature, top_p)
    probes = policy.probes()
    requests = [
        make_request(engine, encode_templated(engine, prompt), probes[:1], sample, temperature, top_p, seed)
        for prompt in prompts
        for sample in range(n)
    ]
    check_context([replace(request, policy=probes[-1]) for request in requests], engine.context_length)
    found: list[list[Completion]] = [[] for _ in requests]
    owner = list(range(len(requests)))  # of every request, the first ones and those that follow, whose it is
    with tqdm(total=len(requests), desc="decoding", leave=False) as progress:
        for index, [decoded] in engine.decode(requests):
            request, rows = requests[index], found[owner[index]]
            rows.append(complete_one(engine, request, request.policy, decoded, str(owner[index] // n)))
            if stop_early(policy, rows):
                progress.update()
                continue
            trace = tuple(decoded.ids[: request.policy.window])
            following = make_request(
                engine, request.prompt_ids, [probes[len(rows)]], request.sample, temperature, top_p, seed
            )
            owner.append(owner[index])
            requests.append(replace(following, prefix_ids=trace))
    rows = [stop_early(policy, probed) for probed in found]
    return [rows[i * n : (i + 1) * n] for i in range(len(prompts))]


def stop_early(policy: ConfidenceStop, probed: list[Completion]) -> Completion | None:
    """The completion of a confidence stop, from those of its probes in order (`policy.probes()`, or the first few).

    None where the probes given do not settle it. So a sweep over the probes' windows gives what `generate` gives.
    """
    answers: list[str | None] = []
    spent = 0
    for row in probed:
        answers.append(extract_code(row)[0] or extract_answer(row)[0])
        if not row.overran or policy.is_settled(answers) or row.window == policy.window:
            key = hashlib.sha256(json.dumps([row.key, asdict(policy)]).encode()).hexdigest()[:24]
            return replace(row, policy=policy.name, window=policy.window, probe_tokens=spent, key=key)
        spent += row.hint_tokens + row.answer_tokens
    return None


def encode_templated(engine: Engine, prompt: Prompt) -> list[int]:
    """The ids of a prompt or of a forced text: control tokens it spells are recognised, none is added."""
    if isinstance(prompt, str):
        return engine.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    return list(prompt)


def make_request(engine, prompt_ids, policies, sample=0, temperature=0.0, top_p=1.0, seed=0) -> Request:
    """One request for the last (longest) policy with the others as its branches, all bound to the tokenizer."""
    bound = [policy.bind(lambda text: encode_templated(engine, text), engine.end_ids) for policy in policies]
    return Request(list(prompt_ids), bound[-1], tuple(bound[:-1]), sample, temperature, top_p, seed)


def complete(engine: Engine, request: Request, decoded: list[Decoded], problem_id: str) -> list[Completion]:
    """The completions of a request, in the order of the policies it was made of."""
    own, *branches = decoded
    pairs = [*zip(request.branches, branches), (request.policy, own)]
    return [complete_one(engine, request, policy, one, problem_id) for policy, one in pairs]


def complete_one(engine, request: Request, policy: Policy, decoded: Decoded, problem_id: str) -> Completion:
    account = policy.account(decoded.ids, decoded.ended)
    cut = len(decoded.ids) - account.answer
    thinking = decoded.ids[: policy.window] if account.overran else decoded.ids[:cut]
    return Completion(
        problem_id=problem_id,
        model=Path(engine.model_name).name,
        policy=policy.name,
        window=policy.window,
        sample=request.sample,
        seed=request.seed,
        prompt_tokens=len(request.prompt_ids),
        thinking_tokens=account.thinking,
        hint_tokens=account.hint,
        answer_tokens=account.answer,
        probe_tokens=0,
        overran=account.overran,
        finish_reason="stop" if decoded.ended else "length",
        thinking_text=to_text(engine, thinking),
        answer_text=to_text(engine, decoded.ids[cut:]),
        token_ids=list(decoded.ids),
        key=completion_key(engine, request, policy),
    )


def to_text(engine: Engine, ids: list[int]) -> str:
    """The text of generated ids, without end tokens."""
    return engine.tokenizer.decode([i for i in ids if i not in engine.end_ids], skip_special_tokens=False)


def completion_key(engine: Engine, request: Request, policy: Policy) -> str:
    """A hash of all that determines a completion: weights, engine, prompt, policy with its texts, sampling, seed."""
    decoder = [engine.fingerprint, engine.arithmetic, sorted(engine.end_ids)]
    policy_values = {"name": policy.name, **asdict(policy)}
    sampling = [request.temperature, request.top_p, request.sample, request.seed]
    whole = json.dumps([decoder, request.prompt_ids, policy_values, sampling], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:24]

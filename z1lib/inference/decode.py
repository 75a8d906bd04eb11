"""Completions under a policy, and the sweep: the completions of many windows from one long decode.

Prompts and continuations are token ids everywhere, text is never tokenised twice. Every completion carries its token
account (`records.Completion`) and a key of all that determines it.
"""

import hashlib
import json
import warnings
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

from z1lib.engines.base import Decoded, Engine, Request, sampling_settings
from z1lib.files import Journal, exclusive
from z1lib.profile import COLDEST, HOTTEST, is_temperature
from z1lib.progress import bar
from z1lib.records import Completion
from z1lib.window import HINT, Policy, ShiftedWindow, at, check_count, check_windows, settle

Prompt = str | list[int]


def generate(
    engine: Engine,
    prompts: list[Prompt],
    policy: Policy | list[Policy],
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[Completion]]:
    """`n` completions of every prompt under `policy` (one for all, or one a prompt), in the caller's order.

    A prompt is a string, already templated, or a list of token ids. `temperature` 0 is greedy. A completion follows
    from prompt, policy, sampling, seed and its number among the n, wherever it was decoded: one prompt given twice has
    the same completions twice, and `n` is how to ask for more. Raises ValueError naming a value that is none of its
    kind, an empty prompt, or a prompt that does not fit the context with all the policy may write.
    """
    policies = policy if isinstance(policy, list) else [policy] * len(prompts)
    if len(policies) != len(prompts):
        raise ValueError(f"{len(policies)} policies for {len(prompts)} prompts")
    rows = [row for [row] in sweep(engine, prompts, [[one] for one in policies], n, temperature, top_p, seed)]
    return [rows[i * n : (i + 1) * n] for i in range(len(prompts))]


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
    of `generate`, since the noise is keyed by prompt, seed, sample and position. Raises ValueError unless the windows
    rise.
    """
    check_windows(windows)
    policies = [at(policy, window, hint=hint, max_answer_tokens=max_answer_tokens) for window in windows]
    rows = sweep(engine, prompts, [policies] * len(prompts), n, temperature, top_p, seed)
    samples = [rows[i * n : (i + 1) * n] for i in range(len(prompts))]
    return {window: [[row[i] for row in own] for own in samples] for i, window in enumerate(windows)}


def sweep(
    engine: Engine,
    prompts: list[Prompt],
    groups: list[list[Policy]],
    n: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    names: list[str] | None = None,
    journal: Journal | None = None,
) -> list[list[Completion]]:
    """One list a prompt and sample, in that order: its completions under each policy of `groups[prompt]`, longest last.

    Each prompt and sample is decoded once. `names` are the problems' ids. Rows already in `journal` are not decoded
    again; new ones are appended as their request finishes, so a rerun after a kill goes on where it stopped.
    """
    check_sampling(n, temperature, top_p, seed)
    encoded = [encode_templated(engine, prompt) for prompt in prompts]
    sampling = [(sample, temperature, top_p, seed) for sample in range(n)]
    requests = [
        make_request(engine, ids, group, *one) for ids, group in zip(encoded, groups, strict=True) for one in sampling
    ]
    named = [name for name in names or map(str, range(len(prompts))) for _ in sampling]
    keys = [[completion_key(engine, one, policy) for policy in (*one.branches, one.policy)] for one in requests]
    stored = journal.rows if journal else {}
    todo = [i for i, own in enumerate(keys) if any(key not in stored for key in own)]
    model = Path(engine.model_name).name
    waiting = {"total": len(requests), "initial": len(requests) - len(todo), "desc": model, "leave": bool(journal)}
    with exclusive(journal.path) if journal else nullcontext():
        for place, decoded in bar(engine.decode([requests[i] for i in todo]), **waiting):
            rows = complete(engine, requests[todo[place]], decoded, named[todo[place]])
            fresh = [row for row in rows if row.key not in stored]
            journal.append(fresh) if journal else stored.update((row.key, row) for row in fresh)
    # The same weights may go by two names, and two problems may ask the same: the key knows neither name.
    return [[replace(stored[key], model=model, problem_id=name) for key in own] for name, own in zip(named, keys)]


def check_sampling(n: int, temperature: float, top_p: float, seed: int) -> None:
    """Raises ValueError naming the first value that is out of range; NaN is in none.

    Warns of several samples at temperature 0, which are all alike.
    """
    check_count("n", n)
    if n > 1 and temperature == 0:
        warnings.warn(f"at temperature 0 the {n} samples of a prompt are all alike: one is enough", stacklevel=3)
    if not is_temperature(temperature):
        raise ValueError(f"temperature must be 0 (greedy) or from {COLDEST} to {HOTTEST}, got {temperature!r}")
    if isinstance(top_p, bool) or not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p!r}")
    if type(seed) is not int:
        raise ValueError(f"seed must be an integer, got {seed!r}")


def encode_templated(engine: Engine, prompt: Prompt) -> list[int]:
    """The ids of a prompt or of a forced text: control tokens it spells are recognised, none is added.

    Raises ValueError for what is neither text nor a list.
    """
    if isinstance(prompt, str):
        return engine.tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if not isinstance(prompt, list | tuple):
        raise ValueError(f"a prompt must be text or a list of token ids, got {prompt!r:.60}")
    return list(prompt)


def make_request(engine, prompt_ids, policies, sample=0, temperature=0.0, top_p=1.0, seed=0) -> Request:
    """One request for the last (longest) policy with the others as its branches, all bound to the tokenizer.

    Raises ValueError for what is no policy.
    """
    for policy in policies:
        if isinstance(policy, type) or not hasattr(policy, "bind"):
            raise ValueError(f"a policy such as ShiftedWindow(64) was expected, got {policy!r}")
    bound = [policy.bind(lambda text: encode_templated(engine, text), engine.end_ids) for policy in policies]
    return Request(list(prompt_ids), bound[-1], tuple(bound[:-1]), sample, temperature, top_p, seed)


def complete(engine: Engine, request: Request, decoded: list[Decoded], problem_id: str) -> list[Completion]:
    """The completions of a request, in the order of the policies it was made of."""
    own, *branches = decoded
    pairs = [*zip(request.branches, branches), (request.policy, own)]
    return [complete_one(engine, request, policy, one, problem_id) for policy, one in pairs]


def complete_one(engine, request: Request, policy: Policy, decoded: Decoded, problem_id: str) -> Completion:
    account = settle(policy, decoded.ids, decoded.ended, decoded.put)
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
    settings = [sampling_settings(request, 0), request.sample, request.seed]
    whole = json.dumps([decoder, request.prompt_ids, policy_values, settings], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:24]

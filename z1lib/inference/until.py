"""A rule at work: more windows or more samples are decoded only as long as it asks for them."""

from collections.abc import Callable
from dataclasses import replace

from z1lib.cost import Cost
from z1lib.engines.base import Engine, Request, check_prompts
from z1lib.grading.answers import extract_answer, extract_code
from z1lib.inference.decode import Prompt, check_sampling, complete_one, encode_templated, make_request
from z1lib.progress import bar
from z1lib.records import Completion
from z1lib.selection.pool import AXES, price
from z1lib.selection.rules import Candidate, Rule
from z1lib.window import Policy, check_windows


def find_answer(completion: Completion) -> str | None:
    """The program of a completion if it holds one, else its answer, else None."""
    return extract_code(completion)[0] or extract_answer(completion)[0]


def generate_until(
    engine: Engine,
    prompts: list[Prompt],
    policy: Policy | list[Policy],
    rule: Rule,
    along: str = "sample",
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    answer_of: Callable[[Completion], str | None] = find_answer,
    score_of: Callable[[Completion], float | None] = lambda _: None,
) -> list[Completion]:
    """The completion that the rule chooses for each prompt; no candidate is decoded that it does not ask for.

    Along "sample" the candidates are samples 0, 1, ... under `policy`; along "window" `policy` is a list with rising
    windows, and each goes on behind the trace of the one before. The row has the rule's name and the window of the last
    candidate there might have been; `probe_tokens` counts what was decoded beside it. `selection.replay` gives the same
    from stored completions, where the rule's `same` compares as the problems are graded and `score_of` gives the scores
    that are stored. Raises ValueError as `generate` does, for more candidates than there are windows, and for a bound.
    """
    budget = _find_budget(rule, policy, along)
    check_sampling(budget, temperature, top_p, seed)
    policies = policy[:budget] if along == "window" else [policy] * budget
    if along == "window":
        check_windows([one.window for one in policies])
    samples = [0] * budget if along == "window" else range(budget)
    asked = [
        [make_request(engine, ids, [one], i, temperature, top_p, seed) for i, one in zip(samples, policies)]
        for ids in (encode_templated(engine, prompt) for prompt in prompts)
    ]
    check_prompts([own[-1] for own in asked], engine)
    rule = replace(rule, budget=budget)

    def candidate(row: Completion, cost: Cost) -> Candidate:
        return Candidate(answer_of(row), score_of(row), cost)

    return _draw(engine, asked, lambda rows: _choose(rows, policies, rule, along, candidate), along)


def _find_budget(rule: Rule, policy: Policy | list[Policy], along: str) -> int:
    """How many candidates there may be. Raises ValueError for a bound, and for more than there are."""
    if hasattr(rule, "pick"):
        raise ValueError(f"{rule.name} is a bound: it takes stored answers that are graded (`selection.replay`)")
    stored = len(policy) if along == "window" else rule.budget
    budget = rule.budget or stored
    if along not in AXES or budget is None or budget > stored:
        raise ValueError(f"{rule} along {along!r}: 'sample' takes a budget, 'window' as many policies as the budget")
    return budget


def _draw(engine: Engine, asked: list[list[Request]], choose: Callable, along: str) -> list[Completion]:
    """What `choose` makes of each prompt's completions; a prompt's next request is sent when the last did not do."""
    requests = [own[0] for own in asked]
    owner = list(range(len(requests)))  # of every request, the first ones and those that follow, whose it is
    drawn: list[list[Completion]] = [[] for _ in asked]
    chosen: list = [None] * len(asked)
    with bar(total=len(asked), desc="decoding", leave=False) as progress:
        for index, [decoded] in engine.decode(requests):
            mine, request = owner[index], requests[index]
            drawn[mine].append(complete_one(engine, request, request.policy, decoded, str(mine)))
            chosen[mine] = choose(drawn[mine])
            if chosen[mine] is None:
                trace = tuple(decoded.ids[: request.policy.window]) if along == "window" else ()
                owner.append(mine)
                put = tuple(start for start in decoded.put if start < len(trace))
                requests.append(replace(asked[mine][len(drawn[mine])], prefix_ids=trace, prefix_put=put))
            progress.update(chosen[mine] is not None)
    return chosen


def _choose(rows: list[Completion], policies: list[Policy], rule: Rule, along: str, candidate) -> Completion | None:
    """What the rule chooses of these candidates; where a trace has ended by itself the longer windows hold the same."""
    while True:
        costs = price([(row.window, len(row.token_ids), row.overran) for row in rows], along)
        index = rule.choose([candidate(row, cost) for row, cost in zip(rows, costs)])
        if index is not None:
            row, spent = rows[index], sum(cost.decoded for cost in costs)
            named = {
                "policy": rule.name,
                "window": policies[rule.budget - 1].window,
                "key": f"{rows[index].key}/{rule}",
            }
            return replace(row, **named, probe_tokens=spent - len(row.token_ids))
        if along == "sample" or rows[-1].overran:
            return None
        rows.append(replace(rows[-1], window=policies[len(rows)].window))

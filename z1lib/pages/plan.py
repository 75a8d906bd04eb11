"""`make plan PROFILE=paper`: what a profile takes before it is started, stage by stage, at the rates it names.

Tokens are counted at most: completions that end by themselves take fewer, prompts are not in them. The rates are the
profile's own `tokens_per_second`; the comments beside them say where each was measured, or that it is assumed.
"""

import argparse

import pandas as pd

from z1lib.inference.sweep import estimate_decoding
from z1lib.profile import Profile, load_profile
from z1lib.records import Problem

KINDS = ("stage", "of", "tokens at most", "hours", "GPU hours")


def make_plan(profile: Profile) -> pd.DataFrame:
    """A row a run that is trained and a model that is decoded, then the pool: KINDS."""
    return pd.DataFrame([*_training(profile), *_decoding(profile), *_pool(profile)], columns=KINDS)


def _row(profile: Profile, stage: str, name: str, tokens: float, rate: float) -> tuple:
    """`rate`: tokens a second of all devices."""
    hours = tokens / rate / 3600
    return stage, name, tokens, hours, hours * profile.hardware.gpus


def _training(profile: Profile) -> list[tuple]:
    """The runs that are trained: each sees its response tokens once an epoch, once a training seed."""
    rows = []
    for name in profile.to_train:
        seen = profile.sft.runs[name].tokens or profile.curation.response_token_budget
        tokens = seen * profile.sft.epochs * len(profile.trained(name))
        rows.append(_row(profile, "02_sft", name, tokens, profile.sft.tokens_per_second))
    return rows


def _decoding(profile: Profile) -> list[tuple]:
    """What notebook 03 prints of problems that are not made here."""
    counts = profile.curation.test_problems.items()
    problems = [
        Problem(f"{source}-{i}", "?", "text", "", source=source) for source, count in counts for i in range(count)
    ]
    table = estimate_decoding(profile, problems)
    columns = ["model", "tokens at most", "hours at most", "GPU hours at most"]
    return [("03_windowed_inference", *row) for row in table[columns].itertuples(index=False)]


def _pool(profile: Profile) -> list[tuple]:
    """Several answers a problem, and the same problems under budgets of positions."""
    pool, sparse = profile.inference.pool, profile.inference.cheaper
    rate = profile.inference.tokens_per_second * max(1, profile.hardware.gpus)
    ways = 1 + len(sparse.selects) * len(sparse.budgets)
    long_ways = 1 + len(sparse.selects) * len(sparse.long_budgets)
    asked = {
        "pool of": (pool.models, pool.windows, sum(pool.problems.values()) * pool.n * len(pool.seeds)),
        "budgets of": (
            sparse.models,
            sparse.windows,
            sum(sparse.problems.values()) * ways + sum(sparse.long_problems.values()) * long_ways,
        ),
    }
    rows = []
    for name, (runs, windows, answers) in asked.items():
        tokens = answers * (windows[-1] + profile.inference.max_answer_tokens * len(windows))
        models = [model for run in runs for model in profile.models_of(run)]
        rows += [_row(profile, "03_windowed_inference", f"{name} {model}", tokens, rate) for model in models]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("profile")
    parser.add_argument("--price", type=float, default=None, help="of a GPU hour, in any currency: yours, of today")
    given = parser.parse_args()
    profile = load_profile(given.profile)
    plan = make_plan(profile)
    if given.price is not None:
        plan["price"] = plan["GPU hours"] * given.price
    total = plan.select_dtypes("number").sum()
    plan.loc[len(plan)] = {"stage": "all", "of": "", **total}
    if gpus := profile.hardware.gpus:
        print(f"{profile.name}: {gpus} GPUs of {profile.hardware.gpu_memory_gib} GiB at least\n")
    else:
        print(f"{profile.name}: no GPU\n")
    print(plan.to_string(index=False, float_format=lambda value: f"{value:,.1f}"))
    print(
        f"\nAt {profile.sft.tokens_per_second:,.0f} tokens a second in training (all devices) and "
        f"{profile.inference.tokens_per_second:,.0f} in decoding (each), see profiles/{profile.name}.yaml. "
        "Memory and disk of a training: notebook 02 says them before it starts."
    )


if __name__ == "__main__":
    main()

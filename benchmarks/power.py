"""How often the plan's tests are right: coverage and power of each claim, simulated through the code that decides it.

Problems differ in difficulty and length, trainings in accuracy (and in how length follows the problem); both are drawn
anew each time. `coverage` is the share of 95% intervals that hold the truth, `power` that of intervals beyond the
bound for support, `power, Holm` that of verdicts where no other claim of the family is supported, which is the least
that Holm leaves, `false` that of verdicts "supported" where the truth lies on the bound. Writes power.csv and the table
of docs/CLAIMS.md. About a quarter of an hour on two cores.
"""

import gc
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from z1lib.analysis.claims import make_claims
from z1lib.analysis.estimands import UNTRAINED, Claim, measure, read_plan
from z1lib.pages.publish import fill
from z1lib.profile import Profile, load_profile

HERE = Path(__file__).parent
TRIALS, RESAMPLES = 400, 200
TRUTH = 40_000  # problems, of which a claim's true value is taken
SPREADS = (0.04, 0.08)  # sd of a training's accuracy, without its binomial part: what is hoped for, what was seen
WINDOWS = tuple(load_profile("mini_factorial").inference.windows)
TAIL = 25  # tokens of hint and answer
LEVELS = 5


@dataclass(frozen=True)
class World:
    """What is simulated: of each run its accuracy when it has finished, and how long it thinks."""

    accuracy: dict[str, float]  # by run
    length: dict[str, float]  # median tokens, by run
    slope: dict[str, float]  # of log tokens on log length needed, by run
    partial: float = 0.0  # chance of a right answer from a trace cut half way, where the hint asks for it
    spread: float = 0.04


def draw_problems(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Level, length needed (characters), and difficulty, which lowers every run's accuracy alike."""
    level = np.arange(n) % LEVELS + 1
    needed = np.exp(rng.normal(5.5 + 0.15 * level, 0.35)).round()
    return {"problem_id": np.arange(n), "level": level, "needed": needed, "hard": rng.normal(0, 0.15, n)}


def train(problems: dict, world: World, run: str, spread: float, rng: np.random.Generator) -> tuple:
    """(right when it has finished, tokens until then) of one training of a recipe, which varies in both."""
    better, longer, steeper = rng.normal(0, spread, 3)
    relative = np.log(problems["needed"]) - 5.5 - 0.15 * problems["level"]
    length = np.log(world.length[run]) + longer + 0.15 * (problems["level"] - 3)
    length += (world.slope[run] + steeper) * relative
    right = rng.random(len(relative)) < world.accuracy[run] + better - problems["hard"]
    return right, np.exp(length + rng.normal(0, 0.1, len(relative)))


def cut(policy: str, window: int, finished: tuple, world: World, rng: np.random.Generator) -> tuple:
    """(right, total tokens) of traces under a policy and window."""
    right, length = finished
    budget = {"unbounded": np.inf, "truncation_matched": window + TAIL}.get(policy, window)
    whole = length <= budget
    guessed = rng.random(len(right)) < world.partial * np.minimum(window / length, 1)
    asks = policy == "shifted_window"
    return np.where(whole, right, guessed & asks), np.where(whole, length, window + TAIL).round()


def simulate(pairs: list, sets: list[str], world: World, n: int, trainings: int, rng) -> pd.DataFrame:
    """The rows of `tables.make_frame` for these (run, policy) pairs on these problem sets."""
    columns: dict[str, list] = {}
    names: list[tuple] = []
    for problem_set in sets:
        problems = draw_problems(n, rng)
        for run in dict.fromkeys(run for run, _ in pairs):
            for seed in range(1 if run == UNTRAINED else trainings):
                finished = train(problems, world, run, world.spread * (run != UNTRAINED), rng)
                for policy in [policy for other, policy in pairs if other == run]:
                    for window in (640,) if policy == "unbounded" else WINDOWS:
                        right, tokens = cut(policy, window, finished, world, rng)
                        for name, values in {**problems, "correct": right, "total_tokens": tokens}.items():
                            columns.setdefault(name, []).append(values)
                        names.append((problem_set, run, seed, f"{run}-{seed}", policy, window))
    told = dict(zip(["problem_set", "run", "training_seed", "model", "policy", "window"], zip(*names)))
    frame = pd.DataFrame({name: np.concatenate(values) for name, values in columns.items()})
    return frame.assign(**{name: pd.Categorical(values).repeat(n) for name, values in told.items()}).astype(
        {"training_seed": int, "window": int}
    )


EVEN = {"z1": 0.75, "r1_plain": 0.75, "base": 0.20, "full": 0.6, "terse": 0.6, "longest": 0.6, "shortest": 0.6}
LENGTH = dict.fromkeys(EVEN, 100.0) | {"r1_plain": 100 / 0.9}  # at equal learning, on the bound of B
NULL = World(EVEN, LENGTH, dict.fromkeys(EVEN, 0.5))


def better(run: str, gain: float) -> World:
    return replace(NULL, accuracy=EVEN | {run: EVEN[run] + gain})


# Claim -> what is planted, in words; the world with that effect; the world on the bound for support
WORLDS: dict[str, tuple[str, World, World]] = {
    "A": ("traces of 100 tokens", NULL, replace(NULL, length=LENGTH | {"z1": 10.0})),
    "B": (
        "0.7 of the tokens, 10 points better",
        replace(better("z1", 0.1), length=LENGTH | {"r1_plain": 100 / 0.7}),
        NULL,
    ),
    "B'": ("5 points better", better("z1", 0.05), better("z1", -0.05)),
    "C": ("a fifth of cut answers right", replace(NULL, partial=0.2), NULL),
    "D": ("slope 0.5 against 0.2", replace(NULL, slope=NULL.slope | {"r1_plain": 0.2}), NULL),
    "E1": ("10 points", better("z1", 0.10 - 0.55), better("z1", -0.55)),
    "F1": ("15 points", better("full", 0.15), NULL),
}


def judge(claim: Claim, world: World, n: int, trainings: int, profile: Profile, rng: np.random.Generator) -> pd.Series:
    """The claim's row of claims.csv, by the code of the study; with the claim that it needs, if there is one."""
    needed = [other for other in read_plan() if other.id == claim.needs]
    pairs = [pair for one in (claim, *needed) for pair in one.pairs]
    table = make_claims(measure(simulate(pairs, claim.problem_sets.split(), world, n, trainings, rng), profile))
    return table[table.claim.str.startswith(f"{claim.id}: ")].iloc[0]


def beyond(claim: Claim, row: pd.Series) -> bool:
    side, bound = claim.supported.split()
    return row.low > float(bound) if side == ">" else row.high < float(bound)


def true_value(claim: Claim, world: World, profile: Profile) -> float:
    """Of two trainings that are their recipe's mean, on many problems."""
    rng = np.random.default_rng(1)
    return judge(claim, replace(world, spread=0.0), TRUTH, 2, profile, rng).estimate


def run_claim(claim: Claim, spread: float, profile: Profile) -> dict:
    words, *worlds = WORLDS[claim.id]
    effect, bound = (replace(world, spread=spread) for world in worlds)
    truth, rng = true_value(claim, effect, profile), np.random.default_rng(0)
    rows, nulls = (
        pd.DataFrame([judge(claim, world, claim.n, claim.seeds, profile, rng) for _ in range(trials)])
        for world, trials in ((effect, TRIALS), (bound, TRIALS // 2))
    )
    return {
        "claim": claim.id, "n": claim.n, "seeds": claim.seeds, "sd": spread, "planted": words, "true": truth,
        "mean": rows.estimate.mean(), "coverage": ((rows.low <= truth) & (truth <= rows.high)).mean(),
        "half width": ((rows.high - rows.low) / 2).median(),
        "power": np.mean([beyond(claim, row) for row in rows.itertuples()]),
        "power, Holm": (rows.verdict == "supported").mean(), "false": (nulls.verdict == "supported").mean(),
        "trials": TRIALS,
    }  # fmt: skip


def write_power() -> str:
    """The table of docs/CLAIMS.md, from power.csv."""
    table = pd.read_csv(HERE / "power.csv")
    table["n, seeds"] = [f"{row.n}, {row.seeds}" for row in table.itertuples()]
    shown = ["claim", "n, seeds", "sd", "planted", "true", "half width", "coverage", "power", "power, Holm", "false"]
    decimals = ("", "", ".2f", "", ".2f", ".3f", ".3f", ".2f", ".2f", ".3f")
    return table[shown].to_markdown(index=False, floatfmt=decimals) + "\n"


def main() -> None:
    profile = load_profile("mini", analysis={"resamples": RESAMPLES})
    claims = [claim for claim in read_plan() if claim.id in WORLDS]
    asked = [(claim, spread, profile) for claim in claims for spread in SPREADS]
    # statsmodels collects garbage in every call; what is loaded is none
    with ProcessPoolExecutor(initializer=gc.freeze) as pool:
        rows = list(tqdm(pool.map(run_claim, *zip(*asked)), total=len(asked)))
    pd.DataFrame(rows).to_csv(HERE / "power.csv", index=False, float_format="%.4f")
    fill(HERE.parent / "docs/CLAIMS.md", "power", write_power())


if __name__ == "__main__":
    main()

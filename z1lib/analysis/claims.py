"""The verdicts on the plan's claims, and the models that a study of one run is about.

A claim is *refuted* where the 95% interval lies wholly beyond the bound that the plan gives for it, *supported* where
the test against the other bound has p at most 5% after Holm's correction over its family, else *undecided*. It takes
two trainings to decide anything: another training of the same recipe gives another model.
"""

import numpy as np
import pandas as pd

from z1lib.analysis.estimands import Claim, Measured, read_plan
from z1lib.problems.tracing import family_of
from z1lib.profile import UNTRAINED, Profile
from z1lib.stats import Estimate, Interval, correct_family, estimate_over_trainings, percentile_interval

COLUMNS = ["claim", "estimand", "problem_set", "n", "seeds", "estimate", "low", "high", "test", "verdict"]
BY_SEED = ["claim", "problem_set", "training_seed", "n", "estimate", "error"]
LEVEL = 0.05  # of every test, after Holm's correction over its family
NOT_RUN = "not run"


def make_claims(measured: dict[str, Measured | str]) -> pd.DataFrame:
    """The claims table from `estimands.measure`: a row for every claim of the plan, in its order.

    `estimate`, `low`, `high`: over trainings and problems; of one training, over problems; missing where nothing is
    measured. `n` counts problems, `seeds` trainings.
    """
    plan = read_plan()
    estimates = {name: _estimate(one) for name, one in measured.items() if _is_measured(one)}
    p_values = _correct(plan, estimates)
    rows = [_row(claim, measured[claim.id], estimates.get(claim.id), p_values.get(claim.id)) for claim in plan]
    verdicts = {claim.id: row["verdict"] for claim, row in zip(plan, rows)}
    for claim, row in zip(plan, rows):
        if claim.needs and row["verdict"] == "supported" and verdicts[claim.needs] != "supported":
            row |= {"verdict": "undecided", "test": f"{row['test']}; does not count, {claim.needs} is not supported"}
    return pd.DataFrame(rows, columns=COLUMNS)


def list_seeds(measured: dict[str, Measured | str]) -> pd.DataFrame:
    """A row a claim and training: its estimate and standard error over problems, ratios as logarithms."""
    rows = [
        (claim.id, " + ".join(claim.problem_sets.split()), seed, one.n, estimate, error)
        for claim in read_plan()
        if _is_measured(one := measured[claim.id])
        for seed, estimate, error in zip(one.seeds, one.by_training, one.errors)
    ]
    return pd.DataFrame(rows, columns=BY_SEED)


def decide(claim: Claim, interval: Interval, p: float) -> str:
    """The verdict from a 95% interval and the corrected p-value of the test against the bound for support.

    An interval between the two bounds is an effect that is there and too small to be what is claimed: refuted.
    """
    if _is_beyond(claim.bound("refuted"), interval.low, interval.high):
        return "refuted"
    beyond = _is_beyond(claim.bound("supported"), interval.estimate, interval.estimate)
    return "supported" if p <= LEVEL and beyond else "undecided"


def _is_beyond(bound: tuple[str, float], low: float, high: float) -> bool:
    side, value = bound
    return low > value if side == ">" else high < value


def _is_measured(one: Measured | str) -> bool:
    return not isinstance(one, str) and not np.isnan(one.by_training).any() and one.drawn.shape[1] > 1


def _estimate(one: Measured) -> Estimate | None:
    """None of one training."""
    return estimate_over_trainings(one.by_training, one.drawn) if len(one.seeds) > 1 else None


def _correct(plan: tuple[Claim, ...], estimates: dict[str, Estimate | None]) -> dict[str, float]:
    """Holm's corrected p-values; a claim of the family that is not measured here counts as one that fails."""
    found = {claim.id: estimates[claim.id] for claim in plan if estimates.get(claim.id)}
    raw = {claim.id: found[claim.id].p_value(claim.bound("supported")[1]) for claim in plan if claim.id in found}
    for family in {claim.family for claim in plan} - {""}:
        names = [claim.id for claim in plan if claim.family == family]
        corrected = correct_family([raw.get(name, 1.0) for name in names])
        raw |= {name: p for name, p in zip(names, corrected) if name in found}
    return raw


def _row(claim: Claim, one: Measured | str, estimate: Estimate | None, p: float | None) -> dict:
    row = {"claim": f"{claim.id}: {claim.claim}", "estimand": claim.estimand, "seeds": 0, "n": 0}
    row |= {"problem_set": " + ".join(claim.problem_sets.split()), "test": one, "verdict": NOT_RUN}
    if isinstance(one, str):
        return row
    row |= {"n": one.n, "seeds": len(one.seeds), "verdict": "undecided"}
    if not _is_measured(one):
        return row | {"test": "nothing is right, so there is no equal accuracy"}
    if estimate is None:
        interval, test = percentile_interval(one.by_training[0], one.drawn[0]), "one training decides nothing"
    else:
        interval, test = estimate.interval(), _say_test(claim, len(one.seeds), estimate, p)
        row["verdict"] = decide(claim, interval, p)
    ends = {name: claim.show(getattr(interval, name)) for name in ("estimate", "low", "high")}
    return row | ends | {"test": test}


def _say_test(claim: Claim, trainings: int, estimate: Estimate, p: float) -> str:
    """The test, and the smallest effect that it would have seen four times in five."""
    side, bound = claim.bound("supported")
    seen = claim.show(bound + (1 if side == ">" else -1) * estimate.detectable())
    of = sum(other.family == claim.family for other in read_plan())
    corrected = f", Holm of {of}" if claim.family else ""
    chance = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return f"t over {trainings} trainings{corrected}: {chance}; 80% power {side} {seen:.2f}"


def subject_of(profile: Profile) -> tuple[str, str]:
    """(run, policy) that the study is about."""
    return profile.subject, "shifted_window"


def rivals_of(profile: Profile, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Every other run of the frame under its own policy, the first the profile names for it, but the untrained model.

    A study that is run in parts has not every run of its profile yet.
    """
    others = set(frame.run) - {profile.subject, UNTRAINED}
    others = [run for run in profile.inference.models if run in others]
    return [(run, profile.inference.models[run][0]) for run in others]


def transfer_sets(frame: pd.DataFrame) -> list[str]:
    """The problem sets that are neither code nor of a family trained on."""
    sets = frame[frame.kind != "code"].problem_set.unique()
    return [name for name in sets if not family_of(name)]

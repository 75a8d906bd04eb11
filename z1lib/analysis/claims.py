"""The claims of the paper that a run can speak to: one row each, with its estimate, interval, test and verdict.

`supported` and `refuted` need a test at 5%, corrected after Holm where several are made together, or for a ratio a 95%
interval that leaves out 1; all else is `undecided`.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats as tests

from z1lib.analysis.efficiency import iso_accuracy_interval
from z1lib.analysis.tables import problem_table
from z1lib.profile import Profile
from z1lib.stats import (
    BadAnalysis,
    Interval,
    bootstrap_means,
    correct_family,
    paired_bootstrap,
    paired_tests,
    percentile_interval,
)

COLUMNS = ["claim", "estimand", "problem_set", "n", "seeds", "estimate", "low", "high", "test", "verdict"]
LEVEL = 0.05  # of every test, after Holm's correction over its family
OFTEN = 0.2  # a window that cuts fewer completions than this says little about the hint


def make_claims(frame: pd.DataFrame, profile: Profile, sets: list[str]) -> pd.DataFrame:
    """The claims table of a run of one training a model. A claim that the run cannot speak to has no row.

    `sets`: the problem sets large enough to conclude from (`tables.main_sets`). Raises BadAnalysis where policies that
    are compared have other windows or problems.
    """
    resamples, seed, subject = profile.analysis.resamples, profile.seed, subject_of(profile)
    parts = [frame[frame.problem_set == name] for name in sets]
    rows = _scaling(parts, subject, resamples, seed)
    for part in parts:
        rows += _hints(part, subject[0], resamples, seed)
        rows += _adaptivity(part, subject[0], resamples, seed)
        for rival in rivals_of(profile):
            rows += _efficiency(part, subject, rival, resamples, seed)
    rows += _transfer(frame, subject[0], profile, resamples, seed)
    return pd.DataFrame([{"seeds": 1, **row} for row in rows], columns=COLUMNS)


def subject_of(profile: Profile) -> tuple[str, str]:
    """(model, policy) that the study is about: the last of the profile's models under the shifted window."""
    return next(pair for pair in reversed(profile.inference.models.items()) if pair[1] == "shifted_window")


def rivals_of(profile: Profile) -> list[tuple[str, str]]:
    """The models under budget forcing."""
    return [pair for pair in profile.inference.models.items() if pair[1] == "budget_forcing"]


def decide(estimate: float, p: float, null: float = 0.0) -> str:
    """The verdict on "more than `null`" from an estimate and the corrected p-value of its two-sided test."""
    return "undecided" if not p <= LEVEL else "supported" if estimate > null else "refuted"


def decide_by_interval(interval: Interval, null: float) -> str:
    """The verdict on "more than `null`" where the 95% interval is the test; none where every resample was alike."""
    if interval.estimate is None or interval.is_degenerate or interval.low <= null <= interval.high:
        return "undecided"
    return "supported" if interval.low > null else "refuted"


def _row(claim: str, estimand: str, part: pd.DataFrame, n: int, found: Interval, test: str, verdict: str) -> dict:
    ends = {"estimate": found.estimate, "low": found.low, "high": found.high}
    where = {"problem_set": part.problem_set.iloc[0], "n": n}
    return {"claim": claim, "estimand": estimand, **where, **ends, "test": test, "verdict": verdict}


def _compare(claims: list[str], estimand: str, parts: list, pairs: list, resamples: int, seed: int) -> list[dict]:
    """Rows of claims that one accuracy is higher than another on the same problems; together they are one family."""
    rows = []
    for claim, part, pair, p in zip(claims, parts, pairs, paired_tests(pairs, resamples, seed)):
        gain = paired_bootstrap(*pair, resamples, seed)
        test = "McNemar" if set(np.unique(pair)) <= {0, 1} else "paired bootstrap"
        test += f"{', Holm' * (len(pairs) > 1)}: {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}"
        rows.append(_row(claim, estimand, part, len(pair[0]), gain, test, decide(gain.estimate, p)))
    return rows


def _scaling(parts: list[pd.DataFrame], subject: tuple[str, str], resamples: int, seed: int) -> list[dict]:
    correct = [problem_table(part, *subject, "correct") for part in parts]
    first, last = correct[0].columns[0], correct[0].columns[-1]
    if first == last:
        return []
    estimand = f"accuracy at a window of {last} minus at {first}"
    pairs = [(table[last], table[first]) for table in correct]
    return _compare(["a larger window buys accuracy"] * len(parts), estimand, parts, pairs, resamples, seed)


def _hints(part: pd.DataFrame, model: str, resamples: int, seed: int) -> list[dict]:
    """The hint against cutting at the same place, and against spending the same tokens: means over the windows."""
    controls = {"truncation": "cutting at the same place", "truncation_matched": "spending the same tokens"}
    windowed = problem_table(part, model, "shifted_window", "correct")
    overran = problem_table(part, model, "shifted_window", "overran").mean()
    often = list(overran.index[overran > OFTEN])
    if not often:
        return []
    pairs = []
    for control in controls:
        cut = problem_table(part, model, control, "correct")
        if set(windowed) != set(cut) or set(windowed.index) != set(cut.index):
            raise BadAnalysis(f"{model}: shifted_window and {control} have other windows or problems")
        pairs.append([one[often].mean(axis=1) for one in (windowed, cut.loc[windowed.index])])
    estimand = f"accuracy with it minus without, mean of windows {often[0]} to {often[-1]}"
    claims = [f"the hint helps against {words}" for words in controls.values()]
    return _compare(claims, estimand, [part, part], pairs, resamples, seed)


def _adaptivity(part: pd.DataFrame, model: str, resamples: int, seed: int) -> Iterator[dict]:
    """The two levels hold different problems, so each is drawn by itself."""
    rows = part[(part.model == model) & (part.policy == "unbounded")]
    if rows.level.nunique() < 2:
        return
    low, high = rows.level.min(), rows.level.max()
    ends = [rows[rows.level == level].groupby("problem_id").thinking_tokens.mean() for level in (low, high)]
    drawn = [bootstrap_means(tokens.to_numpy()[:, None], resamples, seed + i)[:, 0] for i, tokens in enumerate(ends)]
    ratio = percentile_interval(ends[1].mean() / ends[0].mean(), drawn[1] / drawn[0])
    estimand = f"thinking tokens at level {high} over level {low}, no window"
    verdict, n = decide_by_interval(ratio, 1.0), sum(map(len, ends))
    yield _row("thinking grows with complexity", estimand, part, n, ratio, "bootstrap", verdict)


def _efficiency(
    part: pd.DataFrame, subject: tuple[str, str], rival: tuple[str, str], resamples: int, seed: int
) -> list[dict]:
    accuracy, ratio, n = iso_accuracy_interval(part, subject, rival, resamples, seed)
    if not accuracy:  # one of the two gets nothing right
        return []
    estimand = f"thinking tokens of {subject[0]} over {rival[0]} at accuracy {accuracy:.2f}"
    fewer = {"supported": "refuted", "refuted": "supported"}  # the claim is "less than 1"
    verdict = decide_by_interval(ratio, 1.0)
    claim = "the same accuracy for fewer tokens"
    return [_row(claim, estimand, part, n, ratio, "paired bootstrap", fewer.get(verdict, verdict))]


def transfer_sets(frame: pd.DataFrame, profile: Profile) -> list[str]:
    """The problem sets that are neither code nor of the family trained on."""
    family = profile.curation.train_source.split("_")[0]
    sets = frame[frame.kind != "code"].problem_set.unique()
    return [name for name in sets if not name.startswith(family)]


def _transfer(frame: pd.DataFrame, model: str, profile: Profile, resamples: int, seed: int) -> list[dict]:
    """Tuned minus base on what is not of the family trained on, left alone; one family of tests."""
    sets = transfer_sets(frame, profile)
    if not {"base", model} <= set(profile.inference.models) or model == "base":
        return []
    parts = [frame[frame.problem_set == name] for name in sets]
    pairs = []
    for part in parts:
        tuned, base = (problem_table(part, who, "unbounded", "correct").iloc[:, 0] for who in (model, "base"))
        shared = tuned.index.intersection(base.index)
        pairs.append((tuned[shared], base[shared]))
    estimand = "accuracy of tuned minus base, no window"
    return _compare(["code teaches more than code"] * len(parts), estimand, parts, pairs, resamples, seed)


def claims_of_subsets(by_seed: dict[str, list[float]], problem_set: str, n: int, first: str) -> pd.DataFrame:
    """The paper's Table 2 at our scale: does `first` teach more than each other subset? t over trainings, Holm.

    `by_seed`: subset -> the accuracy of each of its trainings. Intervals over problems alone say nothing about a
    recipe, so the trainings are the sample; their spread is pooled over the two that are compared.
    """
    others = [name for name in by_seed if name != first]
    results = [tests.ttest_ind(by_seed[first], by_seed[name]) for name in others]
    corrected = correct_family([float(result.pvalue) for result in results])
    rows = []
    for name, result, p in zip(others, results, corrected):
        gain, ends = float(np.mean(by_seed[first]) - np.mean(by_seed[name])), result.confidence_interval()
        row = {
            "claim": f"{first} trajectories teach more than {name}",
            "estimand": "accuracy at the widest window, difference",
        }
        row |= {"problem_set": problem_set, "n": n, "seeds": len(by_seed[name]), "estimate": gain, "low": ends.low}
        rows.append(
            row | {"high": ends.high, "test": f"t over trainings, Holm: p = {p:.3f}", "verdict": decide(gain, p)}
        )
    return pd.DataFrame(rows, columns=COLUMNS)

"""A claim's verdict follows from the data: a planted effect is found, its opposite refuted, a null is not found."""

import numpy as np
import pandas as pd
import pytest

from tests.analysis.test_estimands import PROFILE, make_frame
from z1lib.analysis import claims, estimands, findings
from z1lib.stats import Interval

PLAN = {claim.id: claim for claim in estimands.read_plan()}
SEEDS = (0, 1, 2, 3, 4)
RUNS = [("full", "unbounded"), ("terse", "unbounded")]


def table(frame: pd.DataFrame) -> pd.DataFrame:
    found = claims.make_claims(estimands.measure(frame, PROFILE))
    return found.set_index(found.claim.str.partition(":")[0])


def noisy(shares: dict[str, float], spread: float = 0.03, of: int = 0):
    """Answers of each run with its chance of being right, which every training draws anew around the run's."""
    rng = np.random.default_rng(of)

    def right(run, level, **_):
        return rng.random(len(level)) < shares[run] + rng.normal(0, spread)

    return right


def ablation(full: float, terse: float, of: int = 0, **keys) -> pd.Series:
    right = noisy({"full": full, "terse": terse}, of=of)
    keys = {"seeds": SEEDS, "n": 200, **keys}
    return table(make_frame(right, pairs=RUNS, sets=["tracing"], **keys)).loc["F1"]


def test_a_planted_effect_is_supported_its_opposite_refuted():
    assert ablation(0.8, 0.4).verdict == "supported"
    assert ablation(0.4, 0.8).verdict == "refuted"


def test_a_planted_null_is_hardly_ever_supported():
    verdicts = [ablation(0.5, 0.5, of).verdict for of in range(40)]
    assert verdicts.count("supported") == 0  # with Holm over eight, 0.6% each


def test_a_recipe_that_varies_more_than_it_gains_is_undecided_and_the_test_says_what_it_could_have_seen():
    right = noisy({"full": 0.55, "terse": 0.45}, spread=0.2)
    row = table(make_frame(right, pairs=RUNS, sets=["tracing"], seeds=SEEDS, n=200)).loc["F1"]
    assert row.verdict == "undecided"
    seen = float(row.test.partition("80% power > ")[2])
    assert seen > row.estimate


def test_one_training_decides_nothing_and_has_its_interval_over_problems():
    row = ablation(0.9, 0.1, seeds=(0,))
    assert (row.verdict, row.seeds, row.test) == ("undecided", 1, "one training decides nothing")
    assert row.low < row.estimate < row.high


def test_a_claim_without_a_run_is_shown():
    found = table(make_frame(pairs=RUNS, sets=["tracing"]))
    assert list(found.columns) == claims.COLUMNS
    assert list(found.index) == list(PLAN)
    assert (found.loc["A"].verdict, found.loc["A"].n, found.loc["A"].seeds) == ("not run", 0, 0)
    assert np.isnan(found.loc["A"].estimate)


def everything(z1: float, rival: float, cost: float, of: int = 0) -> pd.DataFrame:
    """Both runs on the three families: accuracies at the top, and the subject's tokens as a share of the rival's."""
    rng = np.random.default_rng(of)

    def right(run, window, level, **_):
        top = {"z1": z1, "r1_plain": rival}[run] + rng.normal(0, 0.02)
        return rng.random(len(level)) < top * min(1, window / 256)

    def tokens(run, window, **_):
        return window * rng.normal(1, 0.02) * (cost if run == "z1" else 1)

    return table(make_frame(right, tokens, seeds=SEEDS, n=200))


def test_fewer_tokens_count_only_without_a_loss_of_accuracy():
    found = everything(0.8, 0.7, 0.6)
    assert found.loc[["B", "B'"]].verdict.tolist() == ["supported", "supported"]
    assert found.loc["B"].estimate < 0.6
    worse = everything(0.6, 0.75, 0.3)
    assert worse.loc[["B", "B'"]].verdict.tolist() == ["undecided", "refuted"]
    assert worse.loc["B"].test.endswith("does not count, B' is not supported")
    assert worse.loc["B"].high < 0.9


def test_more_tokens_are_refuted_as_fewer():
    assert everything(0.7, 0.7, 1.3).loc["B"].verdict == "refuted"


def test_holm_counts_the_claims_of_the_family_that_were_not_run():
    frame = make_frame(noisy({"full": 0.62, "terse": 0.5}), pairs=RUNS, sets=["tracing"], seeds=SEEDS, n=200)
    row, measured = table(frame).loc["F1"], estimands.measure(frame, PROFILE)["F1"]
    raw = claims.estimate_over_trainings(measured.by_training, measured.drawn).p_value(0.0)
    assert f"Holm of 8: p = {8 * raw:.3f}" in row.test


@pytest.mark.parametrize(
    ("claim", "ends", "p", "verdict"),
    [
        ("A", (0.05, 0.15), 0.001, "supported"),
        ("A", (0.05, 0.15), 0.06, "undecided"),  # after Holm
        ("A", (0.01, 0.02), 0.001, "refuted"),  # there, and too small
        ("A", (-0.05, 0.02), 0.4, "refuted"),
        ("A", (-0.05, 0.04), 0.4, "undecided"),
        ("C", (-0.30, -0.20), 0.001, "refuted"),  # an effect the other way
        ("C'", (-0.01, 0.01), 1.0, "refuted"),  # what is expected of the control
        ("B", (np.log(0.5), np.log(0.8)), 0.001, "supported"),
        ("B", (np.log(0.8), np.log(0.95)), 0.3, "undecided"),
        ("B", (np.log(0.95), np.log(1.2)), 0.01, "refuted"),
        ("B'", (-0.04, 0.2), 0.01, "supported"),
        ("B'", (-0.2, -0.06), 0.01, "refuted"),
        ("D", (-0.05, 0.05), 1.0, "refuted"),
    ],
)
def test_the_verdict_is_where_the_interval_lies_between_the_bounds(claim, ends, p, verdict):
    assert claims.decide(PLAN[claim], Interval(sum(ends) / 2, *ends), p) == verdict


def test_trainings_that_are_all_alike_on_problems_that_are_all_alike_decide_nothing():
    row = table(make_frame(lambda run, **_: float(run == "full"), pairs=RUNS, sets=["tracing"])).loc["F1"]
    assert row.estimate == 1
    assert row.verdict == "undecided"


def test_nothing_right_is_undecided_and_says_so():
    row = table(make_frame(lambda **_: 0.0)).loc["B"]
    assert (row.verdict, row.test) == ("undecided", "nothing is right, so there is no equal accuracy")


def seeds_of(shares: dict[str, float], seeds, of: int = 0, n: int = 200) -> pd.DataFrame:
    frame = make_frame(noisy(shares, of=of), pairs=RUNS, sets=["tracing"], seeds=seeds, n=n)
    return claims.list_seeds(estimands.measure(frame, PROFILE))


def test_every_training_has_its_line_in_the_table_of_seeds():
    found = seeds_of({"full": 0.7, "terse": 0.5}, SEEDS)
    assert list(found.columns) == claims.BY_SEED
    assert found.training_seed.tolist() == list(SEEDS)
    assert found.error.between(0.03, 0.07).all()  # of two shares of 200 problems


def test_one_more_training_is_held_against_the_published_ones():
    published = seeds_of({"full": 0.7, "terse": 0.5}, SEEDS)
    alike, other = (seeds_of({"full": full, "terse": 0.5}, (0,), of=9) for full in (0.7, 0.1))
    assert "F1, longer trajectories teach more" in findings.say_one_more(alike, published)
    assert "by 5 published ones: as expected" in findings.say_one_more(alike, published)
    assert "outside of it" in findings.say_one_more(other, published)
    assert findings.say_one_more(published, published) == ""


def test_fewer_problems_than_the_published_ones_widen_what_is_expected():
    published = seeds_of({"full": 0.7, "terse": 0.5}, SEEDS)

    def width(n: int) -> float:
        told = findings.say_one_more(seeds_of({"full": 0.7, "terse": 0.5}, (0,), n=n), published)
        low, high = told.partition("should lie in [")[2].partition("]")[0].split(", ")
        return float(high) - float(low)

    assert width(20) > 1.2 * width(200)

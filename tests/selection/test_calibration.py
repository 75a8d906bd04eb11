"""Thresholds: set for a cost or a risk on problems that are then not tested, and what they promise is kept."""

import numpy as np
import pandas as pd
import pytest

from z1lib.selection import AdaptiveVote, FirstConfident, Vote, calibrate, limit_risk, replay
from z1lib.selection.calibration import count_wrong_stops, find_safe
from z1lib.stats import BadAnalysis

COLUMNS = "model policy window problem_set level problem_id sample correct thinking_tokens total_tokens decoded_tokens"
COLUMNS += " overran no_answer before_correct answer kind score"


def make_pool(problems: int = 80, samples: int = 6, seed: int = 0) -> pd.DataFrame:
    """Samples whose scores tell right from wrong, but not always."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        ease = rng.beta(2, 2)
        for sample in range(samples):
            right, total = rng.random() < ease, int(rng.integers(20, 60))
            score = float(np.clip(rng.normal(0.7 if right else 0.4, 0.2), 0, 1).round(2))
            where = ("z1", "shifted_window", 64, "s", 1, f"p{problem}", sample)
            answer = "1" if right else str(rng.integers(2, 5))
            rows.append((*where, right, total, total, total, False, False, None, answer, "code", score))
    return pd.DataFrame(rows, columns=COLUMNS.split())


POOL = make_pool()
HELD = [f"p{i}" for i in range(40)]
REST = POOL[~POOL.problem_id.isin(HELD)]


def test_threshold_0_draws_one_and_one_above_every_score_draws_all():
    one = replay(POOL, FirstConfident(0.0, 6), "sample")
    assert (one.decoded_tokens.to_numpy() == POOL[POOL["sample"] == 0].total_tokens.to_numpy()).all()
    every = replay(POOL, FirstConfident(1.01, 6), "sample")
    assert (every.decoded_tokens == replay(POOL, Vote(6), "sample").decoded_tokens).all()


def test_a_budget_of_one_is_that_samples_grade():
    for rule in (Vote(1), FirstConfident(0.9, 1), AdaptiveVote(0.9, 1)):
        rows = replay(POOL, rule, "sample")
        assert (rows.correct.to_numpy() == POOL[POOL["sample"] == 0].correct.to_numpy()).all()


@pytest.mark.parametrize("rule", [FirstConfident(budget=6), AdaptiveVote(budget=6)])
@pytest.mark.parametrize("spend", [90, 120, 200])
def test_a_calibrated_rule_keeps_to_what_may_be_spent_and_the_next_threshold_would_not(rule, spend):
    fitted = calibrate(POOL, rule, HELD, spend)
    held = POOL[POOL.problem_id.isin(HELD)]
    level = getattr(fitted, rule.tuned)
    assert replay(held, type(rule)(level, 6), "sample").decoded_tokens.mean() <= spend
    levels = np.unique(held.score) if rule.tuned == "threshold" else np.linspace(0, 1, 201)
    higher = min(levels[levels > level], default=2.0)
    assert level == 2.0 or replay(held, type(rule)(higher, 6), "sample").decoded_tokens.mean() > spend


def test_what_is_fitted_on_is_not_tested():
    fitted = calibrate(POOL, FirstConfident(budget=6), HELD, 120)
    with pytest.raises(BadAnalysis, match="was fitted on 40 of these problems"):
        replay(POOL, fitted, "sample")
    assert len(replay(REST, fitted, "sample")) == 40


def test_a_budget_below_one_sample_is_refused_and_a_problem_that_is_not_there_is_named():
    with pytest.raises(BadAnalysis, match="costs more than 5 tokens"):
        calibrate(POOL, FirstConfident(budget=6), HELD, 5)
    with pytest.raises(BadAnalysis, match="1 problems are not in the pool, such as q1"):
        calibrate(POOL, FirstConfident(budget=6), ["q1"], 100)


def test_a_pool_with_a_score_that_is_none_is_refused():
    with pytest.raises(BadAnalysis, match="that of p0 is nan"):
        replay(POOL.assign(score=[float("nan"), *POOL.score[1:]]), FirstConfident(0.5, 6), "sample")


def test_the_risk_is_kept_in_as_many_splits_as_is_promised():
    """1,000 splits of a large pool: the share of all problems that stop early on a wrong answer."""
    pool, rule = make_pool(problems=1000, samples=4, seed=1), FirstConfident(budget=4)
    levels = np.append(np.arange(0.98, 0.3, -0.04), 0.0)
    stops = count_wrong_stops(pool, rule, np.append(2.0, levels))
    true, rng, broken, naive = stops.mean(axis=1), np.random.default_rng(0), 0, 0
    for _ in range(1000):
        split = stops[:, rng.integers(0, 1000, 150)]
        found = find_safe(split, risk=0.1, confidence=0.9)
        broken += found > 0 and true[found - 1] > 0.1
        naive += true[split.mean(axis=1) <= 0.1].max() > 0.1  # the lowest threshold that looks safe
    assert broken / 1000 <= 0.1
    assert naive / 1000 > 0.2


def test_the_rule_of_a_risk_stops_early_and_rarely_on_a_wrong_answer():
    pool = make_pool(problems=400, samples=4, seed=2)
    rule = limit_risk(pool, FirstConfident(budget=4), [f"p{i}" for i in range(200)], risk=0.15)
    rest = pool[pool.problem_id.isin([f"p{i}" for i in range(200, 400)])]
    rows, whole = replay(rest, rule, "sample"), replay(rest, Vote(4), "sample")
    early = rows.decoded_tokens < whole.decoded_tokens
    assert early.mean() > 0.2
    assert (early & ~rows.correct.astype(bool)).mean() < 0.15 + 0.08


def test_too_few_problems_show_no_risk():
    with pytest.raises(BadAnalysis, match="5 problems cannot show a risk of 0.05"):
        limit_risk(POOL, FirstConfident(budget=6), HELD[:5], risk=0.05)

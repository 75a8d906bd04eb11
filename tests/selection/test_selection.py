"""The rules, on candidates and on a small pool; the confidence stop again, written another way."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from z1lib.analysis.tables import with_rules
from z1lib.cost import Cost
from z1lib.grading import is_equivalent
from z1lib.selection import (
    AdaptiveVote,
    Anyone,
    BestOf,
    Candidate,
    FirstAgreeing,
    FirstConfident,
    Oracle,
    ShortestOf,
    Vote,
    WeightedVote,
    replay,
)
from z1lib.stats import BadAnalysis


def drawn(*answers: str | None, depths=None, scores=None) -> list[Candidate]:
    depths, scores = depths or [1] * len(answers), scores or [None] * len(answers)
    return [Candidate(answer, score, Cost(depth=depth)) for answer, score, depth in zip(answers, scores, depths)]


RULES = [Vote(5), FirstAgreeing(3, 5), FirstAgreeing(3, 5, votes=True), ShortestOf(2, 5), WeightedVote(5), BestOf(5)]
RULES += [FirstConfident(0.9, 5), AdaptiveVote(0.8, 5)]


@pytest.mark.parametrize("rule", RULES)
@settings(deadline=None)  # math-verify starts
@given(st.lists(st.sampled_from(["1", "2", "3", None]), min_size=5, max_size=5))
def test_a_rule_always_chooses_at_its_budget_and_never_chooses_twice_otherwise(rule, answers):
    choices = [rule.choose(drawn(*answers[:count])) for count in range(1, 6)]
    assert choices[-1] is not None
    assert all(choice is None or choice < count for count, choice in enumerate(choices, start=1))
    chosen = answers[choices[-1]]
    if chosen is None and (rule.name != "first_agreeing" or rule.votes):
        assert set(answers) == {None}


@pytest.mark.parametrize(
    ("answers", "index"),
    [
        (["1", "2", "2", "3"], 1),
        (["1", "2", "2", "1"], 0),  # a tie: the earliest
        ([None, None, None, "4"], 3),
        ([None, None, None, None], 0),
        (["1/2", "3", "0.5", "3"], 0),  # equal as the grader sees it
        (["3", "1/2", "4", "0.5"], 1),
    ],
)
def test_the_vote_goes_to_the_answer_of_most_and_the_earliest_of_a_tie(answers, index):
    assert Vote(4).choose(drawn(*answers)) == index
    assert Vote(5).choose(drawn(*answers)) is None


SCORES = st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.8, 1.0]), min_size=4, max_size=4)
ANSWERS = st.lists(st.sampled_from(["1", "2", None]), min_size=4, max_size=4)


@settings(deadline=None)
@given(ANSWERS, SCORES)
def test_the_rules_by_score_are_what_a_plain_reading_gives(answers, scores):
    rows = drawn(*answers, scores=scores)
    sums = {answer: sum(s for a, s in zip(answers, scores) if a == answer) for answer in answers if answer}
    winner = max(sums, key=lambda answer: (sums[answer], -answers.index(answer)), default=None)
    chosen = answers.index(winner) if winner else 0
    assert WeightedVote(4).choose(rows) == chosen
    given = [i for i in range(4) if answers[i] is not None] or list(range(4))
    assert BestOf(4).choose(rows) == max(given, key=lambda i: (scores[i], -i))
    first = [i for i in range(4) if answers[i] is not None and scores[i] >= 0.8]
    steps = [FirstConfident(0.8, 4).choose(rows[:count]) for count in range(1, 5)]
    assert next(step for step in steps if step is not None) == (first[0] if first else chosen)


@settings(deadline=None)
@given(ANSWERS, st.sampled_from([0.25, 0.5, 1.0]))
def test_with_equal_scores_or_none_a_weighted_vote_is_the_vote(answers, score):
    vote, weighted = Vote(4).choose(drawn(*answers)), WeightedVote(4)
    assert weighted.choose(drawn(*answers)) == weighted.choose(drawn(*answers, scores=[score] * 4)) == vote


@settings(deadline=None)
@given(ANSWERS, SCORES)
def test_a_monotone_map_of_scores_changes_neither_the_best_nor_where_the_mapped_threshold_stops(answers, scores):
    rows, mapped = drawn(*answers, scores=scores), drawn(*answers, scores=[score**3 for score in scores])
    assert BestOf(4).choose(rows) == BestOf(4).choose(mapped)
    for count in range(1, 4):
        first, second = FirstConfident(0.5, 4), FirstConfident(0.5**3, 4)
        assert first.choose(rows[:count]) == second.choose(mapped[:count])


@pytest.mark.parametrize(
    ("share", "settled"), [(0.5, 2), (0.6, 3), (0.7, 4), (1.1, 5)]
)  # scores .4 | .4 .4 | then "1": .9 of 1.7, ...
def test_the_adaptive_vote_stops_after_two_when_the_leaders_share_of_the_scores_is_reached(share, settled):
    rows = drawn("1", "2", "1", "1", "3", scores=[0.4, 0.4, 0.5, 0.6, 0.1])
    rule = AdaptiveVote(share, 5)
    counts = [count for count in range(1, 6) if rule.choose(rows[:count]) is not None]
    assert counts[0] == settled
    assert rule.choose(rows[:settled]) == 0


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.5])
def test_what_is_no_score_is_refused(score):
    with pytest.raises(ValueError, match="a score is from 0 to 1"):
        Candidate("1", score, Cost())


@pytest.mark.parametrize("make", [lambda: FirstConfident(-1.0), lambda: AdaptiveVote(float("nan")), lambda: BestOf(0)])
def test_a_threshold_is_a_number_and_a_budget_a_count(make):
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize(
    ("answers", "settled"),
    [
        (["1"], False),
        (["1", "1"], True),
        (["1", "2"], False),
        ([None, None], False),
        (["2", "1", "1"], True),
        (["0.5", "1/2"], True),
    ],
)
def test_it_is_settled_when_the_last_candidates_found_the_same_answer(answers, settled):
    assert FirstAgreeing(2, budget=10).choose(drawn(*answers)) == (len(answers) - 1 if settled else None)


def test_at_the_budget_without_agreement_it_is_the_last_or_the_vote():
    answers = drawn("1", "2", "1", None)
    assert FirstAgreeing(2, 4).choose(answers) == 3
    assert FirstAgreeing(2, 4, votes=True).choose(answers) == 0


def test_the_shortest_vote_among_themselves():
    answers = drawn("1", "2", None, "1", "2", depths=[9, 3, 1, 8, 4])
    assert ShortestOf(2, 5).choose(answers) == 1
    assert ShortestOf(4, 5).choose(answers) == 0  # two each: the earliest
    assert ShortestOf(9, 5).choose(drawn(None, None, None, None, None)) == 0


@pytest.mark.parametrize("make", [lambda: Vote(0), lambda: FirstAgreeing(0, 2), lambda: ShortestOf(0, 3)])
def test_a_rule_without_candidates_is_refused(make):
    with pytest.raises(ValueError, match="must be an integer of at least 1, got 0"):
        make()


def make_pool(seed: int = 0, problems: int = 40, samples: int = 2, kind: str = "math") -> pd.DataFrame:
    """Traces of random length that windows cut, answers of a few values."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        for sample in range(samples):
            length, last = int(rng.integers(1, 50)), rng.choice(["1", "0.5", "1/2", "2", None])
            for window in (10, 20, 30, 40):
                overran = length > window
                answer = rng.choice(["1", "0.5", "1/2", "2", None]) if overran else last
                total = window + int(rng.integers(2, 9)) if overran else length
                where = ("z1", "shifted_window", window, "s", 1, f"p{problem}", sample)
                counts = (min(length, window), total, total, overran, answer is None, None)
                rows.append((*where, answer == "1", *counts, answer, kind))
    columns = "model policy window problem_set level problem_id sample correct thinking_tokens total_tokens "
    columns += "decoded_tokens overran no_answer before_correct answer kind"
    return pd.DataFrame(rows, columns=columns.split())


def stopped(rows: list[dict], agreement: int) -> tuple:
    """The confidence stop, written plainly: probe, pay for the probe, stop when nothing changes or nothing is cut."""
    answers, spent = [], 0
    for row in rows:
        answers.append(None if pd.isna(row["answer"]) else row["answer"])
        last = answers[-agreement:]
        same = len(last) == agreement and None not in last and all(is_equivalent(one, last[-1]) for one in last)
        if not row["overran"] or same or row is rows[-1]:
            return row["correct"], row["thinking_tokens"], row["total_tokens"], row["total_tokens"] + spent
        spent += row["total_tokens"] - row["thinking_tokens"]


@pytest.mark.parametrize("agreement", [1, 2, 3])
def test_first_agreeing_along_windows_is_the_confidence_stop(agreement):
    pool = make_pool()
    given_back = replay(pool, FirstAgreeing(agreement), along="window").set_index(["problem_id", "sample"])
    assert set(given_back.policy) == {"first_agreeing"}
    assert set(given_back.window) == {40}
    columns = ["correct", "thinking_tokens", "total_tokens", "decoded_tokens"]
    for key, part in pool.groupby(["problem_id", "sample"]):
        assert tuple(given_back.loc[key, columns]) == stopped(part.to_dict("records"), agreement)


def test_all_windows_of_a_trace_cost_the_trace_once_and_every_answer():
    pool = make_pool(samples=1)
    rows = replay(pool, Vote(4)).set_index("problem_id")
    for name, part in pool.groupby("problem_id"):
        answers = (part.total_tokens - part.thinking_tokens)[part.overran].sum()
        ended = part.total_tokens.max() if part.overran.all() else part[~part.overran].total_tokens.iloc[0]
        trace = part.thinking_tokens.max() if part.overran.all() else ended
        assert rows.decoded_tokens[name] == trace + answers


def test_samples_are_paid_in_full_and_the_bounds_bound():
    pool = make_pool(samples=4)
    pool = pool[pool.window == 20]
    whole = pool.groupby("problem_id").total_tokens.sum()
    rules = [Vote(4), ShortestOf(2, 4), Oracle(4), Anyone(4)]
    vote, shortest, oracle, anyone = (replay(pool, one, "sample").set_index("problem_id") for one in rules)
    for rows in (vote, shortest, oracle, anyone):
        assert (rows.decoded_tokens == whole.reindex(rows.index)).all()
    assert (oracle.correct == pool.groupby("problem_id").correct.any().reindex(oracle.index)).all()
    assert anyone.correct.to_numpy() == pytest.approx(pool.groupby("problem_id").correct.mean()[anyone.index])
    assert (oracle.correct >= vote.correct).all()
    assert list(vote.reset_index().columns.sort_values()) == list(pool.columns.sort_values())


def test_orders_are_drawn_by_the_seed_and_the_first_is_the_stored_one():
    pool = make_pool(samples=4)
    pool = pool[pool.window == 20]
    rule = FirstAgreeing(2, 4)
    rows = replay(pool, rule, "sample", orders=5, seed=1)
    assert len(rows) == 5 * pool.problem_id.nunique()
    pd.testing.assert_frame_equal(rows, replay(pool, rule, "sample", orders=5, seed=1))
    one = replay(pool, rule, "sample")
    pd.testing.assert_frame_equal(rows[rows["sample"] == 0].reset_index(drop=True), one)
    assert not rows.decoded_tokens.equals(replay(pool, rule, "sample", orders=5, seed=2).decoded_tokens)


@pytest.mark.parametrize(("kind", "count"), [("math", 2), ("text", 3), ("code", 3)])
def test_answers_are_equal_as_their_kind_is_graded(kind, count):
    pool = make_pool(problems=1, samples=1, kind=kind).assign(overran=True, answer=["1/2", "0.5", "0.5 ", "x"])
    row = replay(pool, FirstAgreeing(2)).iloc[0]
    assert row.answer == pool.answer.iloc[count - 1 if kind != "code" else 3]


@pytest.mark.parametrize(
    ("change", "rule", "along", "words"),
    [
        (lambda pool: pool, Vote(5), "window", "needs 5 candidates, .* has 4 along window"),
        (lambda pool: pool.drop(index=0), Vote(4), "window", "has 3 along window"),
        (lambda pool: pool.assign(model=[*"ab"] * (len(pool) // 2)), Vote(2), "window", "one model"),
        (lambda pool: pool.assign(temperature=[0, 1] * (len(pool) // 2)), Vote(2), "window", "one temperature"),
        (lambda pool: pd.concat([pool, pool]), Vote(2), "window", "some twice"),
        (lambda pool: pool, Vote(2), "sample", "one window"),
        (lambda pool: pool, Vote(2), "width", "no 1 orders along 'width'"),
    ],
)
def test_a_pool_that_is_none_is_refused_with_a_reason(change, rule, along, words):
    with pytest.raises(ValueError, match=words):
        replay(change(make_pool()), rule, along)
    with pytest.raises(BadAnalysis, match="no 0 orders"):
        replay(make_pool(), Vote(2), orders=0)


def test_the_rules_of_a_study_look_at_their_windows_alone():
    pool = make_pool()
    frame = with_rules(pool, [10, 20, 40], FirstAgreeing(2))
    assert len(frame) == len(pool) + 80
    rows = replay(pool[pool.window != 30], FirstAgreeing(2, 3))
    pd.testing.assert_frame_equal(frame[frame.policy == "first_agreeing"].reset_index(drop=True), rows)
    assert frame.correct.dtype == bool
    with pytest.raises(ValueError, match=r"no window \[25\]"):
        with_rules(pool, [10, 25], FirstAgreeing(2, 2))

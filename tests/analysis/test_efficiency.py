"""Who spends tokens better, on curves made by hand."""

import pandas as pd
import pytest

from tests.analysis.test_analysis import frame_of, row
from z1lib.analysis import efficiency
from z1lib.stats import BadAnalysis

PAIR, RIVAL = ("z1", "shifted_window"), ("z1", "truncation")


def two_curves() -> pd.DataFrame:
    """Windows 4 and 16: the subject thinks them, the rival twice as long; both are right on a, then on a and b."""
    rows = [row(p, w, w) for p in "ab" for w in (4, 16)] + [
        row(p, w, 2 * w, "truncation") for p in "ab" for w in (4, 16)
    ]
    return frame_of(rows, {("a", 4), ("a", 16), ("b", 16)})


def test_efficiency_is_compared_pair_by_pair_on_what_both_cover():
    [found] = efficiency.compare_efficiency(two_curves(), PAIR, [RIVAL], "thinking_tokens", 200, 0).to_dict("records")
    assert (found["n"], found["from"], found["to"]) == (2, 8, 16)
    assert found["area of the subject"].estimate == pytest.approx((0.75 + 1) / 2)  # from 0.75 at 8 to 1 at 16, in log
    assert found["area"].estimate == pytest.approx((0.5 + 0.75) / 2)
    assert found["difference"].estimate == pytest.approx(0.25)
    assert found["of the subject"].estimate == 16  # of its best window, the second: 16 tokens an answer
    assert found["tokens per correct"].estimate == 32
    one = frame_of([row("a", 4, 4), row("a", 16, 16), row("a", 9, 9, "unbounded")], {("a", 16)})
    [found] = efficiency.compare_efficiency(one, PAIR, [("z1", "unbounded")], "thinking_tokens", 50, 0).to_dict(
        "records"
    )
    assert found["area"] == ""  # a single window is no curve
    assert str(found["tokens per correct"]) == "not reached"  # it never is


def test_the_front_holds_what_no_other_policy_beats_on_all_problems():
    frame = two_curves()
    best = efficiency.front(frame, [PAIR, RIVAL], "thinking_tokens")
    assert best[["policy", "window", "thinking_tokens", "accuracy", "n"]].to_numpy().tolist() == [
        ["shifted_window", 4, 4, 0.5, 2],
        ["shifted_window", 16, 16, 1, 2],
    ]
    few = frame[(frame.policy == "truncation") | (frame.problem_id == "a")]  # the subject answered one of two
    assert set(efficiency.front(few, [PAIR, RIVAL], "thinking_tokens").policy) == {"truncation"}


def test_pairs_that_share_no_problem_are_refused():
    apart = frame_of(
        [row("a", 4, 4), row("a", 8, 8), row("b", 4, 4, "truncation"), row("b", 8, 8, "truncation")], set()
    )
    with pytest.raises(BadAnalysis, match="have no problem in common"):
        efficiency.compare_efficiency(apart, PAIR, [RIVAL], "total_tokens", 50, 0)

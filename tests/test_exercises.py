"""The checks of the exercises pass what is right and say where the rest goes wrong."""

import pytest

from z1lib.exercises import check_budget_forcing
from z1lib.window import FREE, Step


def right(ids, window, delimiter, forced):
    if any(ids[i : i + 2] == delimiter for i in range(min(len(ids), window) - 1)):
        return FREE
    k = len(ids) - window
    if ids[:window][-1:] == delimiter[:1]:  # begun there: it is finished, not doubled
        forced = forced[1:]
    return Step(force=forced[k]) if 0 <= k < len(forced) else FREE


def doubles_a_delimiter_that_is_begun(ids, window, delimiter, forced):
    k = len(ids) - window
    done = right(ids, window, delimiter, forced) == FREE
    return FREE if done or not 0 <= k < len(forced) else Step(force=forced[k])


def forgets_that_it_was_closed(ids, window, delimiter, forced):
    k = len(ids) - window
    return Step(force=forced[k]) if 0 <= k < len(forced) else FREE


def counts_a_delimiter_behind_the_window(ids, window, delimiter, forced):
    return FREE if ids[: window + 1][-2:] == delimiter else right(ids, window, delimiter, forced)


def test_a_right_solution_passes():
    assert check_budget_forcing(right) == "right on 3000 random completions"


@pytest.mark.parametrize(
    "wrong",
    [
        forgets_that_it_was_closed,
        doubles_a_delimiter_that_is_begun,
        counts_a_delimiter_behind_the_window,
        lambda *_: FREE,
    ],
)
def test_a_wrong_solution_is_told_where(wrong):
    with pytest.raises(AssertionError, match=r"after \[.*\] the policy gives Step"):
        check_budget_forcing(wrong)

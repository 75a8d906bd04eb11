"""Drafts change nothing that is written: every policy, the sweep, samples, ends and hints inside a draft."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import encode
from z1lib.engines import load_engine
from z1lib.engines.base import Metered
from z1lib.engines.drafts import LONGEST, look_up
from z1lib.engines.sparse import Sparse
from z1lib.inference import generate, window_sweep
from z1lib.window import BudgetForcing, NoWait, ShiftedWindow, Truncation, Unbounded

PROMPTS = [encode(text * (1 + k % 3)) for k in range(16) for text in ("ab", "xyz ", "aabbab ", "q")]
POLICIES = [
    ShiftedWindow(12, "aba", 7), BudgetForcing(9, "!", 5, delimiter="a"), Truncation(14), Unbounded(40),
]  # fmt: skip


@pytest.fixture(scope="module")
def plain(tiny_model):
    return load_engine("transformers", tiny_model, dtype="float32")


def ids_of(rows) -> list[list[list[int]]]:
    return [[row.token_ids for row in own] for own in rows]


def drafting(model, count: int, **options):
    return load_engine("transformers", model, dtype="float32", draft_tokens=count, **options)


@pytest.mark.parametrize("count", range(1, 9))
@pytest.mark.parametrize("policy", POLICIES, ids=lambda one: one.name)
def test_greedy_ids_are_those_of_plain_decoding(tiny_model, plain, policy, count):
    metered = Metered(drafting(tiny_model, count))
    assert ids_of(generate(metered, PROMPTS, policy)) == ids_of(generate(plain, PROMPTS, policy))
    assert 0 < metered.cost.accepted < metered.cost.drafted


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_the_sweep_samples_and_branches_are_those_of_plain_decoding(tiny_model, plain, temperature):
    for engine in (drafting(tiny_model, 4), drafting(tiny_model, 4, batch_size=1)):
        for options in ({"hint": "aba", "max_answer_tokens": 6}, {"hint": "!"}):
            asked = {"n": 2, "temperature": temperature, "seed": 5} if temperature else {}
            found = window_sweep(engine, PROMPTS[:12], [3, 4, 5, 9, 16], **options, **asked)
            wanted = window_sweep(plain, PROMPTS[:12], [3, 4, 5, 9, 16], **options, **asked)
            assert {w: ids_of(rows) for w, rows in found.items()} == {w: ids_of(rows) for w, rows in wanted.items()}


def test_what_may_not_be_written_is_not_drafted_into_the_text(tiny_model, plain):
    policy = NoWait(20, "!", 9, words=("a", "b"))
    wanted = generate(plain, PROMPTS[:8], policy)
    found = generate(drafting(tiny_model, 4), PROMPTS[:8], policy)
    assert ids_of(found) == ids_of(wanted)


def test_what_is_paid_says_what_was_guessed_and_how_deep_it_was(tiny_model, plain):
    drafted, single = Metered(drafting(tiny_model, 4)), Metered(plain)
    for engine in (drafted, single):
        generate(engine, PROMPTS[:4], Unbounded(40))
    assert drafted.cost.decoded == single.cost.decoded == single.cost.depth
    assert drafted.cost.attended == single.cost.attended
    assert drafted.cost.depth == drafted.cost.decoded - drafted.cost.accepted


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 6))
def test_a_draft_is_what_came_behind_the_same_ids(ids, most):
    found = look_up(ids, most)
    assert len(found) <= most
    places = [
        (size, start)
        for size in range(1, LONGEST + 1)
        for start in range(len(ids) - size)
        if ids[start : start + size] == ids[len(ids) - size :]
    ]
    if places:
        size, start = max(places)
        assert found == ids[start + size :][:most]
    else:
        assert found == []


def test_drafts_that_cannot_be_are_refused(tiny_model):
    with pytest.raises(ValueError, match="draft_tokens must be an integer of at least 1"):
        drafting(tiny_model, 0)
    with pytest.raises(ValueError, match="take either them or a budget"):
        drafting(tiny_model, 2, attention=Sparse(64))

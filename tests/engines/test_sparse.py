"""A budget of positions: dense where it covers all, row by row the same in any batch, each selection written twice."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import encode
from z1lib.attention import UnsupportedModel
from z1lib.engines import load_engine, sparse
from z1lib.engines.base import Metered
from z1lib.engines.sparse import AHEAD, POSITIONS, Memory, Sparse, choose, predict
from z1lib.inference import generate, window_sweep
from z1lib.window import BudgetForcing, ShiftedWindow, Truncation, Unbounded

PROMPTS = [encode("abc " * k) for k in range(3, 9)]
SELECTS = ["ridge", "last", "now", "page", "window"]
POLICIES = [ShiftedWindow(12, "!", 5), BudgetForcing(12, "!", 5, delimiter="#"), Truncation(14), Unbounded(20)]
SMALL = {"budget": 12, "sinks": 2, "recent": 3, "history": 5}


def ids_of(rows) -> list[list[list[int]]]:
    return [[row.token_ids for row in own] for own in rows]


def engine_of(model, **options):
    return load_engine("transformers", model, dtype="float32", **options)


@pytest.mark.parametrize("select", SELECTS)
def test_a_budget_that_covers_everything_gives_the_dense_ids(tiny_model, select):
    dense, covered = engine_of(tiny_model), engine_of(tiny_model, attention=Sparse(4000, select))
    sampling = {"temperature": 1.0, "n": 2}
    for policy in POLICIES:
        found, wanted = (generate(engine, PROMPTS, policy, **sampling) for engine in (covered, dense))
        assert ids_of(found) == ids_of(wanted)
    swept, wanted = (window_sweep(engine, PROMPTS, [4, 8, 16], **sampling) for engine in (covered, dense))
    assert {window: ids_of(rows) for window, rows in swept.items()} == {
        window: ids_of(rows) for window, rows in wanted.items()
    }


@pytest.mark.parametrize("select", SELECTS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_is_the_same_in_any_batch_and_a_branch_is_its_own_decode(tiny_model, select, temperature):
    attention, sampling = Sparse(select=select, **SMALL), {"temperature": temperature, "seed": 3}
    engine, small = (engine_of(tiny_model, attention=attention, batch_size=size) for size in (None, 2))
    alone = ids_of([generate(engine, [prompt], Unbounded(24), **sampling)[0] for prompt in PROMPTS])
    assert ids_of(generate(engine, PROMPTS, Unbounded(24), **sampling)) == alone
    assert ids_of(generate(small, PROMPTS, Unbounded(24), **sampling)) == alone
    swept = window_sweep(engine, PROMPTS, [5, 9, 20], hint="!?", max_answer_tokens=6, **sampling)
    for window, rows in swept.items():
        assert rows == generate(engine, PROMPTS, ShiftedWindow(window, "!?", 6), **sampling)


class Scripted:
    """A stream of which a script says whether a choice is made when it is begun, or when it is asked for."""

    def __init__(self, late: bool):
        self.late, self.begun, self.taken = late, 0, 0

    def start(self, work):
        self.begun += 1
        return work if self.late else work()

    def take(self, begun):
        self.taken += 1
        return begun() if self.late else begun


@pytest.mark.parametrize("select", AHEAD)
@pytest.mark.parametrize("late", [False, True])
def test_a_step_ahead_or_in_line_the_ids_are_the_same(tiny_model, monkeypatch, select, late):
    engine = engine_of(tiny_model, attention=Sparse(select=select, **SMALL), batch_size=3)

    def decode():
        swept = window_sweep(engine, PROMPTS, [5, 9, 20], hint="!?", max_answer_tokens=6, temperature=1.0)
        return [ids_of(generate(engine, PROMPTS, policy)) for policy in POLICIES], swept

    in_line = decode()
    streams = []
    monkeypatch.setattr(
        "z1lib.engines.transformers.find_stream", lambda _: streams.append(Scripted(late)) or streams[-1]
    )
    assert decode() == in_line
    assert sum(stream.begun for stream in streams) > 100
    assert all(stream.begun - stream.taken <= 2 for stream in streams)  # a layer each, of the last step
    assert sparse.find_stream("cpu") is None


def test_a_small_budget_changes_what_is_written_and_is_named(tiny_model):
    dense = engine_of(tiny_model)
    for select in SELECTS:
        sparse = engine_of(tiny_model, attention=Sparse(select=select, **SMALL))
        assert sparse.arithmetic != dense.arithmetic
        assert select in sparse.arithmetic
        rows = [ids_of(generate(engine, PROMPTS, Unbounded(24), temperature=1.0)) for engine in (dense, sparse)]
        assert rows[0] != rows[1]


def choose_plainly(asked: Sparse, history, query, keys, visible, scaling) -> list[list[set[int]]]:
    """The positions, for every row and key head, written out: head by head and position by position."""
    found = []
    for row in range(len(keys)):
        last, group = int(visible[row].sum()) - 1, query.shape[1] // keys.shape[1]
        own = []
        for head in range(keys.shape[1]):
            wanted = [0.0] * (last + 1)
            for member in range(head * group, (head + 1) * group):
                asking = query[row, member]
                if asked.select == "last":
                    asking = history[row, -1, member]
                if asked.select == "ridge":
                    asking = predict(history[row, :, member], asked.ridge)
                reach = last if asked.select in AHEAD else last + 1  # chosen before the token's own key was there
                scores = [float(asking @ keys[row, head, :, place]) * scaling for place in range(reach)]
                if asked.select == "page":
                    pages = range(0, last + 1, POSITIONS)
                    bounds = []
                    for start in pages:
                        part = keys[row, head, :, start : min(start + POSITIONS, last + 1)]
                        best = torch.maximum(asking * part.amin(1), asking * part.amax(1))
                        bounds.append(float(best.sum()) * scaling)
                    whole = sum(math.exp(bound - max(bounds)) for bound in bounds)
                    shares = [math.exp(bound - max(bounds)) / whole for bound in bounds]
                    wanted = [a + shares[place // POSITIONS] for place, a in enumerate(wanted)]
                elif asked.select == "window":
                    wanted = [float(place) for place in range(last + 1)]
                else:
                    whole = sum(math.exp(score - max(scores)) for score in scores)
                    shares = [math.exp(score - max(scores)) / whole for score in scores]
                    wanted = [a + share for a, share in zip(wanted, [*shares, 0.0])]
            fixed = {p for p in range(last + 1) if p < asked.sinks or p >= last - asked.recent}
            others = sorted((p for p in range(last + 1) if p not in fixed), key=lambda p: -wanted[p])
            own.append(fixed | set(others[: max(0, asked.budget - len(fixed))]))
        found.append(own)
    return found


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(SELECTS), st.integers(0, 10**6))
def test_each_selection_agrees_with_its_second_writing_with_grouped_heads(select, seed):
    random = torch.Generator().manual_seed(seed)
    asked = Sparse(20, select, history=6, sinks=2, recent=3)
    keys = torch.randn(3, 2, 8, 50, generator=random)
    history, query = torch.randn(3, 6, 4, 8, generator=random), torch.randn(3, 4, 8, generator=random)
    visible = torch.arange(50) <= torch.tensor([49, 30, 12])[:, None]
    memory = Memory(asked, {0: history}, seen=[9, 9, 9])
    chosen, there = choose(memory, 0, query, keys, visible, 0.3)
    wanted = choose_plainly(asked, history, query, keys, visible, 0.3)
    for row in range(3):
        for head in range(2):
            found = chosen[row, head][there[row, head]].tolist()
            assert len(set(found)) == len(found)
            if select == "page":  # positions of a page are worth the same: which of the last page's is open
                assert len(set(found)) == len(wanted[row][head])
                assert {p for p in found if p < 2 or p >= int(visible[row].sum()) - 4} <= set(found)
            else:
                assert set(found) == wanted[row][head]


@given(st.integers(0, 1000))
@settings(deadline=None)
def test_a_history_that_is_exactly_linear_is_predicted(seed):
    random = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=random))
    steps = [torch.randn(4, generator=random)]
    for _ in range(16):
        steps.append(turn @ steps[-1])
    found = predict(torch.stack(steps[:-1])[None], ridge=1e-7)
    assert found[0].tolist() == pytest.approx(steps[-1].tolist(), abs=1e-4)


def test_what_is_read_and_what_is_scored_is_in_the_cost(tiny_model):
    assert Sparse(64).price(50, layers=30) == (50, 0)
    assert Sparse(64).price(164, layers=30) == (64, 164)
    assert Sparse(64, "window").price(164, layers=30) == (64, 0)
    assert Sparse(64, "page").price(160, layers=30) == (64, 20)
    assert Sparse(64, dense_layers=(0, 1)).price(164, layers=4) == (114, 82)
    metered = Metered(engine_of(tiny_model, attention=Sparse(select="last", **SMALL)))
    [[row]] = generate(metered, [PROMPTS[0]], Truncation(8))
    lengths = [len(PROMPTS[0]) + k for k in range(len(row.token_ids))]
    assert metered.cost.attended == sum(min(12, length) for length in lengths)
    assert metered.cost.scored == sum(length for length in lengths if length > 12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"budget": 12},
            "budget .its sinks, recent positions and the token itself, at least. must be an integer of at",
        ),
        ({"budget": 64, "history": 1}, "history must be an integer of at least 2"),
        ({"budget": 64, "ridge": 0.0}, "ridge must be above 0, got 0.0"),
        ({"budget": 64, "select": "best"}, "'best' is not one of ridge, last, now, page, window"),
    ],
)
def test_what_no_budget_can_be_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        Sparse(**options)


def test_another_engine_is_told_that_a_budget_is_not_its(tiny_model):
    with pytest.raises(ValueError, match="a budget of positions is of the transformers engine: 'vllm'"):
        load_engine("vllm", tiny_model, attention=Sparse(64))


def test_what_a_budget_cannot_be_given_to_is_refused(tiny_model, tmp_path):
    config = json.loads((Path(tiny_model) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"kv_lora_rank": 8}))
    with pytest.raises(UnsupportedModel, match="has latent attention, to which a budget cannot be given"):
        engine_of(str(tmp_path), attention=Sparse(64))
    engine = engine_of(tiny_model, attention=Sparse(select="last", **SMALL))
    engine.model.train()
    with pytest.raises(ValueError, match="this model is being trained"):
        generate(engine, PROMPTS, Unbounded(8))

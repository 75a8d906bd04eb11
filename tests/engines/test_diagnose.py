"""What a selection finds: all of it by the present query, no more mass than the best, by chance what chance gives."""

import pytest
import torch

from tests.conftest import encode
from z1lib.engines import load_engine
from z1lib.engines.diagnose import COLUMNS, diagnose, look
from z1lib.engines.sparse import Sparse
from z1lib.inference import generate
from z1lib.window import Unbounded

SELECTS = ["ridge", "last", "now", "page", "window"]
OPTIONS = {"sinks": 2, "recent": 3, "history": 5}


def test_the_present_query_finds_everything_and_nothing_has_more_mass(tiny_model):
    engine = load_engine("transformers", tiny_model, dtype="float32")
    prompts = [encode("abcd efgh " * k) for k in (3, 4)]
    rows = [row for [row] in generate(engine, prompts, Unbounded(20), temperature=1.0)]
    before = generate(engine, prompts, Unbounded(8))
    table = diagnose(engine, prompts, rows, [10, 20], SELECTS, **OPTIONS)
    assert table.columns.tolist() == COLUMNS
    assert diagnose(engine, prompts, rows, [10, 500], SELECTS, **OPTIONS).budget.unique().tolist() == [10]
    assert set(zip(table.layer, table["head"])) == {(0, 0), (1, 0)}
    assert (table.groupby(["layer", "select", "budget"]).tokens.sum() == 40).all()
    now = table[table["select"] == "now"]
    assert (now.recall == 1).all()
    assert now.mass.tolist() == pytest.approx(now.most.tolist())
    assert (table.mass <= table.most + 1e-6).all()
    assert (table.most <= 1 + 1e-6).all()
    assert generate(engine, prompts, Unbounded(8)) == before  # the engine decodes as it did


def test_among_random_keys_recency_finds_what_chance_does_and_repeated_queries_find_all():
    random = torch.Generator().manual_seed(0)
    key = torch.randn(2, 400, 8, generator=random)
    query = torch.randn(4, 400, 8, generator=random)
    asked = [Sparse(40, select, **OPTIONS) for select in ("window", "last")]
    rows = {row[2]: dict(zip(COLUMNS, row)) for row in look(0, query, key, 0.3, 100, asked) if row[1] == 0}
    assert rows["window"]["recall"] == pytest.approx(rows["window"]["chance"], abs=0.03)
    same = query[:, :1].expand(-1, 400, -1)
    [again, *_] = look(0, same, key, 0.3, 100, asked[1:])
    found = dict(zip(COLUMNS, again))
    assert found["recall"] == pytest.approx(1, abs=0.005)  # the last one does not see the token itself
    assert found["overlap"] > 0.95

"""The printed tables are whole, and say where they are from."""

import pytest

from z1lib import published

ROWS = {"main": 13, "data_ablation": 15, "scaling": 28, "trigrams": 26}


@pytest.mark.parametrize("table", ROWS)
def test_every_table_loads_whole_with_its_source(table):
    frame = published.load(table)
    assert len(frame) == ROWS[table]
    assert frame.attrs["source"].startswith("arXiv 2504.00810 v1, ")


def test_an_unknown_table_lists_those_there_are():
    with pytest.raises(ValueError, match="main, data_ablation, scaling, trigrams"):
        published.load("table9")


def test_the_headline_numbers_are_there():
    main = published.load("main").set_index("model")
    assert main.loc["Z1-7B", ["math500", "gpqa_diamond", "livecodebench", "bigcodebench_hard"]].tolist() == [
        76.4,
        47.5,
        35.3,
        22.3,
    ]

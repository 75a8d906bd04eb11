"""Subsets follow Table 2, trigrams are counted exactly, a released table says what the rows say."""

from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_profile
from z1lib import published
from z1lib.curation import figures, gather, pipeline, release, selection, statistics
from z1lib.curation.pipeline import Curated, Rejected, Row

TEXTS = st.lists(st.text("abc \n", max_size=40), max_size=8)


@given(TEXTS, st.integers(1, 3))
def test_trigrams_are_counted_exactly_and_span_no_two_texts(texts, least):
    plain: Counter = Counter()
    for text in texts:
        words = text.split()
        plain.update(" ".join(words[i : i + 3]) for i in range(len(words) - 2))
    expected = {trigram: count for trigram, count in plain.items() if count >= least}
    counted = statistics.count_trigrams(texts, least)
    assert counted.to_dict() == expected
    assert list(counted) == sorted(expected.values(), reverse=True)


def test_two_corpora_stand_side_by_side_and_their_contrast_is_signed():
    first = statistics.count_trigrams(["we need to sort", "we need to go", "a b c d"] * 9).rename("ours")
    second = statistics.count_trigrams(["we need to sort", "wait but the wait but the"] * 9).rename("theirs")
    table = statistics.compare_trigrams(first, second, top=3)
    assert list(table.columns) == ["ours", "ours count", "theirs", "theirs count"]
    assert table.iloc[0]["ours"] == "we need to"
    assert len(table) == 3
    contrast = statistics.contrast_trigrams(first, second, ranks=(0, 50), top=2)
    assert (contrast.log2_ratio.head(2) > 0).all()
    assert (contrast.log2_ratio.tail(2) < 0).all()
    assert contrast.loc["wait but the"].to_dict()["ours count"] == 0


@given(st.integers(0, 10**6))
def test_a_length_is_in_its_bin(tokens):
    low = statistics.length_bin(tokens)
    assert low == 0 == tokens or low <= tokens < 2 * low


def test_complexity_grows_with_what_a_question_says_and_not_with_repetition():
    question = "Write a function that returns the largest number of a list."
    longer = question + " It must also accept tuples, and raise TypeError for text."
    assert statistics.complexity(question) < statistics.complexity(longer)
    assert statistics.complexity(question * 10) < 2 * statistics.complexity(question)


def test_the_relation_of_length_and_complexity_is_by_rank():
    table = pd.DataFrame({"tokens": [10, 20, 30, 4000], "complexity": [1, 2, 3, 4], "level": [4, 3, 2, 1]})
    bins = statistics.relate(table)
    assert bins["bin"].tolist() == [8, 16, 2048]
    assert bins["examples"].tolist() == [1, 2, 1]
    assert bins.attrs == {"complexity": pytest.approx(1.0), "level": pytest.approx(-1.0)}


def test_the_subsets_of_table_2_keep_its_shares_and_the_order_of_its_means():
    printed = published.load("data_ablation")
    counts = [30 + (7 * i * i) % 4001 for i in range(3000)]
    table = statistics.describe_subsets(counts, printed)
    assert list(table.index) == list(printed["subset"].unique())
    shares = table["printed Mtokens"] / 124
    assert (table["share of tokens"] - shares).abs().max() < 0.01
    assert table["mean"].idxmax() == "longest"
    assert table["mean"].idxmin() == "shortest"
    assert table.loc["full", "examples"] == 3000


def test_a_subset_by_another_name_is_refused():
    with pytest.raises(ValueError, match="no subset 'random'; Table 2 has full, random-16k"):
        selection.select_subset([1, 2], "random")


def made(number: int, **values) -> Row:
    row = {
        "tokens": 100 * number + 1,
        "token_num_qwen": None,
        "level": 0,
        "source": "s",
        "truncated": None,
        "overlap": "",
    }
    return Row(f"r{number}", f"q{number} $a_b$", f"a{number}", position=number, **{**row, **values})


@pytest.fixture
def finished(tmp_path):
    rows = [made(1, token_num_qwen=100), made(2, truncated=True, overlap="math500/words"), made(3)]
    rejected = [Rejected("x", "rows.jsonl, row 4", "repetition", "loop", "", "q", "a")]
    chosen = [gather.to_trajectory(row, "z1") for row in rows[:2]]
    profile = make_profile("mini", runs={"z1": "lean"})
    release.write_release(tmp_path, profile, chosen, {"z1": Curated(rows, rejected)})
    return tmp_path


def test_the_released_table_has_the_released_columns_and_ours(finished):
    table = pd.read_parquet(finished / "sft.parquet")
    assert list(table.columns[:4]) == ["id", "question", "response", "token_num_qwen"]
    assert table["token_num_qwen"].isna().tolist() == [False, True]
    assert table["truncated"].isna().tolist() == [True, False]
    assert table["length_bin"].tolist() == [64, 128]
    assert table["overlap"].tolist() == ["", "math500/words"]
    assert not list(finished.glob("*.writing"))


def test_the_card_has_every_filter_with_its_thresholds_and_counts(finished):
    card = (finished / "DATASET_CARD.md").read_text()
    assert "2 examples from `tracing`" in card
    for name in pipeline.FILTERS:
        assert f"`{name}`" in card
    assert "| repetition      |         4 |      3 |         1 |  0.2500 | 1 loop |" in card
    assert "min_tokens 40, min_repeats 3, min_counted 10, loop_ratio 0.3, ngram 12" in card
    assert "| math500 | words  | kept    |      1 |" in card


def test_nothing_is_uploaded_without_the_flag(finished, monkeypatch, capsys):
    class Hub:
        calls: list[tuple] = []

        def __getattr__(self, name):
            return lambda *arguments, **values: self.calls.append((name, values.get("path_in_repo")))

    monkeypatch.setattr(release, "HfApi", Hub)
    assert release.main([str(finished)]) == 0
    assert Hub.calls == []
    assert "Reasoning trajectories" in capsys.readouterr().out
    assert release.main([str(finished), "--push-to-hub", "someone/something"]) == 0
    assert Hub.calls == [("create_repo", None), ("upload_file", "sft.parquet"), ("upload_file", "README.md")]


def test_a_folder_without_a_data_set_says_what_makes_it(tmp_path, capsys):
    assert release.main([str(tmp_path), "--push-to-hub", "someone/something"]) == 2
    assert "notebook 01_curation makes them" in capsys.readouterr().out


def test_the_figures_show_every_bin_and_trigram():
    bins = statistics.relate(pd.DataFrame({"tokens": [10, 20, 300], "complexity": [1, 2, 3], "level": 0}))
    assert len(figures.length_bins(bins).axes[0].patches) == 3
    contrast = pd.DataFrame({"log2_ratio": [2.0, -1.0]}, index=["costs $5 or $6", "iterate through the"])
    figure = figures.trigram_contrast(contrast, "a", "b")
    figure.canvas.draw()
    assert len(figure.axes[0].patches) == 2

"""The printed tables are whole, and say where they are from."""

import re

import pytest

from z1lib import published

ROWS = {"main": 13, "data_ablation": 15, "scaling": 28, "trigrams": 26, "errors": 8}


@pytest.mark.parametrize("table", ROWS)
def test_every_table_loads_whole_with_its_source(table):
    frame = published.load(table)
    assert len(frame) == ROWS[table]
    assert frame.source.str.match("arXiv 2504.00810 v1, .").all()


def test_what_the_neighbours_report_says_where_and_what_was_read_at_second_hand():
    frame = published.load("neighbours")
    assert set(frame.paper) == {"self_calibration", "diffcodegen", "asyncspade"}
    assert frame.source.str.len().min() > 0
    assert set(frame[frame.secondary].source) == set(frame.source) - {"arXiv 2503.00031 v1"}
    rows = frame[(frame.model == "Llama-3.1-8B") & (frame.benchmark == "MathQA")].set_index(["method", "measure"])
    assert rows["value"]["SC", "accuracy"] == 73.7
    assert rows["value"]["self-calibrated", "ECE"] == 8.64


def test_an_unknown_table_lists_those_there_are():
    with pytest.raises(ValueError, match="main, data_ablation, scaling, trigrams, errors, neighbours"):
        published.load("table9")


def test_the_headline_numbers_are_there():
    main = published.load("main").set_index("model")
    assert main.loc["Z1-7B", ["math500", "gpqa_diamond", "livecodebench", "bigcodebench_hard"]].tolist() == [
        76.4,
        47.5,
        35.3,
        22.3,
    ]


SCORES = ["math500", "gpqa_diamond", "livecodebench", "bigcodebench_hard"]


def test_the_errors_follow_from_the_printed_numbers():
    main, errors = published.load("main").set_index("model"), published.load("errors").set_index("id")
    averages = {"r1_full_average": "DeepSeek-R1", "s1_average": "s1.1-7B"}
    for error, model in averages.items():
        assert f"{main.loc[model, SCORES].mean():.1f}" == errors.follows[error]
        assert str(main.average_printed[model]) in errors.printed[error]
    r1 = main.loc["R1-Distill-Qwen-7B", SCORES]
    assert str(r1.math500) in errors.printed["r1_math500"]
    corrected = (r1.sum() - r1.math500 + float(errors.follows["r1_math500"])) / 4
    assert f"average is {corrected:.1f}" in errors.why["r1_math500"]
    assert corrected > main.average_printed["Z1-7B"]


def test_the_half_widths_follow_from_the_sample_sizes():
    said, z1 = (
        published.load("errors").set_index("id").follows["no_intervals"],
        published.load("main").set_index("model"),
    )
    widths = [float(number) for number in re.findall(r"(\d\.\d)(?: points)? on", said)]
    sizes = [("gpqa_diamond", 198), ("math500", 500), ("livecodebench", 880), ("bigcodebench_hard", 148)]
    for (benchmark, n), width in zip(sizes, widths, strict=True):
        share = z1[benchmark]["Z1-7B"] / 100
        assert 196 * (share * (1 - share) / n) ** 0.5 == pytest.approx(width, abs=0.06)


def test_the_printed_steps_fit_a_batch_of_256():
    assert published.load("errors").set_index("id").follows["global_batch"] == "256"
    assert 107_173 * 2 // 256 in (836, 837)
    assert 107_173 * 2 // 128 > 1_600


def test_the_iso_accuracy_ratios_of_the_papers_points():
    table = published.recompute_ratios(published.load("scaling")).set_index("benchmark")
    assert table.accuracy.to_dict() == {"livecodebench": 35.3, "gpqa_diamond": 35.4, "math500": 76.4}
    printed = {"livecodebench": 0.298, "gpqa_diamond": 0.303, "math500": 0.87}
    assert table.ratio.to_dict() == pytest.approx(printed, abs=0.005)


def test_the_points_of_figure_1_are_the_means_at_the_largest_windows():
    points = published.average_points(published.load("scaling"))
    assert points.average_thinking_tokens.round().to_dict() == {"Z1-7B": 1507, "R1-Distill-Qwen-7B": 3243}
    said = published.load("errors").set_index("id").why["thirty_percent"]
    assert f"1,507 against 3,243 tokens, which is {1507 / 3243:.0%}" in said
    scaling = published.load("scaling")
    best = scaling[scaling.model == "Z1-7B"].groupby("benchmark").pass_at_1.max()
    r1 = scaling[(scaling.model != "Z1-7B") & (scaling.pass_at_1 > scaling.benchmark.map(best))]
    assert "Three accuracies" in said
    assert all(str(accuracy) in said for accuracy in r1.pass_at_1)
    assert len(r1) == 3


def test_table_2_has_the_intervals_of_its_sample_sizes():
    table = published.printed_ablation(published.load("data_ablation")).set_index(["benchmark", "subset"])
    half = (table.high - table.low) / 2
    assert half.loc["gpqa_diamond"].between(6.3, 7.1).all()
    assert half.loc["livecodebench"].between(2.9, 3.3).all()
    assert half.loc["math500"].between(3.4, 4.4).all()
    longest = table.xs("longest", level="subset")
    assert 198 / 100 * longest["minus random-64k"]["gpqa_diamond"] == pytest.approx(1)  # one question
    assert f"{longest['minus random-64k'].mean():.1f}" == "0.6"  # of single rows; 0.7 is of rounded averages
    assert "is 0.6 points on average" in published.load("errors").set_index("id").why["no_intervals"]
    assert (longest["difference low"] < 0).all()  # on no benchmark is the longest shown to beat random
    assert (longest["difference high"] > 0).all()

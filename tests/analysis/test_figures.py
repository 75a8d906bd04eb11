"""The pictures hold what the tables hold: every n, the printed points, the stamp; colour is never alone."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from z1lib import plots, published
from z1lib.analysis import figures

BENCHMARKS = ["livecodebench", "gpqa_diamond", "math500"]


def frame_of(sets: dict[str, int], windows: tuple[int, ...] = (256, 512)) -> pd.DataFrame:
    """Every problem right at the last window alone."""
    rows = [
        {"model": "z1", "policy": "shifted_window", "window": w, "problem_set": name, "level": 1, "sample": 0,
         "problem_id": f"{name}{i}", "correct": w == windows[-1], "thinking_tokens": w, "total_tokens": w + 10,
         "decoded_tokens": w + 20}
        for name, count in sets.items() for i in range(count) for w in windows
    ]  # fmt: skip
    return pd.DataFrame(rows)


def labels(figure) -> list[str]:
    [legend] = figure.legends or [figure.axes[0].get_legend()]
    return [text.get_text() for text in legend.get_texts()]


def test_every_panel_has_its_own_n_and_the_printed_points_of_its_set():
    figure = figures.accuracy_curves(frame_of({"livecodebench": 3, "gpqa_diamond": 5, "math500": 7}), BENCHMARKS, 50, 0)
    assert len(figure.axes) == 4
    assert {"z1, shifted window", "Z1-7B, as printed"} < set(labels(figure))
    for axis, n in zip(figure.axes, (3, 5, 7, 15)):
        assert axis.get_title().endswith(f"(n={n})")
    printed = published.load("scaling")
    for axis, benchmark in zip(figure.axes, BENCHMARKS):
        part = printed[(printed.benchmark == benchmark) & (printed.model == "Z1-7B")]
        [line] = [line for line in axis.get_lines() if line.get_label() == "Z1-7B, as printed"]
        assert line.get_xdata().tolist() == part.average_thinking_tokens.tolist()
        assert line.get_ydata() == pytest.approx(part.pass_at_1 / 100)
        assert line.get_fillstyle() == "none"
    [mean] = [line for line in figure.axes[3].get_lines() if line.get_label() == "Z1-7B, as printed"]
    assert round(mean.get_xdata()[0]) == 1507  # the paper's Figure 1


def test_without_a_printed_counterpart_nothing_printed_is_drawn():
    tokens = figures.accuracy_curves(frame_of({"math500": 3}), ["math500"], 50, 0, tokens="decoded_tokens")
    ours = figures.accuracy_curves(frame_of({"tracing": 3}), ["tracing"], 50, 0)
    for figure in (tokens, ours):
        assert labels(figure) == ["z1, shifted window"]


def test_the_legend_lies_beside_the_panels_and_names_nothing_twice():
    figure = figures.accuracy_curves(frame_of({"tracing": 3, "first_hit": 5}), ["tracing", "first_hit"], 50, 0)
    figure.canvas.draw()
    [legend] = figure.legends
    box = legend.get_window_extent()
    assert not [axis for axis in figure.axes if axis.get_tightbbox().overlaps(box) or axis.get_legend()]
    assert len(labels(figure)) == len(set(labels(figure)))


@pytest.mark.parametrize("meaningless", [True, False])
def test_a_saved_figure_is_stamped_and_a_smoke_one_says_that_it_means_nothing(tmp_path, meaningless):
    figure = figures.overrun_by_window(summary(), "tracing")
    path = plots.save_figure(figure, tmp_path, "picture", "profile p, commit abc", meaningless)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    said = [text.get_text() for text in figure.texts]
    assert "profile p, commit abc" in said
    assert ("smoke run, numbers mean nothing" in said) == meaningless


def summary() -> pd.DataFrame:
    rows = [
        {"model": model, "policy": policy, "window": 16, "problem_set": "tracing", "level": "all", "n": 5,
         "accuracy": 0.4, "accuracy_low": 0.1, "accuracy_high": 0.8, "thinking_tokens": 9, "total_tokens": 9,
         "overrun_rate": 0.5}
        for model in ("base", "z1", "r1") for policy in ("shifted_window", "unbounded")
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_models_differ_in_more_than_colour():
    styles = plots.styles_of(summary()).values()
    assert len({marker for _, _, marker, _ in styles}) == len(styles)


def test_no_figure_is_left_open_for_pyplot_to_show_again():
    before = plt.get_fignums()
    figures.overrun_by_window(summary(), "tracing")
    assert plt.get_fignums() == before

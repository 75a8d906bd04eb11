"""How every picture and table of the study looks, is stamped, saved and shown; each wing has its own in figures.py."""

import re
from itertools import cycle
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from z1lib.study import Study

# Okabe-Ito colours, with markers and dashes of their own so that nothing depends on colour.
STYLES = {
    ("z1", "shifted_window"): ("#0072B2", "o", "-"),
    ("z1", "first_agreeing"): ("#CC79A7", "*", ""),
    ("z1", "truncation"): ("#56B4E9", "v", ":"),
    ("z1", "truncation_matched"): ("#009E73", "^", "--"),
    ("r1", "budget_forcing"): ("#D55E00", "s", "-"),
    ("s1", "budget_forcing"): ("#E69F00", "P", "-"),
    ("z1_think", "budget_forcing"): ("#E69F00", "p", "-"),
    ("r1_plain", "shifted_window"): ("#882255", "X", "-."),
    ("base", "shifted_window"): ("#666666", "D", "-."),
}
CONTROLS = re.compile("truncation|unbounded|hint: ")  # drawn for the models of STYLES alone
LABELS = {"truncation": "cut at the window", "truncation_matched": "cut at the same total"}
BENCHMARKS = {
    "gpqa_diamond": "GPQA Diamond",
    "livecodebench": "LiveCodeBench",
    "math500": "MATH-500",
    "bigcodebench_hard": "BigCodeBench-Hard",
    "humaneval": "HumanEval",
}
OTHER_STYLES = [("#882255", "X", "-"), ("#44AA99", "p", "--"), ("#999933", "h", "-."), ("#332288", "<", ":")]
sns.set_theme(style="whitegrid", context="paper", font_scale=1.1)


def make_axes(panels: int = 1, height: float = 3.6, width: float | None = None) -> tuple[Figure, list]:
    """Panels, two a row: one takes the width of a page's text, two that of a page of two columns."""
    columns = min(panels, 2)
    rows, width = -(-panels // 2), width or (5.5 if panels == 1 else 3.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained"
    )
    plt.close(figure)  # the caller shows it; pyplot must not show it a second time
    axes = list(axes.flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def legend_below(figure: Figure, axes: list) -> None:
    """One legend for all panels, below them and beside the stamp, over no point; a single panel has its own."""
    if len(axes) == 1:
        axes[0].legend(fontsize=8)
        return
    named = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels())}
    for axis in axes:
        if axis.get_legend():
            axis.get_legend().remove()
    figure.legend(named.values(), named.keys(), loc="outside lower left", ncols=2, fontsize=8)


def styles_of(table: pd.DataFrame) -> dict[tuple[str, str], tuple[str, str, str, str]]:
    """(model, policy) -> label, colour, marker, dashes: the table's pairs in STYLES, then its others.

    Controls of models that STYLES does not name are left out where the model has another line.
    """
    there = set(zip(table.model, table.policy))
    led = {model for model, policy in there if not CONTROLS.match(policy)}
    others = sorted(pair for pair in there - set(STYLES) if not CONTROLS.match(pair[1]) or pair[0] not in led)
    styles = {pair: style for pair, style in STYLES.items() if pair in there} | dict(zip(others, cycle(OTHER_STYLES)))
    named = {pair: LABELS.get(pair[1], pair[1].replace("_", " ")) for pair in styles}
    return {pair: (f"{pair[0]}, {named[pair]}", *style) for pair, style in styles.items()}


RUN_STYLES = [("o", "#0072B2", "-"), ("s", "#D55E00", "--"), ("^", "#009E73", "-."), ("D", "#666666", ":")]


def save_figure(figure: Figure, folder: Path, name: str, stamp: str = "", meaningless: bool = False) -> Path:
    """Save as PNG and PDF (a page's text is 5.5 inches wide), with a stamp under the picture: what its data are of.

    Where the numbers mean nothing the picture says so across it. n stands in the legend or the title.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure.text(1, -0.01, stamp, ha="right", va="top", fontsize=7, color="0.4")
    if meaningless:
        figure.text(0.5, 0.5, "smoke run, numbers mean nothing", ha="center", va="center", fontsize=20,
                    color="crimson", alpha=0.5, rotation=20)  # fmt: skip
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=150, bbox_inches="tight")
    figure.savefig(path.with_suffix(".pdf"), bbox_inches="tight", metadata={"CreationDate": None})
    return path


def show_figure(figure: Figure, study: Study, name: str, caption: str, printed: bool = False) -> None:
    """Save a figure of a study and show it with its caption; `printed`: of what the paper printed, not of ours."""
    ours = {} if printed else {"stamp": _stamp(study), "meaningless": study.profile.is_meaningless}
    save_figure(figure, study.figures, name, **ours)
    display(figure, Markdown(f"*Figure `{name}`.* {caption}"))


def _stamp(study: Study) -> str:
    return f"profile {study.profile.name}, commit {study.data_commit()}"


def to_latex(table: pd.DataFrame, note: str) -> str:
    """A table as LaTeX, its caption with the characters escaped that mean something there."""
    for special in "\\%_&#$":
        note = note.replace(special, r"\textbackslash{}" if special == "\\" else f"\\{special}")
    return table.to_latex(index=False, float_format="%.2f", escape=True, caption=note.replace("`", "'"))


def show_table(table: pd.DataFrame, study: Study, name: str, caption: str, printed: bool = False) -> None:
    """Show a table with its caption, and save it as LaTeX and Markdown beside the figures; `printed` as above."""
    folder = study.figures / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    note = caption if printed else f"{caption} {_stamp(study).capitalize()}."
    (folder / f"{name}.md").write_text(f"{table.to_markdown(index=False, floatfmt='.2f')}\n\n{note}\n")
    (folder / f"{name}.tex").write_text(to_latex(table, note))
    display(table.style.format(precision=2).hide(axis="index"), Markdown(f"*Table `{name}`.* {caption}"))

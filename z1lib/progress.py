"""Bars for long work: a widget where a notebook is watched, a bar on a terminal, plain lines where nobody draws.

papermill logs the first text of a widget and never another, so `terminal.run_stage` asks its kernels for lines.
"""

import os

from tqdm.auto import tqdm as drawn
from tqdm.std import tqdm

SECONDS = "Z1_PROGRESS_SECONDS"  # in the environment: lines instead of bars, with so many seconds between them
MARK = "progress: "  # what such a line begins with
FORMAT = "{desc}: {percentage:.0f}%, {n_fmt} of {total_fmt}{postfix}, {remaining} left"


class _Lines:
    """A file for what tqdm would draw over and over in one place."""

    def write(self, text: str) -> None:
        if text := text.strip():
            print(MARK + text, flush=True)

    def flush(self) -> None:
        pass


def bar(iterable=None, **options) -> tqdm:
    """tqdm's bar over `iterable`, or one that is updated by hand; `options` are tqdm's."""
    if seconds := os.environ.get(SECONDS):
        return tqdm(iterable, file=_Lines(), mininterval=float(seconds), miniters=1, bar_format=FORMAT, **options)
    return drawn(iterable, **options)

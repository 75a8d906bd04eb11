"""What one sees of a training run while it goes: a log file, a bar, in a notebook a loss curve that grows."""

import json
import time
from pathlib import Path

from IPython import get_ipython
from IPython.display import display
from transformers import TrainerCallback

from z1lib.progress import bar
from z1lib.sft import figures

LOG = "log.jsonl"  # beside the checkpoints; training.json keeps its rows when the model is done
REDRAW_SECONDS = 10


class Live:
    """A bar with loss, response tokens a second if known, and the time left; in a notebook the loss curve under it."""

    def __init__(self, name: str, steps: int, log: list[dict] = ()):
        """`log` holds the rows of the steps that are done already."""
        self.name, self.log = name, list(log)
        self.bar = bar(total=steps, initial=len(self.log), desc=f"{name}: steps")
        self.handle = display(display_id=True) if get_ipython() else None
        self.drawn = time.monotonic()

    def add(self, row: dict) -> None:
        self.log.append(row)
        shown = {"loss": f"{float(row['loss']):.3f}"}
        if rate := row.get("response_tokens_per_second"):
            shown["response tok/s"] = f"{rate:.0f}"
        self.bar.set_postfix(shown, refresh=False)
        self.bar.update()
        if time.monotonic() - self.drawn > REDRAW_SECONDS:
            self.draw()

    def follow(self, file: Path) -> None:
        """Add the rows that another process has written to the log file since the last look."""
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        for line in lines[len(self.log) :]:
            if line.endswith("\n"):  # else it is still being written
                self.add(json.loads(line))

    def draw(self) -> None:
        if self.handle and self.log:
            self.handle.update(figures.training_loss({self.name: self.log}))
        self.drawn = time.monotonic()

    def close(self, log: list[dict] = ()) -> None:
        """`log`: all rows, for a watcher that may have missed the last ones."""
        for row in log[len(self.log) :]:
            self.add(row)
        self.draw()
        self.bar.close()


class Progress(TrainerCallback):
    """Writes the log file, a row a step, and shows it; on the first process alone."""

    def on_train_begin(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            folder = Path(args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            rows = [row for row in state.log_history if "loss" in row]  # on a resumed run: up to its checkpoint
            self.file = folder / LOG
            self.file.write_text("".join(json.dumps(row) + "\n" for row in rows))
            self.live = Live(folder.name.split(".")[0], state.max_steps, rows)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "loss" in (logs or {}):
            row = state.log_history[-1]
            with open(self.file, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.live.add(row)

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            self.live.close()

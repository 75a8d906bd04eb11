"""What the terminal shows of a stage: how far it is, what was kept, and nothing else."""

import json
import os
import subprocess
import sys

import pytest

from z1lib.files import Busy, exclusive
from z1lib.pages import terminal
from z1lib.pages.terminal import run_stage
from z1lib.profile import load_profile
from z1lib.progress import MARK, SECONDS

BARS = """
from z1lib.progress import bar
with bar(total=4, desc="z1: steps") as steps:
    for i in range(4):
        steps.set_postfix({"loss": i}, refresh=False)
        steps.update()
"""


def test_a_run_of_an_older_layout_is_told_from_a_new_one(tmp_path):
    file = tmp_path / "provenance.json"
    assert not terminal.is_of_older_layout(file)
    for stage, older in (({"commit": "abc"}, True), ({"commit": "abc", "code": "def"}, False)):
        file.write_text(json.dumps({"stages": {"01_curation": stage}}))
        assert terminal.is_of_older_layout(file) == older


def test_a_stage_that_another_process_runs_is_refused_and_its_log_left_alone(tmp_path):
    profile = load_profile("smoke")
    log = tmp_path / "smoke/01_curation.log"
    log.parent.mkdir()
    log.write_text("the other's\n")
    with exclusive(tmp_path / "smoke/01_curation"), pytest.raises(Busy, match="is being written by process"):
        run_stage("01_curation", profile, tmp_path)
    assert log.read_text() == "the other's\n"


def test_where_nobody_draws_a_bar_is_lines_that_move():
    command = [sys.executable, "-c", BARS]
    run = subprocess.run(command, env={**os.environ, SECONDS: "0"}, capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert all(line.startswith(f"{MARK}z1: steps: ") for line in lines)
    assert list(dict.fromkeys(line.split()[3] for line in lines[1:])) == ["25%,", "50%,", "75%,", "100%,"]
    assert "3 of 4, loss=2, " in lines[3]
    assert run.stderr == ""


def follow(lines: list[str], **options) -> None:
    seen = terminal.Terminal("02_sft", **options)
    for line in lines:
        seen.show(line)
    seen.close()


def test_the_terminal_writes_over_one_line_and_elsewhere_there_is_a_line_a_minute(capsys, monkeypatch):
    lines = ["a notebook's own output\n", f"{MARK}z1: 5%\n", f"{MARK}z1: 10%\n"]
    follow(lines)
    assert capsys.readouterr().out == "02_sft: z1: 5%\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    follow(lines)
    assert capsys.readouterr().out == "\r02_sft: z1: 5%\r02_sft: z1: 10%\n"


def test_who_asks_for_everything_sees_everything(capsys):
    follow(["anything\n"], verbose=True)
    assert capsys.readouterr().out == "anything\n"


def test_what_is_kept_is_the_last_checkpoint_else_the_completions(tmp_path):
    assert terminal.say_kept(tmp_path) == ""
    (tmp_path / "completions.partial.jsonl").write_text("{}\n{}\n")
    assert terminal.say_kept(tmp_path) == "2 completions are kept"
    for step in (60, 120):
        (tmp_path / f"models/z1.checkpoints-ab/checkpoint-{step}").mkdir(parents=True)
    assert terminal.say_kept(tmp_path) == "z1: step 120 is kept"


def test_before_a_stage_stands_what_it_took_where_that_is_known():
    said = terminal.say_expected("02_sft", load_profile("mini"))
    assert said.endswith(" GiB when it was published, on 2 cores")
    assert terminal.say_expected("02_sft", load_profile("paper")) == ""

"""One's own model in one line: what comes out, that it goes on, and what is said of a wrong use."""

import json

import pandas as pd
import pytest

from z1lib.analysis.tables import SUMMARY
from z1lib.eval.__main__ import main
from z1lib.eval.compare import compare, read_run
from z1lib.files import read_jsonl
from z1lib.records import Completion, Grade

ROWS = [{"id": f"q{i}", "prompt": f"What is {i} + 2?", "kind": "math", "reference": str(i + 2)} for i in range(6)]


@pytest.fixture
def problems(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return file


@pytest.fixture
def evaluated(tiny_model, problems, tmp_path):
    """Run it with these options; returns its exit code and folder."""

    def run(name: str = "out", **options) -> tuple[int, object]:
        given = {"model": tiny_model, "problems": problems, "windows": "4,8", "max-answer-tokens": 4, **options}
        words = [word for key, value in given.items() for word in (f"--{key}", str(value))]
        return main([*words, "--out", str(tmp_path / name)]), tmp_path / name

    return run


def test_a_file_of_four_keys_gives_a_curve_with_intervals_and_a_figure(evaluated, capsys):
    code, out = evaluated()
    assert code == 0
    printed = capsys.readouterr().out
    assert "6 of 6 problems; right at window 4: " in printed
    assert "| problem_set" in printed
    summary = pd.read_csv(out / "summary.csv")
    assert list(summary.columns) == SUMMARY
    assert set(summary.problem_set) == {"mine"}
    assert list(summary[summary.level == "all"].window) == [4, 8]
    assert len(read_jsonl(out / "completions.jsonl", Completion)) == len(read_jsonl(out / "grades.jsonl", Grade)) == 12
    assert (out / "accuracy_by_total.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_command_goes_on_and_decodes_nothing_twice(evaluated, monkeypatch):
    _, out = evaluated()
    before = (out / "completions.jsonl").read_text()
    rows = (out / "completions.partial.jsonl").read_text().splitlines(keepends=True)
    (out / "completions.partial.jsonl").write_text("".join(rows[:-2]))  # as a kill would have left it
    decoded = []
    decode = "z1lib.engines.transformers.TransformersEngine.decode"
    plain = __import__("z1lib.engines.transformers", fromlist=["_"]).TransformersEngine.decode
    monkeypatch.setattr(decode, lambda self, asked: (decoded.append(len(asked)), plain(self, asked))[1])
    assert evaluated()[0] == 0
    assert decoded == [1]
    assert (out / "completions.jsonl").read_text() == before


def test_two_runs_are_compared_window_by_window_on_the_same_problems(evaluated, capsys):
    _, first = evaluated("first")
    code, second = evaluated("second", policy="truncation", compare=first)
    assert code == 0
    printed = capsys.readouterr().out
    assert " difference " in printed
    assert "both reach" in printed
    first, second = read_run(first), read_run(second)
    table = compare(second, first)
    assert list(table.window) == [4, 8]
    assert (table.n == 6).all()
    assert (compare(first, first).difference == 0).all()


def test_samples_are_chosen_among_by_a_rule(evaluated):
    code, out = evaluated(n=3, temperature=0.9, rule="vote")
    assert code == 0
    whole = pd.read_csv(out / "summary.csv").query("level == 'all'")
    assert whole.groupby("policy").n.first().to_dict() == {"shifted_window": 18, "vote": 6}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"windows": "8,4"}, "windows must rise and not repeat, got [8, 4]"),
        ({"windows": "4,99999"}, "do not fit the model's context of 4096; lower the window"),
        ({"n": 2}, "--n 2 at temperature 0 gives the same answer each time"),
        ({"rule": "vote"}, "--rule vote chooses among samples"),
        ({"rule": "best"}, "no rule 'best'; there are vote, "),
        ({"policy": "windows"}, "no policy 'windows'; there are shifted_window"),
        ({"problems": "humanevil"}, "no problems 'humanevil': name a .jsonl file, or one of math500"),
        ({"problems": "absent.jsonl"}, "absent.jsonl"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"engine": "server"}, "--engine server needs --base-url"),
        ({"model": "nobody/absent"}, "nobody/absent is not in the local cache and cannot be fetched"),
        ({"model": "."}, ". is no model: it has no config.json"),
    ],
)
def test_a_wrong_use_is_one_line_that_says_what_to_do(evaluated, capsys, monkeypatch, options, said):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    code, _ = evaluated(**options)
    printed = capsys.readouterr().err.strip().splitlines()
    assert code == 2
    assert len([line for line in printed if said in line]) == 1
    assert "Traceback" not in "".join(printed)


def test_a_row_with_a_wrong_key_names_file_line_and_key(evaluated, problems, capsys):
    problems.write_text(json.dumps({**ROWS[0], "answer": "2"}) + "\n")
    assert evaluated()[0] == 2
    assert "mine.jsonl, line 1: Problem: unknown key 'answer'" in capsys.readouterr().err


def test_a_folder_that_holds_another_run_says_which_key_differs(evaluated, capsys):
    evaluated()
    assert evaluated(windows="4")[0] == 2
    assert "holds another run: windows is [4, 8] there, [4] here" in capsys.readouterr().err


def test_runs_on_other_problems_are_not_compared(evaluated, capsys):
    _, first = evaluated("first", limit=4)
    assert evaluated("second", compare=first)[0] == 2
    assert "hold other problems: 2 are in one alone, such as 'q4'" in capsys.readouterr().err


def test_an_unfinished_run_is_not_compared(evaluated, tmp_path, capsys):
    assert evaluated(compare=tmp_path / "absent")[0] == 2
    assert "absent holds no finished run" in capsys.readouterr().err

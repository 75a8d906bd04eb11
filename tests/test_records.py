"""Rows on disk: whole or absent, and errors that say where."""

import json
import os
import signal
import subprocess
import sys

import pytest

from z1lib.files import BadRecord, Busy, Journal, exclusive, read_jsonl, write_jsonl
from z1lib.records import Grade, Problem

PROBLEM = {"id": "a", "prompt": "p", "kind": "math", "reference": "1", "level": 1, "source": "s"}


def write_lines(path, *rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_survive_the_round_trip(tmp_path):
    rows = [Problem(**PROBLEM), Problem(**{**PROBLEM, "id": "b", "prompt": 'é "quoted"\nline'})]
    assert read_jsonl(write_jsonl(tmp_path / "x.jsonl", rows), Problem) == rows


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": "a", "pro', "line 2: not valid JSON"),
        ({**PROBLEM, "id": ""}, "line 2: Problem: key 'id' should have at least 1 character"),
        ({key: value for key, value in PROBLEM.items() if key != "id"}, "line 2: Problem: key 'id' is missing"),
        ({**PROBLEM, "colour": 1}, "unknown key 'colour'"),
        ({**PROBLEM, "level": "3"}, "key 'level' should be a valid integer, got '3'"),
        ({**PROBLEM, "level": True}, "key 'level' should be a valid integer, got True"),
        ({**PROBLEM, "prompt": None}, "key 'prompt' should be a valid string, got None"),
        ({**PROBLEM, "kind": "poem"}, "key 'kind' should be 'math', 'choice', 'code' or 'text', got 'poem'"),
        ([1], "expected a JSON object"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_key(tmp_path, row, message):
    path = write_lines(tmp_path / "x.jsonl", PROBLEM, row)
    with pytest.raises(BadRecord, match=message) as error:
        read_jsonl(path, Problem)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "a", "prompt": "q", "kind": "text", "reference": "1"}', "line 2: id 'a' is also that of line 1"),
        ('{"id": "b", "id": "c", "prompt": "q", "kind": "text", "reference": "1"}', "key 'id' stands there twice"),
    ],
)
def test_an_id_or_a_key_that_is_there_twice_is_named(tmp_path, line, said):
    file = tmp_path / "problems.jsonl"
    file.write_text('{"id": "a", "prompt": "q", "kind": "text", "reference": "1"}\n' + line + "\n")
    with pytest.raises(BadRecord, match=said):
        read_jsonl(file, Problem)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", [Problem(**PROBLEM)])
    before = path.read_text()
    with pytest.raises(TypeError):
        write_jsonl(path, [Problem(**PROBLEM), "not a row"])
    assert path.read_text() == before


def test_a_journal_keeps_whole_rows_and_drops_a_line_cut_by_a_kill(tmp_path):
    grade = Grade("p", True, "1", "rule", None, key="k1")
    Journal(tmp_path / "x.jsonl", Grade).append([grade])
    with open(tmp_path / "x.jsonl", "a") as file:
        file.write('{"problem_id": "q", "corr')
    journal = Journal(tmp_path / "x.jsonl", Grade)
    assert journal.rows == {"k1": grade}
    journal.append([Grade("q", False, None, "none", "no answer", key="k2")])
    assert set(Journal(tmp_path / "x.jsonl", Grade).rows) == {"k1", "k2"}


def test_two_writers_do_not_meet(tmp_path):
    busy = pytest.raises(Busy, match=f"x is being written by process {os.getpid()}")
    with exclusive(tmp_path / "x"), busy, exclusive(tmp_path / "x"):
        pass
    with exclusive(tmp_path / "x"):
        pass


HOLDER = """
import os, sys, time
from pathlib import Path
from z1lib.files import exclusive
with exclusive(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_killed_process_leaves_no_lock_with_the_child_it_forked(tmp_path):
    """datatrove's executor forks one that outlives a kill of its parent."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "x")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        child = int(holder.stdout.readline())
        with pytest.raises(Busy, match=f"by process {holder.pid}"), exclusive(tmp_path / "x"):
            pass
        holder.kill()
        holder.wait()
        with exclusive(tmp_path / "x"):
            os.kill(child, signal.SIGKILL)  # it was there until now

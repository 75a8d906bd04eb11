"""What programs do is seen once: a killed run goes on, a sample keeps its verdict, and the bed's truth is known."""

from dataclasses import replace

import pytest

from z1lib.inference import programs
from z1lib.profile import load_profile
from z1lib.records import Completion, Grade
from z1lib.study import Study

SMALL = load_profile("smoke", inference={"programs": {"problems": 1, "makers": ["hypothesis", "examples"]}})
[ASKED] = programs.make_problems(1)
SAMPLE = Completion("x", "m", "shifted_window", 9, 0, 0, 1, 1, 0, 0, 0, False, "stop", "", "", [1], "k0")


def grade(key: str, program: str | None, correct: bool) -> Grade:
    return Grade(ASKED.id, correct, program, "fenced", None if correct else "wrong", key)


@pytest.fixture(scope="module")
def samples():
    rows = [replace(SAMPLE, problem_id=ASKED.id, sample=i, key=f"k{i}") for i in range(3)]
    solution = programs.find_solution(ASKED)
    return rows, [grade("k0", None, False), grade("k1", solution, True), grade("k2", solution, True)]


def test_samples_and_bed_are_seen_and_a_killed_run_goes_on(samples, tmp_path):
    study = Study(SMALL, tmp_path)
    found = programs.observe_study(study, [ASKED], *samples)
    bed, drawn = ([row for row in found if bool(row.model) == own] for own in (False, True))
    assert [row.maker for row in bed if row.kind == "right"] == ["hypothesis", "examples"]
    assert [(row.key, row.kind) for row in drawn] == [("k0", "wrong"), ("k1", "right"), ("k2", "right")]
    assert not any(drawn[0].outcomes)  # no program was found
    assert drawn[1].outcomes == drawn[2].outcomes
    assert all(row.outcomes != bed[0].outcomes for row in bed[1:] if row.maker == "hypothesis")
    stored = study.path("behaviours.partial.jsonl")
    stored.write_bytes(b"".join(stored.read_bytes().splitlines(keepends=True)[:-1]))
    assert [replace(row, seconds=0.0) for row in programs.observe_study(study, [ASKED], *samples)] == [
        replace(row, seconds=0.0) for row in found
    ]


def test_a_finished_run_starts_no_sandbox(samples, tmp_path, monkeypatch):
    study = Study(SMALL, tmp_path)
    found = programs.observe_study(study, [ASKED], *samples)
    monkeypatch.setattr(programs, "observe_all", None)
    assert programs.observe_study(study, [ASKED], *samples) == found


def test_without_makers_nothing_is_run(samples, tmp_path):
    quiet = load_profile("smoke", inference={"programs": {"problems": 9, "makers": []}})
    assert programs.observe_study(Study(quiet, tmp_path), [ASKED], *samples) == []


def test_only_what_can_be_called_is_run(samples):
    rows, grades = samples
    words = replace(ASKED, kind="text", reference="9")
    assert programs.gather_samples([words], rows, grades) == []
    [(problem, model, named)] = programs.gather_samples([ASKED], rows, grades)
    assert (problem, model, len(named)) == (ASKED, "m", 3)

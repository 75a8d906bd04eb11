"""The slider over the window: it shows what the saved completions hold, and nothing they wrote becomes markup."""

import json
import re
from dataclasses import replace
from html import unescape

import pytest

from tests.grading.test_grading import completion
from z1lib.pages.explorer import explore_windows, saved_by_the_hint, show_completion, turning_point
from z1lib.records import Grade, Problem

PROBLEMS = [Problem(name, f"print {name}", "text", "7", 2, "tracing") for name in "ab"]


def saved(problem: str, window: int, overran: bool):
    row = completion(f"trace of {problem}", "the answer" if overran else "", overran)
    return replace(row, problem_id=problem, window=window, key=f"{problem}{window}", hint_tokens=3 * overran)


ROWS = [saved(name, window, window < 32) for name in "ab" for window in (8, 16, 32)]
GRADES = [Grade(row.problem_id, row.window == 32, "7", "last boxed", "wrong", row.key) for row in ROWS]


def pages_of(frame: str) -> dict[str, dict[int, str]]:
    """title -> window -> what is shown, read back from the page."""
    data = re.search(r"const pages = (.*);", unescape(frame))[1]
    return {title: dict(map(tuple, shown)) for title, shown in json.loads(data)}


def test_the_slider_holds_every_window_of_every_problem():
    pages = pages_of(explore_windows(PROBLEMS, ROWS, GRADES, "m", "shifted_window", "\nhint!\n"))
    assert list(pages) == ["a (tracing, level 2)", "b (tracing, level 2)"]
    shown = pages["a (tracing, level 2)"]
    assert list(shown) == [8, 16, 32]
    assert all(text in shown[8] for text in ("cut at 1 tokens", "hint!", "<b>wrong"))
    assert "cut at" not in shown[32]
    assert "hint!" not in shown[32]
    assert "<b>right" in shown[32]
    assert "trace of b" in pages["b (tracing, level 2)"][8]


def test_no_text_of_a_model_ends_the_script_of_the_slider():
    rows = [replace(ROWS[0], thinking_text="</script><script>alert(1)</script>")]
    page = unescape(explore_windows(PROBLEMS, rows, GRADES, "m", "shifted_window", "hint"))
    assert page.count("</script") == 1
    assert page.count("<script") == 1


def graded(*right: bool, policy: str = "shifted_window") -> tuple[list, list]:
    rows = [replace(saved("a", 2**i, True), policy=policy, key=f"{policy}{i}") for i in range(len(right))]
    return rows, [Grade("a", one, "7", "last boxed", None, row.key) for row, one in zip(rows, right)]


def test_a_turning_point_is_wrong_at_first_and_right_from_some_window_on():
    rows, grades = graded(False, True, False, True, True)
    assert turning_point(rows, grades, "m") == []  # right, wrong again: no turning point
    rows, grades = graded(False, False, False, True, True)
    assert [row.window for row in turning_point(rows, grades, "m")] == [1, 4, 8]
    assert turning_point(*graded(True, True), "m") == turning_point(*graded(False, False), "m") == []


def test_the_hint_saves_what_is_wrong_cut_at_the_same_total_and_right_with_it():
    for hinted, cut, saved_windows in ((True, False, [1, 1]), (True, True, []), (False, False, [])):
        rows, grades = graded(hinted)
        others, of_others = graded(cut, policy="truncation_matched")
        found = saved_by_the_hint(rows + others, grades + of_others, "m")
        assert [row.window for row in found] == saved_windows


def test_what_a_model_wrote_is_text_and_never_markup():
    row = replace(saved("a", 8, True), thinking_text="<script>alert(1)</script>", answer_text="<img src=x onerror=y>")
    page = show_completion(PROBLEMS[0], row, Grade("a", False, "<b>", "<i>", "wrong", row.key), "<u>")
    assert "<script" not in page
    assert "<img" not in page
    assert "<u>" not in page
    assert "&lt;script&gt;" in page


def test_an_answer_behind_thinking_that_the_model_closed_itself_is_shown():
    row = replace(saved("a", 8, False), answer_text="so it is 7", answer_tokens=4, hint_tokens=0)
    page = show_completion(PROBLEMS[0], row, Grade("a", True, "7", "last boxed", None, row.key), "hint!")
    assert "so it is 7" in page
    assert "cut at" not in page
    assert "hint!" not in page


def test_completions_that_are_not_there_are_named():
    with pytest.raises(ValueError, match="no completions of 'z9' under 'shifted_window'"):
        explore_windows(PROBLEMS, ROWS, GRADES, "z9", "shifted_window", "hint")

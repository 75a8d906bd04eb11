"""The slider over the window: it shows what the saved completions hold, and nothing they wrote becomes markup."""

from dataclasses import replace

import pytest

from tests.grading.test_grading import completion
from z1lib.pages.explorer import explore_windows, show_completion
from z1lib.records import Grade, Problem

PROBLEMS = [Problem(name, f"print {name}", "text", "7", 2, "tracing") for name in "ab"]


def saved(problem: str, window: int, overran: bool):
    row = completion(f"trace of {problem}", "the answer" if overran else "", overran)
    return replace(row, problem_id=problem, window=window, key=f"{problem}{window}", hint_tokens=3 * overran)


ROWS = [saved(name, window, window < 32) for name in "ab" for window in (8, 16, 32)]
GRADES = [Grade(row.problem_id, row.window == 32, "7", "last boxed", "wrong", row.key) for row in ROWS]


def test_the_slider_moves_the_text():
    menu, slider, page = explore_windows(PROBLEMS, ROWS, GRADES, "m", "shifted_window", "\nhint!\n").children
    assert slider.options == (8, 16, 32)
    assert "cut at 1 tokens" in page.value
    assert "hint!" in page.value
    assert "<b>wrong" in page.value
    slider.value = 32
    assert "cut at" not in page.value
    assert "hint!" not in page.value
    assert "<b>right" in page.value
    menu.value = "b"
    assert "trace of b" in page.value


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

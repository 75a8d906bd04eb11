"""The page to play with: what it streams, what it refuses, whom it listens to."""

import subprocess
import sys

import gradio
import pytest
from conftest import ScriptedEngine, write

from z1lib.demo import MOST_CHARACTERS, POLICIES, build, policy_named, think
from z1lib.window import BudgetForcing, ShiftedWindow

ENGINE = ScriptedEngine(write("a" * 60))


def watched(engine):
    """The scripted engine, telling each request's watcher about each id."""

    class Watched(ScriptedEngine):
        def _follow(self, request, policy):
            def script(prompt, ids):
                if request.watch:
                    request.watch(list(ids))
                return engine.script(prompt, ids)

            return ScriptedEngine._follow(ScriptedEngine(script), request, policy)

    return Watched(engine.script)


def test_two_policies_stream_side_by_side_and_the_hint_is_seen():
    pages = list(think(watched(ENGINE), "what?", 8, "\n\nNow answer:\n", "shifted window", "left alone"))
    assert len(pages) > 20
    left, right = pages[-1]
    assert "cut at 8 tokens" in left
    assert "Now answer:" in left
    assert "Now answer:" not in right
    assert "60 thinking" not in left
    assert "61 thinking + 0 hint" in right  # the end token is one of them


def test_two_policies_of_the_same_name_are_possible():
    left, right = list(think(watched(ENGINE), "what?", 8, "h", "shifted window", "shifted window"))[-1]
    assert left == right


@pytest.mark.parametrize(
    ("problem", "window", "hint"),
    [("", 8, "h"), ("what?", 8, " "), ("x" * MOST_CHARACTERS, 8, "h"), ("what?", 10**6, "h"), ("what?", -1, "h")],
)
def test_input_out_of_bounds_is_refused_before_anything_is_decoded(problem, window, hint):
    with pytest.raises(gradio.Error):
        next(think(None, problem, window, hint, "shifted window", "budget forcing"))


def test_every_policy_on_the_page_can_be_made():
    made = [policy_named(name, 8, "h") for name in POLICIES]
    assert isinstance(made[0], ShiftedWindow)
    assert isinstance(made[1], BudgetForcing)
    with pytest.raises(ValueError, match="no policy 'magic'"):
        policy_named("magic", 8, "h")


def test_the_page_queues_and_decodes_one_at_a_time():
    page = build(ENGINE)
    [click] = [function for function in page.fns.values() if function.name == "run"]
    assert click.concurrency_limit == 1


def test_without_a_model_it_says_where_to_get_one(tmp_path):
    run = subprocess.run([sys.executable, "-m", "z1lib.demo"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "make reproduce" in run.stderr

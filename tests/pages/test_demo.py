"""The page to play with: what it streams, what it refuses, whom it listens to."""

import subprocess
import sys

import gradio
import pytest

from tests.conftest import ScriptedEngine, write
from z1lib.pages import demo
from z1lib.pages.demo import MAX_CHARACTERS, build, labels, make_policy, think
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
    pages = list(think(watched(ENGINE), "", "what?", 8, "\n\nNow answer:\n", "shifted window", "unbounded"))
    assert len(pages) > 20
    left, right = pages[-1]
    assert "cut at 8 tokens" in left
    assert "Now answer:" in left
    assert "Now answer:" not in right
    assert "60 thinking" not in left
    assert "61 thinking + 0 hint" in right  # the end token is one of them


def test_two_policies_of_the_same_name_are_possible():
    left, right = list(think(watched(ENGINE), "", "what?", 8, "h", "shifted window", "shifted window"))[-1]
    assert left == right


@pytest.mark.parametrize(
    ("problem", "window", "hint"),
    [("", 8, "h"), ("what?", 8, " "), ("x" * MAX_CHARACTERS, 8, "h"), ("what?", 10**6, "h"), ("what?", -1, "h")],
)
def test_input_out_of_bounds_is_refused_before_anything_is_decoded(problem, window, hint):
    with pytest.raises(gradio.Error):
        next(think(None, "", problem, window, hint, "shifted window", "budget forcing"))


def test_every_policy_on_the_page_can_be_made():
    made = [make_policy(label, 8, "h") for label in labels()]
    assert isinstance(made[0], ShiftedWindow)
    assert isinstance(made[1], BudgetForcing)
    with pytest.raises(ValueError, match="no policy 'magic'"):
        make_policy("magic", 8, "h")


def test_the_page_queues_and_decodes_one_at_a_time():
    page = build(ENGINE)
    [click] = [function for function in page.fns.values() if function.name == "run"]
    assert click.concurrency_limit == 1


def test_what_cannot_be_decoded_is_an_error_that_the_page_shows():
    with pytest.raises(gradio.Error, match="context"):
        list(think(ScriptedEngine(ENGINE.script, context_length=8), "", "what?", 8, "h", "shifted window", "unbounded"))


def test_the_system_prompt_is_empty_or_the_templates_own():
    asked = []

    class Noting(ScriptedEngine):
        def _follow(self, request, policy):
            asked.append(self.tokenizer.decode(request.prompt_ids))
            return super()._follow(request, policy)

    for prompt in ("", None):
        list(think(Noting(ENGINE.script), prompt, "what?", 8, "h", "shifted window", "unbounded"))
    assert asked[0].startswith("s:\nu:")  # as the toy tokenizer writes system and user
    assert asked[-1].startswith("u:")


def test_only_this_machine_can_open_it(tiny_model, monkeypatch):
    launched = {}
    monkeypatch.setattr(gradio.Blocks, "launch", lambda page, **options: launched.update(options))
    monkeypatch.setattr(sys, "argv", ["demo", "--model", tiny_model, "--port", "7999"])
    demo.main()
    assert launched == {"server_name": "127.0.0.1", "server_port": 7999}


def test_without_a_model_it_says_where_to_get_one(tmp_path):
    run = subprocess.run([sys.executable, "-m", "z1lib.pages.demo"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    assert "make reproduce" in run.stderr

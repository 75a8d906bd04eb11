"""The page to play with: what it streams, what it refuses, whom it listens to."""

import socket
import sys

import gradio
import httpx
import pytest

from tests.conftest import ScriptedEngine, write
from tests.grading.test_grading import completion
from z1lib.engines.serving import free_port
from z1lib.pages import demo
from z1lib.pages.demo import MAX_CHARACTERS, build, labels, launch, make_policy, think
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
    [("", 8, "h"), ("what?", 8, " "), ("x" * MAX_CHARACTERS, 8, "h"), ("what?", 10**6, "h"), ("what?", -1, "h")]
    + [("what?", 2.5, "h"), ("what?", None, "h")],
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
    assert launched.items() >= {"server_name": "127.0.0.1", "server_port": 7999}.items()


@pytest.fixture(scope="module")
def served():
    """The page, as `make demo` serves it, on a free port."""
    page = build(ENGINE)
    launch(page, port := free_port(), wait=False)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client
    page.close()


def test_the_page_answers_to_its_own_name_alone(served):
    assert served.get("/").status_code == 200
    for name in ("evil.example", "127.0.0.1.evil.example", "[::1].evil.example"):
        assert served.get("/", headers={"host": name}).status_code == 400
        assert served.post("/gradio_api/upload", headers={"host": name}, files={"files": b"x"}).status_code == 400


def test_a_large_upload_is_refused_and_none_is_kept_for_good(served):
    refused = served.post("/gradio_api/upload", files={"files": ("big.txt", b"x" * 5000)})
    assert refused.status_code == 413
    assert build(ENGINE).delete_cache == (600, 600)  # seconds between two cleanings, age of what is cleaned


def test_the_page_tells_nobody_that_it_runs(served):
    config = served.get("/config").json()
    assert config["analytics_enabled"] is False


def test_without_a_trained_model_it_starts_with_the_base_model_and_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "save_base_model", lambda folder, *source: folder)
    model, note = demo.find_model(None)
    assert model == "runs/mini/models/base"
    assert "Not trained" in note
    assert "`make reproduce` trains z1" in capsys.readouterr().out


def test_a_port_that_is_taken_is_one_line(tiny_model, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["demo", "--model", tiny_model, "--port", str(port)])
        with pytest.raises(SystemExit, match=f"port {port} is taken: `make demo"):
            demo.main()


def test_a_model_that_cannot_be_had_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["demo", "--model", str(tmp_path)])
    with pytest.raises(SystemExit, match="is no model: it has no config.json"):
        demo.main()


def test_of_a_program_the_page_says_who_is_right():
    engine = ScriptedEngine(write("\\boxed{4}"))
    asked = demo.ASK + "print(2 + 2)"
    assert all("<b>right</b>" in page and "<code>4</code>" in page for page in last_pages(engine, asked))
    assert all("<b>wrong</b>" in page for page in last_pages(ScriptedEngine(write("\\boxed{5}")), asked))


def test_of_anything_else_it_gives_no_verdict():
    for asked in ("What is 2 + 2?", demo.ASK + "import no_such_module"):
        assert not [page for page in last_pages(ENGINE, asked) if "right" in page or "wrong" in page]


def last_pages(engine, asked: str) -> tuple[str, str]:
    return list(think(watched(engine), "", asked, 40, "h", "shifted window", "unbounded"))[-1]


def test_every_example_is_a_program_whose_output_is_known():
    for example in demo.EXAMPLES:
        [verdict] = demo.judge(example, [completion("\\boxed{19}")])
        assert "the program prints <code>" in verdict

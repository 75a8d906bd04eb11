"""`make demo`: a page to type a problem into and watch two policies think, side by side, token by token.

Bound to the loopback; problems and budgets are limited; requests of several users wait in one queue and share nothing.
"""

import argparse
from collections.abc import Iterator
from html import escape
from pathlib import Path

import gradio
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Engine, EngineUnavailable, load_engine
from z1lib.grading import grade
from z1lib.inference.stream import stream
from z1lib.models import ModelUnavailable, find_released, save_base_model
from z1lib.pages.explorer import show_trace
from z1lib.problems import tracing
from z1lib.profile import load_profile
from z1lib.records import Completion, Problem
from z1lib.sandbox import execute_code
from z1lib.window import HINT, Policy, Unbounded, at, policies_by_name, policy_named

TRAINED = "runs/mini/models/z1"
MAX_CHARACTERS, MAX_TOKENS, ANSWER = 2000, 512, 48
LOOPBACK = "127.0.0.1"  # nobody else opens it, not even by a name of their own that leads here
ONLY_HERE = {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"])]}
ASK = tracing.PROMPT.format(program="")
EXAMPLES = [
    ASK + "a = 7\nfor i in range(4):\n    a = a + 3\nprint(a)\n",
    ASK + "best = 0\nfor n in [4, 9, 2, 17, 5, 11]:\n    if n > best:\n        best = n\nprint(best)\n",
    ASK + "for n in [3, 8, 2, 14, 6, 1]:\n    if n > 7:\n        print(n)\n        break\n",
]
# The problem and both answers on one screen of 1366 x 768; code is code.
CSS = """
.gradio-container { max-width: 84rem !important; padding-top: 0.3rem !important; }
#problem textarea { font-family: monospace; }
#page-0 pre, #page-1 pre { max-height: 15em !important; }
"""


def labels() -> list[str]:
    return [name.replace("_", " ") for name in policies_by_name()]


def make_policy(label: str, window: int, hint: str) -> Policy:
    """The policy with that label on the page. Raises ValueError for one that is not there."""
    policy = policy_named(label.replace(" ", "_"))
    return at(policy, MAX_TOKENS if policy is Unbounded else window, hint=hint, max_answer_tokens=ANSWER)


def think(
    engine: Engine, system_prompt: str | None, problem: str, window: float | None, hint: str, left: str, right: str
) -> Iterator[tuple[str, str]]:
    """The two pages as they grow, at last with their verdicts. Raises gradio.Error for what cannot be decoded."""
    if not problem.strip() or not hint.strip():
        raise gradio.Error("type a problem and a hint")
    if len(problem) + len(hint) > MAX_CHARACTERS:
        raise gradio.Error(f"at most {MAX_CHARACTERS} characters, please")
    if window is None or window != int(window) or not 0 <= window <= MAX_TOKENS:
        raise gradio.Error(f"a window is a whole number from 0 to {MAX_TOKENS}, not {window}")
    prompt = encode_prompt(engine.tokenizer, conversation(problem, system_prompt))
    policies = [make_policy(label, int(window), hint) for label in (left, right)]
    completions = []
    try:
        for completions in stream(engine, prompt, policies):
            yield tuple(show_trace(row, hint) for row in completions)
    except ValueError as error:  # too long for the model's context, a hint that spells a control token
        raise gradio.Error(str(error)) from None
    verdicts = judge(problem, completions)
    yield tuple(verdict + show_trace(row, hint) for verdict, row in zip(verdicts, completions))


def judge(problem: str, completions: list[Completion]) -> list[str]:
    """What to say of each answer, as HTML. Only of a program is it known what is right: it runs in the sandbox."""
    program = problem.removeprefix(ASK)
    run = execute_code(program, timeout_s=2) if program != problem else None
    if run is None or not run.ok:
        return [""] * len(completions)
    asked = Problem("0", problem, "text", run.stdout.strip())
    grades = [grade(asked, row) for row in completions]
    right = f"the program prints <code>{escape(asked.reference)}</code>"
    return [f"<p><b>{'right' if one.correct else 'wrong'}</b>: {right}.</p>" for one in grades]


def build(engine: Engine, system_prompt: str | None = "", note: str = "") -> gradio.Blocks:
    """The page over an engine, whose model is asked under this system prompt (None: the chat template's own)."""
    with gradio.Blocks(title="The Shifted Thinking Window", analytics_enabled=False, delete_cache=(600, 600)) as page:
        gradio.Markdown(f"**The Shifted Thinking Window** on `{Path(engine.model_name).name}`, greedy. {note}")
        with gradio.Row():
            with gradio.Column(scale=3):
                problem = gradio.Textbox(
                    EXAMPLES[0], label="problem", lines=6, max_lines=6, max_length=MAX_CHARACTERS, elem_id="problem"
                )
                names = ["a loop", "a running best", "a first hit"]
                gradio.Examples(EXAMPLES, problem, label="examples", example_labels=names)
            with gradio.Column(scale=2):
                with gradio.Row():
                    window = gradio.Number(24, label=f"window (tokens, 0 to {MAX_TOKENS})", precision=None)
                    hint = gradio.Textbox(HINT, label="hint", lines=3, max_lines=3)
                policies = "shifted window", "unbounded"
                with gradio.Row():
                    chosen = [gradio.Dropdown(labels(), value=name, label="policy") for name in policies]
                with gradio.Row():
                    button, stop = gradio.Button("think", variant="primary"), gradio.Button("stop")
        with gradio.Row():
            pages = [gradio.HTML(label=name, elem_id=f"page-{i}") for i, name in enumerate(("left", "right"))]

        def run(*values):
            yield from think(engine, system_prompt, *values)

        # one at a time on one model; the others wait in the queue
        thinking = button.click(run, [problem, window, hint, *chosen], pages, concurrency_limit=1)
        stop.click(None, cancels=[thinking])
    return page.queue(max_size=16)


def find_model(asked: str | None) -> tuple[str, str]:
    """(the model, a note): the one asked for, else the trained one, else the base model from its wheel."""
    if asked or Path(TRAINED).is_dir():
        return str(find_released(asked or TRAINED)), ""
    mini = load_profile("mini")
    print("no model was trained here yet: this is the base model; `make reproduce` trains z1 in half an hour")
    base = save_base_model(Path(TRAINED).with_name("base"), mini.model.base, mini.model.revision, mini.model.package, 0)
    return str(
        base
    ), "Not trained: `make reproduce` gives it the short and long traces, and then it can trace programs."


def launch(page: gradio.Blocks, port: int, wait: bool = True) -> None:
    """Serve the page to this machine alone. What is uploaded is nobody's use: at most a kilobyte, for ten minutes."""
    page.launch(
        server_name=LOOPBACK,
        server_port=port,
        css=CSS,
        max_file_size="1kb",
        app_kwargs=ONLY_HERE,
        prevent_thread_lock=not wait,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help=f"a folder or a Hub id; default: {TRAINED}, where it is not trained its base")
    parser.add_argument("--engine", default="transformers", help="transformers, vllm or server")
    parser.add_argument("--base-url", help="of a server")
    parser.add_argument(
        "--template-system-prompt", action="store_true", help="ask as `colab` and `paper` train; else it is empty"
    )
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    try:
        if options.base_url:  # the server has the weights
            model, note = options.model, ""
        else:
            model, note = find_model(options.model)
        given = {"base_url": options.base_url} if options.base_url else {}
        given |= {"draft_tokens": 4} if options.engine == "transformers" else {}  # one answer at a time: it pays
        engine = load_engine(options.engine, model, **given)
        page = build(engine, None if options.template_system_prompt else "", note)
        launch(page, options.port)
    except (ModelUnavailable, EngineUnavailable, ValueError) as error:
        raise SystemExit(str(error)) from None
    except OSError:
        raise SystemExit(f'port {options.port} is taken: `make demo ARGS="--port {options.port + 1}"`') from None


if __name__ == "__main__":
    main()

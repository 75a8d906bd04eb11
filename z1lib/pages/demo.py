"""`make demo`: a page to type a problem into and watch two policies think, side by side, token by token.

Bound to the loopback; problems and budgets are limited; requests of several users wait in one queue and share nothing.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import gradio

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Engine, load_engine
from z1lib.inference.stream import stream
from z1lib.pages.explorer import show_trace
from z1lib.window import HINT, Policy, Unbounded, at, policies_by_name, policy_named

MAX_CHARACTERS, MAX_TOKENS, ANSWER = 2000, 512, 48
EXAMPLE = "What does this program print?\n\na = 7\nfor i in range(4):\n    a = a + 3\nprint(a)\n"


def labels() -> list[str]:
    return [name.replace("_", " ") for name in policies_by_name()]


def make_policy(label: str, window: int, hint: str) -> Policy:
    """The policy with that label on the page. Raises ValueError for one that is not there."""
    policy = policy_named(label.replace(" ", "_"))
    return at(policy, MAX_TOKENS if policy is Unbounded else window, hint=hint, max_answer_tokens=ANSWER)


def think(
    engine: Engine, system_prompt: str | None, problem: str, window: int, hint: str, left: str, right: str
) -> Iterator[tuple[str, str]]:
    """The two pages as they grow. Raises gradio.Error, which the page shows, for input that cannot be decoded."""
    if not problem.strip() or not hint.strip():
        raise gradio.Error("type a problem and a hint")
    if len(problem) + len(hint) > MAX_CHARACTERS:
        raise gradio.Error(f"at most {MAX_CHARACTERS} characters, please")
    if not 0 <= int(window) <= MAX_TOKENS:
        raise gradio.Error(f"a window is from 0 to {MAX_TOKENS} tokens")
    prompt = encode_prompt(engine.tokenizer, conversation(problem, system_prompt))
    policies = [make_policy(label, int(window), hint) for label in (left, right)]
    try:
        for completions in stream(engine, prompt, policies):
            yield tuple(show_trace(row, hint) for row in completions)
    except ValueError as error:  # too long for the model's context, a hint that spells a control token
        raise gradio.Error(str(error)) from None


def build(engine: Engine, system_prompt: str | None = "") -> gradio.Blocks:
    """The page over an engine, whose model is asked under this system prompt (None: the chat template's own)."""
    with gradio.Blocks(title="The Shifted Thinking Window") as page:
        gradio.Markdown(
            f"# The Shifted Thinking Window\n`{Path(engine.model_name).name}`, greedy. Watch it think, and be cut."
        )
        problem = gradio.Textbox(EXAMPLE, label="problem", lines=6, max_length=MAX_CHARACTERS)
        window = gradio.Slider(0, MAX_TOKENS, value=24, step=1, label="window (tokens)")
        hint = gradio.Textbox(HINT, label="hint", lines=3)
        with gradio.Row():
            names = [gradio.Dropdown(labels(), value=name, label="policy") for name in ("shifted window", "unbounded")]
        button = gradio.Button("think", variant="primary")
        with gradio.Row():
            pages = [gradio.HTML(label=name, elem_id=f"page-{i}") for i, name in enumerate(("left", "right"))]

        def run(*values):
            yield from think(engine, system_prompt, *values)

        # one at a time on one model; the others wait in the queue
        button.click(run, [problem, window, hint, *names], pages, concurrency_limit=1)
    return page.queue(max_size=16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="runs/mini/models/z1", help="a folder in Hugging Face format, or a Hub id")
    parser.add_argument("--engine", default="transformers", help="transformers, vllm or server")
    parser.add_argument("--base-url", help="of a server")
    parser.add_argument(
        "--template-system-prompt", action="store_true", help="ask as `colab` and `paper` train; else it is empty"
    )
    parser.add_argument("--port", type=int, default=7860)
    options = parser.parse_args()
    if options.model == parser.get_default("model") and not Path(options.model).is_dir():
        raise SystemExit(
            f"{options.model} is not there: `make reproduce` trains it (about half an hour on two cores). Or take "
            'another model: `make demo ARGS="--model FOLDER"`, or a model of the Hub by its name'
        )
    engine = load_engine(options.engine, options.model, **({"base_url": options.base_url} if options.base_url else {}))
    page = build(engine, None if options.template_system_prompt else "")
    page.launch(server_name="127.0.0.1", server_port=options.port)  # the loopback: nobody else can open it


if __name__ == "__main__":
    main()

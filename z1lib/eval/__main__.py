"""`python -m z1lib.eval --model FOLDER_OR_HUB_ID --problems humaneval --windows 64,256 --out runs/mine`."""

import argparse
import sys
from pathlib import Path

from z1lib.engines.base import ENGINES, EngineUnavailable
from z1lib.eval.compare import compare, read_run, say_ratio
from z1lib.eval.evaluate import RULES, SETS, Asked, evaluate
from z1lib.models import ModelUnavailable
from z1lib.problems.hub import SourceUnavailable
from z1lib.window import policies_by_name

EXPECTED = (ValueError, OSError, ModelUnavailable, EngineUnavailable, SourceUnavailable)  # one sentence each


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m z1lib.eval",
        description="Evaluate a model under a policy at several windows. Run again, it goes on where it stopped.",
    )
    add = parser.add_argument
    add("--model", required=True, help="a folder in Hugging Face format, or a name on the Hub")
    add("--problems", required=True, help=f"{', '.join(SETS)}, or a .jsonl file with id, prompt, kind and reference")
    add("--windows", required=True, type=read_windows, help="rising, such as 64,256,1024")
    add("--out", required=True, type=Path, help="the folder of this run")
    add("--compare", type=Path, metavar="DIR", help="the folder of another run on the same problems")
    add("--policy", default="shifted_window", help=", ".join(policies_by_name()))
    add("--engine", default="transformers", choices=list(ENGINES))
    add("--base-url", help="of a server, such as http://127.0.0.1:8000/v1")
    add("--dtype", choices=["bfloat16", "float16", "float32"], help="default: the checkpoint's")
    add("--limit", type=int, help="the first so many problems")
    add("--max-answer-tokens", type=int, default=Asked.max_answer_tokens, help="after the hint; default: %(default)s")
    add("--n", type=int, default=1, help="samples of every problem")
    add("--rule", help=f"chooses among the samples: {', '.join(RULES)}")
    add("--temperature", type=float, default=0.0)
    add("--top-p", type=float, default=1.0)
    add("--seed", type=int, default=0)
    add("--system-prompt", help="default: the chat template's own")
    return parser.parse_args(arguments)


def read_windows(text: str) -> tuple[int, ...]:
    return tuple(int(window) for window in text.split(","))


def main(arguments: list[str]) -> int:
    given = vars(read_arguments(arguments))
    out, other = given.pop("out"), given.pop("compare")
    try:
        beside = read_run(other) if other else None  # before anything is decoded
        summary = evaluate(Asked(**given), out)
        print(show(summary))
        print(f"{out}: completions.jsonl, grades.jsonl, summary.csv, accuracy_by_total.png")
        if beside:
            run = read_run(out)
            print(f"\n{compare(run, beside).to_markdown(index=False, floatfmt='.3f')}\n{say_ratio(run, beside)}")
    except EXPECTED as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def show(summary) -> str:
    """The whole sets of a summary, accuracy with its interval."""
    whole = summary[summary.level == "all"]
    ends = zip(whole.accuracy, whole.accuracy_low, whole.accuracy_high)
    shown = whole.assign(accuracy=[f"{one:.2f} [{low:.2f}, {high:.2f}]" for one, low, high in ends])
    columns = ["problem_set", "policy", "window", "n", "accuracy", "thinking_tokens", "total_tokens", "overrun_rate"]
    return "\n" + shown[columns].to_markdown(index=False, floatfmt=".2f") + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""One pass against two, the sweep against one run a window, our transformers engine against `generate`.

`make bench`, or `python benchmarks/windowed_inference.py --model FOLDER --repeats 5`. Without a GPU it needs the CPU
build of vLLM. Peers: the two passes of the paper's published code, written plainly here on the same vLLM; vLLM's own
`thinking_token_budget`, whose delimiters are set to the end of the prompt and to the hint so that it does the same
task; `model.generate` of transformers in one static batch. Tokens are printed beside the times: they do not depend on
the machine.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from paired import Way, compare, price_tokens, speed_up, write_table
from transformers import AutoModelForCausalLM

from z1lib.chat import conversation, encode_prompt
from z1lib.cost import Cost
from z1lib.engines.base import Metered, load_engine
from z1lib.inference.decode import generate, window_sweep
from z1lib.models import save_base_model
from z1lib.problems import tracing
from z1lib.profile import load_profile
from z1lib.window import HINT, ShiftedWindow, Truncation, Unbounded

WINDOWS = [16, 32, 48, 64, 80, 96]
ANSWER = 8
CONTEXT = 1024
START = "<|im_start|>assistant\n"  # the end of every prompt
LONGEST = [128, 384]  # tokens a completion of the static batch may have; the study's longest window is 512


def find_model() -> str:
    """The trained mini checkpoint where there is one, else the base model it starts from."""
    runs, mini = Path(__file__).parent.parent / "runs", load_profile("mini")
    if (trained := runs / "mini" / "models" / "z1").is_dir():
        return str(trained)
    source = mini.model.base, mini.model.revision, mini.model.package
    return str(save_base_model(runs / "bench" / "base", *source, mini.seed))


def make_prompts(tokenizer, count: int) -> list[list[int]]:
    problems = tracing.make_problems(count, [1, 2, 3, 4, 5], 100, "tracing", set())
    return [encode_prompt(tokenizer, conversation(problem.prompt, "")) for problem in problems]


def ids_of(rows) -> list[list[int]]:
    return [row.token_ids for [row] in rows]


def two_passes(engine, prompts: list[list[int]], window: int) -> list[list[int]]:
    """All traces first; when the slowest is done, prompt + trace + hint again for those that are full."""
    hint = engine.tokenizer(HINT, add_special_tokens=False)["input_ids"]
    traces = ids_of(generate(engine, prompts, Truncation(window)))
    full = [i for i, trace in enumerate(traces) if trace[-1] not in engine.end_ids]
    answers = ids_of(generate(engine, [prompts[i] + traces[i] + hint for i in full], Truncation(ANSWER)))
    for i, answer in zip(full, answers):
        traces[i] = traces[i] + hint + answer
    return traces


class Bench:
    """The rows of the table for one vLLM, with or without prefix caching."""

    def __init__(self, model: str, caching: bool, repeats: int, prompts: int):
        engine = load_engine(
            "vllm",
            model,
            max_model_len=CONTEXT,
            enforce_eager=True,
            enable_prefix_caching=caching,
            block_size=32,  # what prefixes are shared in; the CPU build's 128 would keep these prompts out of the cache
            reasoning_config={"reasoning_start_str": START, "reasoning_end_str": HINT},
        )
        self.engine = Metered(engine)
        self.prompts = make_prompts(self.engine.tokenizer, prompts)
        self.caching, self.repeats = caching, repeats

    def way(self, name: str, run) -> Way:
        def from_cold():
            self.engine.llm.reset_prefix_cache()
            return run()

        return Way(name, from_cold, lambda: (self.engine.cost.prefilled, self.engine.cost.decoded))

    def one_pass(self, window: int) -> Way:
        policy = ShiftedWindow(window, max_answer_tokens=ANSWER)
        return self.way(f"one pass, W={window}", lambda: ids_of(generate(self.engine, self.prompts, policy)))

    def published(self, window: int) -> Way:
        return self.way(f"two passes, W={window}", lambda: two_passes(self.engine, self.prompts, window))

    def budget(self, window: int) -> Way:
        """vLLM's own thinking budget.

        Behind a prompt that ends in the start delimiter vLLM 0.32 forces the end late by that delimiter but one token,
        so the budget is as much shorter: then it writes what ours does.
        """
        from vllm import SamplingParams

        start = len(self.engine.tokenizer(START, add_special_tokens=False)["input_ids"])
        hint = len(self.engine.tokenizer(HINT, add_special_tokens=False)["input_ids"])
        params = SamplingParams(
            temperature=0,
            max_tokens=window + hint + ANSWER,
            thinking_token_budget=window - start + 1,
            stop_token_ids=sorted(self.engine.end_ids),
            detokenize=False,
        )

        def run():
            rows = [{"prompt_token_ids": ids} for ids in self.prompts]
            outputs = self.engine.llm.generate(rows, params, use_tqdm=False)
            decoded = sum(len(output.outputs[0].token_ids) for output in outputs)
            self.engine.cost += Cost(sum(map(len, self.prompts)), decoded)
            return [list(output.outputs[0].token_ids) for output in outputs]

        return self.way(f"thinking_token_budget, W={window}", run)

    def sweep(self) -> Way:
        def run():
            swept = window_sweep(self.engine, self.prompts, WINDOWS, max_answer_tokens=ANSWER)
            return [ids for window in WINDOWS for ids in ids_of(swept[window])]

        return self.way(f"sweep of {len(WINDOWS)} windows", run)

    def many_published(self) -> Way:
        def run():
            return [ids for window in WINDOWS for ids in two_passes(self.engine, self.prompts, window)]

        return self.way(f"{len(WINDOWS)} two-pass runs", run)

    def rows(self) -> list[dict]:
        self.one_pass(WINDOWS[0]).run()  # warm up
        windows = [(self.one_pass(window), self.published(window)) for window in (WINDOWS[0], WINDOWS[2], WINDOWS[-1])]
        budget, sweep = (self.one_pass(WINDOWS[2]), self.budget(WINDOWS[2])), (self.sweep(), self.many_published())
        rows = [self.compare(*pair) for pair in (*windows, budget, sweep)]
        overall = {"ours": "one pass, median over windows", "peer": "two passes", **speed_up(windows)}
        print("  one pass, median over windows: {speed-up:.2f} [{low:.2f}, {high:.2f}]".format(**overall))
        self.print_bound(*sweep, price_tokens([way for pair in (*windows, sweep) for way in pair]))
        return [*rows, {"prefix caching": self.caching, **overall}]

    def compare(self, ours: Way, peer: Way) -> dict:
        row = {"prefix caching": self.caching, **compare(ours, peer, self.repeats)}
        print(f"  {ours.name} / {peer.name}: {row['speed-up']:.2f} [{row['low']:.2f}, {row['high']:.2f}]", flush=True)
        return row

    def print_bound(self, ours: Way, peer: Way, prices: np.ndarray) -> None:
        """How near the sweep comes to what its tokens allow: decoded ones alone, and all of them at their prices."""
        reached = speed_up([(ours, peer)])["speed-up"]
        decoded = peer.tokens[1] / ours.tokens[1]
        priced = np.dot(peer.tokens, prices) / np.dot(ours.tokens, prices)
        print("  a prefilled token took {:.2f} ms, a decoded one {:.2f} ms".format(*1000 * prices))
        print(f"  bound of the sweep: {decoded:.2f} by decoded tokens, {reached / decoded:.0%} of it reached")
        print(f"  bound of the sweep: {priced:.2f} by all tokens at these prices, {reached / priced:.0%} of it reached")


def static_batch(model: str, repeats: int, prompts: int, most: int) -> dict:
    """Our transformers engine against `model.generate` on all prompts at once, greedy, at most so many tokens."""
    engine = Metered(load_engine("transformers", model, batch_size=prompts))
    rows = make_prompts(engine.tokenizer, prompts)
    plain = AutoModelForCausalLM.from_pretrained(model, dtype="auto").eval()
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    decoded = [0, 0]

    def generate_static():
        ends = sorted(engine.end_ids)
        output = plain.generate(
            ids, attention_mask=mask, max_new_tokens=most, do_sample=False, eos_token_id=ends, pad_token_id=ends[0]
        )[:, longest:].tolist()
        decoded[0] += ids.numel()
        decoded[1] += len(output) * len(output[0])
        ended = [next((i for i, token in enumerate(row) if token in engine.end_ids), len(row)) for row in output]
        return [row[: end + 1] for row, end in zip(output, ended)]

    ours = Way(
        f"transformers engine, at most {most}",
        lambda: ids_of(generate(engine, rows, Unbounded(most))),
        lambda: (engine.cost.prefilled, engine.cost.decoded),
    )
    return compare(ours, Way("model.generate, one static batch", generate_static, lambda: tuple(decoded)), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="a folder; default: the mini checkpoint, else its base model")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=16, help="take more where there is a GPU")
    options = parser.parse_args()
    model = options.model or find_model()
    print(f"model {model}, {options.prompts} prompts, {options.repeats} pairs each, answers of {ANSWER} tokens")
    table = [static_batch(model, options.repeats, 2 * options.prompts, most) for most in LONGEST]
    for caching in (False, True):
        table += Bench(model, caching, options.repeats, options.prompts).rows()
    write_table(table, Path(__file__))


if __name__ == "__main__":
    main()

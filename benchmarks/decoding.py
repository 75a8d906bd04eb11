"""Decoding by our transformers engine: tokens a second in bfloat16 and float32, beside its peers and its bound.

`make bench`, or `python benchmarks/decoding.py --model FOLDER --repeats 3`. Without a GPU it needs the CPU build of
vLLM. Peers, all on the same prompts: our engine in float32, `model.generate` of transformers in one static batch, and
vLLM, both in bfloat16. The bound is what all linear layers alone would allow, in bfloat16 at that batch, timed in the
same minutes. What came out is compared: completions that are identical, and verdicts that are.
"""

import argparse
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from paired import Way, compare, print_bounds, write_table
from transformers import AutoModelForCausalLM
from windowed_inference import CONTEXT, find_model

from z1lib.chat import conversation, encode_prompt
from z1lib.engines.base import Decoded, Metered, Request, load_engine
from z1lib.grading import grade_all
from z1lib.inference.decode import complete_one, generate
from z1lib.problems import tracing
from z1lib.records import Completion, Problem
from z1lib.window import Unbounded

MOST = 384  # tokens a completion may have
SHARE, FASTER = 0.5, 2.5  # of the bound, and than float32: what it should keep to


class Bench:
    """The same prompts decoded in each way; `rows` keeps what came out of the last run of each."""

    def __init__(self, model: str, prompts: int):
        self.model, self.rows = model, {}
        self.problems: list[Problem] = tracing.make_problems(prompts, [1, 2, 3, 4, 5], 100, "tracing", set())
        self.bounds: list[float] = []

    def engine_way(self, name: str, engine: str, dtype: str, **options) -> Way:
        metered = Metered(load_engine(engine, self.model, dtype=dtype, **options))
        self.prompts = [encode_prompt(metered.tokenizer, conversation(one.prompt, "")) for one in self.problems]

        def run() -> list[list[int]]:
            self.rows[name] = self.name_problems([row for [row] in generate(metered, self.prompts, Unbounded(MOST))])
            return [row.token_ids for row in self.rows[name]]

        return Way(name, run, lambda: (metered.cost.prefilled, metered.cost.decoded))

    def static_way(self, name: str, engine) -> Way:
        """`model.generate`; `engine` only says where completions end and what their text is."""
        plain = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.bfloat16).eval()
        longest, ends = max(map(len, self.prompts)), sorted(engine.end_ids)
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in self.prompts])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in self.prompts])
        done = [0, 0]

        def run() -> list[list[int]]:
            options = {"max_new_tokens": MOST, "do_sample": False, "eos_token_id": ends, "pad_token_id": ends[0]}
            output = plain.generate(ids, attention_mask=mask, **options)[:, longest:].tolist()
            length = [next((i for i, t in enumerate(row) if t in engine.end_ids), MOST - 1) + 1 for row in output]
            output = [row[:end] for row, end in zip(output, length)]
            done[0], done[1] = done[0] + sum(map(len, self.prompts)), done[1] + sum(map(len, output))
            self.rows[name] = self.name_problems([self.complete(engine, *pair) for pair in zip(self.prompts, output)])
            return output

        return Way(name, run, lambda: tuple(done))

    def complete(self, engine, prompt: list[int], ids: list[int]) -> Completion:
        request = Request(prompt, Unbounded(MOST))
        return complete_one(engine, request, request.policy, Decoded(ids, ids[-1] in engine.end_ids), "")

    def name_problems(self, rows: list[Completion]) -> list[Completion]:
        return [Completion(**(asdict(row) | {"problem_id": one.id})) for row, one in zip(rows, self.problems)]

    def time_bound(self, model) -> None:
        """Tokens a second if a step were its linear layers, in bfloat16, with as many rows as there are prompts."""
        layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
        states = {one.in_features: torch.randn(len(self.problems), one.in_features).bfloat16() for one in layers}
        with torch.inference_mode():
            for _ in range(4):
                start = time.perf_counter()
                for layer in layers:
                    layer(states[layer.in_features])
                self.bounds.append(len(self.problems) / (time.perf_counter() - start))

    def row(self, ours: Way, peer: Way, repeats: int) -> dict:
        row = compare(ours, peer, repeats)
        for who, way in (("ours", ours), ("peer", peer)):
            row[f"{who} tokens/s"] = way.tokens[1] / row[f"{who} s"]
        verdicts = [[one.correct for one in grade_all(self.problems, self.rows[way.name])] for way in (ours, peer)]
        identical = np.mean([a == b for a, b in zip(ours.outputs, peer.outputs)])
        row |= {"identical completions": identical, "identical verdicts": np.mean(np.equal(*verdicts))}
        row["bound tokens/s"] = np.median(self.bounds[1:])
        print(f"  {ours.name} / {peer.name}: {row['speed-up']:.2f}, {row['ours tokens/s']:.0f} tokens/s", flush=True)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None, help="a folder; default: the mini checkpoint, else its base model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=160)
    options = parser.parse_args()
    bench = Bench(options.model or find_model(), options.prompts)
    ours = bench.engine_way("transformers engine, bfloat16", "transformers", "bfloat16")
    plain = bench.engine_way("transformers engine, float32", "transformers", "float32")
    engine = load_engine("transformers", bench.model, dtype="bfloat16")
    makers = [
        lambda: plain,
        lambda: bench.static_way("model.generate, one static batch, bfloat16", engine),
        lambda: bench.engine_way("vLLM, bfloat16", "vllm", "bfloat16", max_model_len=CONTEXT, enforce_eager=True),
    ]
    table = []
    for make in makers:
        bench.time_bound(engine.model)
        table.append(bench.row(ours, make(), options.repeats))
        ours.seconds.clear()  # each peer has pairs of its own
    write_table(table, Path(__file__))
    share = min(row["ours tokens/s"] / row["bound tokens/s"] for row in table)
    print_bounds(
        [
            (f"{share:.0%} of what the linear layers allow, at least {SHARE:.0%}", share >= SHARE),
            (f"{table[0]['speed-up']:.2f} times float32, at least {FASTER}", table[0]["speed-up"] >= FASTER),
            (f"{table[2]['speed-up']:.2f} times vLLM, at least 1", table[2]["speed-up"] >= 1),
        ]
    )


if __name__ == "__main__":
    main()

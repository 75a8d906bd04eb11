"""One completion at a time, with drafts by prompt lookup and without: the same ids, how much faster, how many accepted.

`python benchmarks/drafts.py --model FOLDER [--prompts 12] [--repeats 2]`. In float32 the ids must be the same; in
bfloat16, where a product of another shape may round otherwise, those that differ are counted.
"""

import argparse
from pathlib import Path

from paired import Way, compare, write_table
from windowed_inference import find_model, ids_of, make_prompts

from z1lib.engines.base import Metered, load_engine
from z1lib.inference.decode import generate
from z1lib.window import Unbounded

MOST = 384
DRAFTS = (2, 4, 8)
FASTER = 1.3  # than without, for the best of them: what it should keep to


def make_way(name: str, model: str, count: int, **options) -> tuple[Way, Metered]:
    metered = Metered(load_engine("transformers", model, batch_size=1, **options))
    prompts = make_prompts(metered.tokenizer, count)

    def run() -> list[list[int]]:
        return ids_of(generate(metered, prompts, Unbounded(MOST)))

    return Way(name, run, lambda: (metered.cost.prefilled, metered.cost.decoded)), metered


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=None)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    model = given.model or find_model()
    rows = []
    for dtype in ("float32", "bfloat16"):
        plain, _ = make_way(f"plain, {dtype}", model, given.prompts, dtype=dtype)
        for count in DRAFTS:
            drafted, metered = make_way(
                f"drafts of {count}, {dtype}", model, given.prompts, dtype=dtype, draft_tokens=count
            )
            row = compare(drafted, plain, given.repeats)
            rows.append(row | {"accepted share": metered.cost.accepted / metered.cost.drafted})
            print(rows[-1])
    write_table(rows, Path(__file__))
    exact = [row for row in rows if "float32" in row["ours"]]
    assert not any(row["outputs that differ"] for row in exact), "drafts changed what was written"
    assert max(row["speed-up"] for row in rows) >= FASTER, f"no draft is {FASTER} times as fast"


if __name__ == "__main__":
    main()

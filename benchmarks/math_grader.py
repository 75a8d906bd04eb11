"""Our comparison of mathematical answers and math-verify used naively, on the labelled pairs of the tests.

`python benchmarks/math_grader.py`. Naive is what its README shows: parse both, verify. Every pair judged wrongly by
either is listed.
"""

import time
from pathlib import Path

import pandas as pd
from math_verify import parse, verify
from paired import write_table

from z1lib.grading.equivalence import is_equivalent

PAIRS = Path(__file__).parent.parent / "tests/grading/math_pairs.csv"


def naive(answer: str, reference: str) -> bool:
    return bool(verify(parse(f"${reference}$"), parse(f"${answer}$")))


def main() -> None:
    pairs = pd.read_csv(PAIRS, dtype=str, keep_default_na=False)
    truth, rows = pairs.equal == "1", []
    is_equivalent(r"\\frac{1}{2}", "0.5")  # our worker starts
    for name, judge in (("ours", is_equivalent), ("math-verify, naively", naive)):
        start = time.perf_counter()
        pairs[name] = [judge(answer, reference) for answer, reference in zip(pairs.answer, pairs.reference)]
        seconds = time.perf_counter() - start
        missed, taken = (truth & ~pairs[name]).sum(), (~truth & pairs[name]).sum()
        errors = {"equal, judged different": missed, "different, judged equal": taken}
        rows.append(
            {"judge": name, "pairs": len(pairs), **errors, "wrong": (missed + taken) / len(pairs), "s": seconds}
        )
        print(pairs[pairs[name] != truth][["answer", "reference", "equal", name]].to_string(), end="\n\n")
    write_table(rows, Path(__file__))


if __name__ == "__main__":
    main()

"""Rows of the released data set's shape, made by us, with faults planted in known places.

Lengths: log-normal with a spread of 0.75, which gives both the longest 33K and the shortest 90K rows of the paper's
Table 2 their printed means; aimed at a shortest of 25, a longest of 8,169 and a mean of 1,159 tokens (the benchmark
prints what came out). Text: sentences of words drawn by
Zipf's law, and pieces of the standard library's code.
"""

import argparse
import inspect
import json
import random
import re
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from z1lib.problems import humaneval

SHORTEST, LONGEST, MEAN, SPREAD = 25, 8169, 1159, 0.75
LOOPS, DUPLICATES, OVERLAPS = 0.03, 0.01, 200 / 107_173  # shares of the rows
MODULES = [argparse, inspect, json, random, textwrap]


def make_lengths(count: int, rng: np.random.Generator) -> np.ndarray:
    """Lengths in tokens, scaled until their mean is the printed one."""
    drawn, scale = rng.lognormal(0, SPREAD, count), 1.0
    for _ in range(30):
        lengths = np.clip(MEAN * scale * drawn / drawn.mean(), SHORTEST, LONGEST)
        scale *= MEAN / lengths.mean()
    return lengths.astype(int)


class Writer:
    """Makes text of about so many tokens; a word of its vocabulary is one token of the tokenizer."""

    def __init__(self, tokenizer, seed: int):
        words = [token[1:] for token in tokenizer.get_vocab() if token.startswith("Ġ") and token[1:].isalpha()]
        self.words = np.array(sorted(word for word in words if len(word) > 2 and word.isascii()), dtype=object)
        self.rng = np.random.default_rng(seed)
        self.rng.shuffle(self.words)
        weights = 1 / np.arange(10, 10 + len(self.words))
        self.cumulated = np.cumsum(weights / weights.sum())
        lines = [line for module in MODULES for line in inspect.getsource(module).splitlines() if line.strip()]
        pieces = ["\n".join(lines[i : i + 8]) for i in range(0, len(lines) - 8, 4)]
        self.code = [(piece, len(tokenizer(piece)["input_ids"])) for piece in pieces]

    def prose(self, words: int) -> str:
        drawn = self.words[np.searchsorted(self.cumulated, self.rng.random(max(1, words)))]
        sentences = [" ".join(drawn[i : i + 14]).capitalize() for i in range(0, len(drawn), 14)]
        return ". ".join(sentences) + "."

    def response(self, tokens: int) -> str:
        """Prose, and for a quarter of the tokens code between its paragraphs."""
        parts, left = [], tokens
        while left > 0:
            piece, cost = self.code[self.rng.integers(len(self.code))]
            words = min(left, int(self.rng.integers(150, 400)))
            parts.append(self.prose(int(words / 1.2)))
            left -= words
            if left > 2 * cost:
                parts.append(f"```python\n{piece}\n```")
                left -= cost + 8
        return "\n\n".join(parts)

    def loop(self, tokens: int, kind: int) -> str:
        """A varied beginning, then a loop: a sentence, two in turn, one under a counter, or one that is left again."""
        one, two = self.prose(12), self.prose(9)
        many = max(8, tokens // 40)
        loops = [
            " ".join([one] * many),
            " ".join([one, two] * many),
            "\n".join(f"Step {i}: {one}" for i in range(3, 3 + many)),
            f"{' '.join([one] * many)} {two}",
        ]
        return f"{self.prose(max(20, tokens // 2))}\n{loops[kind % 4]}"

    def near_copy(self, text: str) -> str:
        """The text with one word in a hundred replaced, at least one."""
        words = text.split(" ")
        for place in self.rng.integers(len(words), size=1 + len(words) // 100):
            words[place] = self.prose(1)[:-1].lower()
        return " ".join(words)


class Rows:
    """All rows, one after the other; `family` names the original of every planted copy, `planted` the ids by filter."""

    def __init__(self, count: int, writer: Writer):
        self.writer, self.lengths = writer, make_lengths(count, writer.rng)
        self.kinds = np.full(count, "clean", dtype=object)
        sizes = {"repetition": round(LOOPS * count), "near_duplicates": round(DUPLICATES * count)}
        sizes["overlap"] = round(OVERLAPS * count)
        places = writer.rng.permutation(np.arange(1, count))[: sum(sizes.values())]
        self.kinds[places] = np.repeat(list(sizes), list(sizes.values()))
        self.planted: dict[str, set[str]] = {kind: set() for kind in sizes}
        self.family: dict[str, str] = {}
        self.originals: list[tuple[str, str]] = []  # (id, question) of clean rows so far
        self.problems = humaneval.make_problems()

    def make(self, number: int) -> dict:
        kind, tokens, name = self.kinds[number], int(self.lengths[number]), f"row-{number}"
        question = self.writer.prose(int(self.writer.rng.integers(60, 200)))
        response = self.writer.response(tokens)
        if kind == "repetition":
            response = self.writer.loop(tokens, number)
        elif kind == "near_duplicates" and self.originals:
            self.family[name], original = self.originals[self.writer.rng.integers(len(self.originals))]
            question = self.writer.near_copy(original)
        elif kind == "overlap":
            question = self.overlap(number, question)
        if kind != "clean":
            self.planted[kind].add(name)
        else:
            self.originals.append((name, question))
        return {"id": name, "question": question, "response": response}

    def overlap(self, number: int, question: str) -> str:
        """A test problem in capitals, or thirty words of one in the middle of a question, without its signs.

        Whole at most once: twice would be a near-duplicate.
        """
        before = len(self.planted["overlap"])
        prompt = self.problems[before % len(self.problems)].prompt
        if number % 2 and before < len(self.problems):
            return prompt.upper()
        words = re.findall(r"\w+", prompt.split("```python")[1])
        half = len(question) // 2
        return f"{question[:half]} {' '.join(words[:30])} {question[half:]}"


def make_rows(count: int, tokenizer, folder: Path, seed: int = 0) -> tuple[Path, Rows]:
    """A parquet file with the four released columns, and what was planted in it."""
    rows = Rows(count, Writer(tokenizer, seed))
    file = folder / f"rows-{count}.parquet"
    columns = [
        ("id", pa.string()),
        ("question", pa.string()),
        ("response", pa.string()),
        ("token_num_qwen", pa.int64()),
    ]
    with pq.ParquetWriter(file, pa.schema(columns)) as out:
        for start in range(0, count, 1000):
            batch = [rows.make(number) for number in range(start, min(count, start + 1000))]
            texts = [row["response"] for row in batch]
            ids = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            batch = [{**row, "token_num_qwen": len(one)} for row, one in zip(batch, ids)]
            out.write_table(pa.Table.from_pylist(batch, schema=pa.schema(columns)))
    return file, rows

"""What a set of examples looks like: lengths, complexity, word trigrams."""

import zlib
from array import array
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from z1lib.curation.selection import SUBSETS, select_subset
from z1lib.records import Trajectory

MASK = (1 << 21) - 1  # three words of 21 bits make a key
PARTS = 8  # trigrams are counted in so many turns, to bound the memory


def describe(trajectories: list[Trajectory]) -> pd.DataFrame:
    """Count, total, mean, percentiles of response tokens by run and level ("all" for the run)."""
    table = pd.DataFrame([{"run": t.run, "level": t.level, "tokens": t.token_count} for t in trajectories])
    rows = []
    for run, group in table.groupby("run", sort=False):
        for level, tokens in [*group.groupby("level")["tokens"], ("all", group["tokens"])]:
            low, middle, high = np.percentile(tokens, [5, 50, 95])
            rows.append(
                (run, level, len(tokens), tokens.sum(), tokens.mean(), tokens.min(), low, middle, high, tokens.max())
            )
    columns = ["run", "level", "examples", "tokens", "mean", "min", "p5", "median", "p95", "max"]
    return pd.DataFrame(rows, columns=columns)


def length_bin(tokens: int) -> int:
    """The power of two at or below a length in tokens: 300 is in bin 256, which ends before 512. 0 for none."""
    return 1 << (tokens.bit_length() - 1) if tokens > 0 else 0


def complexity(question: str) -> int:
    """An estimate of how complex a question is: its bytes when compressed (zlib), an upper bound on what it says.

    The data have no label of complexity. This one looks at the question alone, so that its relation to the length of
    the response is a finding and not a definition.
    """
    return len(zlib.compress(question.encode(), 9))


def relate(table: pd.DataFrame) -> pd.DataFrame:
    """By length bin: examples, mean complexity and level; `table` has columns tokens, complexity, level.

    `.attrs` holds Spearman's correlation of complexity and of level with the tokens (NaN where one is constant).
    """
    table = table.assign(bin=[length_bin(tokens) for tokens in table["tokens"]])
    means = table.groupby("bin").agg(
        examples=("tokens", "size"),
        tokens=("tokens", "mean"),
        complexity=("complexity", "mean"),
        level=("level", "mean"),
    )
    ranks = table[["tokens", "complexity", "level"]].rank()
    means.attrs = {column: float(ranks["tokens"].corr(ranks[column])) for column in ("complexity", "level")}
    return means.reset_index()


def count_trigrams(texts: Iterable[str], min_count: int = 2) -> pd.Series:
    """How often each trigram of words occurs, the most frequent first; those seen less than `min_count` times left out.

    Words are lower case and split at white space, as in the paper's Figure 3 ("code ```python def", "wait, but the");
    no trigram spans two texts. The counts are exact: a trigram is at most as frequent as its rarest word, so only
    rare words are left out. Raises ValueError for more words than 21 bits can number.
    """
    numbers = {"": 0}  # the mark after every text; no word is empty
    sequence = array("I")
    for text in texts:
        sequence.extend([numbers.setdefault(word, len(numbers)) for word in text.lower().split()])
        sequence.append(0)
    ids = np.frombuffer(sequence, np.uint32)
    frequent = np.flatnonzero(np.bincount(ids, minlength=len(numbers))[1:] >= min_count) + 1
    if len(frequent) > MASK:
        raise ValueError(
            f"{len(frequent):,} words occur {min_count} times or more, {MASK:,} can be numbered: raise `min_count`"
        )
    renumbered = np.full(len(numbers), -1, np.int32)
    renumbered[frequent] = np.arange(len(frequent))
    keys, counts = _count_keys(renumbered[ids], min_count)
    words = np.array(list(numbers), dtype=object)[frequent]
    names = [" ".join(words[[key >> 42, key >> 21 & MASK, key & MASK]]) for key in keys.tolist()]
    return pd.Series(counts, index=pd.Index(names, dtype=object, name="trigram"), name="count")


def _count_keys(ids: np.ndarray, min_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Trigrams of ids (-1 is in none) packed into 63 bits, and their counts, the most frequent first."""
    first, second, third = ids[:-2], ids[1:-1], ids[2:]
    whole = (first >= 0) & (second >= 0) & (third >= 0)
    found = []
    for part in range(PARTS):
        here = np.flatnonzero(whole & (first % PARTS == part))
        keys = (first[here].astype(np.int64) << 42) | (second[here].astype(np.int64) << 21) | third[here]
        keys, counts = np.unique(keys, return_counts=True)
        found.append((keys[counts >= min_count], counts[counts >= min_count]))
    keys, counts = (np.concatenate(arrays) for arrays in zip(*found))
    order = np.lexsort((keys, -counts))
    return keys[order], counts[order]


def compare_trigrams(first: pd.Series, second: pd.Series, top: int = 50) -> pd.DataFrame:
    """The most frequent trigrams of two corpora side by side, by rank; the names of the series head the columns."""
    columns = {}
    for name, counts in ((first.name, first), (second.name, second)):
        head = counts.head(top)
        columns[name] = pd.Series(head.index)
        columns[f"{name} count"] = pd.Series(head.to_numpy())
    table = pd.DataFrame(columns)
    return table.set_index(pd.RangeIndex(1, len(table) + 1, name="rank"))


def contrast_trigrams(
    first: pd.Series, second: pd.Series, ranks: tuple[int, int] = (50, 1000), top: int = 10
) -> pd.DataFrame:
    """The mid-frequency trigrams (of these ranks in either corpus) that tell two corpora apart (paper, Figure 3).

    A trigram's `log2_ratio` is that of its shares of the counted trigrams in the two corpora, half an occurrence added
    to each; the `top` highest and lowest are given.
    """
    middle = first.index[slice(*ranks)].union(second.index[slice(*ranks)])
    counts = pd.DataFrame(
        {name: series.reindex(middle, fill_value=0) for name, series in (("first", first), ("second", second))}
    )
    shares = [(counts[name] + 0.5) / (series.sum() + 0.5) for name, series in (("first", first), ("second", second))]
    counts["log2_ratio"] = np.log2(shares[0] / shares[1])
    ordered = counts.sort_values(["log2_ratio", "first", "second"], ascending=False)
    ordered = ordered.rename(columns={"first": f"{first.name} count", "second": f"{second.name} count"})
    return pd.concat([ordered.head(top), ordered.tail(min(top, max(0, len(ordered) - top)))])


def describe_subsets(token_counts: Sequence[int], printed: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Examples, tokens and mean length of the five subsets of Table 2, beside the printed ones (`data_ablation`)."""
    once = printed.drop_duplicates("subset").set_index("subset")
    rows = []
    for name in SUBSETS:
        taken = [token_counts[i] for i in select_subset(token_counts, name, seed)]
        share = sum(taken) / sum(token_counts)
        rows.append((name, len(taken), sum(taken), share, sum(taken) / len(taken)))
    table = pd.DataFrame(rows, columns=["subset", "examples", "tokens", "share of tokens", "mean"]).set_index("subset")
    names = {
        "samples": "printed examples",
        "train_tokens_millions": "printed Mtokens",
        "mean_trajectory_tokens": "printed mean",
    }
    return table.join(once[list(names)].rename(columns=names))

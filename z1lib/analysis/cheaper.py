"""Cheaper tokens: what a budget of positions costs in accuracy and saves in reading, by selection.

The sample is the problem; every comparison with dense attention is paired. Positions that were read, and keys that were
scored to choose them, follow from the lengths (`engines.budget.Sparse.price`).
"""

from collections.abc import Sequence

import pandas as pd

from z1lib.analysis.findings import FEWEST
from z1lib.analysis.tables import join
from z1lib.cost import Cost, count_eflops
from z1lib.engines.budget import DENSE, Sparse
from z1lib.records import Completion, Grade, Problem, Recall, Shape
from z1lib.stats import mean_interval, paired_bootstrap

MARGIN = 0.02  # what may be lost, at most, for a budget to count as enough


def make_frame(problems: list[Problem], rows: list[Completion], grades: list[Grade]) -> pd.DataFrame:
    """`tables.join` of `inference.cheaper`'s rows, with the parts of their labels and what decoding them read.

    Columns more: `select` ("dense" for all positions), `budget`, `length` ("short", "long"), `attended`, `scored`.
    """
    frame = join(problems, rows, grades)
    parts = frame.model.str.rsplit(" ", n=3, expand=True).set_axis(["model", "select", "budget", "length"], axis=1)
    frame = frame.assign(**{name: parts[name] for name in parts}).astype({"budget": int})
    priced = [count_read(*one) for one in zip(frame.prompt_tokens, frame.total_tokens, frame["select"], frame.budget)]
    return frame.assign(attended=[one for one, _ in priced], scored=[other for _, other in priced])


def count_read(prompt: int, tokens: int, select: str, budget: int) -> tuple[int, int]:
    """(positions attended, keys scored) of so many tokens behind a prompt, in a layer."""
    lengths = range(prompt, prompt + tokens)
    if select == DENSE:
        return sum(lengths), 0
    asked = Sparse(budget, select)
    attended, scored = zip(*(asked.price(length, 1) for length in lengths)) if tokens else ((0,), (0,))
    return sum(attended), sum(scored)


def compare(frame: pd.DataFrame, shape: Shape, resamples: int, seed: int) -> pd.DataFrame:
    """By length, window, selection and budget: accuracy, tokens, what was read, and each minus dense, paired.

    `enough`: whether the interval of what is lost lies within MARGIN, a test of non-inferiority at 2.5%; fewer than
    FEWEST problems show nothing.
    """
    rows = []
    for (length, window), part in frame.groupby(["length", "window"], sort=False):
        whole = part[part["select"] == DENSE].set_index("problem_id")
        for (select, budget), own in part.groupby(["select", "budget"], sort=False):
            own = own.set_index("problem_id").loc[whole.index]
            accuracy = mean_interval(own.correct, resamples, seed)
            minus = paired_bootstrap(own.correct, whole.correct, resamples, seed)
            mean = own[["total_tokens", "prompt_tokens", "attended", "scored"]].mean()
            cost = Cost(mean.prompt_tokens, mean.total_tokens, mean.attended, mean.scored)
            eflops = count_eflops(cost, shape) / 1e9
            numbers = accuracy.estimate, accuracy.low, accuracy.high, mean.total_tokens, mean.attended, mean.scored
            enough = select == DENSE or (len(own) >= FEWEST and minus.low > -MARGIN)
            rows.append((length, window, select, budget, len(own), *numbers, eflops, minus, enough))
    columns = ["length", "window", "select", "budget", "n", "accuracy", "low", "high", "tokens"]
    columns += ["attended", "scored", "billion eFLOPs", "minus dense", "enough"]
    return pd.DataFrame(rows, columns=columns)


def first_enough(table: pd.DataFrame) -> pd.DataFrame:
    """By length, window and selection the smallest budget that is shown to be enough, as are all larger ones."""
    rows = []
    sparse = table[table["select"] != DENSE]
    for (length, window, select), part in sparse.groupby(["length", "window", "select"], sort=False):
        part = part.sort_values("budget", ascending=False)
        shown = part[part.enough.cumprod().astype(bool)].budget
        rows.append((length, window, select, part.n.max(), int(shown.min()) if len(shown) else None))
    found = pd.DataFrame(rows, columns=["length", "window", "select", "n", "first budget"])
    return found.astype({"first budget": "Int64"})


def recall_table(recalls: Sequence[Recall]) -> pd.DataFrame:
    """What was found along each completion, a row a completion, layer, selection and budget."""
    return pd.DataFrame([vars(one) for one in recalls])


def compare_recalls(recalls: Sequence[Recall], resamples: int, seed: int) -> pd.DataFrame:
    """By budget and selection: recall, attention mass and overlap, mean of layers; and ridge minus last, by completion.

    Columns `recall` and `mass` have intervals over completions.
    """
    table = recall_table(recalls)
    measured = ["recall", "mass", "most", "chance", "overlap"]
    means, rows = table.groupby(["budget", "select", "problem_id"])[measured].mean(), []
    for (budget, select), own in means.groupby(["budget", "select"]):
        recall, mass = (mean_interval(own[name], resamples, seed) for name in ("recall", "mass"))
        own = own.droplevel([0, 1])
        last = means.loc[(budget, "last")].recall if "last" in means.loc[budget].index else own.recall
        gain = paired_bootstrap(own.recall, last.loc[own.index], resamples, seed)
        others = own[["most", "chance", "overlap"]].mean()
        rows.append((budget, select, len(own), recall, others.chance, mass, others.most, others.overlap, gain))
    columns = ["budget", "select", "n", "recall", "chance", "mass", "most possible", "overlap", "recall minus last"]
    return pd.DataFrame(rows, columns=columns)

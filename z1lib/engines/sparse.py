"""A budget of positions: a new token attends to some of those before it, chosen for each layer and key head.

After AsyncSpade (Luo et al., arXiv 2510.07486), whose repository is empty: the choice is made by a query that is
predicted from the last ones, so that it could run beside the step before; and the selections it is to be compared
with: the last query's own choice, the present query's (the bound), pages by their extremes (Quest, 2406.10774), and
sinks with recent positions (StreamingLLM, 2309.17453). Prompts and hints attend to everything, as do rows within the
budget.

Choosing exactly reads every key: that is half of what a dense step reads, and the cost says so (`Sparse.price`).

Who does not need the present query can choose a step ahead: on a GPU a second stream does (`SideStream`), while the
layers behind it run. On a CPU the same is computed when it is needed. Both give the same ids.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from z1lib.engines.attention import paged_attention
from z1lib.engines.budget import POSITIONS, Sparse

AHEAD = ("ridge", "last")  # that choose without the present query, and so before the token's own key is there


Chosen = tuple[torch.Tensor, torch.Tensor]  # positions (rows, key heads, budget), and which of them are there


class Stream(Protocol):
    """Where choices are made ahead: `start` begins, `take` gives what has come of it."""

    def start(self, work: Callable[[], Chosen]) -> Any: ...

    def take(self, begun: Any) -> Chosen: ...


class SideStream:
    """A second CUDA stream beside the one that runs the model."""

    def __init__(self):
        self.side = torch.cuda.Stream()

    def start(self, work):
        self.side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.side):
            return work(), self.side.record_event()

    def take(self, begun):
        chosen, done = begun
        torch.cuda.current_stream().wait_event(done)
        for part in chosen:
            part.record_stream(torch.cuda.current_stream())
        return chosen


def find_stream(device: str) -> Stream | None:
    """A second stream where there can be one."""
    return SideStream() if device.startswith("cuda") else None


@dataclass
class Memory:
    """The last queries of every slot, layer by layer: (slots, history, heads, size), newest last; how many there are.

    It moves with the slots of the cache. `slots` and `counts` are those of the run of the model under way. With a
    `stream` the next choice of every layer is under way as well, as long as the slots stay as they are.
    """

    asked: Sparse
    queries: dict[int, torch.Tensor] = field(default_factory=dict)
    seen: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    stream: Stream | None = None
    begun: dict[int, Any] = field(default_factory=dict)

    def start(self, layer: int, query, keys, visible, scaling: float) -> None:
        """Begin to choose what the next token attends to in a layer, of which this one's query and key are there."""
        if self.stream and self.asked.select in AHEAD:
            self.begun[layer] = self.stream.start(lambda: choose_ahead(self, layer, query, keys, visible, scaling))

    def take(self, layer: int) -> Chosen | None:
        return self.stream.take(self.begun.pop(layer)) if layer in self.begun else None

    def drop(self) -> None:
        """Slots change: what was begun is waited for, since it reads them, and is of no more use."""
        for layer in list(self.begun):
            self.take(layer)

    def append(self, rows: int) -> None:
        """New slots without queries."""
        self.drop()
        self.seen += [0] * rows

    def arrange(self, sources: list[int]) -> None:
        """Slot i takes what slot `sources[i]` had; a branch has its trace's."""
        self.drop()
        self.seen = [self.seen[source] for source in sources]
        for layer, kept in self.queries.items():
            padded = torch.cat([kept, kept.new_zeros(1, *kept.shape[1:])])  # what a slot has that was never fed
            inside = torch.tensor([min(source, len(kept)) for source in sources], dtype=torch.long, device=kept.device)
            self.queries[layer] = padded[inside]

    def open(self, slots: list[int], counts: list[int]) -> None:
        """The next run of the model feeds these slots so many tokens each."""
        if set(counts) != {1} or slots != list(range(len(self.seen))):
            self.drop()
        self.slots, self.counts = slots, counts

    def close(self) -> None:
        for slot, count in zip(self.slots, self.counts):
            self.seen[slot] += count

    def kept(self, layer: int, like: torch.Tensor) -> torch.Tensor:
        """The queries of a layer, with room for every slot; `like`: (rows, heads, tokens, size)."""
        old = self.queries.get(layer)
        if old is None or len(old) < len(self.seen):
            self.queries[layer] = like.new_zeros(len(self.seen), self.asked.history, like.shape[1], like.shape[3])
            if old is not None:
                self.queries[layer][: len(old)] = old
        return self.queries[layer]

    def push(self, layer: int, query: torch.Tensor) -> None:
        """Keep the last queries (rows, heads, tokens, size) of a layer, of the slots of this run."""
        kept = self.kept(layer, query)
        if set(self.counts) == {1} and self.slots == list(range(len(kept))):  # one token in every slot, at each step
            self.queries[layer] = torch.cat([kept[:, 1:], query[: len(kept), :, 0][:, None]], dim=1)
            return
        for row, (slot, count) in enumerate(zip(self.slots, self.counts)):
            fresh = query[row, :, max(0, count - self.asked.history) : count].transpose(0, 1)
            kept[slot] = torch.cat([kept[slot], fresh])[-self.asked.history :]


def predict(history: torch.Tensor, ridge: float) -> torch.Tensor:
    """The next vector after each history (..., steps, size) -> (..., size), newest last.

    The newest is written as a combination of those before it, by ridge regression; the same weights, one step on, give
    the next. `ridge` is a share of the mean square of the vectors. The equations, a few by a few, are solved in
    float64: queries in a row are so much alike that float32 is not enough for a small ridge.
    """
    whole = history.double()
    before, newest = whole[..., :-1, :], whole[..., -1, :]
    gram = before @ before.mT
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(torch.float32).tiny)
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    weights = torch.linalg.solve(gram + ridge * scale[..., None, None] * identity, before @ newest[..., None])
    return (weights.mT @ whole[..., 1:, :]).squeeze(-2).to(history.dtype)


def rate(query: torch.Tensor, keys: torch.Tensor, visible: torch.Tensor, scaling: float) -> torch.Tensor:
    """How much each position is wanted: query (rows, heads, size), keys (rows, key heads, size, positions) -> (rows,
    key heads, positions): the softmax of every query head, summed over those that share a key head."""
    rows, heads, size = query.shape
    grouped = query.view(rows, keys.shape[1], -1, size)
    scores = (grouped @ keys * scaling).float().masked_fill(~visible[:, None, None], float("-inf"))
    return scores.softmax(dim=-1).sum(dim=2)


def rate_pages(query: torch.Tensor, keys: torch.Tensor, visible: torch.Tensor, scaling: float) -> torch.Tensor:
    """`rate`, by pages: no key of a page scores higher than its extremes do, and all of its positions have that."""
    rows, heads, size, positions = keys.shape
    pages = -(-positions // POSITIONS)
    padded = torch.nn.functional.pad(keys, (0, pages * POSITIONS - positions))
    inside = torch.nn.functional.pad(visible, (0, pages * POSITIONS - positions)).view(rows, 1, 1, pages, POSITIONS)
    padded = padded.view(rows, heads, size, pages, POSITIONS)
    low, high = padded.masked_fill(~inside, float("inf")).amin(-1), padded.masked_fill(~inside, float("-inf")).amax(-1)
    grouped = query.view(rows, heads, -1, size)
    shown = inside.any(-1)[:, :, 0]
    low, high = (one.masked_fill(~shown[:, :, None], 0) for one in (low, high))
    bound = (grouped.clamp_min(0) @ high + grouped.clamp_max(0) @ low) * scaling
    wanted = bound.float().masked_fill(~shown[:, :, None], float("-inf")).softmax(dim=-1).sum(dim=2)
    return wanted.repeat_interleave(POSITIONS, dim=-1)[..., :positions]


def choose(memory: Memory, layer: int, query, keys, visible, scaling: float) -> Chosen:
    """The positions that a new token attends to, whose own key is the last that is visible.

    query (rows, heads, size), keys (rows, key heads, size, positions), visible (rows, positions).
    """
    last = visible.sum(dim=-1, keepdim=True) - 1
    before = visible
    if memory.asked.select in AHEAD:
        before = visible & (torch.arange(visible.shape[-1], device=visible.device) < last)
    return fill(memory.asked, want(memory, layer, query, keys, before, scaling), last)


def choose_ahead(memory: Memory, layer: int, query, keys, visible, scaling: float) -> Chosen:
    """`choose` for the token behind, from what is there before it: this one's query, already kept, and its key."""
    wanted = want(memory, layer, query, keys, visible, scaling, more=1)
    grown = torch.nn.functional.pad(wanted, (0, 1), value=float("-inf"))
    return fill(memory.asked, grown, visible.sum(dim=-1, keepdim=True))


def want(memory: Memory, layer: int, query, keys, visible, scaling: float, more: int = 0) -> torch.Tensor:
    """How much each visible position is wanted: (rows, key heads, positions), elsewhere without a meaning.

    `more`: queries that are kept and not yet counted.
    """
    select = memory.asked.select
    if select == "window":
        return torch.arange(keys.shape[-1], device=keys.device).float().expand(len(keys), keys.shape[1], -1)
    measure = rate_pages if select == "page" else rate
    return measure(guess(memory, layer, query, more), keys, visible, scaling)


def fill(asked: Sparse, wanted: torch.Tensor, last: torch.Tensor) -> Chosen:
    """A budget: the first and the recent positions, then those that are wanted most; `last`: the token's own place."""
    place = torch.arange(wanted.shape[-1], device=wanted.device)
    fixed, there = (place < asked.sinks) | (place >= last - asked.recent), place <= last
    wanted = wanted.masked_fill(fixed[:, None], float("inf")).masked_fill(~there[:, None], float("-inf"))
    best, chosen = wanted.topk(min(asked.budget, wanted.shape[-1]), dim=-1)
    return chosen, best > float("-inf")


def guess(memory: Memory, layer: int, query: torch.Tensor, more: int = 0) -> torch.Tensor:
    """The query by which is chosen: the present one, the last, or a prediction from the last ones.

    Rows that have none yet take the present one, rows with fewer than three the last.
    """
    asked = memory.asked
    if asked.select not in AHEAD:
        return query
    kept, found = memory.kept(layer, query[:, :, None]), query.clone()
    counts = {row: seen + more for row, seen in enumerate(memory.seen)}
    ready = [row for row, seen in counts.items() if seen]
    found[ready] = kept[ready, -1]
    if asked.select == "ridge":
        steps = {row: min(counts[row], asked.history) for row in ready if counts[row] >= 3}
        for length in set(steps.values()):
            rows = [row for row in steps if steps[row] == length]
            found[rows] = predict(kept[rows, -length:].transpose(1, 2), asked.ridge)
    return found


def join(pages: list[torch.Tensor], rows: int, dim: int) -> torch.Tensor:
    """Pages of keys or values, (slots x key heads, ...) of fewer and fewer slots, as one (rows, key heads, ...)."""
    heads = len(pages[0]) // rows
    whole = [page.view(-1, heads, *page.shape[1:]) for page in pages]
    padded = [torch.cat([page, page.new_zeros(rows - len(page), *page.shape[1:])]) for page in whole]
    return torch.cat(padded, dim=dim)


def attend_to(chosen: torch.Tensor, there: torch.Tensor, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor):
    """Attention of scaled queries (rows, key heads, group, size) to these positions of each row and key head alone."""
    near = keys.gather(3, chosen[:, :, None].expand(-1, -1, keys.shape[2], -1))
    weights = (query @ near).masked_fill(~there[:, :, None], float("-inf")).softmax(dim=-1)
    return weights @ values.gather(2, chosen[..., None].expand(-1, -1, -1, values.shape[3]))


def sparse_attention(module, query, key, value, attention_mask, memory: Memory | None = None, **options):
    """As `attention.paged_attention`, where one token is fed and reaches beyond the budget to the chosen positions."""
    layer = module.layer_idx
    if memory is None or layer in memory.asked.dense_layers:
        return paged_attention(module, query, key, value, attention_mask, **options)
    if module.training:
        raise ValueError("a budget of positions is for decoding, this model is being trained: call its eval()")
    rows, heads, _, size = query.shape
    visible = attention_mask[:, 0, 0] == 0 if isinstance(key, list) else None
    if visible is None or int(visible.sum(dim=-1).max()) <= memory.asked.budget:
        found = paged_attention(module, query, key, value, attention_mask, **options)
        memory.push(layer, query)
        return found
    keys, values = join(key, rows, dim=3), join(value, rows, dim=2)
    looked = query[:, :, 0], keys, visible, options["scaling"]
    chosen, there = memory.take(layer) or choose(memory, layer, *looked)
    memory.push(layer, query)
    memory.start(layer, *looked)
    folded = query.view(rows, keys.shape[1], -1, size) * options["scaling"]
    return attend_to(chosen, there, folded, keys, values).reshape(rows, 1, heads, size), None


AttentionInterface.register(SPARSE := "sparse", sparse_attention)


AttentionMaskInterface.register(SPARSE, sdpa_mask)

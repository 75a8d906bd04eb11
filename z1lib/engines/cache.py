"""A key-value cache with one slot a row, in pages of positions, so that rows come, go, branch and grow in place.

transformers' DynamicCache concatenates all keys and values anew at every token, and a row of the batch takes the room
of the longest. Here a page holds PAGE positions of all slots, rows with more pages have the lower slots, and so the
slots that need a page are the first ones: one block of memory, read as it lies, and little is read that no row needs.
"""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

from z1lib.models import count_cache_elements

PAGE = 128  # positions
ROUND = 8  # slots are read by so many: products of a new shape cost a CPU a preparation, so there are few shapes


@dataclass
class _Room:
    """Where the next run of the model writes and what it reads, for all layers alike.

    The layers hold this and not their cache: a circle of references would keep gigabytes until the garbage collector
    comes by.
    """

    slots: list[int] = field(default_factory=list)  # page by page, how many of the first slots it holds
    # Of each page that is written to: rows of the run and places among their tokens, slots and offsets where they go.
    writes: dict[int, tuple[torch.Tensor, ...]] = field(default_factory=dict)
    reach: list[int] = field(default_factory=list)  # read: page by page, how many of the first slots
    behind: torch.Tensor | None = None  # read instead: all positions of these slots
    extent: int = 0  # of those, how many

    def hold(self, page: int, slots: int) -> None:
        """Let a page hold at least so many slots."""
        self.slots += [0] * (page + 1 - len(self.slots))
        if self.slots[page] < slots:
            self.slots[page] = _round(max(slots, self.slots[page] * 3 // 2))  # a page that grows is copied: not often


class _PagedLayer(DynamicLayer):
    """One layer's pages: keys (slots, key heads, size, PAGE) and values (slots, key heads, PAGE, size).

    Each is the right-hand side of a product.
    """

    def __init__(self, room: _Room):
        super().__init__()
        self.room = room
        self.pages: list[list[torch.Tensor]] = []

    def update(self, key_states, value_states, *args, **kwargs):
        """Keep what was computed. Returns what attention reads.

        For one token in every row a list of pages of keys, (slots x key heads, size, PAGE), and one of values,
        (slots x key heads, PAGE, size), each of the first slots alone, those that reach it; else keys and values
        (rows, key heads, positions, size), which are those given where nothing lies behind.
        """
        room = self.room
        self.grow(key_states)
        for page, (row, place, slot, offset) in room.writes.items():
            keys, values = self.pages[page]
            keys[slot, :, :, offset] = key_states[row, :, place]
            values[slot, :, offset] = value_states[row, :, place]
        if room.reach:
            return tuple(
                [pair[which][:slots].flatten(0, 1) for pair, slots in zip(self.pages, room.reach)] for which in (0, 1)
            )
        if room.behind is None:
            return key_states, value_states
        # A slot that a page does not hold has no position there that is not hidden: any other stands in.
        pages = self.pages[: -(-room.extent // PAGE)]
        behind = [[states[room.behind.clamp(max=len(states) - 1)] for states in pair] for pair in pages]
        keys, values = (torch.cat(states, dim=dim) for states, dim in zip(zip(*behind), (3, 2)))
        return keys.mT[:, :, : room.extent], values[:, :, : room.extent]

    def grow(self, like: torch.Tensor) -> None:
        """Make room for all slots and pages that are in use; `like`: (rows, key heads, tokens, size)."""
        for page, slots in enumerate(self.room.slots):
            old = self.pages[page] if page < len(self.pages) else None
            if old is None or len(old[0]) < slots:
                new = _make_page(like, slots)
                for states, before in zip(new, old or []):
                    states[: len(before)] = before
                self.pages[page : page + 1] = [new]

    def copy(self, page: int, source: torch.Tensor, target: torch.Tensor) -> None:
        self.grow(self.pages[page][1])
        for states in self.pages[page]:
            states[target] = states[source]


class PagedCache(Cache):
    """Rows 0 .. n-1 of the batch live in slots 0 .. n-1; `lengths[i]` positions of slot i are filled."""

    def __init__(self, config: PreTrainedConfig, device: str):
        self.room, self.device = _Room(), device
        super().__init__(layers=[_PagedLayer(self.room) for _ in range(config.get_text_config().num_hidden_layers)])
        self.lengths: list[int] = []
        self.opened: tuple[list[int], list[int]] = ([], [])  # slots and their new tokens in the run under way

    def append(self, rows: int) -> None:
        """New, empty slots behind the others."""
        self.lengths += [0] * rows

    def arrange(self, kept: list[int]) -> list[int]:
        """Keep these slots (one may come twice: a branch). Returns, slot by slot, the index in `kept` that lives there.

        Rows with more pages come first; those that are in such a place already stay there.
        """
        pages = [-(-self.lengths[slot] // PAGE) for slot in kept]
        place = _place(kept, pages)
        moved = [(kept[i], slot, pages[i]) for slot, i in enumerate(place) if kept[i] != slot]
        self.lengths = [self.lengths[kept[i]] for i in place]
        for page in range(max((count for *_, count in moved), default=0)):
            pairs = [pair for *pair, count in moved if count > page]
            self.room.hold(page, max(target for _, target in pairs) + 1)
            source, target = torch.tensor(pairs, device=self.device).T
            for layer in self.layers:
                layer.copy(page, source, target)
        return place

    def open(self, slots: list[int], counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for so many new tokens in each of these slots.

        Returns their positions (rows, most new tokens) and a mask of what they see (rows, 1, most new tokens,
        positions), an empty one where nothing lies behind: what they see is plainly causal. A row with fewer tokens is
        filled up behind. The next run of the model fills the room; call `close` after it.
        """
        positions = self._make_room(slots, counts)
        extent = max(self.lengths[slot] + count for slot, count in zip(slots, counts))
        room = self.room
        room.reach = []
        room.behind = torch.tensor(slots, device=self.device) if any(self.lengths[slot] for slot in slots) else None
        room.extent = extent
        if room.behind is None:
            return positions, torch.empty(0, 1, 1, 1, device=self.device)
        return positions, (torch.arange(extent, device=self.device) <= positions[:, :, None])[:, None]

    def open_all(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for one new token in every slot.

        As `open`, but the mask (rows, 1, 1, positions) is for adding, and the rows are filled up with some that nobody
        needs to a multiple of ROUND.
        """
        self._make_room(list(range(len(self.lengths))), [1] * len(self.lengths))
        lengths = self.lengths + [0] * (_round(len(self.lengths)) - len(self.lengths))
        most = max(lengths) // PAGE + 1
        ends = ([slot for slot, length in enumerate(lengths) if length >= page * PAGE][-1] + 1 for page in range(most))
        self.room.reach = [_round(end) for end in ends]
        for page, slots in enumerate(self.room.reach):
            self.room.hold(page, slots)
        positions = torch.tensor(lengths, device=self.device)[:, None]
        hidden = torch.arange(most * PAGE, device=self.device) > positions
        mask = torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, float("-inf"))
        return positions, mask[:, None, None]

    def _make_room(self, slots: list[int], counts: list[int]) -> torch.Tensor:
        """Say where the new tokens of the next run go. Returns their positions (rows, most new tokens)."""
        starts = torch.tensor([self.lengths[slot] for slot in slots], device=self.device)
        places = torch.arange(max(counts), device=self.device)
        positions = starts[:, None] + places
        row, place = (places < torch.tensor(counts, device=self.device)[:, None]).nonzero(as_tuple=True)
        kept = positions[row, place]
        page, slot = kept // PAGE, torch.tensor(slots, device=self.device)[row]
        self.room.writes = {}
        for one in page.unique().tolist():
            self.room.writes[one] = tuple(index[page == one] for index in (row, place, slot, kept % PAGE))
            self.room.hold(one, int(self.room.writes[one][2].max()) + 1)
        self.opened = slots, counts
        return positions

    def close(self) -> None:
        for slot, count in zip(*self.opened):
            self.lengths[slot] += count


def bytes_per_position(model) -> int:
    """Bytes of the keys and values of one token, in all layers."""
    return count_cache_elements(model.config) * model.dtype.itemsize


def _make_page(like: torch.Tensor, slots: int) -> list[torch.Tensor]:
    """Zeros for keys and values, whose memory runs as attention reads it fastest: see `attention._score`."""
    _, heads, _, size = like.shape
    keys, values = (slots, heads, size, PAGE), (slots, heads, PAGE, size)
    by_position = like.dtype != torch.float32
    return [like.new_zeros(values).mT if by_position else like.new_zeros(keys), like.new_zeros(values)]


def _place(kept: list[int], pages: list[int]) -> list[int]:
    """For every slot the index in `kept` that is to live there: by falling number of pages, moving few."""
    classes: dict[int, list[int]] = {}
    for index, count in enumerate(pages):
        classes.setdefault(count, []).append(index)
    place: list = [None] * len(kept)
    first = 0
    movers = {}
    for count in sorted(classes, reverse=True):
        span = range(first, first := first + len(classes[count]))
        movers[span] = []
        for index in classes[count]:
            if kept[index] in span and place[kept[index]] is None:
                place[kept[index]] = index
            else:
                movers[span].append(index)
    for span, waiting in movers.items():
        for slot in span:
            if place[slot] is None:
                place[slot] = waiting.pop()
    return place


def _round(slots: int) -> int:
    return -(-slots // ROUND) * ROUND

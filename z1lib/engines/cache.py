"""A key-value cache with one slot a row, in pages of positions, so that rows come, go, branch and grow in place.

transformers' DynamicCache concatenates all keys and values anew at every token, and a row of the batch takes the room
of the longest. Here a page holds PAGE positions of all slots, rows with more pages have the lower slots, and so the
slots that need a page are the first ones: one block of memory, read as it lies, and nothing is read that no row needs.
"""

from dataclasses import dataclass, field

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicLayer

PAGE = 128  # positions
SECTION = 16  # slots, at least, whose attention is computed together, to keep the calls few


@dataclass
class _Room:
    """Where the next run of the model writes and what it reads, for all layers alike.

    The layers hold this and not their cache: a circle of references would keep gigabytes until the garbage collector
    comes by.
    """

    pages: int = 0
    slots: int = 0
    tokens: tuple[torch.Tensor, torch.Tensor] = ()  # of the run, those to keep: (row, place among the row's tokens)
    places: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = ()  # where each goes: (page, slot, offset)
    sections: list[tuple[int, int, int]] = field(default_factory=list)  # read: (first slot, last + 1, pages)
    behind: torch.Tensor | None = None  # read instead: all positions of these slots
    extent: int = 0  # of those, how many


class _PagedLayer(DynamicLayer):
    """One layer's keys (pages, slots, key heads, size, PAGE) and values (pages, slots, key heads, PAGE, size).

    Each is the right-hand side of a product; how they lie in memory says `_zeros`.
    """

    def __init__(self, room: _Room):
        super().__init__()
        self.room = room

    def update(self, key_states, value_states, *args, **kwargs):
        """Keep what was computed. Returns what attention reads.

        For one token in every row a list of sections, (first, last + 1, pages), of keys and one of values; else keys
        and values (rows, key heads, positions, size), which are those given where nothing lies behind.
        """
        room = self.room
        if self.keys is None:
            self.keys = key_states.new_empty(0, 0, key_states.shape[1], key_states.shape[3], PAGE)
            self.values = value_states.new_empty(0, 0, value_states.shape[1], PAGE, value_states.shape[3])
        self.grow()
        page, slot, offset = room.places
        row, place = room.tokens
        self.keys[page, slot, :, :, offset] = key_states[row, :, place]
        self.values[page, slot, :, offset] = value_states[row, :, place]
        if room.sections:
            return self._read(self.keys), self._read(self.values)
        if room.behind is None:
            return key_states, value_states
        pages = -(-room.extent // PAGE)
        keys = self.keys[:pages, room.behind].permute(1, 2, 0, 4, 3).flatten(2, 3)
        values = self.values[:pages, room.behind].permute(1, 2, 0, 3, 4).flatten(2, 3)
        return keys[:, :, : room.extent], values[:, :, : room.extent]

    def _read(self, states: torch.Tensor) -> list[tuple[int, int, list[torch.Tensor]]]:
        sections = self.room.sections
        return [(a, b, [states[page, a:b].flatten(0, 1) for page in range(pages)]) for a, b, pages in sections]

    def grow(self) -> None:
        """Make room for all slots and pages that are in use."""
        wanted = self.room.pages, self.room.slots
        for name in ("keys", "values"):
            old = getattr(self, name)
            if old.shape[0] < wanted[0] or old.shape[1] < wanted[1]:
                new = _zeros(old, name == "keys", *map(max, zip(wanted, old.shape)), *old.shape[2:])
                new[: old.shape[0], : old.shape[1]] = old
                setattr(self, name, new)


class PagedCache(Cache):
    """Rows 0 .. n-1 of the batch live in slots 0 .. n-1; `lengths[i]` positions of slot i are filled."""

    def __init__(self, config: PreTrainedConfig, device: str):
        layer_types = getattr(config.get_text_config(), "layer_types", None) or ["full_attention"]
        if set(layer_types) != {"full_attention"}:
            raise ValueError(f"the transformers engine needs full attention in every layer, not {set(layer_types)}")
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
        self.room.slots = max(self.room.slots, len(kept))
        moved = [(kept[i], slot, pages[i]) for slot, i in enumerate(place) if kept[i] != slot]
        copied = [(page, *pair) for *pair, count in moved for page in range(count)]
        self.lengths = [self.lengths[kept[i]] for i in place]
        if copied:
            page, source, target = torch.tensor(copied, device=self.device).T
            for layer in self.layers:
                layer.grow()
                layer.keys[page, target] = layer.keys[page, source]
                layer.values[page, target] = layer.values[page, source]
        return place

    def open(self, slots: list[int], counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for so many new tokens in each of these slots.

        Returns their positions (rows, most new tokens) and a mask of what they see (rows, 1, most new tokens,
        positions), an empty one where nothing lies behind: what they see is plainly causal. A row with fewer tokens is
        filled up behind. The next run of the model fills the room; call `close` after it.
        """
        starts = torch.tensor([self.lengths[slot] for slot in slots], device=self.device)
        places = torch.arange(max(counts), device=self.device)
        positions = starts[:, None] + places
        row, place = (places < torch.tensor(counts, device=self.device)[:, None]).nonzero(as_tuple=True)
        kept = positions[row, place]
        extent = max(self.lengths[slot] + count for slot, count in zip(slots, counts))
        room = self.room
        room.tokens = row, place
        room.places = kept // PAGE, torch.tensor(slots, device=self.device)[row], kept % PAGE
        room.pages, room.slots = max(room.pages, -(-extent // PAGE)), max(room.slots, len(self.lengths))
        room.sections = []
        room.behind = torch.tensor(slots, device=self.device) if any(self.lengths[slot] for slot in slots) else None
        room.extent = extent
        self.opened = slots, counts
        if room.behind is None:
            return positions, torch.empty(0, 1, 1, 1, device=self.device)
        return positions, (torch.arange(extent, device=self.device) <= positions[:, :, None])[:, None]

    def open_all(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for one new token in every slot. As `open`, but the mask (rows, 1, 1, positions) is for adding."""
        slots = list(range(len(self.lengths)))
        positions, _ = self.open(slots, [1] * len(slots))
        self.room.sections = _sections([length // PAGE + 1 for length in self.lengths])
        extent = self.room.sections[0][2] * PAGE
        hidden = torch.arange(extent, device=self.device) > positions
        mask = torch.zeros(hidden.shape, device=self.device).masked_fill_(hidden, float("-inf"))
        return positions, mask[:, None, None]

    def close(self) -> None:
        for slot, count in zip(*self.opened):
            self.lengths[slot] += count


def bytes_per_position(model) -> int:
    """Bytes of the keys and values of one token, in all layers."""
    config = model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize


def _zeros(like: torch.Tensor, are_keys: bool, *shape: int) -> torch.Tensor:
    """Zeros whose memory runs as attention reads it fastest: keys below float32 position by position."""
    *outer, rows, columns = shape
    if are_keys and like.dtype != torch.float32:
        return like.new_zeros(*outer, columns, rows).mT
    return like.new_zeros(shape)


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


def _sections(pages: list[int]) -> list[tuple[int, int, int]]:
    """Neighbouring slots that read about equally many pages: (first, last + 1, most pages)."""
    sections = []
    end = len(pages)
    start, most = end, 0
    for slot in reversed(range(len(pages))):  # from those with few pages
        if pages[slot] > most and end - start >= SECTION and slot + 1 >= SECTION:
            sections.append((start, end, most))
            end, most = start, 0
        start, most = slot, max(most, pages[slot])
    return [(start, end, most), *reversed(sections)]

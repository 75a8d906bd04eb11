"""A key-value cache with one slot a row, so that rows come, go and branch without moving the others.

transformers' DynamicCache concatenates all keys and values anew at every token and at every change of the batch; here
a token is written in place, and a row that leaves or branches costs one copied row. The attention beside it reads
the cache without repeating the heads that share keys (grouped-query attention).
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

GROWTH = 128  # positions added at a time


@dataclass
class _Room:
    """Where the next run of the model writes and what it reads, for all layers alike.

    The layers hold this and not their cache: a circle of references would keep gigabytes until the garbage collector
    comes by.
    """

    slots: torch.Tensor = None  # (rows,)
    positions: torch.Tensor = None  # (rows, new tokens)
    extent: int = 0  # positions read
    used: int = 0  # slots in use


class _SlotLayer(DynamicLayer):
    """One layer's keys and values: (slots, key heads, positions, head size), the first `room.used` slots in use."""

    def __init__(self, room: _Room):
        super().__init__()
        self.room = room

    def update(self, key_states, value_states, *args, **kwargs):
        slots, positions, extent = self.room.slots, self.room.positions, self.room.extent
        self.keys[slots[:, None], :, positions] = key_states.transpose(1, 2)
        self.values[slots[:, None], :, positions] = value_states.transpose(1, 2)
        if len(slots) == self.room.used:  # every row: a view will do
            return self.keys[: len(slots), :, :extent], self.values[: len(slots), :, :extent]
        return self.keys[slots, :, :extent], self.values[slots, :, :extent]

    def grow(self, slots: int, positions: int) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(slots, old.shape[1], positions, old.shape[3])
            new[: old.shape[0], :, : old.shape[2]] = old
            setattr(self, name, new)


class SlotCache(Cache):
    """Rows 0 .. n-1 of the batch live in slots 0 .. n-1; `lengths[i]` positions of slot i are filled."""

    def __init__(self, config: PreTrainedConfig, device: str):
        layer_types = getattr(config.get_text_config(), "layer_types", None) or ["full_attention"]
        if set(layer_types) != {"full_attention"}:
            raise ValueError(f"the transformers engine needs full attention in every layer, not {set(layer_types)}")
        self.room = _Room()
        super().__init__(layers=[_SlotLayer(self.room) for _ in range(config.get_text_config().num_hidden_layers)])
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)

    def adopt(self, prefilled: DynamicCache, lengths: list[int]) -> None:
        """Append left-padded rows just prefilled."""
        first, longest = len(self.lengths), max(lengths)
        for layer, new in zip(self.layers, prefilled.layers):
            if layer.keys is None:
                layer.keys, layer.values = new.keys[:0], new.values[:0]
        self._reserve(first + len(lengths), longest)
        for layer, new in zip(self.layers, prefilled.layers):
            for row, length in enumerate(lengths):
                layer.keys[first + row, :, :length] = new.keys[row, :, -length:]
                layer.values[first + row, :, :length] = new.values[row, :, -length:]
        self.lengths = torch.cat([self.lengths, self.lengths.new_tensor(lengths)])

    def arrange(self, kept: list[int]) -> list[int]:
        """Keep these slots (one may come twice: a branch). Returns, slot by slot, the index in `kept` that lives there.

        Rows stay where they are if they can; the others are copied into the slots that become free.
        """
        place: list = [None] * len(kept)
        movers = []
        for index, slot in enumerate(kept):
            if slot < len(kept) and place[slot] is None:
                place[slot] = index
            else:
                movers.append(index)
        free = [slot for slot, index in enumerate(place) if index is None]
        filled = int(self.lengths.max()) if kept else 0
        self._reserve(len(kept), 0)
        source = torch.tensor([kept[index] for index in movers], dtype=torch.long, device=self.lengths.device)
        target = torch.tensor(free, dtype=torch.long, device=self.lengths.device)
        for layer in self.layers if free else []:
            layer.keys[target, :, :filled] = layer.keys[source, :, :filled]
            layer.values[target, :, :filled] = layer.values[source, :, :filled]
        for slot, index in zip(free, movers):
            place[slot] = index
        self.lengths = self.lengths[
            torch.tensor([kept[i] for i in place], dtype=torch.long, device=self.lengths.device)
        ]
        return place

    def open(self, slots: list[int], new: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Make room for `new` tokens in each of these slots, in rising order.

        Returns their positions (rows, new) and the mask of what they see (rows, 1, new, positions). The next run of the
        model fills the room; call `close` after it.
        """
        slots = torch.tensor(slots, device=self.lengths.device)
        positions = self.lengths[slots][:, None] + torch.arange(new, device=self.lengths.device)
        extent = int(positions.max()) + 1
        self._reserve(len(self.lengths), extent)
        self.room.slots, self.room.positions, self.room.extent = slots, positions, extent
        self.room.used = len(self.lengths)
        seen = torch.arange(extent, device=self.lengths.device) <= positions[:, :, None]
        return positions, seen[:, None]

    def close(self) -> None:
        self.lengths[self.room.slots] += self.room.positions.shape[1]

    def _reserve(self, slots: int, positions: int) -> None:
        have_slots, _, have_positions, _ = self.layers[0].keys.shape
        if slots > have_slots or positions > have_positions:
            room = max(have_positions, -(-positions // GROWTH) * GROWTH)
            slots = max(slots, have_slots * 5 // 4) if slots > have_slots else have_slots
            for layer in self.layers:
                layer.grow(slots, room)

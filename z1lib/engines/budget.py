"""A budget of positions: what is asked of `engines.sparse`, and what a token then reads. No torch: 05 prices it."""

from dataclasses import dataclass
from typing import get_args

from z1lib.profile import Select
from z1lib.window import check_count

DENSE = "dense"  # in the place of a selection: all positions
POSITIONS = 16  # of a page, of whose keys the smallest and largest are kept


@dataclass(frozen=True)
class Sparse:
    """Which positions a new token attends to: at most `budget`, itself, `sinks` first and `recent` last ones always.

    `history`: queries that a prediction is made from; `ridge`: its regulariser, as a share of their mean square.
    `dense_layers` attend to everything. Raises ValueError for a budget that the fixed positions fill, a history below
    2, a ridge that is not above 0 (its equations could not be solved), or an unknown selection.
    """

    budget: int
    select: Select = "ridge"
    history: int = 16
    ridge: float = 1e-2
    sinks: int = 4
    recent: int = 8
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self):
        if self.select not in get_args(Select):
            raise ValueError(f"select: {self.select!r} is not one of {', '.join(get_args(Select))}")
        for name, least in (("sinks", 0), ("recent", 0), ("history", 2)):
            check_count(f"Sparse: {name}", getattr(self, name), least)
        check_count("Sparse: budget (its sinks, recent positions and the token itself, at least)", self.budget,
                    self.sinks + self.recent + 1)  # fmt: skip
        if not self.ridge > 0:
            raise ValueError(f"Sparse: ridge must be above 0, got {self.ridge}: the equations could not be solved")

    def price(self, length: int, layers: int) -> tuple[int, int]:
        """(positions attended, keys scored to choose them) of a token with so many positions, mean of the layers."""
        sparse = 1 - len(self.dense_layers) / layers
        if length <= self.budget:
            return length, 0
        keys = {"window": 0.0, "page": 2 / POSITIONS}.get(self.select, 1.0)
        return round(length - sparse * (length - self.budget)), round(sparse * keys * length)

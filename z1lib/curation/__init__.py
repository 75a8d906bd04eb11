"""The verb of notebook 01: from questions to supervised trajectories."""

from z1lib.curation.repetition import is_repetitive
from z1lib.curation.selection import select

__all__ = ["is_repetitive", "select"]

"""Engines: one file each, one call."""

from z1lib.engines.base import load_engine

__all__ = ["load_engine"]

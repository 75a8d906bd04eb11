"""The verb of notebook 02: supervised fine-tuning on responses."""

from z1lib.sft.data import tokenize_example

__all__ = ["tokenize_example"]

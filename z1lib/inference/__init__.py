"""The verb of notebook 03: completions under a policy, and the sweep over windows."""

from z1lib.inference.decode import generate, window_sweep

__all__ = ["generate", "window_sweep"]

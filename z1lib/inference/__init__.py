"""The verb of notebook 03: completions under a policy, the sweep over windows, and rules that say when to stop."""

from z1lib.inference.decode import generate, window_sweep
from z1lib.inference.until import generate_until

__all__ = ["generate", "generate_until", "window_sweep"]

"""The front door for one's own model: `python -m z1lib.eval`, made of the stages' own functions."""

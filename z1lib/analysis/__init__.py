"""The verb of notebook 04: from completions and grades to tables, pictures and sentences."""

from z1lib.stats import iso_accuracy_ratio, paired_bootstrap

__all__ = ["iso_accuracy_ratio", "paired_bootstrap"]

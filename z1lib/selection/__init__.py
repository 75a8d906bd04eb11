"""Rules: which of several answers to a problem counts, and when to stop drawing more. No rule decodes anything."""

from z1lib.selection.pool import replay
from z1lib.selection.rules import Anyone, Candidate, FirstAgreeing, Oracle, ShortestOf, Vote

__all__ = ["Anyone", "Candidate", "FirstAgreeing", "Oracle", "ShortestOf", "Vote", "replay"]

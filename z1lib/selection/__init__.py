"""Rules: which of several answers to a problem counts, and when to stop drawing more. No rule decodes anything."""

from z1lib.selection.calibration import calibrate, limit_risk
from z1lib.selection.pool import replay
from z1lib.selection.rules import (
    AdaptiveVote,
    Anyone,
    BestOf,
    Candidate,
    FirstAgreeing,
    FirstConfident,
    Oracle,
    ShortestOf,
    Vote,
    WeightedVote,
)

__all__ = [
    "AdaptiveVote",
    "Anyone",
    "BestOf",
    "Candidate",
    "FirstAgreeing",
    "FirstConfident",
    "Oracle",
    "ShortestOf",
    "Vote",
    "WeightedVote",
    "calibrate",
    "limit_risk",
    "replay",
]

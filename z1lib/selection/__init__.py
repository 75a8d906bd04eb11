"""Rules: which of several answers to a problem counts, and when to stop drawing more. No rule decodes anything."""

from z1lib.selection.behaviour import Medoid, choose_program
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
    "Medoid",
    "Oracle",
    "ShortestOf",
    "Vote",
    "WeightedVote",
    "calibrate",
    "choose_program",
    "limit_risk",
    "replay",
]

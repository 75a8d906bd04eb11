"""Is the answer right, and by which rule was it found?"""

from z1lib.grading.answers import (
    extract_answer,
    extract_before_hint,
    extract_choice,
    extract_code,
    extract_letter,
    find_boxed,
    find_code,
)
from z1lib.grading.equivalence import is_equivalent, is_same_output, is_same_text
from z1lib.grading.judge import grade, grade_all
from z1lib.grading.programs import passes_tests

__all__ = [
    "extract_answer",
    "extract_before_hint",
    "extract_choice",
    "extract_code",
    "extract_letter",
    "find_boxed",
    "find_code",
    "grade",
    "grade_all",
    "is_equivalent",
    "is_same_output",
    "is_same_text",
    "passes_tests",
]

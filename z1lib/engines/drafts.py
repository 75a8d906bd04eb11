"""Drafts for speculative decoding: what may come next, guessed without a model (prompt lookup, Saxena 2023).

A draft is checked in one pass and costs nothing but that where it is wrong: what is written is what would have been
written without it (Leviathan et al., arXiv 2211.17192).
"""

LONGEST = 3  # ids at the end that are looked for, at most


def look_up(ids: list[int], most: int) -> list[int]:
    """What came behind the last ids when they came before: of the longest such end, its latest place. [] where none."""
    for size in range(LONGEST, 0, -1):
        end = ids[-size:]
        for start in range(len(ids) - size - 1, -1, -1):
            if ids[start : start + size] == end:
                return ids[start + size : start + size + most]
    return []

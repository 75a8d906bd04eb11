"""Loops: whether a text repeats itself without end."""

import re
from collections import Counter


def is_repetitive(
    text: str,
    min_tokens: int = 40,
    min_repeats: int = 3,
    min_counted: int = 10,
    loop_ratio: float = 0.3,
    ngram: int = 12,
) -> bool:
    """Whether a text is caught in a loop. The paper removed about 3% as repetitive and gives no rule; this is ours.

    Tokens here are words, numbers and signs. A text loops if (1) its end is one phrase `min_repeats` times over, at
    least `min_tokens` long, or `min_counted` times over under one running counter ("Step 7: check again. Step 8:
    check again."; the rounds of a traced loop may look so for a while); the last phrase may be cut, inside a word too;
    or (2) it was in a loop that it left again: twice `min_repeats` phrases in a row anywhere, or more than
    `loop_ratio` of the n-grams of `ngram` tokens have come twice before. Signs and numbers alone are a loop only in
    long runs (tables of zeros are none). (3) The same end of the text, looked at by its characters: a syllable without
    spaces, or a script that has none, is one word.
    """
    if _loops_in_characters(text, min_repeats):
        return True
    tokens = TOKEN.findall(text)
    periods = range(1, len(tokens) // min_repeats + 1)
    for end in (tokens, tokens[:-1]):  # a token limit may have cut the last word
        if any(_loops(end, period, min_tokens, min_repeats, min_counted) for period in periods):
            return True
    grams = [tuple(tokens[i : i + ngram]) for i in range(len(tokens) - ngram + 1)]
    seen: Counter = Counter()
    last: dict[tuple, int] = {}
    again = run = period = 0
    for place, gram in enumerate(grams):
        before, period = period, place - last.get(gram, place)
        run = run + 1 if period and period == before else 0  # n-grams in a row that came one period ago
        if any(token.isalpha() for token in gram):
            again += seen[gram] >= 2
            if period and run + ngram + period >= max(min_tokens, 2 * min_repeats * period):
                return True
        seen[gram] += 1
        last[gram] = place
    return len(tokens) >= min_tokens and again > loop_ratio * len(grams)


TOKEN = re.compile(r"\d+|[^\W\d_]+|[^\s\w]|_")
LONG_RUN = 200  # tokens without a letter, or characters with some, that repeat themselves
LOOKED_AT = 20_000  # characters of the end of a text
LONGEST_NUMBER = 18  # digits: a longer one counts nothing


def _is_number(token: str) -> bool:
    return token.isdecimal() and len(token) <= LONGEST_NUMBER


def _loops_in_characters(text: str, min_repeats: int) -> bool:
    """Whether the end of a text is one phrase with a letter, `min_repeats` times over in at least LONG_RUN characters.

    The periods of all ends at once, by the prefix function of the text read backwards (Knuth, Morris, Pratt).
    """
    end = text.rstrip()[: -LOOKED_AT - 1 : -1]
    borders = [0] * len(end)
    for i in range(1, len(end)):
        border = borders[i - 1]
        while border and end[i] != end[border]:
            border = borders[border - 1]
        borders[i] = border + (end[i] == end[border])
        period = i + 1 - borders[i]
        if i + 1 >= max(LONG_RUN, min_repeats * period) and any(map(str.isalpha, end[:period])):
            return True
    return False


def _loops(tokens: list[str], period: int, min_tokens: int, min_repeats: int, min_counted: int) -> bool:
    """Whether the end of `tokens` repeats with this period, but for one number that counts up or down by one."""
    if tokens[-1] != tokens[-1 - period] and not tokens[-1].isdecimal():
        return False
    counters: dict[int, str] = {}  # by repetition, counted from the end: the number that runs
    run = period
    for last in range(len(tokens) - 1, period - 1, -1):
        now, before = tokens[last], tokens[last - period]
        if now != before:
            counts = _is_number(now) and _is_number(before) and abs(int(now) - int(before)) == 1
            if not counts or counters.setdefault((len(tokens) - 1 - last) // period, now) != now:
                break
        run += 1
    letters = sum(token.isalpha() for token in tokens[-period:])
    if counters and letters < 4:  # `i = 1 i = 2` is a trace, not a sentence
        return False
    if not letters and run < LONG_RUN:
        return False
    return run >= max(min_tokens, (min_counted if counters else min_repeats) * period)

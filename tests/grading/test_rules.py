"""The rules behind the verdicts: properties, the near-miss of every rewriting, time that does not explode."""

import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.grading.test_grading import completion
from z1lib import grading
from z1lib.grading.fences import find_blocks
from z1lib.problems.livecodebench import IMPORTS
from z1lib.records import Problem
from z1lib.sandbox import execute_code

CODE = st.text(st.sampled_from("ab \n`~=()#'"), max_size=40).filter(lambda text: "```" not in text)


@given(CODE, st.text(st.sampled_from("ab .:\n"), max_size=30), st.sampled_from(["```", "~~~", "````"]))
def test_a_block_is_what_stands_between_its_fences_whatever_is_around_it(code, prose, fence):
    lines = [line for line in code.splitlines() if not line.strip(" \t").startswith(("`", "~"))]
    text = "\n".join([prose, f"{fence}python", *lines, fence, prose])
    assert [block.code for block in find_blocks(text)] == ["".join(f"{line}\n" for line in lines)]


@given(st.lists(st.sampled_from(["\\\\boxed{", "{", "}", "a", "\\\\{", " "]), max_size=30))
def test_boxes_are_found_as_by_counting_braces(parts):
    text = "".join(parts).replace("\\\\", "\\")
    found = []
    for start in range(len(text)):
        if not text.startswith("\\boxed{", start):
            continue
        depth, at = 1, start + len("\\boxed{")
        for end in range(at, len(text)):
            if text[end - 1] == "\\":  # an escaped brace is text
                continue
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth == 0:
                found += [text[at:end].strip()] if text[at:end].strip() else []
                break
    assert grading.find_boxed(text) == found


REWRITTEN = [
    ("0.\\overline{3}", "1/3", "0.3"),
    ("exp(2)", "e^2", "e^3"),
    ("2 1/2", "5/2", "21/2"),
    ("\\sqrt(9)", "3", "9"),
    ("3pi", "3\\pi", "3p"),
    ("\\sin 30^\\circ", "1/2", "\\sin 30"),
    ("1e3", "1000", "13"),
    ("3+2\\mathrm{i}", "3+2i", "3-2i"),
    ("10\\,000", "10000", "10 00"),
    ("x<3", "(-\\infty,3)", "(-\\infty,3]"),
    ("1\\le x<4", "[1,4)", "(1,4)"),
    ("x\\ge 2", "[2,\\infty)", "(2,\\infty)"),
    ("\\underline{42}", "42", "4_2"),
    ("$$42$$", "42", "$$43$$"),
    ("**42**", "42", "**24**"),
    ("Even", "even", "odd"),
]


@pytest.mark.parametrize(("answer", "same", "near"), REWRITTEN)
def test_every_rewriting_means_the_same_and_its_near_miss_does_not(answer, same, near):
    assert grading.is_equivalent(answer, same)
    assert not grading.is_equivalent(near, same)


def test_after_the_prelude_of_livecodebench_every_builtin_is_the_builtin():
    check = "import builtins as _b\nfor _name in dir(_b):\n"
    check += "    if _name[0] != '_' and globals().get(_name, vars(_b)[_name]) is not vars(_b)[_name]: print(_name)\n"
    run = execute_code(IMPORTS + check)
    assert (run.ok, run.stdout) == (True, "")


LONG = {
    "boxes": "\\boxed{",
    "fences": "```\n",
    "fence words": "```a",
    "letters": "The answer is\n",
    "spaces": " " * 9 + "x",
    "numbers": "the sum is 12. ",
    "operators": "1+",
    "brackets": "(",
    "dollars": "$",
    "tilde": "~~~python\n",
    "equals": "x=",
    "commas": "1,",
    "stars": "**",
    "texts": "\\text{a ",
    "lists": "- ",
    "code": "```python\nprint(1)\n```\n",
}
READERS = {
    "find_boxed": grading.find_boxed,
    "find_code": grading.find_code,
    "extract_letter": grading.extract_letter,
    "extract_answer": lambda text: grading.extract_answer(completion(text)),
    "after a hint": lambda text: grading.extract_answer(completion("", text, overran=True)),
    "extract_code": lambda text: grading.extract_code(completion("", text, overran=True)),
    "is_equivalent": lambda text: grading.is_equivalent(text, "5"),
    "is_same_text": lambda text: grading.is_same_text(text, "5"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", LONG)
def test_a_megabyte_of_anything_is_read_in_two_seconds_while_others_go_on(kind, reader):
    text = LONG[kind] * (1_000_000 // len(LONG[kind]))
    waits, done = [], threading.Event()

    def tick():
        while not done.is_set():
            start = time.perf_counter()
            time.sleep(0.01)
            waits.append(time.perf_counter() - start)

    other = threading.Thread(target=tick)
    other.start()
    start = time.process_time()
    READERS[reader](text)
    took = time.process_time() - start
    done.set()
    other.join()
    assert took < 2, f"{took:.1f} s of processor time"
    assert max(waits) < 2, f"another thread stood still for {max(waits):.1f} s"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", LONG)
def test_twice_the_text_takes_at_most_three_times_as_long(kind, reader):
    def seconds(length: int) -> float:
        text = LONG[kind] * (length // len(LONG[kind]))
        start = time.process_time()
        READERS[reader](text)
        return time.process_time() - start

    once, twice = (min(seconds(length) for _ in range(3)) for length in (200_000, 400_000))
    assert twice < 3 * max(once, 0.02), f"{once:.3f} s, then {twice:.3f} s"


def test_the_error_of_a_program_is_told_from_its_last_line_at_once():
    hostile = "import sys\nsys.stderr.write('MemoryError ' + ' ' * 60000 + 'x\\nx')\nsys.exit(1)"
    start = time.perf_counter()
    assert grading.passes_tests(hostile, json.dumps({"cases": [["", "3"]]})) == "wrong"
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("letters", ["ABCD", "ABCDEFGHIJ"])
@given(data=st.data())
def test_a_stated_letter_is_found_and_a_mentioned_one_is_not(letters, data):
    right, other = data.draw(st.permutations("BCD"))[:2]
    stated = data.draw(st.sampled_from(["The answer is {}.", "**Answer:** {}", "\\boxed{{{}}}", "{} is correct."]))
    mention = data.draw(st.sampled_from(["Option {} looks right.", "Choice {} is common.", "Not {}.", ""]))
    text = f"{mention.format(other)} {stated.format(right)}"
    assert grading.extract_choice(completion(text), letters)[0] == right


def test_kinds_of_problems_are_graded_by_their_own_rules():
    assert grading.grade(Problem("p", "q", "text", "Ab"), completion("\\boxed{Ab}")).correct
    assert not grading.grade(Problem("p", "q", "text", "Ab"), completion("\\boxed{aB}")).correct
    assert grading.grade(Problem("p", "q", "math", "even"), completion("\\boxed{Even}")).correct

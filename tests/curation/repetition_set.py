"""A labelled set for the repetition rule: loops as language models fall into them, and texts that only look alike.

Made by us from templates, from the interpreter's traces and from real code and prose of the standard library.
"""

import inspect
import json
import random
import textwrap

from z1lib.problems import tracing

SENTENCES = [
    "Wait, let me check the condition again.",
    "So the answer should be the sum of the two lists.",
    "But we need to handle the case where the list is empty.",
    "Let's consider another example to make sure that this works.",
    "Hmm, I am not sure about this, so let me reconsider the problem.",
    "Therefore, the function returns the number of elements that are greater than k.",
    "Actually, that is not correct because the index starts at zero.",
    "I think we should use a dictionary to count the occurrences of each word.",
    "The time complexity of this approach is quadratic in the length of the input.",
    "Now, moving on to the next part of the implementation of the class.",
]
MODULES = [json, random, textwrap, inspect]


def varied_text(rng: random.Random, words: int) -> str:
    """Prose and code without loops: paragraphs of the standard library's documentation and sources."""
    module = rng.choice(MODULES)
    source = inspect.getsource(module).split()
    start = rng.randrange(max(1, len(source) - words))
    return " ".join(source[start : start + words])


def make_loops(seed: int = 0) -> list[tuple[str, str]]:
    """(kind, text) of 143 loops."""
    rng = random.Random(seed)
    texts = []
    for _ in range(13):
        one, two, three = rng.sample(SENTENCES, 3)
        many = rng.randint(6, 40)
        whole = " ".join([one] * many)
        texts += [
            ("one sentence", whole),
            ("cut in the last sentence", whole[: -rng.randint(3, len(one) - 3)]),
            ("two sentences in turn", " ".join([one, two] * many)),
            ("a paragraph", "\n".join([f"{one} {two} {three}"] * max(4, many // 3))),
            ("after a long varied text", varied_text(rng, 900) + "\n" + " ".join([one] * many)),
            (
                "after a varied text, cut in a word",
                f"{varied_text(rng, 400)} {whole} {one.split()[0]} {one.split()[1][:-1]}",
            ),
            ("left again", f"{two} {' '.join([one] * many)} {three}"),
            ("under a counter", "\n".join(f"Step {i}: {one}" for i in range(rng.randint(1, 9), 30))),
            ("under a counter, named twice", "\n".join(f"{i}. {one} (end of {i})" for i in range(3, 25))),
            ("one word", varied_text(rng, 200) + " " + " ".join([rng.choice(["wait", "so", "the"])] * 60)),
            ("a line of code", varied_text(rng, 100) + "\n" + "\n".join(["    result.append(nums[i] + nums[j])"] * 12)),
        ]
    return texts


def make_texts(seed: int = 0) -> list[tuple[str, str]]:
    """(kind, text) of 182 texts that are no loops."""
    rng = random.Random(seed)
    problems = tracing.make_problems(26, [3, 4, 5, 6, 7], seed, "tracing", set())
    texts = [("trace", tracing.tell(problem, "lean").text) for problem in problems]
    texts += [("trace told twice", tracing.tell(problem, "rechecked", delimiters=True).text) for problem in problems]
    for _ in range(13):
        one, k, rows = rng.choice(SENTENCES), rng.randint(2, 9), rng.randint(8, 20)
        values = [rng.randint(1, 99) for _ in range(rows)]
        texts += [
            ("code", varied_text(rng, rng.randint(100, 900))),
            ("table", "\n".join(f"| {i} | {k} | {i * k} |" for i in range(rows))),
            ("table of zeros", "dp =\n" + "\n".join(" ".join(["0"] * 8) for _ in range(rows))),
            (
                "steps with values",
                "\n".join(f"Step {i}: add {v}, the sum is {sum(values[: i + 1])}." for i, v in enumerate(values)),
            ),
            (
                "cases",
                "\n".join(
                    f"If x = {i}, then {k} * x + 1 = {k * i + 1}, which is {'even' if (k * i + 1) % 2 == 0 else 'odd'}."
                    for i in range(rows)
                ),
            ),
            (
                "rounds of a traced loop",
                "\n".join(
                    f"Iteration {i}: i is {i}, less than {rows}, so print it." for i in range(1, rng.randint(3, 9))
                ),
            ),
            (
                "numbered lines of code",
                varied_text(rng, 60)
                + "".join(f"\nself.layer{i} = nn.Linear({k}, {k})" for i in range(rng.randint(3, 9))),
            ),
            ("asserts", "\n".join(f"assert add({v}, {k}) == {v + k}" for v in values)),
            ("counting", "\n".join(f"i = {i}" for i in range(rng.choice([rows, 200])))),
            ("a refrain", f"{one} " + " ".join(f"{varied_text(rng, 60)} {one}" for _ in range(3))),
        ]
    return texts

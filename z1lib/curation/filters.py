"""What is put aside, and why: one datatrove filter a reason.

A filter returns (False, reason) and leaves what it saw in `metadata["detail"]`; the exclusion writer keeps the row.
"""

import re
from collections import Counter
from functools import cache
from itertools import chain
from os.path import commonprefix
from pathlib import Path

import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.writers.disk_base import DiskWriter
from datatrove.utils.hashing import HashConfig, create_hash_func
from datatrove.utils.text import TextNormConfig, ngrams, simplify_text
from datatrove.utils.word_tokenizers import WordTokenizer
from transformers import AutoTokenizer

from z1lib.chat import encode_text
from z1lib.curation.repetition import TOKEN, is_repetitive
from z1lib.grading.answers import find_boxed
from z1lib.grading.equivalence import is_equivalent
from z1lib.records import Problem

# Numbers and signs stay as they are: in code they are the content. (datatrove's default drops both.)
NORM = TextNormConfig(norm_numbers=False, remove_punctuation=False, norm_whitespace=False)
HASH = HashConfig(hash_fc="sha1")  # datatrove's xxhash gives it text, which xxhash 4 refuses
CHOICES = re.compile(r"\n\s*\(A\)")  # where the choices of a question begin
MIN_WORDS = 5  # of a question without its instructions or choices: a shorter one says too little
FORM = 3  # an n-gram that so many problems of a set share is the set's form, not a problem's content


class Words(WordTokenizer):
    """Splits at a pattern; datatrove's own word tokenizers need a language model that code does not fit."""

    def __init__(self, pattern: re.Pattern):
        super().__init__()
        self.pattern = pattern

    def word_tokenize(self, text: str) -> list[str]:
        return self.pattern.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return text.splitlines()

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in re.finditer(r".+", text)]


CODE_WORDS = Words(TOKEN)  # for whole questions and near-duplicates: `a + 3` is not `a - 3`
PLAIN_WORDS = Words(re.compile(r"\w+"))  # for words in a row: a copy with other punctuation is a copy


class Filter(BaseFilter):
    """A filter of ours: `judge` says True, or (False, reason). A row that it fails on is put aside with the error."""

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        try:
            return self.judge(doc)
        except Exception as error:
            doc.metadata["detail"] = f"{type(error).__name__}: {error}"[:200]
            return False, "cannot be judged"


class Faults(Filter):
    """Puts aside the rows the reader could not use."""

    name = "🧾 Readable"

    def judge(self, doc: Document) -> bool | tuple[bool, str]:
        return (False, doc.metadata["fault"]) if doc.metadata["fault"] else True


class Length(Filter):
    """Counts the response's tokens, the end token included, with the tokenizer of the model to be trained.

    Puts aside a response of less or more than so many tokens (without the end token), and a row whose own count is
    not this one, with or without the end token: its text is not what it says. (The count is Qwen's: with another
    tokenizer the two are not compared.)
    """

    name = "📏 Length"

    def __init__(self, tokenizer: str, min_tokens: int, max_tokens: int, exclusion_writer: DiskWriter | None = None):
        super().__init__(exclusion_writer)
        self.tokenizer, self.min_tokens, self.max_tokens = str(tokenizer), min_tokens, max_tokens

    def judge(self, doc: Document) -> bool | tuple[bool, str]:
        tokenizer = _load_tokenizer(self.tokenizer)
        tokens = len(encode_text(tokenizer, doc.metadata["response"]))
        doc.metadata["tokens"] = tokens + 1
        declared = doc.metadata["token_num_qwen"] if "Qwen" in type(tokenizer).__name__ else None
        if declared is not None and declared not in (tokens, tokens + 1):
            return self._aside(doc, "another token count", f"{declared} declared, {tokens} counted")
        if tokens < self.min_tokens:
            return self._aside(doc, "too short", f"{tokens} tokens")
        if tokens > self.max_tokens:
            return self._aside(doc, "too long", f"{tokens} tokens")
        return True

    @staticmethod
    def _aside(doc: Document, reason: str, detail: str) -> tuple[bool, str]:
        doc.metadata["detail"] = detail
        return False, reason


@cache
def _load_tokenizer(folder: str):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**9  # no warning for a long text: its length is what is asked
    return tokenizer


class Repetition(Filter):
    """Puts aside responses caught in a loop, by `is_repetitive` with these thresholds."""

    name = "🔁 Repetition"

    def __init__(self, thresholds: dict, exclusion_writer: DiskWriter | None = None):
        super().__init__(exclusion_writer)
        self.thresholds = thresholds

    def judge(self, doc: Document) -> bool | tuple[bool, str]:
        return (False, "loop") if is_repetitive(doc.metadata["response"], **self.thresholds) else True


class Correctness(Filter):
    """Puts aside responses whose last boxed value is not the row's reference, where it has one that can be compared.

    Rows without a reference pass, and so does code: its tests run in `grading`, not here.
    """

    name = "✅ Correctness"

    def judge(self, doc: Document) -> bool | tuple[bool, str]:
        reference = doc.metadata["reference"]
        if not reference or doc.metadata["kind"] == "code":
            return True
        boxed = find_boxed(doc.metadata["response"])
        if not boxed:
            return False, "no answer"
        doc.metadata["detail"] = f"{boxed[-1]!r}, not {reference!r}"
        return True if is_equivalent(boxed[-1], reference) else (False, "wrong answer")


class Overlap(Filter, NGramsDecontFilter):
    """Finds rows that share a whole question, or so many words in a row, with a problem of an evaluation set.

    `metadata["overlap"]` becomes "<set>/question" or "<set>/words" of every set it overlaps with, separated by commas;
    a row is put aside if one of the kinds is in `drop`. The question is compared as a whole, words are looked for in
    question and response. (datatrove's own filter stops at the first set.)
    """

    name = "🧪 Overlap"

    def __init__(self, index: Path, words: int, drop: list[str], exclusion_writer: DiskWriter | None = None):
        config = NGramsDecontConfig(n_grams=words, norm_config=NORM, hash_config=HASH)
        super().__init__(str(index), config, exclusion_writer, language=PLAIN_WORDS)
        self.drop, self.questions, self.words = drop, None, None

    def judge(self, doc: Document) -> bool | tuple[bool, str]:
        kinds = self._find(doc)
        doc.metadata["overlap"] = ", ".join(f"{name}/{kind}" for name, kind in sorted(kinds.items()))
        dropped = [kind for kind in ("question", "words") if kind in self.drop and kind in kinds.values()]
        if not dropped:
            return True
        doc.metadata["detail"] = doc.metadata["overlap"]
        return False, f"same {dropped[0]}"

    def _find(self, doc: Document) -> dict[str, str]:
        """Evaluation set -> kind of the overlap; a whole question counts before words."""
        if self.questions is None:
            self.questions, self.words = self._load("question"), self._load("index")
        text = simplify_text(f"{doc.text}\n{doc.metadata['response']}", NORM)
        grams = ngrams(self.tokenizer.word_tokenize(text), self.config.n_grams)
        hashes = {self.hash_func(" ".join(gram)) for gram in grams}
        found = {name: "words" for one in hashes & self.words.keys() for name in self.words[one]}
        return found | dict.fromkeys(self.questions.get(hash_question(doc.text), ()), "question")

    def _load(self, kind: str) -> dict[int, list[str]]:
        """Hash -> the evaluation sets that have it."""
        known: dict[int, list[str]] = {}
        for file in sorted(Path(self.index_folder.path).glob(f"*.{kind}.hashes")):
            for one in np.fromfile(file, dtype=HASH.np_descr).tolist():
                known.setdefault(one, []).append(file.name.removesuffix(f".{kind}.hashes"))
        return known


def hash_question(text: str) -> int:
    """The hash of a whole question: case and white space do not count, signs do (`a + 3` is not `a - 3`)."""
    return hash_words(question_words(text))


def hash_words(words: list[str]) -> int:
    return create_hash_func(HASH)(" ".join(words))


def question_words(text: str) -> list[str]:
    return CODE_WORDS.word_tokenize(simplify_text(text, NORM))


def question_forms(problems: list[Problem]) -> list[list[str]]:
    """The words of every question of a set, in the forms in which it may be met elsewhere.

    As we ask it; without the instructions that all questions of the set begin and end with; without its choices.
    """
    whole = [question_words(problem.prompt) for problem in problems]
    stems = [question_words(CHOICES.split(problem.prompt)[0]) for problem in problems if problem.kind == "choice"]
    start = len(commonprefix(whole)) if len(whole) > 1 else 0
    end = len(commonprefix([words[start:][::-1] for words in whole])) if len(whole) > 1 else 0
    bare = [words[start : len(words) - end] for words in whole]
    return whole + [words for words in stems + bare if len(words) >= MIN_WORDS]


def write_overlap_index(folder: Path, problems: list[Problem], words: int) -> None:
    """The hashes `Overlap` looks for, a file a set, in the format of datatrove's NGramsDecontIndexer.

    (That step itself needs lighteval, for tasks we do not take from there.) N-grams that FORM problems of a set share
    are left out: instructions, headings, imports. Hashes only, so that gated questions are not written down.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hash_func = create_hash_func(HASH)
    for source in dict.fromkeys(problem.source for problem in problems):
        own = [problem for problem in problems if problem.source == source]
        texts = [PLAIN_WORDS.word_tokenize(simplify_text(problem.prompt, NORM)) for problem in own]
        grams = [{" ".join(gram) for gram in ngrams(text, words)} for text in texts]
        shared = Counter(chain.from_iterable(grams))
        index = [hash_func(gram) for gram in sorted(shared) if shared[gram] < FORM]
        questions = [hash_words(form) for form in question_forms(own)]
        np.array(index, dtype=HASH.np_descr).tofile(folder / f"{source}.index.hashes")
        np.array(questions, dtype=HASH.np_descr).tofile(folder / f"{source}.question.hashes")

"""Made-up texts with the lengths that reviews have: lognormal, mean about 39 tokens, at most 128.

Korean ones are templates (data/sources/synthetic.py), English ones the standard library's own
docstrings, for the published MiniLM, which reads English. What they say changes nothing about the
time; the English ones are prose that people wrote, so that quality can be measured on them too.
"""

import ast
import re
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from data.sources.synthetic import generate

SEED: Final = 20261130
QUALITY_TEXTS: Final = 600
PARITY_TEXTS: Final = 400
_MOST_CALIBRATION: Final = 400
MEDIAN_TOKENS: Final = 32.3
SPREAD: Final = 0.617
"""Of the logarithm: with the median it gives a mean of 39 tokens and a 95th percentile of 89."""
LEAST_TOKENS: Final = 4
MOST_TOKENS: Final = 128
_SPECIAL_TOKENS: Final = 2
_FEWEST_WORDS: Final = 5


def draw_lengths(count: int, *, seed: int) -> list[int]:
    """Lengths in tokens, special ones included; equal seeds give equal lengths."""
    drawn = np.random.default_rng(seed).lognormal(np.log(MEDIAN_TOKENS), SPREAD, count)
    return [int(length) for length in np.clip(np.rint(drawn), LEAST_TOKENS, MOST_TOKENS)]


def draw_windows(count: int, vocabulary: int, *, seed: int = SEED) -> list[list[int]]:
    """Random token ids; lengths as reviews have them."""
    random = np.random.default_rng(seed)
    return [
        random.integers(5, vocabulary, size=length).tolist()
        for length in draw_lengths(count, seed=seed)
    ]


def korean_sentences(*, seed: int) -> Iterator[str]:
    """Synthetic restaurant reviews without end."""
    while True:
        yield from (row.review.text for row in generate(5_000, seed=seed))
        seed += 1


def english_sentences(*, seed: int) -> list[str]:
    """First paragraphs of the standard library's docstrings, each once, shuffled."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, None] = {}
    for path in sorted(library.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
                sentence = re.sub(r"\s+", " ", paragraph).strip()
                if len(sentence.split()) >= _FEWEST_WORDS and sentence.isascii():
                    found[sentence] = None
    sentences = list(found)
    Random(seed).shuffle(sentences)  # noqa: S311  # no secret: a repeatable order
    return sentences


def fit_texts(
    sentences: Iterable[str], lengths: Sequence[int], tokenizer: Tokenizer
) -> Iterator[str]:
    """One text per length: sentences joined, then cut where the tokens are enough.

    A text may be a token or two off where the cut falls inside a word, but never too long.
    """
    source = iter(sentences)
    for length in lengths:
        room = length - _SPECIAL_TOKENS
        text, ends = "", []
        while len(ends) < room:
            text = f"{text} {next(source)}".strip()
            ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
        keep = room
        while len(ends) > room:
            text = text[: ends[keep - 1]]
            ends = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
            keep -= 1  # a word cut short may take more tokens than it did whole
        yield text


def token_lengths(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    """Tokens of each text, special ones included."""
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [len(encoding.ids) + _SPECIAL_TOKENS for encoding in encodings]


def quality_texts() -> list[str]:
    """English sentences that MiniLM's quality is read on."""
    return english_sentences(seed=SEED)[:QUALITY_TEXTS]


def parity_sentences() -> list[str]:
    """English sentences that an INT8 scheme is chosen on; others than those it is judged on."""
    first = QUALITY_TEXTS + _MOST_CALIBRATION
    return english_sentences(seed=SEED)[first : first + PARITY_TEXTS]


def calibration_texts(count: int, *, english: bool) -> list[str]:
    """Texts that static INT8 is calibrated on; nothing is measured on them."""
    if english:
        return english_sentences(seed=SEED)[QUALITY_TEXTS : QUALITY_TEXTS + count]
    return list(islice(korean_sentences(seed=SEED + 1_000), count))

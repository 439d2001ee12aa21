"""Texts that belong together, for contrastive training; nobody labels them.

Two kinds from every review: the review and itself as another thumb might have typed it (slips, left
out words, clauses in another order), and a clause and the review that it stands in. Both hold
whatever a review is about, so that a batch's other reviews are true negatives. Only training-split
and made-up reviews come in, and pairs that people scored alike where a file of them is named.
"""

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

from data.clauses import split_clauses
from data.contract import LabelledReview
from data.errors import SettingsError
from data.sources.synthetic_lexicon import Lexicon, lexicon
from data.sources.synthetic_noise import roughen

Pair = tuple[str, str]
ALIKE: Final = 4.0
"""From this score of 5 on two sentences say the same in all that matters."""
_REORDERED: Final = 0.3


def review_pairs(
    reviews: Sequence[LabelledReview], *, clause_share: float, word_dropout: float, seed: int
) -> list[Pair]:
    """One pair of each review; the same seed gives the same pairs.

    Args:
        reviews: of the training part, or made up.
        clause_share: of the pairs that are a clause and its review.
        word_dropout: share of words left out of the second text.
        seed: says which.
    """
    rng = Random(seed)  # noqa: S311  # pairs of texts guard no secret
    words = lexicon()
    pairs = []
    for row in reviews:
        text = row.review.text
        spans = [found.text for found in row.label.evidence]
        clauses = spans or [clause.text for clause in split_clauses(text)]
        anchor = text
        if len(clauses) > 1 and rng.random() < clause_share:
            anchor = clauses[int(rng.random() * len(clauses))]
        pairs.append((anchor, retyped(text, words, rng, word_dropout=word_dropout)))
    return pairs


def retyped(text: str, words: Lexicon, rng: Random, *, word_dropout: float = 0.0) -> str:
    """A text as another thumb might have typed it; never blank.

    Args:
        text: not blank.
        words: holds the marks that go with a mood.
        rng: the only source of chance.
        word_dropout: share of words left out.
    """
    clauses = [clause.text for clause in split_clauses(text)]
    if len(clauses) > 1 and rng.random() < _REORDERED:
        rng.shuffle(clauses)
        text = " ".join(clauses)
    kept = [word for word in text.split(" ") if rng.random() >= word_dropout]
    changed = " ".join(kept) if any(word.strip() for word in kept) else text
    mood = ("positive", "neutral", "negative")[int(rng.random() * 3)]
    pieces, _ = roughen([(changed, None)], mood=mood, lexicon=words, rng=rng)
    rough = "".join(piece for piece, _ in pieces)
    return rough if rough.strip() else text


def alike_pairs(path: Path) -> list[Pair]:
    """The pairs of a file of scored sentences that say the same.

    Raises:
        SettingsError: it cannot be read, or is not such a file.
    """
    return [(first, second) for first, second, score in scored_pairs(path) if score >= ALIKE]


def scored_pairs(path: Path) -> Iterator[tuple[str, str, float]]:
    """(sentence, sentence, score from 0 to 5) of each row of a KorSTS file.

    Args:
        path: tab-separated with a header line, columns score, sentence1 and sentence2; .gz or not.

    Raises:
        SettingsError: it cannot be read, or is not such a file.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                yield row["sentence1"], row["sentence2"], float(row["score"])
    except (OSError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        raise SettingsError(
            f"{str(path)!r} is not a file of scored sentence pairs: {error!r}; it needs the "
            "tab-separated columns score, sentence1 and sentence2"
        ) from error

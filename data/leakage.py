"""The check that a split keeps its sides apart, whoever made it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from data.artifacts import PARTS
from data.contract import LabelledReview
from data.errors import ArtifactError, LeakageError
from data.manifest import read_labelled_reviews
from data.near_duplicates import near_duplicate_pairs
from data.quarantine import shown
from data.text import normalised

DEFAULT_THRESHOLD: Final = 0.8
Parts = Mapping[str, Sequence[LabelledReview]]


def read_parts(folder: Path) -> dict[str, list[LabelledReview]]:
    """The parts of a split's folder, by name.

    Raises:
        ArtifactError: a part is missing or damaged.
    """
    parts = {}
    for name in PARTS:
        path = folder / f"{name}.jsonl"
        if not path.is_file():
            raise ArtifactError(f"{str(path)!r} is missing; run the split again")
        parts[name] = list(read_labelled_reviews(path))
    return parts


def check_leakage(
    split: Path | Parts, *, threshold: float = DEFAULT_THRESHOLD, restaurants: bool = True
) -> None:
    """Refuse a split whose parts share a review, a text, a near-duplicate or a restaurant.

    Args:
        split: the folder of a split, or its parts by name.
        threshold: Jaccard of character 3-grams from which two texts are one.
        restaurants: whether a restaurant must stand on one side; off for ``group_by="none"``.

    Raises:
        LeakageError: the parts share something; the message names the first of it.
    """
    parts = read_parts(split) if isinstance(split, Path) else split
    _check_shared(parts, "review_id", lambda row: row.review.review_id)
    if restaurants:
        _check_shared(parts, "restaurant_id", lambda row: row.review.restaurant_id)
    _check_shared(parts, "text", lambda row: normalised(row.review.text))
    _check_near_duplicates(parts, threshold)


def _check_shared(parts: Parts, what: str, read: Callable[[LabelledReview], str | None]) -> None:
    sides: dict[str, str] = {}
    for part, rows in parts.items():
        for row in rows:
            value = read(row)
            if value is not None and sides.setdefault(value, part) != part:
                raise LeakageError(
                    f"{what} {shown(value)} stands in {sides[value]} and in {part} "
                    f"(review {row.review.review_id!r}); split the data again by its groups"
                )


def _check_near_duplicates(parts: Parts, threshold: float) -> None:
    rows = [(part, row) for part, members in parts.items() for row in members]
    for pair in near_duplicate_pairs([row.review.text for _, row in rows], threshold):
        (one_part, one), (other_part, other) = rows[pair.first], rows[pair.second]
        if one_part != other_part:
            raise LeakageError(
                f"near-duplicates ({pair.similarity:.2f}): review {one.review.review_id!r} in "
                f"{one_part} and {other.review.review_id!r} in {other_part}; keep near-duplicates "
                "on one side"
            )

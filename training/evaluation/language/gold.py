"""What is asked: the examples of one part, and its restaurants with their reviews.

Comes in: an artifact of kind ``targets`` and the split it was built from. Examples are single
prompts, each with the right input; restaurants are asked from their reviews to their summary.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

from data.artifacts import SPLIT_KIND, TARGETS_KIND
from data.contract import Aspect, LabelledReview, RestaurantSummary
from data.errors import ArtifactError, DataUnfitError
from data.examples import Example, points_of, read_examples
from data.leakage import read_parts
from data.manifest import Manifest, read_manifest
from data.prompts import Point, Task
from data.targets import SUMMARIES_NAME
from training.evaluation.language.restaurants import GoldRestaurant

Part = Literal["train", "validation", "test"]
RESTAURANT: Final = "restaurant"


@dataclass(frozen=True)
class Item:
    """What a row of predictions is about.

    Attributes:
        kind: the example's task, or ``restaurant``.
        about: the review's id, or the restaurant's.
        aspect: of an ``aspect`` example.
        restaurant: whose it is; None where the reviews name none.
    """

    kind: str
    about: str
    aspect: Aspect | None
    restaurant: str | None


@dataclass(frozen=True)
class Gold:
    """One part, as it is asked.

    Attributes:
        examples: single prompts with the right answers.
        train: those of the training part, which baselines may learn from.
        restaurants: that have a written summary.
        rows: every labelled review of the part, by review id.
    """

    examples: tuple[Example, ...]
    train: tuple[Example, ...]
    restaurants: tuple[GoldRestaurant, ...]
    rows: dict[str, LabelledReview]

    @cached_property
    def items(self) -> list[Item]:
        """Every example, then every restaurant."""
        items = [
            Item(example.task, example.about, example.aspect, self.restaurant_of(example))
            for example in self.examples
        ]
        names = [each.written.restaurant_id for each in self.restaurants]
        return items + [Item(RESTAURANT, name, None, name) for name in names]

    @cached_property
    def tasks(self) -> frozenset[Task]:
        """Tasks that have examples."""
        return frozenset(example.task for example in self.examples)

    @cached_property
    def points(self) -> dict[str, list[Point]]:
        """What each restaurant's reviews say, in the order that its prompts number it."""
        return {each.written.restaurant_id: points_of(each.rows) for each in self.restaurants}

    def restaurant_of(self, example: Example) -> str | None:
        """The restaurant that an example is about."""
        if example.task != "labels":
            return example.about
        return self.rows[example.about].review.restaurant_id


def read_gold(targets: Path, split: Path, part: Part = "test") -> tuple[Gold, Manifest]:
    """Read one part's examples and restaurants.

    Raises:
        ArtifactError: a folder is missing, altered, or the targets are of another split.
        DataUnfitError: the part has no example.
    """
    manifest = read_manifest(targets, TARGETS_KIND)
    source = read_manifest(split, SPLIT_KIND)
    if manifest.facts["split_digest"] != source.digest:
        raise ArtifactError(
            f"{str(targets)!r} was built from split {manifest.facts['split_digest']!r}, "
            f"{str(split)!r} is {source.digest!r}; pass the split that the targets were built from"
        )
    rows = {row.review.review_id: row for row in read_parts(split)[part]}
    examples = read_examples(targets / f"{part}.jsonl")
    if not examples:
        raise DataUnfitError(
            f"part {part!r} of {str(targets)!r} has no example; split a larger snapshot or name "
            "another part"
        )
    by_restaurant: dict[str | None, list[LabelledReview]] = defaultdict(list)
    for row in rows.values():
        by_restaurant[row.review.restaurant_id].append(row)
    written = [
        RestaurantSummary.model_validate_json(line)
        for line in (targets / SUMMARIES_NAME).read_bytes().splitlines()
    ]
    return Gold(
        examples=tuple(examples),
        train=tuple(read_examples(targets / "train.jsonl")),
        restaurants=tuple(
            GoldRestaurant(each, _oldest_first(by_restaurant[each.restaurant_id]))
            for each in written
            if each.restaurant_id in by_restaurant
        ),
        rows=rows,
    ), manifest


def _oldest_first(rows: list[LabelledReview]) -> tuple[LabelledReview, ...]:
    def age(row: LabelledReview) -> tuple[str, str]:
        return str(row.review.written_on), row.review.review_id

    return tuple(sorted(rows, key=age))

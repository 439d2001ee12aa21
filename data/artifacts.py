"""Kinds of the data room's artifacts, the names of their files, and what is counted in each.

Kept apart from the steps, so that a reader of an artifact does not load what wrote it.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from data.contract import ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS, LabelledReview

SNAPSHOT_KIND: Final = "snapshot"
VALIDATED_KIND: Final = "validated"
SPLIT_KIND: Final = "split"
TARGETS_KIND: Final = "targets"

REVIEWS_NAME: Final = "reviews.jsonl"
ANNOTATIONS_NAME: Final = "annotations.jsonl"
RESTAURANTS_NAME: Final = "restaurants.jsonl"
QUARANTINE_NAME: Final = "quarantine.jsonl"
RELABEL_NAME: Final = "quarantine.json"
LABEL_ISSUES_NAME: Final = "label_issues.jsonl"
DUPLICATES_NAME: Final = "duplicates.jsonl"
REPORT_NAME: Final = "report.html"
LEFT_OUT_NAME: Final = "left_out.jsonl"
PARTS: Final = ("train", "validation", "test")
"""Parts of a split, each in ``<part>.jsonl``."""


def class_balance(rows: Iterable[LabelledReview]) -> dict[str, dict[str, int]]:
    """How many reviews have each class, per task; reviews without the task are not counted."""
    labels = [row.label for row in rows]
    sentiment = Counter(label.sentiment for label in labels if label.sentiment is not None)
    intensity = Counter(label.intensity for label in labels if label.intensity is not None)
    emotions = Counter(each for label in labels for each in label.emotions or ())
    aspects = Counter(each for label in labels for each in label.aspects or ())
    return {
        "sentiment": {name: sentiment[name] for name in SENTIMENTS},
        "intensity": {str(step): intensity[step] for step in INTENSITIES},
        "emotions": {name: emotions[name] for name in EMOTIONS},
        "aspects": {name: aspects[name] for name in ASPECTS},
    }

"""From the labels of reviews to the points that a summary's prompts show."""

from collections.abc import Mapping, Sequence
from datetime import date

from data.contract import Label, LabelledReview, Review
from data.examples import points_of
from data.prompts import Point


def points_of_labels(reviews: Sequence[Review], labels: Mapping[str, Label]) -> list[Point]:
    """What the labels' evidence points at, each once, in the order that training shows.

    Args:
        reviews: in any order; one without a label is passed over.
        labels: by review id.
    """
    return points_of(
        LabelledReview(review=review, label=labels[review.review_id])
        for review in reviews
        if review.review_id in labels
    )


def newest_points(
    points: Sequence[Point], dates: Mapping[str, date | None], most: int
) -> list[Point]:
    """The newest of the points, in their own order; undated ones count as the oldest.

    Args:
        points: what is to be shown.
        dates: when each review was written, by review id.
        most: how many may stay.
    """
    written = [dates[point.review_id] or date.min for point in points]
    oldest_first = sorted(range(len(points)), key=written.__getitem__)
    return [points[index] for index in sorted(oldest_first[-most:])]

"""Made-up examples, from which a base made on the spot learns the forms of answers."""

import contextlib

from data.examples import Example, labels_example
from data.quarantine import RowError
from data.sources.synthetic import generate
from data.sources.synthetic_restaurants import quoting, synthetic_restaurants
from data.summary_targets import overall_example, summary_examples


def synthetic_labels(count: int, *, seed: int) -> list[Example]:
    """Labels of made-up reviews; the few that fit no answer are left out."""
    found: list[Example] = []
    for row in generate(count, seed=seed):
        with contextlib.suppress(RowError):
            found.append(labels_example(row))
    return found


def synthetic_summaries(count: int, *, seed: int) -> list[Example]:
    """Aspects, overall summaries and strengths of made-up restaurants, as far as they fit."""
    found: list[Example] = []
    for summary, reviews in synthetic_restaurants(count, seed=seed):
        with contextlib.suppress(RowError):
            found += summary_examples(summary, reviews)
            found.append(overall_example(quoting(summary)))
    return found

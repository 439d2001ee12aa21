"""Labels and probabilities of a classifier, compared head by head."""

import numpy as np
import pytest

from serving.label_likeness import label_likeness
from serving.model_folder import read_spec


@pytest.fixture
def logits():
    rng = np.random.default_rng(0)
    shapes = {"sentiment": (3,), "emotions": (8,), "aspects": (6, 3)}
    made = {head: rng.normal(size=(50, *shape)) for head, shape in shapes.items()}
    return made | {"intensity": -np.sort(-rng.normal(size=(50, 4)), axis=1)}


@pytest.fixture
def spec(tiny_models):
    return read_spec(tiny_models["champion"])


def test_the_same_answers_are_alike(logits, spec):
    likeness = label_likeness(logits, logits, spec)
    assert (likeness.label_agreement, likeness.probability_shift) == (1.0, 0.0)


@pytest.mark.parametrize("head", ["sentiment", "intensity", "emotions", "aspects"])
def test_one_heads_other_labels_are_seen(logits, spec, head):
    changed = logits | {head: logits[head].copy()}
    changed[head][:25] = logits[head][25:]
    likeness = label_likeness(logits, changed, spec)
    assert 0.3 < likeness.label_agreement < 0.99
    assert likeness.probability_shift > 0.01


def test_twice_the_logits_are_other_probabilities_under_the_same_sentiment(logits, spec):
    louder = logits | {"sentiment": 2 * logits["sentiment"]}
    likeness = label_likeness(logits, louder, spec)
    assert likeness.label_agreement == 1.0
    assert likeness.probability_shift > 0.05

import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.inference.readings import readings
from serving.experiments.inference.sequences import ConfidenceSequence, confidence_sequence


def sequence(low, high):
    low, high = np.asarray(low), np.asarray(high)
    return ConfidenceSequence(np.arange(1, low.size + 1), (low + high) / 2, low, high)


def test_every_interval_has_its_reading():
    found = sequence(
        [0.01, -0.01, -0.03, -0.10, -0.10, -0.015], [0.05, 0.02, 0.02, -0.03, -0.01, -0.01]
    )
    assert readings(found, margin=0.02).tolist() == [
        "better", "not_worse", "undecided", "worse", "undecided", "not_worse"
    ]  # fmt: skip
    assert readings(found).tolist() == [
        "better", "undecided", "undecided", "worse", "worse", "worse"
    ]  # fmt: skip


def test_where_lower_is_better_the_reading_turns_round():
    found = sequence([0.01, -0.01, -0.05], [0.05, 0.02, -0.03])
    assert readings(found, better_is="lower").tolist() == ["worse", "undecided", "better"]
    assert readings(found, margin=0.03, better_is="lower").tolist() == [
        "undecided", "not_worse", "better"
    ]  # fmt: skip


def test_a_loss_at_the_margin_is_called_not_worse_in_at_most_the_level():
    """2,000 experiments with a loss of exactly the margin, read after every unit."""
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(8):
        on = random.random((250, 2_000)) < 0.5
        reward = (random.random(on.shape) < np.where(on, 0.65, 0.7)).astype(np.float64)
        found = confidence_sequence(
            on,
            reward,
            challenger_share=0.5,
            alpha=0.05,
            tuned_for_units=1_000,
            burn_in=50,
            alternative="greater",
        )
        said = readings(found, margin=0.05)
        wrong += int(np.isin(said, ["better", "not_worse"]).any(axis=-1).sum())
    assert wrong / 2_000 <= 0.05


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf")])
def test_a_margin_that_is_no_loss_is_refused(margin):
    with pytest.raises(ExperimentError, match="margin="):
        readings(sequence([0.0], [1.0]), margin=margin)

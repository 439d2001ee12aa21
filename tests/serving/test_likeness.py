import numpy as np
import pytest

from serving.likeness import cosines, neighbour_overlap, unit


def test_likeness_is_measured_as_it_is_named():
    values = np.eye(24, dtype=np.float32) + 0.01 * np.arange(24 * 24).reshape(24, 24) / 576
    values = values.astype(np.float32)
    assert cosines(values, 3 * values) == pytest.approx(np.ones(24), abs=1e-6)
    assert cosines(values, -values) == pytest.approx(-np.ones(24), abs=1e-6)
    assert neighbour_overlap(values, 2 * values) == 1.0
    shuffled = np.random.default_rng(0).normal(size=(24, 8)).astype(np.float32)
    assert neighbour_overlap(values, shuffled) < 0.8


def test_of_equally_near_neighbours_both_find_the_same():
    alike = np.ones((30, 4), dtype=np.float32)
    assert neighbour_overlap(alike, 2 * alike) == 1.0


def test_a_row_of_nothing_is_like_nothing():
    values = np.zeros((2, 3), dtype=np.float32)
    assert not unit(values).any()
    assert cosines(values, np.ones((2, 3), dtype=np.float32)).tolist() == [0.0, 0.0]

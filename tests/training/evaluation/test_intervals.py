import numpy as np
import pytest

from data.errors import MetricError
from training.evaluation import weighted
from training.evaluation.intervals import (
    draw_resamples,
    holm,
    interval,
    probability_not_below,
    spread,
)

ALL = slice(None)


def mean_of(values: np.ndarray):
    return weighted.weighted_mean(values, np.ones(len(values), dtype=bool))


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        values = (generator.random(40) < 0.7).astype(float)
        drawn = draw_resamples([None] * 40, resamples=400, seed=trial)
        low, high = interval(spread(drawn, mean_of(values)), units=40)
        hits += low <= 0.7 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_resampling_restaurants_covers_where_reviews_resemble_their_restaurant() -> None:
    generator = np.random.default_rng(1)
    restaurants = [f"s{i // 20}" for i in range(200)]
    hits = {"restaurant": 0, "review": 0}
    for trial in range(120):
        level = generator.normal(0.0, 1.0, 10).repeat(20)
        values = level + generator.normal(0.0, 0.5, 200)
        for names in (restaurants, [None] * 200):
            drawn = draw_resamples(names, resamples=300, seed=trial)
            units = drawn.units_in(np.ones(200, dtype=bool))
            low, high = interval(spread(drawn, mean_of(values)), units=units)
            hits[drawn.unit] += low <= 0.0 <= high
    assert hits["restaurant"] >= 0.88 * 120
    assert hits["review"] < 0.7 * 120


def test_pairing_narrows_the_difference() -> None:
    generator = np.random.default_rng(2)
    hard = generator.random(300)
    first, second = (hard < 0.70).astype(float), (hard < 0.68).astype(float)
    one = draw_resamples([None] * 300, resamples=1000, seed=1)
    two = draw_resamples([None] * 300, resamples=1000, seed=2)
    paired = interval(spread(one, mean_of(first)) - spread(one, mean_of(second)), units=300)
    apart = interval(spread(one, mean_of(first)) - spread(two, mean_of(second)), units=300)
    assert paired[1] - paired[0] < 0.5 * (apart[1] - apart[0])


def test_the_same_seed_draws_the_same_counts() -> None:
    first = draw_resamples([None] * 50, resamples=20, seed=4).counts
    assert (first == draw_resamples([None] * 50, resamples=20, seed=4).counts).all()
    assert (first != draw_resamples([None] * 50, resamples=20, seed=5).counts).any()
    assert (first.sum(axis=1) == 50).all()


def test_restaurants_are_drawn_whole() -> None:
    names = [f"s{i % 6}" for i in range(30)]
    drawn = draw_resamples(names, resamples=50, seed=0)
    assert drawn.unit == "restaurant"
    for index in range(6):
        columns = drawn.counts[:, index::6]
        assert (columns == columns[:, :1]).all()


@pytest.mark.parametrize("names", [["a", "b", "c", "d"] * 5, ["a", "b", "c", "d", "e", None] * 4])
def test_few_or_missing_restaurants_resample_reviews(names: list) -> None:
    assert draw_resamples(names, resamples=10).unit == "review"


def test_few_units_widen_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    narrow, wide = interval(values, units=1000), interval(values, units=6)
    assert wide[1] - wide[0] > 1.3 * (narrow[1] - narrow[0])


def test_undefined_resamples_are_said_not_hidden() -> None:
    values = np.ones(100)
    values[:3] = np.nan
    assert interval(values, units=50) == (1.0, 1.0)
    values[:10] = np.nan
    with pytest.raises(MetricError, match="undefined on 10 of 100"):
        interval(values, units=50)
    with pytest.raises(MetricError, match="at least two"):
        interval(np.ones(100), units=1)
    with pytest.raises(MetricError):
        draw_resamples([], resamples=10)


def test_p_value_follows_the_distance_from_the_threshold() -> None:
    values = np.random.default_rng(3).normal(-0.2, 0.05, 2000)
    assert probability_not_below(values, -0.1, units=200) < 0.03
    assert probability_not_below(values, -0.2, units=200) == pytest.approx(0.5, abs=0.05)
    assert probability_not_below(values, -0.4, units=200) > 0.97


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []

import numpy as np
import pytest

from data.errors import ExperimentError
from serving.experiments.inference.planning import sample_for, variance_of_proportions
from serving.experiments.inference.sequences import confidence_sequence
from serving.experiments.inference.stopping import best_tuning, stopping_sample

RATES = (0.6, 0.66)
VARIANCE = variance_of_proportions(*RATES)
LIFT = RATES[1] - RATES[0]


def test_the_forecast_is_what_happens():
    """400 experiments with a true lift of 6 points, looked at after each unit."""
    fixed = sample_for(LIFT, VARIANCE).total
    horizon, tuned = round(4 * fixed), best_tuning(LIFT, VARIANCE)
    forecast = stopping_sample(LIFT, VARIANCE, tuned_for_units=tuned, horizon_units=horizon)
    random = np.random.default_rng(1)
    stops = []
    for _ in range(20):
        on = random.random((20, horizon)) < 0.5
        reward = (random.random(on.shape) < np.where(on, RATES[1], RATES[0])).astype(np.float64)
        found = confidence_sequence(
            on, reward, challenger_share=0.5, alpha=0.05, tuned_for_units=tuned, burn_in=50
        )
        out = (found.low > 0) | (found.high < 0)
        stops.append(np.where(out.any(axis=-1), out.argmax(axis=-1) + 1, horizon))
    units = np.concatenate(stops)
    error = units.std() / np.sqrt(units.size)
    assert forecast.mean == pytest.approx(units.mean(), abs=4 * error)
    assert forecast.p90 == pytest.approx(np.quantile(units, 0.9), rel=0.1)
    assert forecast.stopped > 0.99
    assert forecast.wrong < 0.01


def test_the_mean_stop_is_near_the_fixed_sample_when_tuned():
    fixed = sample_for(LIFT, VARIANCE).total
    tuned = best_tuning(LIFT, VARIANCE)
    assert 0.4 < tuned / fixed < 1.1
    found = {
        units: stopping_sample(
            LIFT, VARIANCE, tuned_for_units=units, horizon_units=round(6 * fixed)
        ).mean
        for units in (tuned, tuned // 10, tuned * 10)
    }
    assert found[tuned] / fixed < 1.2
    assert found[tuned] < min(found[tuned // 10], found[tuned * 10])


def test_one_side_alone_and_a_margin_stop_sooner():
    fixed = round(sample_for(LIFT, VARIANCE).total)
    settings = {"tuned_for_units": fixed, "horizon_units": 6 * fixed}
    both = stopping_sample(LIFT, VARIANCE, **settings)
    one = stopping_sample(LIFT, VARIANCE, **settings, alternative="greater")
    mirrored = stopping_sample(-LIFT, VARIANCE, **settings, alternative="less")
    lenient = stopping_sample(LIFT, VARIANCE, **settings, alternative="greater", margin=0.02)
    assert lenient.mean < one.mean < both.mean
    assert mirrored.mean == pytest.approx(one.mean, rel=0.03)


def test_no_effect_to_speak_of_reaches_the_horizon_and_keeps_the_level():
    found = stopping_sample(1e-9, 4.0, tuned_for_units=1_000, horizon_units=10_000)
    assert found.stopped <= 0.05
    assert found.p90 == 10_000
    silent = stopping_sample(5.0, 4.0, tuned_for_units=10, horizon_units=1_000, silent_units=200)
    assert silent.mean == 200


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"difference": 0.0}, "difference=0.0"),
        ({"variance": 0.0}, "variance=0.0"),
        ({"horizon_units": 0}, "horizon_units=0"),
        ({"tuned_for_units": 0}, "tuned_for_units=0"),
        ({"runs": 0}, "runs=0"),
    ],
)
def test_bad_forecasts_are_refused(change, word):
    arguments = {"difference": 0.1, "variance": 1.0, "tuned_for_units": 10, "horizon_units": 100}
    with pytest.raises(ExperimentError, match=word):
        stopping_sample(**(arguments | change))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import ExperimentError
from serving.experiments.inference.sequences import confidence_sequence
from serving.experiments.inference.thinned import thinned_sequence

RULE = {"challenger_share": 0.3, "alpha": 0.05, "tuned_for_units": 500, "burn_in": 30}


def traffic(units, seed=3):
    random = np.random.default_rng(seed)
    return random.random(units) < RULE["challenger_share"], random.random(units)


@settings(max_examples=40, deadline=None)
@given(
    units=st.integers(1, 700),
    at_once=st.integers(1, 800),
    alternative=st.sampled_from(["two-sided", "greater", "less"]),
    outcome_range=st.sampled_from([(0.0, 1.0), (-3.0, 2.0)]),
    min_effective=st.sampled_from([0.0, 20.0]),
    data=st.data(),
)
def test_every_figure_is_that_of_the_whole_sequence(units, at_once, data, **named):
    challenger, reward = traffic(units)
    looks = np.array(sorted(data.draw(st.sets(st.integers(1, units)))), dtype=np.int64)
    whole = confidence_sequence(challenger, reward, **RULE, **named)
    found = thinned_sequence(challenger, reward, looks, **RULE, **named, units_at_once=at_once)
    assert found.n.tolist() == looks.tolist()
    for name in ("estimate", "low", "high"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name)[looks - 1])


def test_no_unit_and_no_look_give_empty_arrays():
    nobody = np.empty(0, dtype=np.int64)
    for units in (0, 5):
        found = thinned_sequence(*traffic(units), nobody, **RULE)
        assert len(found.n) == len(found.estimate) == len(found.low) == len(found.high) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reward": [0.5, np.nan]}, "missing or outside"),
        ({"reward": [0.5, np.inf]}, "missing or outside"),
        ({"reward": [0.5, -0.1]}, "missing or outside"),
        ({"reward": [0.5]}, "one value per unit"),
        ({"looks": [0, 1]}, "ascend"),
        ({"looks": [1, 3]}, "ascend"),
        ({"looks": [2, 1]}, "ascend"),
        ({"challenger_share": 1.0}, "share is 1.0"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"tuned_for_units": 0}, "tuned_for_units=0"),
    ],
)
def test_wrong_arguments_are_refused(change, said):
    given = {"reward": [0.5, 0.5], "looks": [1, 2]} | RULE | change
    reward, looks = np.array(given.pop("reward")), np.array(given.pop("looks"), dtype=np.int64)
    with pytest.raises(ExperimentError, match=said):
        thinned_sequence(np.array([True, False]), reward, looks, **given)

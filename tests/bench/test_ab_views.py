"""Views are what a real store would say at the same moment."""

import numpy as np
import pytest
from scipy import stats

from bench import ab_events, ab_views
from bench.ab_archive import deployment
from bench.ab_events import events
from bench.ab_traffic import World, draw
from bench.ab_views import p_values, verdict_of, view
from serving.experiments.decision_rule import DecisionRule
from serving.experiments.store import ExperimentStore, Exposure

WORLD = World("늦은 결과", units=120, days=6.0, delay_days=0.5, silent=0.03)
RULES = {
    "every answer": {},
    "a window": {"attribution_days": 1.5},
    "closed windows": {"attribution_days": 1.5, "closed_windows_only": True},
    "settled": {"settling_days": 2.0},
    "all of it": {"attribution_days": 1.0, "closed_windows_only": True, "settling_days": 0.5},
}


@pytest.fixture(scope="module")
def traffic():
    return draw(WORLD, 21)


@pytest.mark.parametrize("name", RULES)
def test_a_view_is_what_the_store_holds(monkeypatch, tmp_path, traffic, name):
    monkeypatch.setattr(ab_events, "CORRECTED", 0.0)  # a word taken back is no look's last one
    rule = DecisionRule(metric="reward", **RULES[name])
    store = ExperimentStore(f"sqlite:///{tmp_path / 'store.db'}")
    stream = events(traffic, 1)
    for day in (1.0, 3.5, 6.0):
        now = ab_events._us(day)
        by_now = [one.event for one in stream if one.event.created_at_us <= now]
        store.write([one for one in by_now if isinstance(one, Exposure)])
        store.write([], [one for one in by_now if not isinstance(one, Exposure)])
        found = store.exposures_with_outcomes(
            deployment().experiment_id,
            deployment().deployment_id,
            window_days=rule.attribution_days,
            settling_days=rule.settling_days,
            closed_by_us=now if rule.closed_windows_only else None,
        )
        expected = view(traffic, day, rule).units
        np.testing.assert_array_equal(expected.met("challenger"), found.met("challenger"))
        for column in ("unit", "failed", "exposures", "outcomes", "labelled"):
            np.testing.assert_array_equal(getattr(expected, column), getattr(found, column))
        np.testing.assert_allclose(expected.reward, found.reward, rtol=1e-12)
        assert expected.reward.dtype == found.reward.dtype
    store.close()


def test_late_looks_count_more_and_stricter_rules_count_less(traffic):
    counts = {
        name: [view(traffic, day, DecisionRule(**rule)).counted.sum() for day in (2.0, 6.0)]
        for name, rule in RULES.items()
    }
    for early, late in counts.values():
        assert early < late
    assert counts["every answer"][1] == len(traffic.at)
    assert counts["all of it"][1] < counts["closed windows"][1] < counts["a window"][1]


def test_other_analyses_are_what_they_say(traffic):
    traffic = draw(World("많이", units=900, asks=4.0, silent=0.03), 22)
    seen = view(traffic, 14.0, DecisionRule())
    p = dict(zip(ab_views.ANALYSES, p_values(seen, list(ab_views.ANALYSES)), strict=True))
    on = traffic.on[traffic.unit]
    heard = np.isfinite(traffic.known_at)
    welch = stats.ttest_ind(
        traffic.right[on & heard], traffic.right[~on & heard], equal_var=False
    ).pvalue
    assert p["per answer"] == pytest.approx(welch, rel=1e-9)
    table = [[(heard & arm).sum(), (~heard & arm).sum()] for arm in (on, ~on)]
    assert p["gaps per answer"] == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-9)
    assert p["ratio, one look"] < p["ratio"] <= 1.0  # many looks cost something
    assert p["latency"] == pytest.approx(p["latency"])
    assert abs(p["capped ratio"] - p["ratio"]) < 0.5


def test_too_little_says_nothing_yet(traffic):
    seen = view(traffic, 0.2, DecisionRule(metric="reward"))
    assert np.isnan(p_values(seen, ["ratio", "capped ratio", "latency"])).all()
    assert verdict_of(seen, DecisionRule(metric="reward")).decision == "continue"
    nothing = view(traffic, 0.0, DecisionRule(metric="reward"))
    assert len(nothing.units.unit) == 0
    assert verdict_of(nothing, DecisionRule(metric="reward")).decision == "invalid"

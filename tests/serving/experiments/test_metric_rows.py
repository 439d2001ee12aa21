"""Against pandas, which reads whole tables and groups them."""

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from serving.experiments.database import open_database
from serving.experiments.metric_rows import PhaseReader, at_one_moment
from serving.experiments.store import Feedback

DAY_US = 86_400_000_000
PHASES = {
    "phases": [
        {"kind": "shadow", "mirrored": 0.5},
        {"kind": "ab", "allocation": {"float": 0.5, "int8": 0.5}, "min_units": 100},
    ]
}


@pytest.fixture
def filled(trial):
    """An experiment with a past, failures, repeated, late and other metrics' outcomes."""
    it = trial(PHASES)
    random = np.random.default_rng(11)
    it.open()
    _serve(it, random, range(40), lambda unit: "float")
    it.now_us += DAY_US
    it.open("advance")
    it.opened_us = it.now_us
    _serve(it, random, range(20, 90), lambda unit: ("float", "int8")[unit % 2])
    return it


def _serve(it, random, units, arm_of):
    shown, said = [], []
    for unit in units:
        for _ in range(random.integers(1, 4)):
            failed = random.random() < 0.1
            one = it.exposure(
                arm_of(unit),
                unit,
                latency_ms=float(random.exponential(20.0)),
                cost=None if random.random() < 0.3 else float(random.random()),
                status="failed" if failed else random.choice(["ok", "degraded"]).item(),
                why="override" if random.random() < 0.1 else "assigned",
            )
            shown.append(one)
            for number in range(random.integers(0, 3) * (not failed)):
                late = int(random.integers(0, 10)) * DAY_US
                at_us = one.created_at_us + late
                for metric in ("reward", "stars"):
                    value = float(random.random())
                    event_id = f"{one.request_id}-{metric}-{number}"
                    said.append(
                        Feedback(one.request_id, 0, at_us, event_id, reward=value, metric=metric)
                    )
    it.write(shown, said)


def read(it, window_days=7.0):
    engine = open_database(it.url)
    with at_one_moment(engine) as connection:
        reader = PhaseReader(
            connection,
            experiment_id=it.name,
            deployment_id=it.deployment_id,
            arms=["float", "int8"],
            window_days=window_days,
        )
        units = reader.units()
        names = ("latency_ms", "error_rate", "degraded_rate", "cost", "reward", "stars")
        metrics = {name: reader.metric(name) for name in names}
        earlier = reader.earlier(names, before_us=it.opened_us, not_dealt_by=[])
        single = reader.single_values("latency_ms"), reader.single_values("stars")
        ripe = reader.ripe("stars", it.now_us + 3 * DAY_US)
    engine.dispose()
    return units, metrics, earlier, single, ripe


def tables(it):
    engine = sa.create_engine(it.url)
    shown, said = (pd.read_sql_table(name, engine) for name in ("exposures", "outcomes"))
    engine.dispose()
    return shown, said


def latest(shown, said, metric, window_us):
    """Each answer's outcome that counts."""
    some = said[said.metric == metric].merge(
        shown[shown.status != "failed"][["request_id", "item", "event_id", "created_at_us"]],
        on=["request_id", "item"],
        suffixes=("", "_shown"),
    )
    some = some[some.created_at_us <= some.created_at_us_shown + window_us]
    some = some.sort_values(["created_at_us", "event_id"]).drop_duplicates(
        "event_id_shown", keep="last"
    )
    return some.set_index("event_id_shown").reward


def order(shown):
    """Units and arms as the reader has them."""
    first = shown.groupby(["unit", "arm"]).created_at_us.min().reset_index()
    return first.sort_values(["created_at_us", "unit", "arm"])


def test_units_and_their_answers_are_those_of_pandas(filled):
    units, metrics, _, (latency, _), _ = read(filled)
    shown, _ = tables(filled)
    dealt = shown[(shown.deployment_id == filled.deployment_id) & (shown.why == "assigned")]
    keys = pd.MultiIndex.from_frame(order(dealt)[["unit", "arm"]])
    by = dealt.assign(failed=dealt.status == "failed").groupby(["unit", "arm"])
    assert units.asks.tolist() == by.size().reindex(keys).tolist()
    assert units.failures.tolist() == by.failed.sum().reindex(keys).tolist()
    assert units.arm.tolist() == [int(arm == "int8") for _, arm in keys]
    assert (units.crossed, units.strangers) == (0, ())
    assert units.versions == {"float": ("m/1",), "int8": ("m/2",)}
    ok = dealt[dealt.status != "failed"]
    for name, rows in (("latency_ms", ok), ("cost", ok[ok.cost.notna()])):
        grouped = rows.groupby(["unit", "arm"])[name]
        found = metrics[name]
        np.testing.assert_allclose(found.numerator, grouped.sum().reindex(keys).fillna(0.0))
        assert found.denominator.tolist() == grouped.count().reindex(keys).fillna(0).tolist()
    assert metrics["error_rate"].numerator.sum() == (dealt.status == "failed").sum()
    assert metrics["degraded_rate"].numerator.sum() == (ok.status == "degraded").sum()
    assert sorted(latency.values) == pytest.approx(sorted(ok.latency_ms))
    assert len(np.unique(latency.unit)) == ok.unit.nunique()


@pytest.mark.parametrize("window_days", [2.0, 7.0, None])
def test_the_latest_outcome_within_the_window_counts(filled, window_days):
    _, metrics, _, (_, stars), ripe = read(filled, window_days)
    shown, said = tables(filled)
    window = 10**18 if window_days is None else window_days * DAY_US
    dealt = shown[(shown.deployment_id == filled.deployment_id) & (shown.why == "assigned")]
    keys = pd.MultiIndex.from_frame(order(dealt)[["unit", "arm"]])
    for name in ("reward", "stars"):
        values = dealt.event_id.map(latest(shown, said, name, window))
        grouped = dealt.assign(value=values).groupby(["unit", "arm"]).value
        found = metrics[name]
        np.testing.assert_allclose(found.numerator, grouped.sum().reindex(keys), atol=1e-12)
        assert found.denominator.tolist() == grouped.count().reindex(keys).tolist()
    values = dealt.event_id.map(latest(shown, said, "stars", window))
    assert sorted(stars.values) == pytest.approx(sorted(values.dropna()))
    late = filled.now_us + 3 * DAY_US - (0 if window_days is None else window_days * DAY_US)
    old = (dealt.status != "failed") & (dealt.created_at_us <= late)
    assert ripe == (old.sum(), values[old].notna().sum())


def test_a_units_past_is_before_the_phase_and_not_of_its_own_arms(filled):
    units, _, earlier, _, _ = read(filled)
    shown, said = tables(filled)
    dealt = shown[(shown.deployment_id == filled.deployment_id) & (shown.why == "assigned")]
    before = shown[shown.created_at_us < filled.opened_us]
    keys = order(dealt).unit
    asks = before.groupby("unit").size().reindex(keys).fillna(0)
    assert earlier.asks.tolist() == asks.tolist()
    assert 0 < (earlier.asks > 0).sum() < len(units.arm)
    heard = said[said.created_at_us < filled.opened_us]
    values = before.event_id.map(latest(shown, heard, "stars", 7 * DAY_US))
    grouped = before.assign(value=values).groupby("unit").value
    found = earlier.metrics["stars"]
    np.testing.assert_allclose(found.numerator, grouped.sum().reindex(keys).fillna(0.0))
    assert found.denominator.tolist() == grouped.count().reindex(keys).fillna(0).tolist()


def test_what_the_experiments_own_arms_did_is_no_past(filled):
    engine = open_database(filled.url)
    with at_one_moment(engine) as connection:
        reader = PhaseReader(
            connection,
            experiment_id=filled.name,
            deployment_id=filled.deployment_id,
            arms=["float", "int8"],
            window_days=7.0,
        )
        found = reader.earlier(["stars"], before_us=filled.opened_us, not_dealt_by=[f"{1:032x}"])
    engine.dispose()
    assert not found.asks.any()
    assert found.metrics == {}

"""The query on SQLite, thousands of units; tests/services/test_postgres.py asks PostgreSQL."""

import sqlite3

import numpy as np
import orjson
import pytest

from serving.experiments.allocation import Allocation, ArmShare, Holdout, Layer, Namespace
from serving.experiments.assignment import assign, unit_hash
from serving.experiments.assignment_sql import assignment_sql
from serving.experiments.buckets import BucketRange
from serving.experiments.store import ExperimentStore, Exposure

UNITS = [unit_hash("salt-2026", f"account-{number}") for number in range(3_000)]
ARMS = (ArmShare("champion", 0.2), ArmShare("it's a 100% :b", 0.3), ArmShare("도전자", 0.5))
LAYER = Layer("layer", (Namespace("e", (BucketRange(0, 3_000), BucketRange(4_000, 9_999))),))
HOLDOUT = Holdout("held out", 0.1)
FULL = {
    "layer": LAYER,
    "holdout": HOLDOUT,
    "coverage": 0.7,
    "overrides": {UNITS[3]: "도전자", UNITS[4]: ARMS[1].name, unit_hash("absent", "x"): "champion"},
}


def shown(number: int, unit: str, **changes) -> Exposure:
    given = {
        "request_id": f"request-{number}",
        "item": 0,
        "experiment_id": "e",
        "deployment_id": "d",
        "unit": unit,
        "arm": "champion",
        "model_version": "m/1",
        "text_sha256": "0" * 64,
        "prediction": orjson.dumps({}),
        "latency_ms": 1.0,
        "created_at_us": number,
    }
    return Exposure(**(given | changes))


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("sql") / "store.db"
    store = ExperimentStore(f"sqlite:///{path}")
    store.write([shown(number, unit) for number, unit in enumerate(UNITS)])
    store.write([shown(10_000 + n, unit) for n, unit in enumerate(UNITS[:50])])  # seen twice
    store.write(
        [
            shown(20_000, unit_hash("s", "later"), deployment_id="d2"),
            shown(20_001, unit_hash("s", "elsewhere"), experiment_id="e2"),
        ]
    )
    store.close()
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


@pytest.mark.parametrize("seed", ["e", "실험 🍜 'x' -- %s :y", "\ud800"])
@pytest.mark.parametrize("changes", [{}, FULL], ids=["plain", "full"])
def test_sqlite_gives_the_same_answer(database, seed, changes):
    some = Allocation(experiment_id="e", seed=seed, arms=ARMS, **changes)
    rows = database.execute(assignment_sql(some, "sqlite", deployment_id="d")).fetchall()
    assert {row[0] for row in rows} == set(UNITS)
    assert len(rows) == len(UNITS)
    for unit, bucket, arm, why in rows:
        one = assign(some, unit)
        assert (bucket, arm, why) == (one.bucket, one.arm, one.why)
    assert len({row[3] for row in rows}) == (5 if changes else 1)


def test_without_a_deployment_the_whole_experiment_is_read(database):
    some = Allocation(experiment_id="e", seed="e", arms=ARMS)
    rows = database.execute(assignment_sql(some, "sqlite")).fetchall()
    assert {row[0] for row in rows} == {*UNITS, unit_hash("s", "later")}
    nobody = Allocation(experiment_id="nobody's", seed="e", arms=ARMS)
    assert database.execute(assignment_sql(nobody, "sqlite")).fetchall() == []


def test_units_that_met_another_arm_than_their_own_are_found(database):
    """As the module's docstring says it."""
    some = Allocation(experiment_id="e", seed="e", arms=ARMS)
    sql = assignment_sql(some, "sqlite", deployment_id="d")
    differing = database.execute(
        f"SELECT DISTINCT exposures.unit FROM exposures JOIN ({sql}) AS dealt "  # noqa: S608
        "ON dealt.unit = exposures.unit WHERE exposures.experiment_id = 'e' "
        "AND exposures.deployment_id = 'd' AND exposures.arm IS DISTINCT FROM dealt.arm"
    ).fetchall()
    assert {row[0] for row in differing} == {
        unit for unit in UNITS if assign(some, unit).arm != "champion"
    }
    assert len(differing) / len(UNITS) == pytest.approx(0.8, abs=0.03)


def test_a_part_of_the_layer_is_as_large_as_its_buckets(database):
    some = Allocation(experiment_id="e", seed="e", arms=ARMS, layer=LAYER)
    rows = database.execute(assignment_sql(some, "sqlite")).fetchall()
    assert np.mean([row[3] == "assigned" for row in rows]) == pytest.approx(0.8999, abs=0.02)

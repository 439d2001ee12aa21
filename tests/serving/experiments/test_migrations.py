"""Stores of before: brought to this version with all that they hold, or refused."""

import multiprocessing
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from data.errors import ExperimentError
from serving.experiments.catalogue import Catalogue
from serving.experiments.database import open_database
from serving.experiments.routes import Routes
from serving.experiments.store import ExperimentStore, Feedback, exposure_event_id
from serving.experiments.tables import HEAD, metadata

UNIT = "ab" * 32
# As they were made before revisions were written down.
EXPOSURES = """
CREATE TABLE exposures (
    event_id VARCHAR(32) NOT NULL PRIMARY KEY, request_id VARCHAR(128) NOT NULL,
    item INTEGER NOT NULL, experiment_id VARCHAR(200) NOT NULL,
    deployment_id VARCHAR(32) NOT NULL, unit VARCHAR(64) NOT NULL, arm VARCHAR(10) NOT NULL,
    model_version VARCHAR(401) NOT NULL, text_sha256 VARCHAR(64) NOT NULL,
    prediction JSON NOT NULL, latency_ms FLOAT NOT NULL, created_at_us BIGINT NOT NULL)"""
OUTCOMES = """
CREATE TABLE outcomes (
    event_id VARCHAR(128) NOT NULL PRIMARY KEY, request_id VARCHAR(128) NOT NULL,
    item INTEGER NOT NULL, reward FLOAT NOT NULL, label JSON, created_at_us BIGINT NOT NULL)"""
VERSIONS = """
CREATE TABLE experiment_versions (
    name VARCHAR(63) NOT NULL, version INTEGER NOT NULL, digest VARCHAR(64) NOT NULL,
    specification JSON NOT NULL, created_at_us BIGINT NOT NULL, PRIMARY KEY (name, version))"""
EVENTS = """
CREATE TABLE experiment_events (
    name VARCHAR(63) NOT NULL, number INTEGER NOT NULL, version INTEGER NOT NULL,
    event JSON NOT NULL, created_at_us BIGINT NOT NULL, PRIMARY KEY (name, number))"""
INDEXES = [
    "CREATE INDEX exposures_by_deployment ON exposures (experiment_id, deployment_id)",
    "CREATE INDEX outcomes_by_request ON outcomes (request_id, item)",
]
OLD = [EXPOSURES, OUTCOMES, *INDEXES]


@contextmanager
def connected(url):
    """A transaction on the database as it is, past everything that would change its tables."""
    address = sa.make_url(url)
    if address.get_backend_name() == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    engine = sa.create_engine(address)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def old_url(store_url, tmp_path):
    """A store of before, with an answer and its outcome."""
    (tmp_path / "deep").mkdir()
    answer = {"event_id": exposure_event_id("방문-1", 0), "request": "방문-1", "unit": UNIT}
    with connected(store_url) as connection:
        for statement in OLD:
            connection.exec_driver_sql(statement)
        connection.execute(
            sa.text(
                "INSERT INTO exposures VALUES (:event_id, :request, 0, 'e', 'd', :unit, "
                "'challenger', 'sentiment/2', :unit, :said, 12.5, 1000)"
            ),
            answer | {"said": '{"sentiment": {"label": "positive"}, "말": "맛있어요 🍜"}'},
        )
        connection.execute(
            sa.text(
                "INSERT INTO outcomes VALUES ('클릭-1', :request, 0, 1.0, "
                """'{"sentiment": "positive"}', 2000)"""
            ),
            {"request": "방문-1"},
        )
    return store_url


def other_type(context, _found, _said, found_type, said_type):
    """Whether types differ: SQLite counts no characters, so there only their kind matters."""
    if context.dialect.name == "sqlite" and isinstance(said_type, sa.String):
        return not isinstance(found_type, sa.String)
    return None


def differences(url):
    """What Alembic would change, were it asked to make the tables those of this version."""
    with connected(url) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": other_type})
        found = compare_metadata(context, metadata)
        revision = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars()
        assert list(revision) == [HEAD]
    return found


def test_a_store_of_before_is_brought_up_to_date_and_keeps_its_rows(old_url):
    store = ExperimentStore(old_url)
    found = store.exposures_with_outcomes("e", "d")
    assert found.unit_hex() == [UNIT]
    assert found.arms == ("challenger",)
    assert found.reward.tolist() == [1.0]
    assert store.counts() == {"exposures": 1, "outcomes": 1}
    again = Feedback("방문-1", 0, 3_000, event_id="둘째", reward=0.0)
    assert store.write([], [again]) == ["stored"]
    assert store.exposures_with_outcomes("e", "d").reward.tolist() == [0.0]
    store.close()
    with connected(old_url) as connection:
        row = connection.execute(sa.text("SELECT why, status, cost FROM exposures")).one()
        metrics = set(connection.execute(sa.text("SELECT metric FROM outcomes")).scalars())
    assert tuple(row) == ("assigned", "ok", None)
    assert metrics == {"reward"}


def test_an_upgraded_store_has_the_tables_of_a_new_one(old_url):
    open_database(old_url).dispose()
    assert differences(old_url) == []
    routes, catalogue = Routes(old_url), Catalogue(old_url)
    routes.put("sentiment", "d" * 32, "e", {"arms": [{"name": "실험"}, {"name": "control"}]})
    assert routes.turn("d" * 32, "control", by="당직자", reason="늦다").number == 1
    assert catalogue.list() == []
    routes.close()
    catalogue.close()


def test_a_new_store_has_the_tables_that_are_written_down(store_url):
    open_database(store_url).dispose()
    assert differences(store_url) == []


def test_one_with_a_catalogue_keeps_it(old_url):
    with connected(old_url) as connection:
        for statement in (VERSIONS, EVENTS):
            connection.exec_driver_sql(statement)
        connection.exec_driver_sql(
            "INSERT INTO experiment_versions VALUES ('e', 1, 'digest', '{}', 5)"
        )
    open_database(old_url).dispose()
    assert differences(old_url) == []
    with connected(old_url) as connection:
        kept = connection.execute(sa.text("SELECT name FROM experiment_versions")).scalars().all()
    assert kept == ["e"]


def test_one_that_a_newer_version_has_changed_is_refused_and_left_alone(store_url):
    open_database(store_url).dispose()
    with connected(store_url) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'of_next_year'")
    for opened in (ExperimentStore, Routes, Catalogue):
        with pytest.raises(ExperimentError, match=r"'of_next_year'.*newer.*another store"):
            opened(store_url)
    with connected(store_url) as connection:
        left = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars()
        assert list(left) == ["of_next_year"]


def _open(url):
    engine = open_database(url)
    with engine.connect() as connection:
        count = connection.execute(sa.text("SELECT count(*) FROM exposures")).scalar()
    engine.dispose()
    return count


def test_processes_that_upgrade_at_once_wait_for_each_other(old_url):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_open, [old_url] * 4) == [1] * 4
    assert differences(old_url) == []


def test_processes_that_make_a_store_at_once_make_one(store_url):
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        assert pool.map(_open, [store_url] * 4) == [0] * 4
    assert differences(store_url) == []


def test_an_upgrade_that_breaks_off_changes_nothing(old_url, monkeypatch):
    def broken(*_, **__):
        raise sa.exc.OperationalError("ALTER TABLE", {}, Exception("disk is full"))

    with monkeypatch.context() as patch:
        patch.setattr("alembic.op.create_index", broken)
        with pytest.raises(ExperimentError, match="disk is full"):
            open_database(old_url)
    with connected(old_url) as connection:
        columns = {each["name"] for each in sa.inspect(connection).get_columns("exposures")}
        assert "alembic_version" not in sa.inspect(connection).get_table_names()
    assert "why" not in columns
    open_database(old_url).dispose()
    assert differences(old_url) == []

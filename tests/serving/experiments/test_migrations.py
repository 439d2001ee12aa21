"""A store of an older revision is brought to this one."""

import sqlalchemy as sa

from serving.experiments.database import open_database
from serving.experiments.tables import HEAD


def test_outcomes_get_their_index_by_time(url: str) -> None:
    older = open_database(url)
    with older.begin() as connection:
        connection.exec_driver_sql("DROP INDEX outcomes_by_time")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'arms_of_any_name'")
    older.dispose()

    newer = open_database(url)

    names = {index["name"] for index in sa.inspect(newer).get_indexes("outcomes")}
    assert "outcomes_by_time" in names
    with newer.connect() as connection:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
    assert found == HEAD
    newer.dispose()

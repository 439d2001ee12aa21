"""How many units, answers and failures each arm of a deployment has so far."""

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from serving.experiments.database import open_database, reported
from serving.experiments.tables import ASSIGNED, FAILED, exposures

_COUNTED: Final = (ASSIGNED, "mirrored")
"""A shadow's arms are asked with copies alone."""


@dataclass(frozen=True)
class ArmCounts:
    """What one arm was asked, by units that met it by chance or in a shadow's copy.

    Attributes:
        units: different ones.
        answers: that it gave.
        failed: requests that it could not answer.
    """

    units: int = 0
    answers: int = 0
    failed: int = 0


class ArmCounter:
    """Counts in one store."""

    def __init__(self, url: str):
        """Open the store.

        Raises:
            ExperimentError: the database cannot be opened.
        """
        self._engine = open_database(url)

    def of(self, deployment_id: str) -> dict[str, ArmCounts]:
        """Arm → what it has in a phase's deployment; arms that nobody met are missing.

        Raises:
            ExperimentError: the database cannot be read.
        """
        failed = sa.func.sum(sa.case((exposures.c.status == FAILED, 1), else_=0))
        query = (
            sa.select(
                exposures.c.arm,
                sa.func.count(exposures.c.unit.distinct()),
                sa.func.count() - failed,
                failed,
            )
            .where(exposures.c.deployment_id == deployment_id, exposures.c.why.in_(_COUNTED))
            .group_by(exposures.c.arm)
        )
        with reported(self._engine, "count the units of"), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return {arm: ArmCounts(units, answers, lost) for arm, units, answers, lost in rows}

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

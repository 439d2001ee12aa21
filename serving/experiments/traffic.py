"""What the arms of a deployment have answered so far, counted from the store.

It reads every exposure of the deployment, so whoever shows it keeps it for a while.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from serving.experiments.database import reported
from serving.experiments.tables import ASSIGNED, FAILED, exposures

_MIRRORED = "mirrored"


@dataclass(frozen=True)
class ArmTraffic:
    """What one arm was asked.

    Attributes:
        units: that it was dealt by chance.
        answers: that it gave them.
        failures: where it could not answer them.
        mirrored: copies of requests that it answered in a shadow; nobody saw those.
    """

    units: int = 0
    answers: int = 0
    failures: int = 0
    mirrored: int = 0


def count_traffic(
    engine: sa.Engine, experiment_id: str, deployment_id: str
) -> dict[str, ArmTraffic]:
    """Arm → what it was asked; arms that were asked nothing are left out.

    Raises:
        ExperimentError: the database cannot be read.
    """
    row = exposures.c
    dealt = row.why == ASSIGNED
    failed = row.status == FAILED
    query = (
        sa.select(
            row.arm,
            sa.func.count(sa.distinct(sa.case((dealt, row.unit)))),
            sa.func.count(sa.case((dealt & ~failed, 1))),
            sa.func.count(sa.case((dealt & failed, 1))),
            sa.func.count(sa.case((row.why == _MIRRORED, 1))),
        )
        .where(row.experiment_id == experiment_id, row.deployment_id == deployment_id)
        .group_by(row.arm)
    )
    with reported(engine, "count what was answered in"), engine.connect() as connection:
        return {arm: ArmTraffic(*counts) for arm, *counts in connection.execute(query)}

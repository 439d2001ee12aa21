"""What the store says of units: the queries, and the arrays that a verdict reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from serving.deployment import ARMS, ArmName
from serving.experiments.tables import exposures, outcomes


@dataclass(frozen=True)
class UnitOutcomes:
    """What ``decide`` reads: one entry per unit and arm, in the order in which units first came.

    Attributes:
        unit: (n,) hashed units; a unit stands twice only if two arms answered it.
        challenger: (n,) True where the challenger answered.
        reward: (n,) mean reward over the unit's outcomes; NaN without any.
        exposures: (n,) answers.
        outcomes: (n,) answers whose outcome is known.
        labelled: (n,) outcomes that are a true sentiment rather than a bare reward.
        versions: per arm, every model version that answered.
    """

    unit: NDArray[np.str_]
    challenger: NDArray[np.bool_]
    reward: NDArray[np.float64]
    exposures: NDArray[np.int64]
    outcomes: NDArray[np.int64]
    labelled: NDArray[np.int64]
    versions: dict[ArmName, tuple[str, ...]]


def per_unit(experiment_id: str, deployment_id: str) -> sa.Select[Any]:
    """The query of a deployment's units; of several outcomes of an answer the latest counts."""
    place = sa.func.row_number().over(
        partition_by=exposures.c.event_id,
        order_by=[outcomes.c.created_at_us.desc(), outcomes.c.event_id.desc()],
    )
    labelled = sa.case((outcomes.c.label.is_not(sa.null()), 1), else_=0)
    answers = (
        sa.select(
            exposures.c.unit,
            exposures.c.arm,
            exposures.c.created_at_us,
            outcomes.c.reward,
            labelled.label("labelled"),
            place.label("place"),
        )
        .select_from(
            exposures.outerjoin(
                outcomes,
                (exposures.c.request_id == outcomes.c.request_id)
                & (exposures.c.item == outcomes.c.item),
            )
        )
        .where(
            exposures.c.experiment_id == experiment_id, exposures.c.deployment_id == deployment_id
        )
        .subquery()
    )
    return (
        sa.select(
            answers.c.unit,
            answers.c.arm,
            sa.func.avg(answers.c.reward),
            sa.func.count(),
            sa.func.count(answers.c.reward),
            sa.func.sum(answers.c.labelled),
        )
        .where(answers.c.place == 1)
        .group_by(answers.c.unit, answers.c.arm)
        .order_by(sa.func.min(answers.c.created_at_us), answers.c.unit)
    )


def versions_by_arm(experiment_id: str, deployment_id: str) -> sa.Select[Any]:
    """The query of the model versions that answered in each arm."""
    return (
        sa.select(exposures.c.arm, exposures.c.model_version)
        .where(
            exposures.c.experiment_id == experiment_id, exposures.c.deployment_id == deployment_id
        )
        .distinct()
        .order_by(exposures.c.arm, exposures.c.model_version)
    )


def unit_outcomes(rows: Sequence[sa.Row[Any]], versions: Sequence[sa.Row[Any]]) -> UnitOutcomes:
    """The rows of both queries as arrays."""
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) or [()] * 6
    return UnitOutcomes(
        unit=np.asarray(columns[0], dtype=np.str_),
        challenger=np.asarray([arm == "challenger" for arm in columns[1]], dtype=np.bool_),
        reward=np.asarray([np.nan if r is None else r for r in columns[2]], dtype=np.float64),
        exposures=np.asarray(columns[3], dtype=np.int64),
        outcomes=np.asarray(columns[4], dtype=np.int64),
        labelled=np.asarray(columns[5], dtype=np.int64),
        versions={
            name: tuple(str(row.model_version) for row in versions if row.arm == name)
            for name in ARMS
        },
    )

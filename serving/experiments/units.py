"""What the store says of units: the queries, and the arrays that a verdict reads.

Only units that were dealt by chance count: why they met their arm is 'assigned'.

archive_units.py makes the same arrays of what has left the store.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from data.errors import ExperimentError
from serving.dealing import ArmName
from serving.experiments.hashes import UNIT_BYTES, Hashes, hashes_of, hex_of
from serving.experiments.tables import ASSIGNED, FAILED, REWARD, exposures, outcomes

_DAY_US: Final = 86_400_000_000
_MOST_DAYS: Final = 36_500


@dataclass(frozen=True)
class UnitOutcomes:
    """What ``decide`` reads: one entry per unit and arm, in the order in which units first came.

    Attributes:
        unit: (n,) hashed units, 32 raw bytes each (``unit_hex`` shows them); a unit stands twice
            only if two arms answered it.
        arm: (n,) which arm the unit met, as its place in ``arms``.
        arms: the arms that units met, by name.
        reward: (n,) mean reward over the unit's outcomes; NaN without any.
        exposures: (n,) answers; 0 where every one failed.
        outcomes: (n,) answers whose outcome is known.
        labelled: (n,) outcomes that are a true sentiment rather than a bare reward.
        failed: (n,) requests that the arm could not answer.
        versions: per arm, every model version that answered or should have.
    """

    unit: Hashes
    arm: NDArray[np.uint8]
    arms: tuple[ArmName, ...]
    reward: NDArray[np.float64]
    exposures: NDArray[np.int64]
    outcomes: NDArray[np.int64]
    labelled: NDArray[np.int64]
    failed: NDArray[np.int64]
    versions: dict[ArmName, tuple[str, ...]]

    def met(self, name: ArmName) -> NDArray[np.bool_]:
        """(n,) True where the unit met the arm of that name."""
        if name not in self.arms:
            return np.zeros(len(self.arm), dtype=np.bool_)
        return np.asarray(self.arm == self.arms.index(name))

    def unit_hex(self) -> list[str]:
        """The hashed units as the store has them: 64 hex digits each."""
        return hex_of(self.unit)


def window_us(days: float | None) -> int | None:
    """An attribution window in microseconds.

    Raises:
        ExperimentError: it is no positive number of days, or more than a hundred years.
    """
    if days is None:
        return None
    if not 0.0 < days <= _MOST_DAYS:  # NaN is neither
        raise ExperimentError(
            f"window_days={days!r}; give more than 0 and at most {_MOST_DAYS!r} days, or None to "
            "count every outcome"
        )
    return round(days * _DAY_US)


def settling_us(days: float) -> int:
    """How long a unit's answers do not count after its first one, in microseconds.

    Raises:
        ExperimentError: it is a negative number of days, or more than a hundred years.
    """
    if not 0.0 <= days <= _MOST_DAYS:  # NaN is neither
        raise ExperimentError(
            f"settling_days={days!r}; give from 0 to {_MOST_DAYS!r} days, 0 to count every answer"
        )
    return round(days * _DAY_US)


def last_closed_us(window: int | None, closed_by_us: int | None) -> int | None:
    """The latest moment of an answer whose attribution window has closed; None takes them all.

    Raises:
        ExperimentError: there is no window that could close.
    """
    if closed_by_us is None:
        return None
    if window is None:
        raise ExperimentError(
            f"closed_by_us={closed_by_us!r} without window_days; say how late an outcome may come, "
            "or count every answer"
        )
    return closed_by_us - window


def per_unit(
    experiment_id: str,
    deployment_id: str,
    *,
    window_days: float | None = None,
    settling_days: float = 0.0,
    closed_by_us: int | None = None,
) -> sa.Select[Any]:
    """The query of a deployment's units; of several outcomes of an answer the latest counts.

    Args:
        experiment_id: of the deployment.
        deployment_id: of the deployment.
        window_days: outcomes later than this after their exposure do not count; None counts all.
        settling_days: answers sooner than this after their unit's first one do not count.
        closed_by_us: the moment of the look; answers whose window was open then do not count. None
            counts them all.

    Raises:
        ExperimentError: a number of days is out of range, or there is no window to close.
    """
    window, settling = window_us(window_days), settling_us(settling_days)
    last = last_closed_us(window, closed_by_us)
    answers = _answers(experiment_id, deployment_id, window=window, settling=settling)
    counts = [answers.c.place == 1]
    if settling:
        counts.append(answers.c.created_at_us >= answers.c.first_us + settling)
    if last is not None:
        counts.append(answers.c.created_at_us <= last)
    return (
        sa.select(
            answers.c.unit,
            answers.c.arm,
            sa.func.avg(answers.c.reward),
            sa.func.count() - sa.func.sum(answers.c.failed),
            sa.func.count(answers.c.reward),
            sa.func.sum(answers.c.labelled),
            sa.func.sum(answers.c.failed),
        )
        .where(*counts)
        .group_by(answers.c.unit, answers.c.arm)
        .order_by(sa.func.min(answers.c.created_at_us), answers.c.unit, answers.c.arm)
    )


def _answers(
    experiment_id: str, deployment_id: str, *, window: int | None, settling: int
) -> sa.Subquery:
    """Each answer with its outcomes, the latest as place 1, and its unit's first moment."""
    belongs = (exposures.c.request_id == outcomes.c.request_id) & (
        exposures.c.item == outcomes.c.item
    )
    belongs &= (outcomes.c.metric == REWARD) & (exposures.c.status != FAILED)
    if window is not None:
        belongs &= outcomes.c.created_at_us <= exposures.c.created_at_us + window
    place = sa.func.row_number().over(
        partition_by=exposures.c.event_id,
        order_by=[outcomes.c.created_at_us.desc(), outcomes.c.event_id.desc()],
    )
    # Of all its answers, also those that do not count; a sort, so only where it is asked for.
    first_us = sa.func.min(exposures.c.created_at_us).over(partition_by=exposures.c.unit)
    labelled = sa.case((outcomes.c.label.is_not(sa.null()), 1), else_=0)
    return (
        sa.select(
            exposures.c.unit,
            exposures.c.arm,
            exposures.c.created_at_us,
            outcomes.c.reward,
            labelled.label("labelled"),
            sa.case((exposures.c.status == FAILED, 1), else_=0).label("failed"),
            place.label("place"),
            *([first_us.label("first_us")] if settling else []),
        )
        .select_from(
            exposures.outerjoin(outcomes, belongs),
        )
        .where(
            exposures.c.experiment_id == experiment_id,
            exposures.c.deployment_id == deployment_id,
            exposures.c.why == ASSIGNED,
        )
        .subquery()
    )


def versions_by_arm(experiment_id: str, deployment_id: str) -> sa.Select[Any]:
    """The query of the model versions that answered in each arm."""
    return (
        sa.select(exposures.c.arm, exposures.c.model_version)
        .where(
            exposures.c.experiment_id == experiment_id,
            exposures.c.deployment_id == deployment_id,
            exposures.c.why == ASSIGNED,
        )
        .distinct()
        .order_by(exposures.c.arm, exposures.c.model_version)
    )


def unit_outcomes(rows: Sequence[sa.Row[Any]], versions: Sequence[sa.Row[Any]]) -> UnitOutcomes:
    """The rows of both queries as arrays.

    Raises:
        ExperimentError: a unit is no hash.
    """
    columns: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) or [()] * 7
    arms = tuple(sorted({str(arm) for arm in columns[1]}))
    places = {name: place for place, name in enumerate(arms)}
    return UnitOutcomes(
        unit=hashes_of(columns[0], UNIT_BYTES, what="unit"),
        arm=np.asarray([places[arm] for arm in columns[1]], dtype=np.uint8),
        arms=arms,
        reward=np.asarray([np.nan if r is None else r for r in columns[2]], dtype=np.float64),
        exposures=np.asarray(columns[3], dtype=np.int64),
        outcomes=np.asarray(columns[4], dtype=np.int64),
        labelled=np.asarray(columns[5], dtype=np.int64),
        failed=np.asarray(columns[6], dtype=np.int64),
        versions={
            name: tuple(str(row.model_version) for row in versions if row.arm == name)
            for name in arms
        },
    )

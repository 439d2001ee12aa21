"""What a metric is made of: of every ask of an arm, what is added up and what it is divided by.

The terms are SQL expressions over ``exposures``, so that the report, the guardrails and an analyst
who asks the database mean the same by a name.
"""

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.metric_names import FROM_ANSWERS
from serving.experiments.tables import FAILED, exposures

Terms = tuple[sa.ColumnElement[float], sa.ColumnElement[int]]


def answer_terms(metric: str) -> Terms:
    """Numerator and denominator of a metric of ``FROM_ANSWERS``, of one ask.

    A unit's value is the sum of numerators over the sum of denominators of its asks.

    Raises:
        ExperimentError: it does not follow from answers alone.
    """
    failed = exposures.c.status == FAILED
    answered = sa.case((failed, 0), else_=1)
    match metric:
        case "latency_ms":
            return sa.case((failed, 0.0), else_=exposures.c.latency_ms), answered
        case "error_rate":
            return sa.case((failed, 1.0), else_=0.0), sa.literal(1)
        case "degraded_rate":
            return sa.case((exposures.c.status == "degraded", 1.0), else_=0.0), answered
        case "cost":
            known = ~failed & exposures.c.cost.is_not(None)
            return sa.case((known, exposures.c.cost), else_=0.0), sa.case((known, 1), else_=0)
    raise ExperimentError(
        f"metric={metric!r} does not follow from answers; {sorted(FROM_ANSWERS)!r} do"
    )

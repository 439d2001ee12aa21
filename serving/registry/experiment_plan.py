"""How large an experiment has to be, and how long that takes, before it starts."""

from dataclasses import dataclass

from serving.experiments.specification import ExperimentSpecification


@dataclass(frozen=True)
class Plan:
    """One look at a fixed size.

    Attributes:
        control: units of the control.
        challenger: units of the smallest challenger.
        total: units that take part, of all arms.
        days: until they have met it.
        max_days: of the phase.
    """

    control: int
    challenger: int
    total: int
    days: float
    max_days: float

    @property
    def fits(self) -> bool:
        """Whether the phase is long enough."""
        return self.days <= self.max_days


def plan_for(
    specification: ExperimentSpecification,
    *,
    baseline: float,
    lift: float,
    units_per_day: float,
    power: float = 0.8,
) -> Plan:
    """How many units the A/B phase needs, where its primary metric is a rate.

    Args:
        specification: its shares, level, margin and direction count.
        baseline: the control's rate, between 0 and 1.
        lift: by how much a challenger is better, in the same unit; may be 0 with a margin.
        units_per_day: new units a day, of all traffic.
        power: chance that it is found.

    Raises:
        ExperimentError: a number is out of range.
    """
    from serving.experiments.inference.planning import (
        duration_days,
        sample_for,
        variance_of_proportions,
    )

    [phase] = [one for one in specification.phases if one.kind == "ab"]
    goal, shares = specification.metrics.primary, specification.shares(phase)
    upward = goal.direction == "increase"
    difference = lift if upward else -lift
    control = specification.control.name
    pair = (shares[control], min(share for arm, share in shares.items() if arm != control))
    sample = sample_for(
        difference,
        variance_of_proportions(baseline, baseline + difference, shares=pair),
        # Several challengers share the level, as the verdict does.
        alpha=specification.stopping.alpha / (len(specification.arms) - 1),
        power=power,
        alternative=("greater" if upward else "less") if goal.margin else "two-sided",
        margin=goal.margin,
        shares=pair,
    )
    coverage = phase.coverage * (1.0 - specification.holdout)
    days = duration_days(sample.total, units_per_day=units_per_day, coverage=coverage)
    return Plan(
        control=sample.control,
        challenger=sample.challenger,
        total=round(sample.total),
        days=days,
        max_days=phase.max_days,
    )

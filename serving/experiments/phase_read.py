"""What a report reads, by which agreement, and at which levels.

The primary metric has the experiment's alpha, shared out among its challengers. Guardrails and
signals, which promote nothing, have it once more: shared out among metrics and arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from serving.experiments.goals import MetricGoal
from serving.experiments.inference.exact import EXACT_BELOW
from serving.experiments.metric_comparison import Settings
from serving.experiments.report import ReportPhase, Role
from serving.experiments.specification import ExperimentSpecification, Phase


@dataclass(frozen=True)
class PhaseRead:
    """One phase.

    Attributes:
        specification: what was agreed.
        phase: which phase, and for how long it has been open.
        shares: the phase as it was opened, with the allocation that it really has.
        experiment_id: of the deployment.
        deployment_id: of the deployment.
        models: arm → the model that should answer.
        not_dealt_by: the experiment's other deployments, whose answers are no covariates.
        now_us: until when outcomes may have come.
    """

    specification: ExperimentSpecification
    phase: ReportPhase
    shares: Phase
    experiment_id: str
    deployment_id: str
    models: Mapping[str, str]
    not_dealt_by: tuple[str, ...]
    now_us: int

    @property
    def names(self) -> list[str]:
        """The arms, the control first."""
        return [arm.name for arm in self.specification.arms]

    @property
    def secondary(self) -> list[tuple[Role, MetricGoal]]:
        """What does not decide."""
        metrics = self.specification.metrics
        guardrails: list[tuple[Role, MetricGoal]] = [("guardrail", g) for g in metrics.guardrails]
        return guardrails + [("signal", goal) for goal in metrics.signals]

    def settings(self, shared_by: int, *, secondary: bool) -> Settings:
        """Of one of ``shared_by`` intervals that together keep alpha."""
        stopping = self.specification.stopping
        least = self.phase.min_units
        return Settings(
            alpha=stopping.alpha / max(shared_by, 1),
            tuned_for_units=stopping.tuned_for_units,
            # What rolls back must not wait for what may promote.
            burn_in=min(least, EXACT_BELOW) if secondary else least,
        )

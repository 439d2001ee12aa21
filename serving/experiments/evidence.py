"""What the rules of a verdict are asked of: every figure of a phase, and nothing else."""

from dataclasses import dataclass, field

from serving.experiments.inference.ratio_report import PhaseReport
from serving.experiments.report import ArmRow, MetricRow, ReportPhase


@dataclass(frozen=True)
class Missing:
    """Outcomes of the primary metric that did not come.

    Attributes:
        ripe_share: of a unit's answers whose outcome can come no more, those without one, on
            average over units; None where there are no such answers.
        allowed: of that share.
        gaps: arms whose outcomes are missing more, or less, often than the control's.
    """

    ripe_share: float | None = None
    allowed: float = 1.0
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What the rules are asked of.

    Attributes:
        phase: which.
        arms: the control first.
        versions: arm → models that were asked.
        strangers: arms in the store that the deployment has not.
        crossed: units that met two arms.
        ratio: of the units; None in a shadow, where the control answers everybody.
        missing: outcomes; None where the primary metric needs none.
        known_units: of each arm, units whose primary metric is known.
        primary: one row a challenger.
        secondary: guardrails and signals.
    """

    phase: ReportPhase
    arms: tuple[ArmRow, ...]
    versions: dict[str, tuple[str, ...]]
    strangers: tuple[str, ...]
    crossed: int
    ratio: PhaseReport | None
    missing: Missing | None
    known_units: tuple[int, ...]
    primary: tuple[MetricRow, ...]
    secondary: tuple[MetricRow, ...] = field(default=())

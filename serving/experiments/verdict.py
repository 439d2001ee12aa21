"""The verdict: may the challenger become champion, must it go, or is it too early to say?

Checks come before the comparison, in the order in which they would make it meaningless; only then
is the anytime-valid interval read. So the schedule may ask as often as it likes.
"""

from collections.abc import Sequence
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from data.errors import ExperimentError
from serving.dealing import ArmName
from serving.deployment import Arm, Deployment
from serving.experiments.decision_rule import METRIC_WORDS, DecisionRule
from serving.experiments.hashes import repeats
from serving.experiments.inference.burn_in import EFFECTIVE
from serving.experiments.inference.ratio_report import PhaseCounts, RatioRule, phase_report
from serving.experiments.inference.sequences import ConfidenceSequence
from serving.experiments.inference.thinned import thinned_sequence
from serving.experiments.missing import missing_shares, uneven_p
from serving.experiments.units import UnitOutcomes

Decision = Literal["continue", "promote", "roll_back", "invalid"]
_PLOT_POINTS: Final = 200


class SequencePoint(BaseModel):
    """The interval after ``n`` units."""

    model_config = ConfigDict(frozen=True)

    n: int
    estimate: float
    low: float
    high: float


class Verdict(BaseModel):
    """A decision, the sentence that explains it, and every figure it rests on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Decision
    reason: str
    experiment_id: str
    deployment_id: str
    rule: DecisionRule
    exposures: dict[ArmName, int]
    outcomes: dict[ArmName, int]
    units: dict[ArmName, int]
    means: dict[ArmName, float | None]
    srm_p: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float
    sequence: tuple[SequencePoint, ...] = ()

    @model_validator(mode="after")
    def _decided_on_an_interval(self) -> Self:
        if self.decision in {"promote", "roll_back"} and (self.low is None or self.high is None):
            raise ValueError(f"decision={self.decision!r} without an interval")
        return self


def decide(data: UnitOutcomes, deployment: Deployment, rule: DecisionRule) -> Verdict:
    """Judge a deployment from what its store holds.

    Args:
        data: ``ExperimentStore.exposures_with_outcomes`` of this deployment.
        deployment: whose shares the units were dealt by.
        rule: margins and levels, agreed beforehand.

    Raises:
        ExperimentError: the deployment has not two arms, or gives one no share.
    """
    names = [arm.name for arm in deployment.arms]
    if len(names) != 2 or not 0.0 < deployment.arms[1].share < 1.0:  # noqa: PLR2004
        raise ExperimentError(
            f"deployment {deployment.deployment_id!r} has the arms {names!r} with shares "
            f"{[arm.share for arm in deployment.arms]!r}; a comparison needs two arms that each "
            "have one: deploy a challenger with a share between 0 and 1"
        )
    champion, challenger = names
    share = deployment.arms[1].share
    verdict = Verdict(
        decision="invalid",
        reason="not judged",
        experiment_id=deployment.experiment_id,
        deployment_id=deployment.deployment_id,
        rule=rule,
        exposures=_per_arm(data, names, data.exposures),
        outcomes=_per_arm(data, names, data.outcomes),
        units=_per_arm(data, names, np.ones(len(data.unit), dtype=np.int64)),
        means=_means(data, names),
        margin=rule.margin,
    )
    if not len(data.unit):
        return _without_answers(verdict)
    shares = {champion: 1.0 - share, challenger: share}
    verdict = verdict.model_copy(update={"srm_p": _sample_ratio_p(verdict, shares)})
    return (
        _broken(verdict, data, deployment)
        or _too_early(verdict, data, deployment.arms[1])
        or _judged(verdict, data, deployment)
    )


def _without_answers(verdict: Verdict) -> Verdict:
    rule = verdict.rule
    waits = [f"leaves out a unit's first {rule.settling_days:g} days"] * (rule.settling_days > 0.0)
    if rule.closed_windows_only:
        waits.append(f"waits {rule.attribution_days:g} days for outcomes")
    if waits:
        return _say(
            verdict,
            "continue",
            f"No answer counts yet: the rule {' and '.join(waits)}. Wait, and check that the "
            "gateway is up and writes to this store.",
        )
    return _say(
        verdict,
        "invalid",
        "Nobody was answered under this deployment, so there is nothing to judge. Check that the "
        "gateway is up and writes to this store.",
    )


def _sample_ratio_p(verdict: Verdict, shares: dict[ArmName, float]) -> float:
    counts = PhaseCounts(name="the deployment", shares=shares, counts=verdict.units)
    return phase_report(counts, RatioRule(alpha=verdict.rule.srm_alpha)).phase.p


def _broken(verdict: Verdict, data: UnitOutcomes, deployment: Deployment) -> Verdict | None:
    """Whatever makes the comparison meaningless, however much data there is."""
    for name, versions in data.versions.items():
        arm = deployment.arm(name)
        expected = f"{arm.model_name}/{arm.version}" if arm else "no model"
        strange = [version for version in versions if version != expected]
        if strange:
            return _say(
                verdict,
                "invalid",
                f"The {name} should be {expected}, but {', '.join(strange)} answered too, so the "
                "figures mix models. Start a new experiment.",
            )
    crossed = repeats(data.unit)
    if crossed:
        return _say(
            verdict,
            "invalid",
            f"{crossed} units were answered by both models, so their outcomes cannot be told "
            "apart. Check that every gateway runs this deployment file, then start anew.",
        )
    if verdict.srm_p is not None and verdict.srm_p < verdict.rule.srm_alpha:
        challenger = deployment.arms[1]
        seen = verdict.units[challenger.name] / len(data.unit)
        return _say(
            verdict,
            "invalid",
            f"The {challenger.name} got {seen:.1%} of the units instead of "
            f"{challenger.share:.1%}; chance does so at any time in at most one of "
            f"{1 / max(verdict.srm_p, 1e-12):,.0f} experiments. Something loses or misplaces "
            "traffic: find it before reading any result.",
        )
    if verdict.rule.metric == "sentiment_accuracy" and (data.labelled < data.outcomes).any():
        bare = int((data.outcomes - data.labelled).sum())
        return _say(
            verdict,
            "invalid",
            f"{bare} outcomes are bare rewards, but the rule compares right sentiments. Send true "
            "sentiments as feedback, or set the rule's metric to 'reward'.",
        )
    return None


def _too_early(verdict: Verdict, data: UnitOutcomes, challenger: Arm) -> Verdict | None:
    """Too little data, or outcomes that do not arrive."""
    rule = verdict.rule
    least = min(verdict.exposures.values())
    if least < rule.min_exposures_per_arm:
        return _say(
            verdict,
            "continue",
            f"The smaller arm has {least} answers and the rule asks for "
            f"{rule.min_exposures_per_arm}. Wait for more traffic.",
        )
    shares = missing_shares(data)
    missing = float(shares.sum() / max(int((data.exposures > 0).sum()), 1))
    if missing > rule.max_missing_share:
        return _say(
            verdict,
            "invalid",
            f"On average {missing:.1%} of a unit's answers have no outcome and the rule allows "
            f"{rule.max_missing_share:.1%}. Feedback is lost or late: mend it, then judge.",
        )
    on = data.met(challenger.name)
    if missing and uneven_p(on, shares, challenger_share=challenger.share) < rule.srm_alpha:
        return _say(
            verdict,
            "invalid",
            "Outcomes go missing more often for one model than for the other, which bends the "
            f"comparison (outcomes {verdict.outcomes!r}, answers {verdict.exposures!r}). Find out "
            "why before reading any result.",
        )
    units = _per_arm(data, list(verdict.exposures), (data.outcomes > 0).astype(np.int64))
    if min(units.values()) < rule.min_exposures_per_arm:
        return _say(
            verdict,
            "continue",
            f"The smaller arm has outcomes of {min(units.values())} units and the rule asks for "
            f"{rule.min_exposures_per_arm}. Wait for more traffic.",
        )
    return None


def _judged(verdict: Verdict, data: UnitOutcomes, deployment: Deployment) -> Verdict:
    rule = verdict.rule
    champion, challenger = deployment.arms
    known = data.outcomes > 0
    sequence = thinned_sequence(
        data.met(challenger.name)[known],
        data.reward[known],
        _looks(int(known.sum())),
        challenger_share=challenger.share,
        alpha=rule.alpha,
        tuned_for_units=rule.tuned_for_units,
        burn_in=rule.min_exposures_per_arm,
        min_effective=EFFECTIVE,
    )
    low, high = float(sequence.low[-1]), float(sequence.high[-1])
    difference = float(sequence.estimate[-1])
    verdict = verdict.model_copy(
        update={
            "difference": difference,
            "low": low,
            "high": high,
            "sequence": _points(sequence),
        }
    )
    found = (
        f"The {challenger.name}'s {METRIC_WORDS[rule.metric]} differs from the {champion.name}'s "
        f"by {difference:+.3f} ({1 - rule.alpha:.0%} interval, valid at every look: {low:+.3f} to "
        f"{high:+.3f})"
    )
    if rule.margin:
        bar = f"the accepted loss of {rule.margin:.3f}"
        better, worse = f"any loss is smaller than {bar}", f"the loss is larger than {bar}"
    else:
        better, worse = "it is better", "it is worse"
    if low > -rule.margin:
        return _say(verdict, "promote", f"{found}: {better}. Promote it.")
    if high < -rule.margin:
        return _say(verdict, "roll_back", f"{found}: {worse}. Roll it back.")
    return _say(
        verdict, "continue", f"{found}: too wide to say whether {better}. Collect more outcomes."
    )


def _say(verdict: Verdict, decision: Decision, reason: str) -> Verdict:
    # Through the constructor, so that the figures are checked once more.
    return Verdict.model_validate(dict(verdict) | {"decision": decision, "reason": reason})


def _per_arm(
    data: UnitOutcomes, names: Sequence[ArmName], values: NDArray[np.int64]
) -> dict[ArmName, int]:
    return {name: int(values[data.met(name)].sum()) for name in names}


def _means(data: UnitOutcomes, names: Sequence[ArmName]) -> dict[ArmName, float | None]:
    known = data.outcomes > 0
    sides = {name: data.reward[known & data.met(name)] for name in names}
    return {name: float(some.mean()) if some.size else None for name, some in sides.items()}


def _looks(units: int) -> NDArray[np.int64]:
    """At most 200 looks for a plot, even on a logarithmic scale, the last one always."""
    return np.unique(np.geomspace(1, units, min(units, _PLOT_POINTS)).round().astype(np.int64))


def _points(sequence: ConfidenceSequence) -> tuple[SequencePoint, ...]:
    columns = (sequence.n, sequence.estimate, sequence.low, sequence.high)
    return tuple(
        SequencePoint(n=n, estimate=estimate, low=low, high=high)
        for n, estimate, low, high in zip(*(one.tolist() for one in columns), strict=True)
    )

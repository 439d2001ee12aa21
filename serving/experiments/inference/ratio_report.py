"""Sample ratios as people read them: per phase and per segment, ok, alarm or too few units.

Counts of a phase and of its segments (a platform, a city, an entry page) come in, readings with a
sentence each go out. The phase is tested by itself at ``alpha``; its segments are tested together,
corrected by Holm, so that no number of segments makes a false alarm likelier. Every p-value is
anytime-valid, so a report may be asked for after every unit. Other shares make another phase: a
change of allocation cannot sound the alarm, and a mended fault starts a phase of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from data.errors import ExperimentError
from serving.experiments.inference.multiplicity import holm
from serving.experiments.inference.sample_ratio import concentration_for, log_e_value

Floats = NDArray[np.float64]
Reading = Literal["ok", "alarm", "too_few"]


class RatioRule(BaseModel):
    """What was agreed before the phase began."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    alpha: float = Field(
        default=0.002, gt=0.0, lt=1.0, description="Of a false alarm ever, however often one looks."
    )
    planned_units: int = Field(
        default=100_000, ge=1, description="Units at which a phase's alarm is most sensitive."
    )
    planned_segment_units: int = Field(
        default=20_000, ge=1, description="Units at which a segment's alarm is most sensitive."
    )


@dataclass(frozen=True)
class PhaseCounts:
    """Units of a phase until now.

    Attributes:
        name: the phase.
        shares: arm → intended share, adding up to 1.
        counts: arm → units.
        segments: segment → arm → units. Name every segment from the first look on, with zeros
            while it has no units: the correction is for as many segments as are named. Segments
            may overlap and need not add up to the phase.
    """

    name: str
    shares: Mapping[str, float]
    counts: Mapping[str, int]
    segments: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RatioReading:
    """What the counts of a phase or segment say.

    Attributes:
        name: the phase or segment.
        counts: arm → units.
        p: anytime-valid p-value by itself, the smallest until now.
        adjusted_p: corrected across segments; a phase's own is ``p``.
        reading: ``too_few`` where even an arm without any unit would sound no alarm yet.
        sentence: the reading for people.
    """

    name: str
    counts: Mapping[str, int]
    p: float
    adjusted_p: float
    reading: Reading
    sentence: str


@dataclass(frozen=True)
class PhaseReport:
    """The readings of a phase and, by name, of its segments."""

    phase: RatioReading
    segments: Mapping[str, RatioReading]

    @property
    def alarm(self) -> bool:
        """Whether anything in the phase sounds the alarm."""
        return any(each.reading == "alarm" for each in (self.phase, *self.segments.values()))


def phase_report(
    phase: PhaseCounts, rule: RatioRule, *, earlier: PhaseReport | None = None
) -> PhaseReport:
    """Read the sample ratios of a phase and of its segments.

    Args:
        phase: running totals.
        rule: agreed beforehand.
        earlier: the report of an earlier look at this phase. Its p-values are kept where they are
            smaller, so that an alarm stays one.

    Raises:
        ExperimentError: shares do not add up to 1, a count is negative, or counts and shares name
            different arms.
    """
    kept = {} if earlier is None else {name: each.p for name, each in earlier.segments.items()}
    p = {
        name: min(
            _p_now(name, counts, phase.shares, rule.planned_segment_units, rule.alpha),
            kept.get(name, 1.0),
        )
        for name, counts in phase.segments.items()
    }
    adjusted = holm(p)
    # What Holm asks of the first segment that it rejects: the level that each can count on.
    level = rule.alpha / max(len(p), 1)
    segments = {}
    for name, counts in phase.segments.items():
        enough = _can_alarm(counts, phase.shares, rule.planned_segment_units, rule.alpha, level)
        segments[name] = _read(
            name, counts, phase.shares, (p[name], adjusted[name]), rule.alpha, can_alarm=enough
        )
    whole = min(
        _p_now(phase.name, phase.counts, phase.shares, rule.planned_units, rule.alpha),
        1.0 if earlier is None else earlier.phase.p,
    )
    enough = _can_alarm(phase.counts, phase.shares, rule.planned_units, rule.alpha, rule.alpha)
    reading = _read(
        phase.name, phase.counts, phase.shares, (whole, whole), rule.alpha, can_alarm=enough
    )
    return PhaseReport(phase=reading, segments=segments)


def _log_e(
    counts: Sequence[float] | Floats, shares: Mapping[str, float], planned: int, alpha: float
) -> Floats:
    return log_e_value(
        counts,
        shares=list(shares.values()),
        concentration=concentration_for(planned, arms=len(shares), alpha=alpha),
    )


def _p_now(
    name: str, counts: Mapping[str, int], shares: Mapping[str, float], planned: int, alpha: float
) -> float:
    if set(counts) != set(shares):
        raise ExperimentError(
            f"{name!r} counts the arms {sorted(counts)!r} and the phase shares among "
            f"{sorted(shares)!r}; count every arm, with 0 where it has no unit"
        )
    log_e = _log_e([counts[arm] for arm in shares], shares, planned, alpha)
    return float(np.exp(-max(float(log_e), 0.0)))


def _can_alarm(
    counts: Mapping[str, int], shares: Mapping[str, float], planned: int, alpha: float, level: float
) -> bool:
    """Whether so many units would show it if any one arm had got none of them."""
    wanted = np.asarray(list(shares.values()))
    others = np.where(np.eye(wanted.size, dtype=bool), 0.0, wanted)
    lost = sum(counts.values()) * others / others.sum(axis=-1, keepdims=True)
    return bool(_log_e(lost, shares, planned, alpha).min() >= -np.log(level))


def _read(
    name: str,
    counts: Mapping[str, int],
    shares: Mapping[str, float],
    p: tuple[float, float],
    alpha: float,
    *,
    can_alarm: bool,
) -> RatioReading:
    own_p, adjusted_p = p
    units = sum(counts.values())
    reading: Reading = "alarm" if adjusted_p <= alpha else "ok" if can_alarm else "too_few"
    if reading == "alarm":
        arm = max(shares, key=lambda each: abs(counts[each] - shares[each] * units))
        sentence = (
            f"{name}: {arm} has {counts[arm] / max(units, 1):.2%} of {units:,} units now, meant "
            f"are {shares[arm]:.2%}; shares as far off as were seen come by chance in at most one "
            f"of {1 / max(adjusted_p, 1e-12):,.0f} experiments, however often one looks. Something "
            "loses or misplaces traffic: mend it and start a new phase before reading any result."
        )
    elif reading == "ok":
        sentence = f"{name}: the shares of {units:,} units are as intended, as far as chance goes."
    else:
        sentence = (
            f"{name}: {units:,} units are too few to tell, even if an arm got none. Wait for more."
        )
    return RatioReading(
        name=name,
        counts=dict(counts),
        p=own_p,
        adjusted_p=adjusted_p,
        reading=reading,
        sentence=sentence,
    )

"""What a report of an experiment's phase says: the verdict, and every figure that it rests on.

It is JSON (``verdict.json``), the page of report_page.py, and what the API answers. Whatever is
not known is None; an end of an interval that is None is open.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serving.dealing import PhaseKind
from serving.experiments.inference.ratio_report import Reading as RatioReadingKind
from serving.experiments.inference.readings import Reading
from serving.experiments.verdict import Decision, SequencePoint

Role = Literal["primary", "guardrail", "signal", "paired"]
Kind = Literal["mean", "ratio", "quantile", "paired", "preference"]
Method = Literal[
    "sequence", "anytime", "coins", "exact_rates", "permutation", "sign_test", "bootstrap", "none"
]
"""How an interval was made; those after ``coins`` hold for one look and decide nothing."""
Language = Literal["en", "ko"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Said(_Frozen):
    """A sentence in both languages."""

    en: str
    ko: str

    def __add__(self, other: "Said") -> "Said":
        return Said(en=f"{self.en} {other.en}".strip(), ko=f"{self.ko} {other.ko}".strip())


class ReportPhase(_Frozen):
    """The phase that the report is of.

    Attributes:
        number: 1, 2, … of the experiment.
        opened_us: when, in microseconds since 1970.
        days: since then, until now or until it ended.
    """

    kind: PhaseKind
    number: int
    opened_us: int
    days: float
    max_days: float
    min_units: int


class ArmRow(_Frozen):
    """An arm, and what it was asked.

    Attributes:
        share: of the units that take part.
        asks: of units that were dealt by chance; of a shadow's other arms, the copies.
        outcomes: answers whose primary metric is known.
    """

    name: str
    model: str
    share: float
    units: int
    asks: int
    answers: int
    failures: int
    outcomes: int


class MetricRow(_Frozen):
    """One metric of one arm against the control's.

    Attributes:
        control_value: the control's.
        value: the arm's.
        difference: the arm's less the control's, as the method estimates it.
        relative: the difference in shares of the control's value.
        low, high: ends of the interval; None where it says nothing yet.
        level: 1 - alpha of that interval.
        reading: what the interval shows of the metric's direction and margin.
        p: anytime-valid p-value of no difference.
        adjusted_p: corrected over all secondary metrics and arms (Holm).
        variance_cut: share of the variance that what was known before took away (CUPED).
        units: of the control and of the arm, or pairs.
        note: what else there is to know.
    """

    metric: str
    role: Role
    arm: str
    kind: Kind
    method: Method
    direction: Literal["increase", "decrease"]
    margin: float
    quantile: float | None = None
    control_value: float | None = None
    value: float | None = None
    difference: float | None = None
    relative: float | None = None
    low: float | None = None
    high: float | None = None
    level: float
    reading: Reading = "undecided"
    p: float | None = None
    adjusted_p: float | None = None
    variance_cut: float | None = None
    units: tuple[int, int]
    note: Said | None = None


class SegmentRow(_Frozen):
    """The primary metric among some of the units; the intervals of all segments hold together.

    Attributes:
        after_the_fact: whether an arm can move units from one segment to another, so that a
            difference may come from who is in it.
    """

    dimension: str
    segment: str
    arm: str
    after_the_fact: bool
    units: tuple[int, int]
    control_value: float | None = None
    value: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    adjusted_p: float | None = None


class RatioRow(_Frozen):
    """Whether the units of the phase, or of a segment, were dealt as they were meant to be."""

    name: str
    counts: dict[str, int]
    p: float
    adjusted_p: float
    reading: RatioReadingKind
    sentence: str


class Timeline(_Frozen):
    """The primary metric's interval of one arm, after ever more units."""

    arm: str
    points: tuple[SequencePoint, ...]


class Differing(_Frozen):
    """A text that the control and another arm answered differently.

    Attributes:
        control: sentiment → probability; empty where the answer has none.
        other: the arm's.
    """

    request_id: str
    item: int
    text_sha256: str
    control_label: str
    other_label: str
    control: dict[str, float]
    other: dict[str, float]


class Disagreement(_Frozen):
    """How an arm answered the texts that the control answered too, in a shadow.

    Attributes:
        phase: the number of the shadow.
        pairs: texts that both answered with a sentiment.
        agreed: of those, with the same one.
        confusion: the control's sentiment → the arm's → texts.
        examples: the latest that differ.
    """

    arm: str
    phase: int
    pairs: int
    agreed: int
    confusion: dict[str, dict[str, int]]
    examples: tuple[Differing, ...]


class ExperimentReport(_Frozen):
    """All of it.

    Attributes:
        decision: continue, promote, roll_back or invalid; of the open phase.
        arm: which arm to promote or roll back; None where the decision is of none alone.
        advance: whether the next phase may be opened; None in the last one.
        reason, reason_ko: why, for people.
        srm_p: p-value of the phase's sample ratio.
        difference, low, high: of the primary metric, of the arm that the decision is of, or of the
            only one.
        margin: of the primary metric.
        exposures, outcomes: arm → answers, and those whose primary metric is known.
        made_at_us: when the store was read.
    """

    experiment: str
    version: int
    hypothesis: str
    owner: str
    unit: str
    experiment_id: str
    deployment_id: str
    state: str
    phase: ReportPhase
    decision: Decision
    arm: str | None = None
    advance: bool | None = None
    reason: str = Field(min_length=1)
    reason_ko: str = Field(min_length=1)
    srm_p: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    margin: float
    exposures: dict[str, int]
    outcomes: dict[str, int]
    alpha: float
    arms: tuple[ArmRow, ...]
    metrics: tuple[MetricRow, ...] = ()
    paired: tuple[MetricRow, ...] = ()
    segments: tuple[SegmentRow, ...] = ()
    sample_ratio: tuple[RatioRow, ...] = ()
    timeline: tuple[Timeline, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    made_at_us: int

    @property
    def primary(self) -> tuple[MetricRow, ...]:
        """The metric that decides, one row an arm."""
        return tuple(row for row in self.metrics if row.role == "primary")

    @property
    def guardrails(self) -> tuple[MetricRow, ...]:
        """Those that roll back, one row a metric and arm."""
        return tuple(row for row in self.metrics if row.role == "guardrail")

    @model_validator(mode="after")
    def _decided_on_an_interval(self) -> Self:
        if self.decision == "promote" and (self.low is None or self.high is None):
            raise ValueError("decision='promote' without an interval of the primary metric")
        return self

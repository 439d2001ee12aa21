"""From a phase's figures to a verdict, with the sentences that explain it.

The rules stand in the order in which each would make the next one meaningless: whether anything was
shown, by the right models, to units of one arm each, in the agreed shares, with outcomes that
arrive; then whether there is enough; then guardrails; then the primary metric; then the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from serving.experiments.inference.ratio_report import PhaseReport
from serving.experiments.report import ArmRow, MetricRow, ReportPhase, Said
from serving.experiments.report_words import figure, interval, metric_word
from serving.experiments.verdict import Decision


@dataclass(frozen=True)
class Missing:
    """Outcomes of the primary metric that did not come.

    Attributes:
        ripe_share: of the answers whose outcome can come no more, those without; None without any.
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


@dataclass(frozen=True)
class Ruling:
    """What follows.

    Attributes:
        decision: of the phase.
        said: why.
        arm: that the decision is of.
        advance: whether the next phase may be opened; None in the last one.
    """

    decision: Decision
    said: Said
    arm: str | None = None
    advance: bool | None = None


def rule(evidence: Evidence) -> Ruling:
    """The first rule that holds."""
    for each in _RULES:
        found = each(evidence)
        if found is not None:
            if evidence.phase.kind != "ab" and found.advance is None:
                return Ruling(found.decision, found.said, found.arm, advance=False)
            return found
    raise AssertionError("the last rule holds always")


def _invalid(en: str, ko: str) -> Ruling:
    return Ruling("invalid", Said(en=en, ko=ko))


def _nothing_shown(evidence: Evidence) -> Ruling | None:
    if any(arm.asks for arm in evidence.arms):
        return None
    return _invalid(
        "Nobody was answered in this phase, so there is nothing to judge. Check that the gateway "
        "is up, serves this phase's deployment and writes to this store.",
        "이 단계에서 응답한 기록이 없어 판단할 것이 없습니다. 게이트웨이가 이 단계의 배포를 "
        "서비스하고 이 저장소에 기록하는지 확인하세요.",
    )


def _models_mixed(evidence: Evidence) -> Ruling | None:
    for arm in evidence.arms:
        strange = [v for v in evidence.versions.get(arm.name, ()) if v != arm.model]
        if strange:
            names = ", ".join(strange)
            return _invalid(
                f"Arm {arm.name} should be {arm.model}, but {names} answered too, so the figures "
                "mix models. Start a new experiment.",
                f"{arm.name} 군은 {arm.model} 모델이어야 하지만 {names} 모델도 응답하여 수치가 "
                "섞였습니다. 새 실험을 시작하세요.",
            )
    if not evidence.strangers:
        return None
    names = ", ".join(evidence.strangers)
    return _invalid(
        f"The store holds answers of {names}, which this deployment has not. Check which gateways "
        "write under its id.",
        f"저장소에 이 배포에 없는 군({names})의 응답이 있습니다. 어떤 게이트웨이가 이 배포의 "
        "식별자로 기록하는지 확인하세요.",
    )


def _crossed(evidence: Evidence) -> Ruling | None:
    if not evidence.crossed:
        return None
    return _invalid(
        f"{evidence.crossed:,} units were answered by several arms, so their outcomes cannot be "
        "told apart. Check that every gateway serves this deployment, then open a new phase.",
        f"{evidence.crossed:,}개 단위가 여러 군의 응답을 받아 결과를 구분할 수 없습니다. 모든 "
        "게이트웨이가 같은 배포를 서비스하는지 확인한 뒤 새 단계를 여세요.",
    )


def _ratio_broken(evidence: Evidence) -> Ruling | None:
    if evidence.ratio is None or not evidence.ratio.alarm:
        return None
    every = (evidence.ratio.phase, *evidence.ratio.segments.values())
    worst = min((each for each in every if each.reading == "alarm"), key=lambda r: r.adjusted_p)
    return _invalid(
        f"Units were not dealt as agreed. {worst.sentence}",
        f"단위가 합의한 비율대로 배정되지 않았습니다({worst.name}: "
        f"{', '.join(f'{arm} {n:,}' for arm, n in worst.counts.items())}). 우연으로 보기 어려우니 "
        "트래픽이 어디서 새는지 찾아 고치고 새 단계를 여세요.",
    )


def _logging_gap(evidence: Evidence) -> Ruling | None:
    missing = evidence.missing
    if missing is None:
        return None
    if missing.gaps:
        control, names = evidence.arms[0].name, ", ".join(missing.gaps)
        return _invalid(
            f"Outcomes of {names} go missing more or less often than those of {control}, which "
            "bends the comparison. Find out why before reading any result.",
            f"{names} 군의 결과가 {control} 군과 다른 빈도로 누락되어 비교가 왜곡됩니다. 원인을 "
            "찾기 전에는 결과를 읽지 마세요.",
        )
    if missing.ripe_share is None or missing.ripe_share <= missing.allowed:
        return None
    return _invalid(
        f"{missing.ripe_share:.1%} of the answers got no outcome in time and {missing.allowed:.1%} "
        "was agreed. Feedback is lost or late: mend it, then open a new phase.",
        f"응답의 {missing.ripe_share:.1%}가 기한 안에 결과를 받지 못했습니다(합의한 한도 "
        f"{missing.allowed:.1%}). 피드백이 유실되거나 늦으니 고친 뒤 새 단계를 여세요.",
    )


def _few_units(evidence: Evidence) -> Ruling | None:
    least = min(evidence.arms, key=lambda arm: arm.units)
    return _wait(evidence, least.name, least.units, Said(en="units", ko="단위"))


def _guardrail_worse(evidence: Evidence) -> Ruling | None:
    for row in evidence.secondary:
        if row.role == "guardrail" and row.reading == "worse":
            word, margin = metric_word(row.metric, row.quantile), figure(row.metric, row.margin)
            return Ruling(
                "roll_back",
                Said(
                    en=f"Guardrail breached: {row.arm}'s {word.en} differs from the control's by "
                    f"{interval(row)}, worse than the accepted {margin}. Roll it back.",
                    ko=f"안전 지표 위반: {row.arm} 군의 {word.ko} 차이가 {interval(row)}로, 허용한 "
                    f"손실 {margin}보다 나쁩니다. 되돌리세요.",
                ),
                arm=row.arm,
            )
    return None


def _few_outcomes(evidence: Evidence) -> Ruling | None:
    if evidence.phase.kind != "ab":
        return None
    units, arm = min(zip(evidence.known_units, evidence.arms, strict=True), key=lambda p: p[0])
    return _wait(evidence, arm.name, units, Said(en="units with an outcome", ko="결과가 있는 단위"))


def _wait(evidence: Evidence, arm: str, units: int, what: Said) -> Ruling | None:
    phase = evidence.phase
    if units >= phase.min_units:
        return None
    if phase.days >= phase.max_days:
        return _invalid(
            f"Too little data to decide within the agreed {phase.max_days:g} days: {arm} has "
            f"{units:,} {what.en} and {phase.min_units:,} were asked for.",
            f"합의한 {phase.max_days:g}일 안에 판단할 데이터가 부족합니다: {arm} 군의 {what.ko}는 "
            f"{units:,}개이고 {phase.min_units:,}개가 필요합니다.",
        )
    return Ruling(
        "continue",
        Said(
            en=f"Too early: {arm} has {units:,} {what.en} and {phase.min_units:,} were asked for. "
            "Wait for more traffic.",
            ko=f"아직 이릅니다: {arm} 군의 {what.ko}는 {units:,}개이고 {phase.min_units:,}개가 "
            "필요합니다. 트래픽을 더 기다리세요.",
        ),
    )


def _all_worse(evidence: Evidence) -> Ruling | None:
    worse = [row for row in evidence.primary if row.reading == "worse"]
    if not worse or len(worse) < len(evidence.primary):
        return None
    row = min(worse, key=lambda each: each.difference or 0.0)
    found = _found(row)
    return Ruling(
        "roll_back",
        found + Said(en="It is worse. Roll it back.", ko="더 나쁩니다. 되돌리세요."),
        arm=row.arm if len(worse) == 1 else None,
    )


def _next_phase(evidence: Evidence) -> Ruling | None:
    if evidence.phase.kind == "ab":
        return None
    still_open = [
        row for row in evidence.secondary if row.role == "guardrail" and row.reading == "undecided"
    ]
    said = Said(
        en="No guardrail is worse than agreed, and there are units enough.",
        ko="허용 범위를 벗어난 안전 지표가 없고 단위도 충분합니다.",
    )
    said += _undecided(still_open) + _worse_already(evidence)
    return Ruling("continue", said, advance=True)


def _winner(evidence: Evidence) -> Ruling | None:
    won = [row for row in evidence.primary if row.reading in {"better", "not_worse"}]
    if not won:
        return None
    sign = 1.0 if won[0].direction == "increase" else -1.0
    row = max(won, key=lambda each: sign * (each.difference or 0.0))
    accepted = figure(row.metric, row.margin)
    if row.reading == "better":
        why = Said(en="It is better. Promote it.", ko="더 좋습니다. 승격하세요.")
    else:
        why = Said(
            en=f"Any loss is smaller than the accepted {accepted}. Promote it.",
            ko=f"손실이 있더라도 허용한 {accepted}보다 작습니다. 승격하세요.",
        )
    still_open = [
        each
        for each in evidence.secondary
        if each.arm == row.arm and each.role == "guardrail" and each.reading == "undecided"
    ]
    return Ruling("promote", _found(row) + why + _undecided(still_open), arm=row.arm)


def _undecided(rows: Sequence[MetricRow]) -> Said:
    if not rows:
        return Said(en="", ko="")
    names = [metric_word(row.metric, row.quantile) for row in rows]
    return Said(
        en=f"(No harm was seen, but none is ruled out yet: {', '.join(n.en for n in names)}.)",
        ko=f"(해로움이 보이지 않지만 아직 배제되지도 않은 지표: {', '.join(n.ko for n in names)}.)",
    )


def _open(evidence: Evidence) -> Ruling | None:
    """The last one: undecided, within the agreed days or after them."""
    phase = evidence.phase
    sign = 1.0 if evidence.primary[0].direction == "increase" else -1.0
    row = max(evidence.primary, key=lambda each: sign * (each.difference or 0.0))
    found = _found(row) + _worse_already(evidence)
    if phase.days >= phase.max_days:
        late = Said(
            en=f"Too little data to decide within the agreed {phase.max_days:g} days.",
            ko=f"합의한 {phase.max_days:g}일 안에 판단할 데이터가 부족합니다.",
        )
        return Ruling("invalid", found + late)
    wide = Said(
        en="Too wide to decide. Collect more outcomes.",
        ko="구간이 넓어 아직 판단할 수 없습니다. 결과를 더 모으세요.",
    )
    return Ruling("continue", found + wide)


def _worse_already(evidence: Evidence) -> Said:
    worse = [row.arm for row in evidence.primary if row.reading == "worse"]
    if not worse:
        return Said(en="", ko="")
    names = ", ".join(worse)
    return Said(
        en=f"Worse by the primary metric already: {names}; give it the smallest share.",
        ko=f"주 지표가 이미 더 나쁜 군: {names}. 가장 작은 비율만 주세요.",
    )


def _found(row: MetricRow) -> Said:
    word = metric_word(row.metric, row.quantile)
    if row.difference is None:
        return Said(
            en=f"{row.arm}'s {word.en} cannot be compared yet.",
            ko=f"{row.arm} 군의 {word.ko}은(는) 아직 비교할 수 없습니다.",
        )
    difference = figure(row.metric, row.difference, signed=True)
    return Said(
        en=f"{row.arm}'s {word.en} differs from the control's by {difference} "
        f"({row.level * 100:.4g}% interval, valid at every look: {interval(row)}).",
        ko=f"{row.arm} 군의 {word.ko} 차이는 {difference}입니다(언제 보아도 유효한 "
        f"{row.level * 100:.4g}% 구간: {interval(row)}).",
    )


_RULES: Final[Sequence[Callable[[Evidence], Ruling | None]]] = (
    _nothing_shown,
    _models_mixed,
    _crossed,
    _ratio_broken,
    _logging_gap,
    _few_units,
    _guardrail_worse,
    _few_outcomes,
    _all_worse,
    _next_phase,
    _winner,
    _open,
)

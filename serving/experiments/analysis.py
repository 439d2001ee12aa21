"""The report on a phase of an experiment: from the rows of its deployment to a verdict.

    catalogue ─ what was agreed ─┐
    store ─ metric_rows, shadow_rows ─ comparisons ─ report_rules ─► ExperimentReport

It may be asked for at any time and as often as one likes: whatever decides holds at every look.
"""

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa

from data.errors import ExperimentError
from serving.experiments.catalogue import Catalogue, Entry
from serving.experiments.database import open_database, reported
from serving.experiments.lifecycle import OPENING, OpenedPhase
from serving.experiments.metric_rows import at_one_moment
from serving.experiments.phase_figures import Figures, figures_of
from serving.experiments.phase_read import PhaseRead
from serving.experiments.report import Disagreement, ExperimentReport, RatioRow, ReportPhase
from serving.experiments.report_rules import Ruling, rule
from serving.experiments.routes import PutToWork, Routes, now_us
from serving.experiments.shadow_rows import disagreement

_DAY_US: Final = 86_400_000_000


def report_of(
    url: str, name: str, *, phase: int | None = None, clock: Callable[[], int] = now_us
) -> ExperimentReport:
    """The report on an experiment's phase.

    Args:
        url: of the store.
        name: the experiment.
        phase: its number, from 1 on; by default the open one, or the last.
        clock: microseconds since 1970.

    Raises:
        ExperimentError: there is no such experiment or phase, it never began, no deployment serves
            the phase, or the store cannot be read.
    """
    entry = _entry(url, name)
    opened, number = _phase(entry, name, phase)
    served = _served(url, name, opened, number)
    made_at_us = clock()
    read = PhaseRead(
        specification=entry.lifecycle.specification,
        phase=_report_phase(entry, opened, number, made_at_us),
        shares=opened.phase,
        experiment_id=served.experiment_id,
        deployment_id=served.deployment_id,
        models=_models(entry, served),
        not_dealt_by=_own_deployments(entry, served.deployment_id),
        now_us=made_at_us,
    )
    engine = open_database(url)
    try:
        with reported(engine, "read"), at_one_moment(engine) as connection:
            figures = figures_of(connection, read)
            differing = _disagreements(connection, entry)
    finally:
        engine.dispose()
    return _report(entry, read, figures, differing, rule(figures.evidence))


def _entry(url: str, name: str) -> Entry:
    catalogue = Catalogue(url)
    try:
        return catalogue.get(name)
    finally:
        catalogue.close()


def _phase(entry: Entry, name: str, number: int | None) -> tuple[OpenedPhase, int]:
    opened = entry.lifecycle.opened
    if not opened:
        raise ExperimentError(
            f"experiment {name!r} is {entry.lifecycle.state!r} and never began, so there is "
            "nothing to report; start it"
        )
    wanted = len(opened) if number is None else number
    if not 1 <= wanted <= len(opened):
        raise ExperimentError(
            f"phase={number!r}; experiment {name!r} has had {len(opened)!r} phases, numbered from 1"
        )
    return opened[wanted - 1], wanted


def _served(url: str, name: str, opened: OpenedPhase, number: int) -> PutToWork:
    routes = Routes(url)
    try:
        served = opened.deployment_id and routes.get(opened.deployment_id)
    finally:
        routes.close()
    if not served:
        raise ExperimentError(
            f"phase {number!r} of experiment {name!r} has no deployment in this store (it names "
            f"{opened.deployment_id!r}), so nobody can have been answered; open the phase with "
            "`make experiment`, which puts one to work"
        )
    return served


def _models(entry: Entry, served: PutToWork) -> dict[str, str]:
    """Arm → the model that the phase's deployment answers with."""
    agreed = [arm.name for arm in entry.lifecycle.specification.arms]
    models = {
        arm["name"]: f"{arm['model_name']}/{arm['version']}" for arm in served.content["arms"]
    }
    if set(agreed) != set(models):
        raise ExperimentError(
            f"deployment {served.deployment_id!r} has the arms {sorted(models)!r} and the "
            f"experiment {agreed!r}; put a deployment of this experiment to work"
        )
    return models


def _report_phase(entry: Entry, opened: OpenedPhase, number: int, at_us: int) -> ReportPhase:
    openings = [each for each in entry.history if each.event.action in OPENING]
    began = openings[number - 1]
    later = [
        each.at_us
        for each in entry.history
        if each.number > began.number and each.event.action not in {"pause", "resume"}
    ]
    until = min(later, default=at_us)
    return ReportPhase(
        kind=opened.phase.kind,
        number=number,
        opened_us=began.at_us,
        # A clock that was set back makes no phase shorter than nothing.
        days=max(until - began.at_us, 0) / _DAY_US,
        max_days=opened.phase.max_days,
        min_units=opened.phase.min_units,
    )


def _own_deployments(entry: Entry, deployment_id: str) -> tuple[str, ...]:
    """Those that dealt units among this experiment's arms, as no shadow does."""
    return tuple(
        each.deployment_id
        for each in entry.lifecycle.opened
        if each.phase.kind != "shadow"
        if each.deployment_id is not None and each.deployment_id != deployment_id
    )


def _disagreements(connection: sa.Connection, entry: Entry) -> tuple[Disagreement, ...]:
    """Of the experiment's last shadow, whichever phase the report is of."""
    specification = entry.lifecycle.specification
    shadows = [
        (number, each.deployment_id)
        for number, each in enumerate(entry.lifecycle.opened, start=1)
        if each.phase.kind == "shadow" and each.deployment_id is not None
    ]
    if not shadows:
        return ()
    number, deployment_id = shadows[-1]
    return tuple(
        disagreement(
            connection,
            deployment_id,
            control=specification.control.name,
            arm=arm.name,
            phase=number,
        )
        for arm in specification.arms[1:]
    )


def _report(
    entry: Entry,
    read: PhaseRead,
    figures: Figures,
    differing: tuple[Disagreement, ...],
    ruling: Ruling,
) -> ExperimentReport:
    agreed = read.specification
    evidence = figures.evidence
    rows = evidence.primary
    told = next((row for row in rows if row.arm == ruling.arm), None)
    if told is None and len(rows) == 1:
        told = rows[0]
    ratio = evidence.ratio
    return ExperimentReport(
        experiment=agreed.name,
        version=entry.version,
        hypothesis=agreed.hypothesis,
        owner=agreed.owner,
        unit=agreed.unit,
        experiment_id=read.experiment_id,
        deployment_id=read.deployment_id,
        state=entry.lifecycle.state,
        phase=read.phase,
        decision=ruling.decision,
        arm=ruling.arm,
        advance=ruling.advance,
        reason=ruling.said.en,
        reason_ko=ruling.said.ko,
        srm_p=None if ratio is None else ratio.phase.p,
        difference=None if told is None else told.difference,
        low=None if told is None else told.low,
        high=None if told is None else told.high,
        margin=agreed.metrics.primary.margin,
        exposures={arm.name: arm.answers for arm in evidence.arms},
        outcomes={arm.name: arm.outcomes for arm in evidence.arms},
        alpha=agreed.stopping.alpha,
        arms=evidence.arms,
        metrics=(*evidence.primary, *evidence.secondary),
        segments=figures.segments,
        sample_ratio=()
        if ratio is None
        else tuple(
            RatioRow(**{**vars(each), "counts": dict(each.counts)})
            for each in (ratio.phase, *ratio.segments.values())
        ),
        timeline=figures.timeline,
        disagreements=differing,
        made_at_us=read.now_us,
    )

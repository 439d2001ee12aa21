"""A report as a terminal shows it: the verdict, and the figures that it rests on."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.experiments.report import ExperimentReport, Language, MetricRow
from serving.registry.experiment_view import new_table

_COLOURS: Final = {
    "promote": "bold green",
    "roll_back": "bold red",
    "invalid": "bold yellow",
    "continue": "bold",
}


def report_page(report: ExperimentReport, lang: Language) -> RenderableType:
    """The report on an experiment's phase.

    Args:
        report: as it was made.
        lang: of the reason; names stay as they are.
    """
    of = f" {report.arm}" if report.arm else ""
    phase = f"phase {report.phase.number} ({report.phase.kind}), {report.phase.days:.1f} days"
    parts: list[RenderableType] = [
        Text.assemble((f"{report.decision}{of}", _COLOURS[report.decision]), f"  {phase}"),
        Text(report.reason_ko if lang == "ko" else report.reason),
    ]
    if report.advance is not None:
        parts.append(Text("The next phase may open." if report.advance else "It is too early."))
    parts.append(_arms(report))
    if rows := (*report.metrics, *report.paired):
        parts.append(_metrics(rows))
    # The phase's own sample ratio comes first; of its segments only what is wrong is told.
    parts += [
        Text(row.sentence, "dim")
        for place, row in enumerate(report.sample_ratio)
        if place == 0 or row.reading == "alarm"
    ]
    return Group(*parts)


def _arms(report: ExperimentReport) -> Table:
    table = new_table("arm", "model", "share", "units", "asks", "answers", "failures", "outcomes")
    for arm in report.arms:
        counts = (arm.units, arm.asks, arm.answers, arm.failures, arm.outcomes)
        table.add_row(
            Text(arm.name), Text(arm.model), f"{arm.share:.4g}", *(f"{one:,}" for one in counts)
        )
    return table


def _metrics(rows: Sequence[MetricRow]) -> Table:
    table = new_table(
        "metric", "role", "arm", "control's", "arm's", "difference", "interval", "shows"
    )
    for row in rows:
        name = row.metric if row.quantile is None else f"{row.metric}, quantile {row.quantile:g}"
        table.add_row(
            Text(name),
            row.role,
            Text(row.arm),
            _number(row.control_value),
            _number(row.value),
            _number(row.difference, sign=True),
            _interval(row),
            row.reading.replace("_", " "),
        )
    return table


def _interval(row: MetricRow) -> str:
    if row.low is None and row.high is None:
        return "-"
    low = "-inf" if row.low is None else f"{row.low:+.4g}"
    high = "inf" if row.high is None else f"{row.high:+.4g}"
    return f"{low} to {high}"


def _number(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.4g}" if sign else f"{value:.4g}"

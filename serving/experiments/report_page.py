"""The page of a report: one HTML file with its drawings inside, no script, in English or Korean."""

from collections.abc import Callable, Sequence
from typing import Final, get_args

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from data.contract import SENTIMENTS
from data.errors import ExperimentError
from serving.experiments.page_words import WORDS
from serving.experiments.report import (
    Disagreement,
    ExperimentReport,
    Language,
    MetricRow,
    RatioRow,
    SegmentRow,
)
from serving.experiments.report_plots import interval_svg, segment_svg, sequence_svg
from serving.experiments.report_template import PAGE, RATIO, STYLE
from serving.experiments.report_words import KINDS, figure, in_language, interval, metric_word

_ROLES: Final = ("primary", "guardrail", "signal")
_LEAST_P: Final = 1e-4


def page(report: ExperimentReport, lang: Language = "en", *, traffic: str = "") -> str:
    """The report as HTML.

    Args:
        report: what to show.
        lang: "en" or "ko".
        traffic: where the traffic came from, in words to repeat.

    Raises:
        ExperimentError: no such language.
    """
    if lang not in get_args(Language):
        raise ExperimentError(f"lang={lang!r}; take one of {list(get_args(Language))!r}")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    say = _say(lang)
    primary = report.primary[0] if report.primary else None
    name = _metric_name(lang)
    ratio = environment.from_string(RATIO)

    def ratio_table(rows: Sequence[RatioRow]) -> Markup:
        arms = [arm.name for arm in report.arms]
        # Rendered by the same autoescaping environment.
        return Markup(  # noqa: S704
            ratio.render(rows=rows, arms=arms, w=say, p=_p, title=_ratio_title(report, say))
        )

    return environment.from_string(PAGE).render(
        r=report,
        lang=lang,
        w=say,
        style=Markup(STYLE),  # noqa: S704  # our own text
        phase=in_language(KINDS[report.phase.kind], lang),
        reason=report.reason_ko if lang == "ko" else report.reason,
        traffic=traffic,
        primary=name(primary) if primary else "",
        primary_name=primary.metric if primary else "",
        plots=_plots(report, say("units")),
        roles=_roles(report),
        sentiments=SENTIMENTS,
        name=name,
        figure=figure,
        interval=interval,
        percent=_percent,
        p=_p,
        drawn=interval_svg,
        segment=_segment_drawing(report),
        ratio=ratio_table,
        shade=_shade,
    )


def _say(lang: Language) -> Callable[[str], str]:
    def say(key: str) -> str:
        return in_language(WORDS[key], lang) if key in WORDS else key

    return say


def _metric_name(lang: Language) -> Callable[[MetricRow], str]:
    def name(row: MetricRow) -> str:
        return in_language(metric_word(row.metric, row.quantile), lang)

    return name


def _roles(report: ExperimentReport) -> list[tuple[str, list[MetricRow]]]:
    by_role = [(role, [row for row in report.metrics if row.role == role]) for role in _ROLES]
    return [(role, rows) for role, rows in (*by_role, ("paired", list(report.paired))) if rows]


def _plots(report: ExperimentReport, units: str) -> list[tuple[str, Markup]]:
    if not report.primary:
        return []
    first = report.primary[0]
    return [
        (
            each.arm,
            sequence_svg(
                each.points,
                margin=first.margin,
                direction=first.direction,
                shown=lambda value: figure(first.metric, value, signed=True),
                units=units,
            ),
        )
        for each in report.timeline
        if each.points
    ]


def _segment_drawing(report: ExperimentReport) -> Callable[[SegmentRow], Markup]:
    first = report.primary[0] if report.primary else None
    margin = first.margin if first else 0.0
    ends = [
        abs(value)
        for row in report.segments
        for value in (row.low, row.high, row.difference)
        if value is not None
    ]
    reach = 1.1 * max([*ends, margin]) or 1.0

    def draw(row: SegmentRow) -> Markup:
        direction = first.direction if first else "increase"
        return segment_svg(row, margin=margin, direction=direction, reach=reach)

    return draw


def _ratio_title(report: ExperimentReport, say: Callable[[str], str]) -> Callable[[str], str]:
    """A phase's or a segment's name, as ratio_report.py has it, in the page's language."""

    def title(name: str) -> str:
        dimension, colon, segment = name.partition(": ")
        if not colon:
            return f"{say('phase')} {report.phase.number}"
        return f"{say(dimension)}: {say(segment)}"

    return title


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.0001" if value < _LEAST_P else f"{value:.4f}"


def _shade(disagreement: Disagreement, one: str, other: str) -> int:
    """How dark a cell of the confusion is: the share of its row, at most 60%."""
    row = disagreement.confusion.get(one, {})
    total = sum(row.values())
    return round(60 * row.get(other, 0) / total) if total else 0

"""What `make experiment` shows: tables and a timeline, as a terminal or a log prints them.

What people wrote stands there as it is: nothing of it is read as rich's markup.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serving.experiments.assignment import Assignment, Reason
from serving.experiments.goals import MetricGoal
from serving.experiments.lifecycle import State
from serving.experiments.routes import DeploymentKind, PutToWork, Route
from serving.experiments.specification import ExperimentSpecification, ShadowPhase
from serving.registry.experiment_plan import Plan
from serving.registry.experiment_summary import (
    ArmSummary,
    EventSummary,
    ExperimentSummary,
    PhaseSummary,
)

_COLOURS: Final[dict[State, str]] = {
    "draft": "dim",
    "running": "green",
    "paused": "yellow",
    "promoted": "cyan",
    "rolled_back": "red",
    "abandoned": "dim",
}
Serving = tuple[DeploymentKind, str, PutToWork | None, Route | None]
"""Kind of model, the deployment that is served, what the store knows of it, its last route."""
_WHY: Final[dict[Reason, str]] = {
    "assigned": "dealt by its bucket",
    "override": "an override names it",
    "holdout": "it is held out of every experiment, so the control answers",
    "outside_layer": "the layer gives it to another experiment, so the control answers",
    "outside_coverage": "it takes no part, so the control answers",
}
_US: Final = 1e6


def experiments_table(summaries: Sequence[ExperimentSummary]) -> RenderableType:
    """All experiments, one a row."""
    if not summaries:
        return Text("There is no experiment yet; agree one: make experiment ARGS='new FILE'")
    table = new_table("name", "state", "phase", "version", "units per arm", "last event")
    for one in summaries:
        last = one.history[-1] if one.history else None
        units = "  ".join(f"{arm.name} {arm.units:,}" for arm in one.arms) if one.phases else "-"
        event = f"{last.action} {_time(last.at)}" if last else f"agreed {_time(one.agreed_at)}"
        table.add_row(
            Text(one.name, "bold"),
            _state(one.state),
            Text(one.phase),
            Text(str(one.version)),
            Text(units),
            Text(event),
        )
    return table


def experiment_page(
    one: ExperimentSummary, specification: ExperimentSpecification
) -> RenderableType:
    """All of an experiment."""
    facts = Table.grid(padding=(0, 2))
    for label, value in (
        ("state", _standing(one)),
        ("hypothesis", Text(one.hypothesis)),
        ("owner", Text(one.owner)),
        ("unit", Text(one.unit)),
        ("version", Text(f"{one.version}, {one.digest}")),
        ("may", Text(", ".join(one.may) or "nothing: it has ended")),
    ):
        facts.add_row(Text(label, "dim"), value)
    parts: list[RenderableType] = [Text(one.name, "bold"), facts, Text()]
    parts += [_arms(one.arms), _metrics(specification), _phases(one), _timeline(one.history)]
    return Group(*parts)


def agreed_page(
    specification: ExperimentSpecification, *, version: int | None, plan: Plan | None
) -> RenderableType:
    """An experiment as a file says it; ``version`` where the catalogue keeps it."""
    kept = "valid; not kept" if version is None else f"version {version}"
    parts: list[RenderableType] = [
        Text.assemble((specification.name, "bold"), f"  {kept}, {specification.digest}"),
    ]
    planned = new_table("planned", "shares", "of all units", "at least", "at most")
    for phase in specification.phases:
        if isinstance(phase, ShadowPhase):
            shares, part = f"{phase.mirrored:.4g} of the requests mirrored", "-"
        else:
            shares = _shares(specification.shares(phase))
            part = f"{phase.coverage * (1.0 - specification.holdout):.4g}"
        least = f"{phase.min_units:,} units an arm"
        planned.add_row(phase.kind, Text(shares), part, least, f"{phase.max_days:g} days")
    parts += [planned, _metrics(specification)]
    if plan is not None:
        parts.append(_plan(plan))
    return Group(*parts)


def unit_page(one: ExperimentSummary, met: Assignment, hashed: str) -> RenderableType:
    """What a unit meets in the open phase, or would in the first one of a draft."""
    control = one.arms[0].name
    arm = one.answers_everybody or met.arm or control
    why = f"everybody does: the traffic was turned; dealt was {met.arm}"
    if not one.answers_everybody:
        why = _WHY[met.why]
    verb = "meets" if one.phases else "will meet"
    return Text.assemble(
        (f"{verb} {arm}", "bold"), f": {why}\nbucket {met.bucket}, unit_hash {hashed}"
    )


def routes_page(serving: Sequence[Serving], routes: Sequence[Route]) -> RenderableType:
    """Who answers now.

    Args:
        serving: what the live folder says of each kind of model.
        routes: the last ones of all deployments, the newest first.
    """
    parts: list[RenderableType] = [_serving(*each) for each in serving]
    if not parts:
        parts.append(Text("Nothing is served from this folder; start an experiment, or make serve"))
    if routes:
        table = new_table("route", "at", "deployment", "everybody to", "by", "reason")
        for one in routes:
            table.add_row(
                str(one.number),
                _time(datetime.fromtimestamp(one.at_us / _US, UTC)),
                one.deployment_id[:8],
                Text(one.arm or "as dealt"),
                Text(one.by),
                Text(one.reason),
            )
        parts.append(table)
    return Group(*parts)


def _serving(
    kind: DeploymentKind, deployment_id: str, deployment: PutToWork | None, route: Route | None
) -> Text:
    if deployment is None:
        return Text(f"{kind}: deployment {deployment_id}, which no gateway has put to work yet")
    shares = {arm["name"]: float(arm["share"]) for arm in deployment.content["arms"]}
    phase = deployment.content.get("phase")
    of = f"phase {phase['number']} ({phase['kind']}) of " if phase else ""
    who = f"everybody is answered by {route.arm}" if route and route.arm else _shares(shares)
    said = f"\n{kind}, deployment {deployment_id}, {of}{deployment.experiment_id}"
    return Text.assemble((who, "bold"), said)


def _standing(one: ExperimentSummary) -> Text:
    text = _state(one.state)
    if one.phases:
        text.append(f", phase {one.phase}", "default")
    if one.promoted:
        text.append(f", the winner is {one.promoted}", "default")
    if one.answers_everybody:
        text.append(f"; everybody is answered by {one.answers_everybody}", "bold default")
    return text


def _arms(arms: Sequence[ArmSummary]) -> Table:
    table = new_table("arm", "model", "serves", "share", "units", "answers", "failed")
    for place, arm in enumerate(arms):
        table.add_row(
            Text(f"{arm.name} (control)" if place == 0 else arm.name),
            Text(arm.model),
            Text(arm.serves or "-"),
            "-" if arm.share is None else f"{arm.share:.4g}",
            f"{arm.units:,}",
            f"{arm.answers:,}",
            f"{arm.failed:,}",
        )
    return table


def _metrics(specification: ExperimentSpecification) -> Table:
    table = new_table("metric", "role", "better", "margin")
    goals = specification.metrics
    for role, of_role in (
        ("primary", (goals.primary,)),
        ("guardrail", goals.guardrails),
        ("signal", goals.signals),
    ):
        for goal in of_role:
            table.add_row(Text(_metric(goal)), role, goal.direction, f"{goal.margin:g}")
    return table


def _metric(goal: MetricGoal) -> str:
    quantile = getattr(goal, "quantile", None)
    return goal.name if quantile is None else f"{goal.name}, quantile {quantile:g}"


def _phases(one: ExperimentSummary) -> Table:
    table = new_table("phase", "kind", "shares", "deployment")
    opened: list[PhaseSummary] = one.phases
    for phase in opened:
        table.add_row(
            str(phase.number), phase.kind, Text(_shares(phase.shares)), phase.deployment_id or "-"
        )
    for kind in _still_planned(one):
        table.add_row(Text("-", "dim"), Text(kind, "dim"), Text("planned", "dim"), "-")
    return table


def _still_planned(one: ExperimentSummary) -> list[str]:
    """Kinds of the phases that are yet to come; a reallocation opens one that was not planned."""
    if one.state not in {"draft", "running", "paused"}:
        return []
    advanced = sum(event.action in {"start", "advance"} for event in one.history)
    return one.planned[advanced:]


def _timeline(history: Sequence[EventSummary]) -> RenderableType:
    if not history:
        return Text("Nothing has been done yet.", "dim")
    table = new_table("#", "at", "action", "by", "reason")
    for event in history:
        action = f"{event.action} {event.arm}" if event.arm else event.action
        table.add_row(
            str(event.number), _time(event.at), Text(action), Text(event.by), Text(event.reason)
        )
    return table


def _plan(plan: Plan) -> Text:
    said = (
        f"One look at a fixed size needs {plan.total:,} units ({plan.control:,} of the control, "
        f"{plan.challenger:,} of the smallest challenger): {plan.days:.1f} days. The sequence that "
        "may be looked at any time needs up to 1.6 times that, and stops sooner where the "
        "difference is larger."
    )
    if not plan.fits:
        said += f" The phase ends after {plan.max_days:g} days: give it longer, or more traffic."
    return Text(said, "default" if plan.fits else "yellow")


def _shares(shares: dict[str, float]) -> str:
    return "  ".join(f"{name} {share:.4g}" for name, share in shares.items())


def _state(state: State) -> Text:
    return Text(state, _COLOURS[state])


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%SZ")


def new_table(*columns: str) -> Table:
    """An empty table in the house's form."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table

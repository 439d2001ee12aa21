"""The command of experiments: agree them, open their phases, look at them, and end them.

    python -m serving.registry.experiment new FILE          agree what it asks (example.yaml)
    python -m serving.registry.experiment start NAME        the first phase is served
    python -m serving.registry.experiment advance NAME      the next one
    python -m serving.registry.experiment show NAME         where it stands, and what may be done
    python -m serving.registry.experiment promote NAME      the winner answers everybody

What stops an experiment needs the store alone; only what opens a phase or moves an alias asks the
registry. What people decide is kept, with ``--by`` and ``--reason``.
"""

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from data.errors import ExperimentError, SettingsError
from serving.experiments.lifecycle import Action
from serving.experiments.specification import read_specification
from serving.registry.connection import DEFAULT_TRACKING_URI, connect
from serving.registry.experiment_questions import questions
from serving.registry.experiment_terminal import (
    DEFAULT_STORE,
    Baseline,
    By,
    File,
    Lift,
    Name,
    Places,
    Reason,
    UnitsPerDay,
    at_work,
    places_of,
    planned,
    show,
)
from serving.registry.experiment_view import agreed_page, experiment_page
from serving.registry.phase_arms import moved_aliases
from serving.registry.phases import DEFAULT_LIVE, event_of, open_phase, served_by
from serving.registry.winners import crown

_LONGEST: Final = 2_000
"""Characters of a reason that are kept."""
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(questions)


@app.callback()
def places(
    context: typer.Context,
    store: Annotated[
        str, typer.Option(envvar="MATJIP_STORE_URL", help="The store that the gateway writes.")
    ] = DEFAULT_STORE,
    tracking: Annotated[
        str, typer.Option(envvar="MLFLOW_TRACKING_URI", help="The registry.")
    ] = DEFAULT_TRACKING_URI,
    live: Annotated[
        Path, typer.Option(envvar="MATJIP_LIVE", help="Folder that the gateway watches.")
    ] = DEFAULT_LIVE,
    models: Annotated[
        Path | None, typer.Option(help="Folder that keeps fetched models; beside --live without.")
    ] = None,
) -> None:
    """Experiments: several models answer side by side, and evidence decides which one stays."""
    context.obj = Places(store, tracking, live, models or live.parent / "models")


@app.command()
def new(
    context: typer.Context,
    file: File,
    baseline: Baseline = None,
    lift: Lift = None,
    units_per_day: UnitsPerDay = None,
) -> None:
    """Keep an experiment in the catalogue; until it starts, a new version may follow."""
    with at_work(context) as experiments:
        specification = read_specification(file)
        plan = planned(specification, baseline, lift, units_per_day)
        entry = experiments.catalogue.put(specification)
        show(agreed_page(specification, version=entry.version, plan=plan))


@app.command()
def start(context: typer.Context, name: Name, reason: Reason, by: By = None) -> None:
    """Resolve the arms' models, fetch them, and serve the first phase."""
    _open(context, "start", name, by, reason)


@app.command()
def advance(context: typer.Context, name: Name, reason: Reason, by: By = None) -> None:
    """Serve the next phase that was planned, with the same versions."""
    _open(context, "advance", name, by, reason)


@app.command()
def reallocate(
    context: typer.Context,
    name: Name,
    shares: Annotated[list[str], typer.Argument(help="ARM=SHARE of each arm; they add up to 1.")],
    reason: Reason,
    by: By = None,
) -> None:
    """Deal the units anew, in a phase of its own."""
    _open(context, "reallocate", name, by, reason, shares)


@app.command()
def pause(context: typer.Context, name: Name, reason: Reason, by: By = None) -> None:
    """Send everybody to the control until it is resumed."""
    _act(context, "pause", name, by, reason)


@app.command()
def resume(context: typer.Context, name: Name, reason: Reason, by: By = None) -> None:
    """Deal the units again as before the pause."""
    _act(context, "resume", name, by, reason)


@app.command()
def rollback(context: typer.Context, name: Name, reason: Reason, by: By = None) -> None:
    """End it, and send everybody to the control."""
    _act(context, "roll_back", name, by, reason)


@app.command()
def abandon(context: typer.Context, name: Name, reason: Reason, by: By = None) -> None:
    """End it without a verdict; the control answers everybody."""
    _act(context, "abandon", name, by, reason)


@app.command()
def promote(
    context: typer.Context,
    name: Name,
    reason: Reason,
    arm: Annotated[str | None, typer.Option(help="The winner; the challenger if only one.")] = None,
    by: By = None,
    anyway: Annotated[bool, typer.Option(help="Against what the report says.")] = False,  # noqa: FBT002  # typer's way
) -> None:
    """Send everybody to the winner, then make it champion; again after a kill, it goes on."""
    with at_work(context) as experiments:
        entry = experiments.catalogue.get(name)
        challengers = [each.name for each in entry.lifecycle.specification.arms[1:]]
        if arm is None and len(challengers) > 1:
            raise SettingsError(f"which one won? Give --arm, one of {challengers!r}")
        winner = arm or challengers[0]
        if entry.lifecycle.promoted != winner:
            event = event_of(name, "promote", by=_who(by), reason=reason, arm=winner)
            entry.lifecycle.after(event)
            against = _against(places_of(context).store, name, winner)
            if against and not anyway:
                raise ExperimentError(f"{against}; wait for it, or promote with --anyway")
            if against:
                event = event_of(
                    name,
                    "promote",
                    by=event.by,
                    reason=f"{reason} (although {against})",
                    arm=winner,
                )
            experiments.catalogue.record(name, event, after=entry.lifecycle.events)
        show(f"{name}: everybody is answered by {winner!r}")
        crowned = crown(connect(places_of(context).tracking), experiments.catalogue, name)
        show(crowned.sentence)


def _against(store: str, name: str, winner: str) -> str:
    """What the report says instead of promoting an arm; nothing where it says so too."""
    from serving.experiments.analysis import report_of

    report = report_of(store, name)
    if report.decision == "promote" and report.arm in {None, winner}:
        return ""
    of = f" {report.arm!r}" if report.arm else ""
    return f"the report on {name!r} says {report.decision}{of}: {report.reason}"


def _open(
    context: typer.Context,
    action: Action,
    name: str,
    by: str | None,
    reason: str,
    shares: Sequence[str] = (),
) -> None:
    where = places_of(context)
    with at_work(context) as experiments:
        allocation = _allocation(shares) if action == "reallocate" else None
        # What is refused is refused before the registry is asked, which takes seconds.
        event = event_of(name, action, by=_who(by), reason=reason, allocation=allocation)
        experiments.catalogue.get(name).lifecycle.after(event)
        registry = connect(where.tracking)
        entry = open_phase(
            registry,
            experiments.catalogue,
            name,
            action,
            by=event.by,
            reason=event.reason,
            allocation=allocation,
            live=where.live,
            work=where.models,
        )
        specification = entry.lifecycle.specification
        show(experiment_page(experiments.summary(name), specification))
        for sentence in moved_aliases(
            registry, specification, served_by(experiments.catalogue, entry) or {"arms": ()}
        ):
            show(sentence)


def _act(context: typer.Context, action: Action, name: str, by: str | None, reason: str) -> None:
    with at_work(context) as experiments:
        event = event_of(name, action, by=_who(by), reason=reason)
        promoted = experiments.catalogue.get(name).lifecycle.promoted
        if promoted is not None and action == "roll_back":
            raise ExperimentError(
                f"experiment {name!r} has ended: {promoted!r} was promoted. Bring the former "
                "champion back with `make rollback`"
            )
        entry = experiments.catalogue.record(name, event)
        show(experiment_page(experiments.summary(name), entry.lifecycle.specification))


def _allocation(shares: Sequence[str]) -> dict[str, float]:
    """ARM=SHARE … as a mapping.

    Raises:
        SettingsError: one of them is something else, or an arm stands twice.
    """
    allocation: dict[str, float] = {}
    for given in shares:
        arm, _, share = given.partition("=")
        try:
            number = float(share)
        except ValueError as error:
            raise SettingsError(f"{given!r} is not ARM=SHARE; write float=0.8 int8=0.2") from error
        if arm in allocation:
            raise SettingsError(f"arm {arm!r} stands twice in {list(shares)!r}; name each once")
        allocation[arm] = number
    return allocation


def _who(by: str | None) -> str:
    try:
        return by or getpass.getuser()
    except (KeyError, OSError) as error:
        raise SettingsError("this machine does not say who you are; give --by") from error


if __name__ == "__main__":
    app()

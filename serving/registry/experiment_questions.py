"""Questions about experiments at a terminal: none of these commands changes anything."""

from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import typer

from data.manifest import write_text_atomically
from serving.experiments.assignment import assign, unit_hash
from serving.experiments.assignment_sql import Dialect, assignment_sql
from serving.experiments.routes import DeploymentKind
from serving.experiments.specification import read_specification
from serving.registry.experiment_summary import allocation_now
from serving.registry.experiment_terminal import (
    AsJson,
    Baseline,
    File,
    Lift,
    Name,
    UnitsPerDay,
    at_work,
    places_of,
    planned,
    show,
    show_json,
    told,
)
from serving.registry.experiment_view import (
    agreed_page,
    experiment_page,
    experiments_table,
    routes_page,
    unit_page,
)
from serving.registry.phases import live_id

questions = typer.Typer()
_LAST_ROUTES: Final = 10


@questions.command()
def check(
    file: File,
    baseline: Baseline = None,
    lift: Lift = None,
    units_per_day: UnitsPerDay = None,
) -> None:
    """See whether a file says a whole experiment, and how large it has to be."""
    with told():
        specification = read_specification(file)
        plan = planned(specification, baseline, lift, units_per_day)
        show(agreed_page(specification, version=None, plan=plan))


@questions.command("list")
def list_all(context: typer.Context, as_json: AsJson = False) -> None:  # noqa: FBT002  # typer's way
    """Show every experiment in one line."""
    with at_work(context) as experiments:
        found = experiments.all()
        if as_json:
            show_json([one.model_dump(mode="json") for one in found])
        else:
            show(experiments_table(found))


@questions.command("show")
def show_one(context: typer.Context, name: Name, as_json: AsJson = False) -> None:  # noqa: FBT002  # typer's way
    """Show all of an experiment, and what may be done with it now."""
    with at_work(context) as experiments:
        one = experiments.summary(name)
        specification = experiments.catalogue.get(name).lifecycle.specification
        if as_json:
            agreed = specification.model_dump(mode="json")
            show_json(one.model_dump(mode="json") | {"specification": agreed})
        else:
            show(experiment_page(one, specification))


@questions.command()
def report(
    context: typer.Context,
    name: Name,
    out: Annotated[
        Path | None, typer.Option(help="Also write the page here, or JSON where it ends so.")
    ] = None,
    lang: Annotated[Literal["ko", "en"], typer.Option(help="Of the page and the reason.")] = "en",
    phase: Annotated[int | None, typer.Option(help="Its number; the last one without.")] = None,
) -> None:
    """Say what a phase has shown so far, and what follows from it."""
    from serving.experiments.analysis import report_of
    from serving.experiments.report_page import page
    from serving.registry.experiment_report_view import report_page

    with at_work(context):
        found = report_of(places_of(context).store, name, phase=phase)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            is_json = out.suffix == ".json"
            write_text_atomically(
                out, found.model_dump_json(indent=2) + "\n" if is_json else page(found, lang)
            )
        show(report_page(found, lang))


@questions.command()
def unit(
    context: typer.Context,
    name: Name,
    raw_unit: Annotated[str, typer.Argument(metavar="UNIT", help="As requests name it.")],
) -> None:
    """Show what a unit meets, why, and its hash, which overrides name."""
    with at_work(context) as experiments:
        entry = experiments.catalogue.get(name)
        hashed = unit_hash(experiments.catalogue.salt(), raw_unit)
        one = experiments.summary(name)
        show(unit_page(one, assign(allocation_now(entry), hashed), hashed))


@questions.command()
def sql(
    context: typer.Context,
    name: Name,
    dialect: Annotated[
        Literal["sqlite", "postgresql"] | None, typer.Option(help="The store's own without.")
    ] = None,
) -> None:
    """Print the query that re-derives the arm of every unit in the store."""
    with at_work(context) as experiments:
        entry = experiments.catalogue.get(name)
        phase = entry.lifecycle.current
        on_sqlite = places_of(context).store.startswith("sqlite")
        own: Dialect = "sqlite" if on_sqlite else "postgresql"
        print(
            assignment_sql(
                allocation_now(entry),
                dialect or own,
                deployment_id=phase.deployment_id if phase else None,
            )
        )


@questions.command()
def route(context: typer.Context) -> None:
    """Show who answers now from the live folder, and the last turns of the traffic."""
    with at_work(context) as experiments:
        live = places_of(context).live
        kinds: tuple[DeploymentKind, ...] = get_args(DeploymentKind)
        served = [(kind, live_id(live, kind)) for kind in kinds]
        show(
            routes_page(
                [
                    (
                        kind,
                        serving,
                        experiments.catalogue.deployment(serving),
                        experiments.routes.now(serving),
                    )
                    for kind, serving in served
                    if serving
                ],
                experiments.routes.all(limit=_LAST_ROUTES),
            )
        )

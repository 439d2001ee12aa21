"""Experiments at a terminal: where everything is, what is printed, and how a refusal is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console, RenderableType

from data.errors import MatjipError, SettingsError
from serving.experiments.specification import ExperimentSpecification
from serving.registry.experiment_plan import Plan, plan_for
from serving.registry.experiment_summary import Experiments
from serving.registry.phases import mend

DEFAULT_STORE: Final = "sqlite:///var/store.sqlite"
_WIDTH: Final = 140

Name = Annotated[str, typer.Argument(help="The experiment.")]
By = Annotated[str | None, typer.Option(help="Who decides; the login name without.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]
File = Annotated[Path, typer.Argument(help="YAML, like serving/experiments/example.yaml.")]
Baseline = Annotated[
    float | None, typer.Option(help="To plan: the control's rate of the primary metric.")
]
Lift = Annotated[float | None, typer.Option(help="To plan: by how much a challenger is better.")]
UnitsPerDay = Annotated[float | None, typer.Option(help="To plan: new units a day.")]


@dataclass(frozen=True)
class Places:
    """Where everything is: store, registry, live folder, and fetched models."""

    store: str
    tracking: str
    live: Path
    models: Path


def places_of(context: typer.Context) -> Places:
    """Where the command's options say that everything is."""
    found: Places = context.obj
    return found


@contextmanager
def at_work(context: typer.Context) -> Iterator[Experiments]:
    """The experiments of the store; what a killed command had committed is applied first."""
    with told():
        experiments = Experiments(places_of(context).store)
        try:
            for file in mend(experiments.catalogue, places_of(context).live):
                show(
                    f"{file}: brought up to what the catalogue says; an earlier command was cut off"
                )
            yield experiments
        finally:
            experiments.close()


@contextmanager
def told() -> Iterator[None]:
    """What matjip refuses is told in one message, without a traceback."""
    try:
        yield
    except MatjipError as error:
        Console(stderr=True).print(
            f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True
        )
        raise typer.Exit(1) from error


def show(page: RenderableType) -> None:
    """Print a page; nothing of it is rich's markup, and in a file nothing is cut off."""
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(page, soft_wrap=isinstance(page, str))


def show_json(value: Any) -> None:
    """Print JSON, Korean unescaped."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def planned(
    specification: ExperimentSpecification,
    baseline: float | None,
    lift: float | None,
    units_per_day: float | None,
) -> Plan | None:
    """The size of an experiment, where its options are given.

    Raises:
        SettingsError: only some of them are.
        ExperimentError: one of them is out of range.
    """
    if baseline is None and lift is None and units_per_day is None:
        return None
    if baseline is None or lift is None or units_per_day is None:
        raise SettingsError(
            f"--baseline {baseline!r} --lift {lift!r} --units-per-day {units_per_day!r}: a plan "
            "takes all three of them"
        )
    return plan_for(specification, baseline=baseline, lift=lift, units_per_day=units_per_day)

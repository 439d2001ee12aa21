"""The command of archives: copy the experiment store to Parquet, or move what is old out of it.

python -m serving.experiments.archive export OUT        a copy; the store stays as it is
python -m serving.experiments.archive retain OUT --older-than-days 90
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from data.errors import MatjipError
from serving.experiments.archive_files import Archive
from serving.experiments.database import DEFAULT_URL
from serving.experiments.export import OnRows, export
from serving.experiments.retention import retain

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Store = Annotated[
    str,
    typer.Option(
        "--store", envvar="MATJIP_STORE_URL", help="Address of the store.", show_default=True
    ),
]


@app.command("export")
def export_command(
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    store: Store = DEFAULT_URL,
    before: Annotated[
        datetime | None, typer.Option(help="Only exposures of before, UTC: 2026-09-01.")
    ] = None,
    experiment: Annotated[str | None, typer.Option(help="Only this experiment's.")] = None,
) -> None:
    """Copy exposures and outcomes to Parquet; the store stays as it is."""
    before_us = None if before is None else _us(before)
    _run(
        lambda on_rows: (
            export(store, out, before_us=before_us, experiment_id=experiment, on_rows=on_rows),
        )
    )


@app.command("retain")
def retain_command(
    out: Annotated[Path, typer.Argument(help="Folder of the archives.")],
    older_than_days: Annotated[float, typer.Option(help="What is older leaves the store.")],
    store: Store = DEFAULT_URL,
) -> None:
    """Move what is older out of the store, into an archive; a killed run may be run again."""
    _run(lambda on_rows: retain(store, out, older_than_days=older_than_days, on_rows=on_rows))


def _us(moment: datetime) -> int:
    """Microseconds since 1970 of a moment that was given without a zone, as UTC."""
    return round(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1e6)


def _run(work: Callable[[OnRows], tuple[Archive, ...]]) -> None:
    console = Console()
    try:
        with _progress(console) as on_rows:
            archives = work(on_rows)
    except MatjipError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    for archive in archives:
        console.print(
            f"{archive.folder}: {archive.exposures:,} exposures, {archive.outcomes:,} outcomes, "
            f"{archive.orphans:,} of them orphans",
            markup=False,
            soft_wrap=True,
        )
    if not archives:
        console.print("nothing is old enough; the store stays as it is", markup=False)


@contextmanager
def _progress(console: Console) -> Iterator[OnRows]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("begun")
        yield lambda what, rows: bar.update(task, description=f"{what}: {rows:,}")


if __name__ == "__main__":
    app()

"""`make ab-sim`: the experiment framework measured on traffic whose effects are known.

Every part's figures go to var/bench/ab.json and a table, each with the bar that it must reach;
plots beside it. Parts run one after another, since some of them measure time. A part that fails
leaves its reason, and the others go on. Ends with status 1 where a part failed or a bar is missed.

    python -m bench.ab_sim [--only NAME ...]
"""

import importlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from bench.ab_figures import AbFigure
from bench.progress import MARK
from data.manifest import write_json

OUT: Final = Path(__file__).resolve().parent.parent / "var" / "bench"
PARTS: Final[dict[str, str]] = {
    "sequences": "bench.ab_sequences",
    "sample_ratio": "bench.ab_sample_ratio",
    "variance": "bench.ab_variance",
    "worlds": "bench.ab_worlds",
    "lost_events": "bench.ab_lost_events",
    "analysis": "bench.ab_analysis",
    "kill_drills": "bench.ab_kill_drills",
    "overhead": "bench.ab_overhead",
    "rollback": "bench.ab_rollback",
}
"""Name → module with ``measure(say) -> {key: AbFigure}``; imported when its turn comes."""
_CPU_INFO: Final = Path("/proc/cpuinfo")
_SHOWN: Final = 200


def machine() -> dict[str, str | int]:
    """On what it was measured."""
    processor = platform.processor() or platform.machine()
    if _CPU_INFO.is_file():
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        processor = next(named, processor)
    return {
        "processor": processor,
        "cores": os.cpu_count() or 1,
        "system": platform.system(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def run_parts(
    parts: Mapping[str, str], say: Callable[[str], None]
) -> tuple[dict[str, AbFigure], dict[str, str]]:
    """Measure part after part.

    Args:
        parts: name → module, see ``PARTS``.
        say: told how far it is.

    Returns:
        The figures by key, and by part why it has none.
    """
    figures: dict[str, AbFigure] = {}
    failures: dict[str, str] = {}
    for name, module in parts.items():
        began = time.monotonic()

        def tell(what: str, name: str = name, began: float = began) -> None:
            say(f"{MARK}{name} {time.monotonic() - began:.0f} s: {what}")

        try:
            found = importlib.import_module(module).measure(tell)
        except Exception as error:  # noqa: BLE001  # whatever a part dies of, the others go on
            traceback.print_exc()
            failures[name] = f"{type(error).__name__}: {error}"
            tell(f"failed, {failures[name]}")
            continue
        assert not set(found) & set(figures), f"{name} measures what another part measured"
        figures |= found
        tell("done")
    return figures, failures


def write_figures(
    path: Path, figures: Mapping[str, AbFigure], failures: Mapping[str, str], seconds: float
) -> None:
    """Write ab.json: figures (value, bar, conditions), failures, machine, seconds."""
    rows: dict[str, dict[str, Any]] = {
        key: {"value": figure.value, "bar": figure.bar, "conditions": figure.conditions}
        for key, figure in figures.items()
    }
    write_json(
        path,
        {
            "figures": rows,
            "failures": dict(failures),
            "machine": machine(),
            "seconds": round(seconds, 1),
        },
    )


def table_of(figures: Mapping[str, AbFigure], failures: Mapping[str, str]) -> Table:
    """The figures, and what has none, for the terminal."""
    table = Table("figure", "measured", "bar", "on what", title="make ab-sim")
    for key, figure in figures.items():
        colour = "green" if figure.met else "red"
        conditions = figure.conditions
        shown = conditions if len(conditions) <= _SHOWN else conditions[:_SHOWN] + "…"
        table.add_row(key, f"[{colour}]{figure.value:.4g}[/]", figure.bar, shown)
    for name, reason in failures.items():
        table.add_row(name, "[red]failed[/]", "–", reason[:_SHOWN])
    return table


def main(
    only: Annotated[list[str] | None, typer.Option(help="Parts to run; else all.")] = None,
    folder: Annotated[Path, typer.Option(help="Where ab.json and the plots go.")] = OUT,
    *,
    plots: Annotated[bool, typer.Option(help="Draw plots too.")] = True,
) -> None:
    """Measure everything, write var/bench/ab.json and plots, and print a table."""
    console = Console()
    unknown = set(only or ()) - set(PARTS)
    if unknown:
        raise typer.BadParameter(f"{sorted(unknown)!r}; take of {', '.join(PARTS)}")
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def show(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False)

    chosen = {name: module for name, module in PARTS.items() if not only or name in only}
    figures, failures = run_parts(chosen, show)
    if plots:
        # Here, not above: matplotlib is slow to import, and figures do without it.
        from bench.ab_plots import write_plots

        show(f"{MARK}plots: {', '.join(write_plots(folder))}")
    write_figures(folder / "ab.json", figures, failures, time.monotonic() - began)
    console.print(table_of(figures, failures))
    console.print(f"{folder / 'ab.json'}", highlight=False)
    if failures or not all(figure.met for figure in figures.values()):
        sys.exit(1)


if __name__ == "__main__":
    typer.run(main)

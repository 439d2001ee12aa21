"""`make bench`: every part in a process of its own, then the figures, plots and report.

Parts run one after another, since they measure. A part that fails, or that the time does not reach,
leaves its reason, and the others go on.

    python -m bench.run [--budget-s 840] [--only NAME ...]
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from bench.figures import INT8_LIMITS, TARGETS, figures_of, fits, shown
from bench.report import write_report
from bench.side_by_side import ENVIRONMENT, ROOT
from data.manifest import write_json

OUT: Final = ROOT / "var" / "bench"
DEFAULT_ENGINE: Final = "onnxruntime-int8"
_TAIL: Final = 800


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        name: of its JSON file.
        seconds: that it may take, of those that are left.
        arguments: of its module; ``{out}`` and the names of ``_choices`` are filled in.
    """

    name: str
    seconds: float
    arguments: tuple[str, ...]


PARTS: Final = (
    Part("models", 240.0, ("bench.models",)),
    Part("engine_speeds", 330.0, ("bench.engines", "{out}", "150")),
    Part("side_by_side", 280.0, ("bench.side_by_side", "{out}", "{own}", "2")),
    Part("padding", 60.0, ("bench.padding", "{out}", "{padded}")),
    Part("gateway_load", 200.0, ("bench.gateway_load", "{out}", "{best}", "20")),
    Part("memory_model", 120.0, ("bench.memory_model",)),
    Part("admission", 120.0, ("bench.admission",)),
)


def _choices(folder: Path) -> dict[str, str]:
    """Which engines the later parts use, by what the first one measured."""
    path = folder / "engine_speeds.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    quality = said.get("quality", {})
    rows = sorted(said.get("rows", []), key=lambda row: -float(row["ratio"]))
    ranked = list(dict.fromkeys(row["engine"] for row in rows))
    good = [name for name in ranked if fits(quality.get(name, {}), INT8_LIMITS)]
    int8 = [name for name in ranked if "int8" in name]
    padded = [name for name in int8 if not name.startswith("torch")]
    best = (good or int8 or [DEFAULT_ENGINE])[0]
    own = list(dict.fromkeys([best, *int8[:3], *good[:2]]))
    return {
        "best": best,
        "own": ",".join(own),
        "padded": (padded or [DEFAULT_ENGINE])[0],
    }


def run_part(part: Part, folder: Path, *, seconds: float) -> float:
    """Run one part; what it measured, or why not, is in its file. Returns its seconds."""
    out = folder / f"{part.name}.json"
    out.unlink(missing_ok=True)
    filled = _choices(folder) | {"out": str(out)}
    command = [argument.format(**filled) for argument in part.arguments]
    began = time.monotonic()
    failure = ""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=os.environ | ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        failure = f"it was not done after {seconds:.0f} s"
    else:
        if done.returncode:
            failure = f"exit status {done.returncode}: {done.stderr[-_TAIL:].strip()}"
        elif not out.is_file():
            _take_printed(done.stdout, out)
    if failure:
        write_json(out, {"failure": failure})
    return time.monotonic() - began


def _take_printed(said: str, out: Path) -> None:
    """Keep what a part prints as JSON, where it writes no file."""
    start = said.find("{")
    write_json(out, json.loads(said[start:]) if start >= 0 else {})


def print_table(console: Console, figures: dict[str, Any]) -> None:
    """The figures, on the terminal."""
    table = Table("figure", "measured", "least", "aim", "on what", title="make bench")
    for key, row in figures.items():
        value = row["value"]
        colour = "dim" if value is None else "green" if TARGETS[key].reached(value) else "red"
        cells = [shown(key, row[name]) for name in ("value", "least", "aim")]
        table.add_row(key, f"[{colour}]{cells[0]}[/]", *cells[1:], row["conditions"][:160])
    console.print(table)


def main(
    budget_s: Annotated[float, typer.Option(help="Seconds for all parts together.")] = 840.0,
    only: Annotated[list[str] | None, typer.Option(help="Parts to run; else all.")] = None,
    folder: Annotated[Path, typer.Option(help="Where results go.")] = OUT,
) -> None:
    """Measure everything, write var/bench/engines.json, and print it."""
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + budget_s
    for part in PARTS:
        if only and part.name not in only:
            continue
        left = ends - time.monotonic()
        console.print(f"[bold]{part.name}[/] (at most {min(part.seconds, max(left, 0)):.0f} s) …")
        if left <= 0:
            write_json(folder / f"{part.name}.json", {"failure": "no time was left for it"})
            continue
        took = run_part(part, folder, seconds=min(part.seconds, left))
        said = json.loads((folder / f"{part.name}.json").read_text(encoding="utf-8"))
        console.print(f"  {took:.0f} s {said.get('failure', '')}", markup=False)
    figures = figures_of(folder)
    write_json(folder / "engines.json", {"figures": figures})
    write_report(folder, figures)
    print_table(console, figures)
    console.print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    typer.run(main)

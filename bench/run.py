"""`make bench`: every part in a process of its own, then the figures, plots and report.

Parts run one after another, since they measure. A part that fails, or that the time does not reach,
leaves its reason, and the others go on.

    python -m bench.run [--budget-s 840] [--only NAME ...]
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from bench.figures import INT8_LIMITS, TARGETS, Row, figures_of, fits, shown
from bench.progress import MARK
from bench.report import write_report
from bench.side_by_side import ENVIRONMENT
from bench.source_models import ROOT
from data.manifest import write_json
from serving.engines.judging import pick

OUT: Final = ROOT / "var" / "bench"
DEFAULT_ENGINE: Final = "onnxruntime-int8"
SERVED: Final = ("onnxruntime-fp32", "onnxruntime-int8")
"""What answers where nobody tuned, or tuning finds nothing better."""
BUDGET_S: Final = 870.0
_COMPARED: Final = 3
_TAIL: Final = 800
_SHOWN: Final = 150


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        name: of its JSON file.
        seconds: that it may take, of those that are left.
        arguments: of its module; ``{out}`` and the names of ``choices`` are filled in.
    """

    name: str
    seconds: float
    arguments: tuple[str, ...]


TURNS: Final = (
    (Part("engine_speeds", 230.0, ("bench.engines", "{out}", "180")),),
    (Part("side_by_side", 290.0, ("bench.side_by_side", "{out}", "{own}")),),
    (Part("padding", 30.0, ("bench.padding", "{out}", "{padded}")),),
    (Part("gateway_load", 170.0, ("bench.gateway_load", "{out}", "{best}", "20")),),
    (
        # One counts bytes and gives way, the other's compute sleeps: neither is in the other's way.
        Part("memory_model", 150.0, ("bench.memory_model", "{out}", "{memory}")),
        Part("admission", 150.0, ("bench.admission", "--seconds", "4", "--rounds", "2")),
    ),
)
"""What runs one after another; parts of one turn run together."""


def choices(folder: Path) -> dict[str, str]:
    """Which engines the later parts use, by what the first one measured."""
    path = folder / "engine_speeds.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    quality = said.get("quality", {})
    rows = sorted(said.get("rows", []), key=lambda row: -float(row["ratio"]))
    ranked = list(dict.fromkeys(row["engine"] for row in rows))
    good = [name for name in ranked if fits(quality.get(name, {}), INT8_LIMITS)]
    int8 = [name for name in ranked if "int8" in name]
    padded = [name for name in int8 if not name.startswith("torch")]
    best = _as_tuned(good, rows, quality) if good else (int8 or [DEFAULT_ENGINE])[0]
    return {
        "best": best,
        "own": ",".join(dict.fromkeys([best, *good[:_COMPARED]])),
        "memory": ",".join(dict.fromkeys([*SERVED, best])),
        "padded": (padded or [DEFAULT_ENGINE])[0],
    }


def _as_tuned(good: list[str], rows: list[Row], quality: dict[str, Row]) -> str:
    """Which of them `make tune-engine` would choose."""
    speeds = {name: max(row["ratio"] for row in rows if row["engine"] == name) for name in good}
    return pick({name: (speeds[name], quality[name]["cos_mean"]) for name in good})


def run_part(part: Part, folder: Path, *, ends: float, show: Callable[[str], None] = print) -> str:
    """Run one part; what it measured, or why not, is in its file. Returns how it went.

    Args:
        part: what to run.
        folder: of results; gets ``NAME.json`` and what it said on standard error as ``NAME.log``.
        ends: when all must be done, by ``time.monotonic``.
        show: told how far it is.
    """
    out, log = folder / f"{part.name}.json", folder / f"{part.name}.log"
    out.unlink(missing_ok=True)
    seconds = min(part.seconds, ends - time.monotonic())
    if seconds <= 0:
        write_json(out, {"failure": "no time was left for it"})
        return "no time was left for it"
    filled = choices(folder) | {"out": str(out)}
    command = [argument.format(**filled) for argument in part.arguments]
    began = time.monotonic()
    # A session of its own: what a part started ends with it.
    with (
        subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | ENVIRONMENT,
            start_new_session=True,
        ) as process,
        log.open("w", encoding="utf-8") as kept,
        ThreadPoolExecutor() as pool,
    ):
        assert process.stdout is not None
        assert process.stderr is not None
        printed = pool.submit(process.stdout.read)
        said = pool.submit(_follow, process.stderr, kept, part.name, show)
        failure = ""
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            failure = f"it was not done after {seconds:.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if not failure and process.returncode:
            failure = f"exit status {process.returncode}: {said.result()}"
    if failure:
        write_json(out, {"failure": failure})
    elif not out.is_file():
        _take_printed(printed.result(), out)
    return f"{time.monotonic() - began:.0f} of {part.seconds:.0f} s {failure}"


def _follow(lines: IO[str], kept: IO[str], name: str, show: Callable[[str], None]) -> str:
    """Keep what a part says, show how far it is, and return the end of it."""
    last = ""
    for line in lines:
        kept.write(line)
        last = (last + line)[-_TAIL:]
        if line.startswith(MARK):
            show(f"  {name} {line.rstrip()[:_SHOWN]}")
    return last.strip()


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
    budget_s: Annotated[float, typer.Option(help="Seconds for all parts together.")] = BUDGET_S,
    only: Annotated[list[str] | None, typer.Option(help="Parts to run; else all.")] = None,
    folder: Annotated[Path, typer.Option(help="Where results go.")] = OUT,
) -> None:
    """Measure everything, write var/bench/engines.json, and print it."""
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + budget_s

    def show(line: str) -> None:
        console.print(line, style="dim", markup=False, highlight=False)

    for turn in TURNS:
        parts = [part for part in turn if not only or part.name in only]
        with ThreadPoolExecutor(max_workers=len(turn)) as pool:
            jobs = [pool.submit(run_part, part, folder, ends=ends, show=show) for part in parts]
            for part, job in zip(parts, jobs, strict=True):
                console.print(f"[bold]{part.name}[/] …")
                console.print(f"  {job.result()}", markup=False)
    figures = figures_of(folder)
    write_json(folder / "engines.json", {"figures": figures})
    write_report(folder, figures)
    print_table(console, figures)
    console.print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    typer.run(main)

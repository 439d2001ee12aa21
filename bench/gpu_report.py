"""Plots and Markdown of the GPU suite, from what its parts measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure

BARS: Final = "engines_gpu.svg"
SWEEP: Final = "engines_gpu_batch_sizes.svg"
_GIB: Final = 2**30


def write_gpu_report(folder: Path, found: dict[str, Any]) -> Path:
    """Write the plots and engines_gpu.md beside engines_gpu.json; returns the Markdown's path."""
    rows = found.get("engines", {}).get("rows", [])
    lines = ["# make bench-gpu", "", *(f"- {key}: {value}" for key, value in
             found["conditions"].items()), ""]  # fmt: skip
    lines += _peaks(found.get("peaks", {}))
    if rows:
        _bars(folder / BARS, rows)
        _sweep(folder / SWEEP, rows)
        lines += [*_speeds(found["engines"]), f"![{BARS}]({BARS})", f"![{SWEEP}]({SWEEP})", ""]
    for title, key in (("Admission", "admission"), ("Out of memory", "out_of_memory")):
        if found.get(key):
            lines += _section(title, ["what", "value"], [[name, shown(name, value)]
                              for name, value in found[key].items()])  # fmt: skip
    if found["failures"]:
        lines += _section("What failed", ["part", "why"], list(found["failures"].items()))
    path = folder / "engines_gpu.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def shown(name: str, value: Any) -> str:
    """A measured value, for people."""
    if value is None:
        return "not in time"
    if name.endswith("_bytes") or name.startswith("limit_"):
        return f"{value / _GIB:,.2f} GiB"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _peaks(peaks: dict[str, Any]) -> list[str]:
    if not peaks.get("tflops"):
        return []
    rows = [[f"{name} products", f"{rate:,.1f} TFLOP/s"] for name, rate in peaks["tflops"].items()]
    rows.append(["memory, copied", f"{peaks['gb_per_s']:,.0f} GB/s"])
    return _section("What the GPU can do", ["what", "measured"], rows)


def _speeds(part: dict[str, Any]) -> list[str]:
    head = ["engine", "batches", "real tokens/s", "of the roofline", "padding", "ms a batch", "MiB"]
    names = ("cos_mean", "cos_p1", "cos_min", "top10_overlap")
    rows = [
        [
            row["engine"],
            row["plan"],
            f"{row['tokens_per_s']:,.0f}",
            f"{row['roofline_share']:.1%}",
            f"{row['padding']:.3f}",
            f"{row['batch_ms']:.2f}",
            f"{row['peak_bytes'] / 2**20:,.0f}" if row["peak_bytes"] else "–",
            *(f"{row[name]:.5f}" if name in row else "–" for name in names),
        ]
        for row in sorted(part["rows"], key=lambda row: -float(row["tokens_per_s"]))
    ]
    lines = _section("Engines × batch sizes", [*head, "cos mean", "p1", "min", "top-10"], rows)
    if part["failures"]:
        failed = list(part["failures"].items())
        lines += _section("Engines that did not run", ["engine", "why"], failed)
    return lines


def _section(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        said = (str(cell).replace("|", "/").replace("\n", " ")[:300] for cell in cells)
        return f"| {' | '.join(said)} |"

    return [f"## {title}", "", line(head), "|---" * len(head) + "|", *map(line, rows), ""]


def _bars(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["tokens_per_s"] > best.get(row["engine"], {"tokens_per_s": 0.0})["tokens_per_s"]:
            best[row["engine"]] = row
    ranked = sorted(best.values(), key=lambda row: float(row["tokens_per_s"]))
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(ranked)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(
        [f"{row['engine']} ({row['plan']})" for row in ranked],
        [row["tokens_per_s"] for row in ranked],
        color="#1d4ed8",
    )
    axes.bar_label(bars, [f"{row['roofline_share']:.0%}" for row in ranked], padding=3)
    axes.set(title="best batch size, share of the roofline", xlabel="real tokens a second")
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _sweep(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    plans = list(dict.fromkeys(row["plan"] for row in rows))
    for engine in dict.fromkeys(row["engine"] for row in rows):
        own = {row["plan"]: row["tokens_per_s"] for row in rows if row["engine"] == engine}
        axes.plot(plans, [own.get(plan, float("nan")) for plan in plans], marker="o", label=engine)
    axes.set(yscale="log", ylabel="real tokens a second")
    axes.tick_params(axis="x", rotation=15)
    axes.legend(fontsize="x-small")
    figure.savefig(path)

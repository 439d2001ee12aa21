"""What `make bench` measured as plots (SVG), a Markdown and an HTML report, from its JSON files."""

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from bench.figures import TARGETS, library_seconds, shown
from bench.gateway_load import LIMIT_MS

Rows = Sequence[Sequence[object]]


def _read(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _bars(path: Path, title: str, unit: str, rows: Sequence[tuple[str, float]]) -> None:
    figure = Figure(figsize=(8, 0.9 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    names, values = zip(*reversed(rows), strict=True)
    bars = axes.barh(names, values, color="#1d4ed8")
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.set(title=title, xlabel=unit)
    axes.margins(x=0.12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _latency(path: Path, gateway: dict[str, Any]) -> None:
    steps = gateway["steps"]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    rates = [step["rate"] for step in steps]
    for name, colour in (("p50", "#047857"), ("p99", "#c2410c")):
        latencies = [step[f"{name}_ms"] for step in steps]
        axes.plot(rates, latencies, marker="o", label=f"{name} of latency", color=colour)
    axes.axhline(LIMIT_MS, color="#64748b", linestyle="--", label=f"limit, {LIMIT_MS:.0f} ms")
    axes.set(
        title=f"gateway, {gateway['engine']}, constant arrivals",
        xlabel="requests a second, one text each",
        ylabel="ms from when the request was due",
        yscale="log",
    )
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks("{x:,.0f}")
    axes.legend()
    figure.savefig(path)


def _engine_rows(part: dict[str, Any]) -> Rows:
    rows = []
    for row in sorted(part.get("rows", []), key=lambda row: -float(row["ratio"])):
        quality = part["quality"].get(row["engine"], {})
        rows.append(
            [
                row["engine"],
                row["plan"],
                f"{row['batches']} of {row['batches_planned']}",
                f"{row['tokens_per_s']:,.0f}",
                f"{row['ratio']:.2f}×",
                f"{row['int8_gemm_share']:.0%}",
                *(
                    f"{quality[name]:.4f}" if name in quality else "–"
                    for name in ("cos_mean", "cos_p1", "cos_min", "top10_overlap")
                ),
            ]
        )
    return rows


def _library_rows(part: dict[str, Any]) -> Rows:
    rows = []
    for row in part.get("rows", []):
        quality = row["quality"]
        speed = (
            f"{part['texts'] / library_seconds(row):,.1f}"
            if row.get("cpu_s")
            else str(row.get("failure", "did not run"))[:80]
        )
        rows.append(
            [
                f"{row['who']} {row['name']}",
                speed,
                row["batch_size"][row["cpu_s"].index(min(row["cpu_s"]))] if row["cpu_s"] else "–",
                *(
                    f"{quality[name]:.4f}" if name in quality else "–"
                    for name in ("cos_mean", "cos_p1", "top10_overlap")
                ),
            ]
        )
    return rows


def _step_rows(part: dict[str, Any]) -> Rows:
    return [
        [
            f"{step['rate']:.1f}",
            f"{step['share']:.0%}",
            *(f"{step[name]:,.0f}" if step[name] else "–" for name in ("p50_ms", "p99_ms")),
            f"{step['error_share']:.1%}",
            f"{step['client_cpu_share']:.0%}",
            f"{step['lag_p99_ms']:.1f}",
        ]
        for step in part.get("steps", [])
    ]


def _overload_rows(part: dict[str, Any]) -> Rows:
    over = part.get("overload") or {}
    names = ("sent", "answered", "refused", "refused_with_retry_after", "lost", "duplicated")
    return [[name.replace("_", " "), f"{over[name]:,.4g}"]
            for name in (*names, "wrong", "recovery_s") if name in over]  # fmt: skip


def _sections(folder: Path, figures: dict[str, Any]) -> list[tuple[str, list[str], Rows]]:
    quality = ["cos mean", "cos p1"]
    gateway = _read(folder, "gateway_load")
    return [
        (
            "Figures",
            ["figure", "measured", "least", "aim", "on what"],
            [
                [key, *(shown(key, row[name]) for name in ("value", "least", "aim")),
                 row["conditions"]]
                for key, row in figures.items()
            ],
        ),
        (
            "Engines × plans",
            ["engine", "plan", "batches", "tokens/s", "ratio", "of int8 GEMM", *quality, "cos min",
             "top-10"],
            _engine_rows(_read(folder, "engine_speeds")),
        ),
        (
            "Side by side",
            ["library", "texts per processor s", "batch", *quality, "top-10"],
            _library_rows(_read(folder, "side_by_side")),
        ),
        (
            "Gateway under load",
            ["rate", "of engine alone", "p50 ms", "p99 ms", "errors", "client CPU", "lag p99 ms"],
            _step_rows(gateway),
        ),
        ("Five times the goodput", ["what", "count"], _overload_rows(gateway)),
    ]  # fmt: skip


def _markdown(title: str, head: Sequence[str], rows: Rows) -> str:
    lines = [f"## {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    lines += [f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _html(title: str, head: Sequence[str], rows: Rows) -> str:
    def line(tag: str, cells: Sequence[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    body = "".join(line("td", row) for row in rows)
    return f"<h2>{html.escape(title)}</h2><table>{line('th', head)}{body}</table>"


def _plots(folder: Path) -> list[str]:
    names = []
    engines, gateway = _read(folder, "engine_speeds"), _read(folder, "gateway_load")
    libraries = _read(folder, "side_by_side")
    if engines.get("rows"):
        rows = sorted(engines["rows"], key=lambda row: -float(row["ratio"]))
        bars = [(f"{row['engine']}, {row['plan']}", float(row["tokens_per_s"])) for row in rows]
        _bars(
            folder / "engines.svg",
            "engine by plan of batches",
            "real tokens a second of one core",
            bars,
        )
        names.append("engines.svg")
    ran = [row for row in libraries.get("rows", []) if row.get("cpu_s")]
    if ran:
        bars = [(f"{r['who']} {r['name']}", libraries["texts"] / library_seconds(r)) for r in ran]
        bars.sort(key=lambda bar: -bar[1])
        _bars(folder / "libraries.svg", "texts to vectors", "texts a processor second", bars)
        names.append("libraries.svg")
    if any(step["p99_ms"] for step in gateway.get("steps", [])):
        _latency(folder / "gateway.svg", gateway)
        names.append("gateway.svg")
    return names


def write_report(folder: Path, figures: dict[str, Any]) -> None:
    """Write the plots, report.md and report.html beside the parts' JSON files."""
    assert set(figures) == set(TARGETS)
    plots = _plots(folder)
    sections = _sections(folder, figures)
    markdown = [_markdown(*section) for section in sections if section[2]]
    images = "\n".join(f"![{name}]({name})" for name in plots)
    (folder / "report.md").write_text(
        "\n".join(["# make bench", "", *markdown, images]) + "\n", encoding="utf-8"
    )
    style = "body{font:15px sans-serif;margin:2em}td,th{padding:.2em .6em;text-align:left}"
    inline = "".join(
        (folder / name).read_text(encoding="utf-8").partition("<svg")[2].join(["<svg", ""])
        for name in plots
    )
    tables = "".join(_html(*section) for section in sections if section[2])
    (folder / "report.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>make bench</title><style>{style}</style>'
        f"<h1>make bench</h1>{tables}{inline}",
        encoding="utf-8",
    )

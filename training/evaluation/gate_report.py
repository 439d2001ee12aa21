"""gate.md: the verdict and every comparison behind it, for people."""

from collections.abc import Mapping
from typing import Any


def _number(value: float | None, *, signed: bool = True) -> str:
    if value is None:
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3g}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def render_gate(result: Mapping[str, Any]) -> str:
    """Markdown of what gate.json holds."""
    lines = [
        f"# Gate: {result['verdict']}",
        "",
        f"{result['reason']}.",
        "",
        str(result["tfidf"]),
        "",
        (
            "Differences are candidate minus other, better is positive; intervals are paired "
            f"resamples of {result['unit']}s at {1 - result['policy']['alpha']:.0%}."
        ),
        "",
        _row(["comparison", "difference", "interval", "margin", "n", "counts", "verdict"]),
        _row(["---"] * 7),
    ]
    for check in result["checks"]:
        span = f"{_number(check['low'])} … {_number(check['high'])}"
        lines.append(
            _row(
                [
                    check["name"],
                    _number(check["difference"]),
                    span,
                    _number(check["margin"], signed=False),
                    str(check["n"]),
                    "yes" if check["required"] else "no",
                    check["verdict"],
                ]
            )
        )
    if result["slices"]:
        lines += ["", "## Slices and second figures", ""]
        lines.append(
            _row(["slice", "against", "difference", "interval", "n", "p (Holm)", "verdict"])
        )
        lines.append(_row(["---"] * 7))
    for part in result["slices"]:
        span = f"{_number(part['low'])} … {_number(part['high'])}"
        lines.append(
            _row(
                [
                    part["name"],
                    part["kind"],
                    _number(part["difference"]),
                    span,
                    str(part["n"]),
                    _number(part["p_holm"], signed=False),
                    part["verdict"].replace("_", " "),
                ]
            )
        )
    return "\n".join(lines) + "\n"

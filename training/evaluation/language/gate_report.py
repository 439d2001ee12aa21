"""The language gate's gate.md: the verdict and every comparison behind it, for people."""

from collections.abc import Mapping, Sequence
from typing import Any


def render_gate(result: Mapping[str, Any]) -> str:
    """Markdown of what gate.json holds; recovery is never rounded."""
    lines = [
        f"# Gate: {result['verdict']}",
        "",
        f"{result['reason']}.",
        "",
        _recovery_sentence(result),
        "",
        (
            "Differences are first minus second, better is positive; intervals are paired "
            f"resamples of {result['unit']}s at {1 - result['policy']['alpha']:.0%}."
        ),
        "",
        _row(["comparison", "difference", "interval", "margin", "n", "counts", "verdict"]),
        _row(["---"] * 7),
    ]
    for check in result["checks"]:
        counts = "yes" if check["required"] else "no"
        cells = [*_span(check), _number(check["margin"], signed=False), str(check["n"]), counts]
        lines.append(_row([check["name"], *cells, check["verdict"]]))
    lines += ["", "## Limits", "", _row(["figure", "value", "limit", "verdict"])]
    lines.append(_row(["---"] * 4))
    for each in result["limits"]:
        value = "–" if each["value"] is None else repr(each["value"])
        lines.append(_row([each["name"], value, repr(each["limit"]), each["verdict"]]))
    if result["secondary"]:
        head = ["figure", "against", "difference", "interval", "recovery", "n", "p (Holm)"]
        lines += ["", "## Second figures", "", _row([*head, "verdict"]), _row(["---"] * 8)]
    for part in result["secondary"]:
        recovered = "–" if part["recovery"] is None else repr(part["recovery"]["value"])
        cells = [*_span(part), recovered, str(part["n"]), _number(part["p_holm"], signed=False)]
        verdict = part["verdict"].replace("_", " ")
        lines.append(_row([part["name"], part["kind"], *cells, verdict]))
    return "\n".join(lines) + "\n"


def _recovery_sentence(result: Mapping[str, Any]) -> str:
    found = result["recovery"]
    if found is None:
        return "There is no parent whose score could be recovered."
    return (
        f"{result['candidate']} recovers {found['value']!r} of {result['parent']}'s "
        f"{result['policy']['figure']} [{found['low']!r}, {found['high']!r}]."
    )


def _span(row: Mapping[str, Any]) -> list[str]:
    return [_number(row["difference"]), f"{_number(row['low'])} … {_number(row['high'])}"]


def _number(value: float | None, *, signed: bool = True) -> str:
    if value is None:
        return "–"
    return f"{value:+.3f}" if signed else f"{value:.3g}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

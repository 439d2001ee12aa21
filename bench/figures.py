"""What a run of `make bench` says: each figure with what it must and should reach, and on what.

The parts leave one JSON file each in a folder; a part that failed leaves a reason, and so do its
figures. Nothing is filled in.
"""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from bench.engines import NAIVE
from serving.engines.choice import BASELINE

Row = dict[str, Any]


class Target(BaseModel):
    """What a figure is, the least that counts and the aim."""

    model_config = ConfigDict(frozen=True)

    what: str
    least: float
    aim: float
    unit: str = ""
    lower_is_better: bool = False

    def reached(self, value: float) -> bool:
        """Whether a value is at least the least."""
        return value <= self.least if self.lower_is_better else value >= self.least


TARGETS: Final[dict[str, Target]] = {
    "padding_ratio": Target(
        what="padded ÷ real tokens under load", least=1.05, aim=1.02, lower_is_better=True
    ),
    "fp32_batching_x": Target(what="batching alone, fp32", least=2.8, aim=3.3, unit="×"),
    "bf16_batching_x": Target(what="bf16 and batching", least=6.5, aim=9.0, unit="×"),
    "int8_batching_x": Target(what="best int8 and batching", least=10.0, aim=14.0, unit="×"),
    "gemm_share": Target(what="end to end ÷ measured int8 GEMM", least=0.4, aim=0.55, unit="%"),
    "gateway_goodput_share": Target(
        what="gateway goodput ÷ engine alone, p99 ≤ 300 ms", least=0.9, aim=0.95, unit="%"
    ),
    "vs_sentence_transformers_x": Target(
        what="whole path ÷ sentence-transformers' best int8", least=1.2, aim=1.6, unit="×"
    ),
    "vs_infinity_x": Target(
        what="whole path ÷ infinity-emb's best CPU setting", least=1.2, aim=2.0, unit="×"
    ),
    "memory_p999_under": Target(
        what="batches above the p99.9 memory bound", least=0.0, aim=0.0, lower_is_better=True
    ),
    "memory_median_error": Target(
        what="median error of predicted memory",
        least=0.10,
        aim=0.05,
        unit="%",
        lower_is_better=True,
    ),
    "admission_share": Target(
        what="adaptive admission ÷ best static limit", least=0.95, aim=0.98, unit="%"
    ),
    "admission_settle_s": Target(
        what="settles after half the memory is taken",
        least=5.0,
        aim=2.0,
        unit=" s",
        lower_is_better=True,
    ),
}

BF16_LIMITS: Final = {"cos_mean": 0.9999}
INT8_LIMITS: Final = {"cos_mean": 0.995, "cos_p1": 0.98, "top10_overlap": 0.94}
_DEFAULT_BATCH: Final = 32
"""Of sentence-transformers and of infinity."""
_COMPARED: Final = ("cos_mean", "top10_overlap")


class NotMeasured(Exception):  # noqa: N818  # a reason, not a fault
    """Why a figure has no value."""


def _part(folder: Path, name: str) -> Any:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise NotMeasured(f"part {name!r} left nothing")
    said = json.loads(path.read_text(encoding="utf-8"))
    if "failure" in said:
        raise NotMeasured(f"part {name!r} failed: {said['failure']}")
    return said


def fits(quality: dict[str, Any], limits: dict[str, float]) -> bool:
    """Whether an engine's quality is within limits."""
    return all(quality.get(name, -1.0) >= least for name, least in limits.items())


def _said(quality: dict[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {quality[name]:.4f}"
        for name in ("cos_mean", "cos_p1", "top10_overlap")
        if name in quality
    )


def _best_row(folder: Path, precision: str, limits: dict[str, float]) -> tuple[Row, Any]:
    part = _part(folder, "engine_speeds")
    rows = [
        row
        for row in part["rows"]
        if row["engine"].split("-")[1] == precision and row["plan"] != NAIVE
    ]
    good = [row for row in rows if fits(part["quality"].get(row["engine"], {}), limits)]
    if not good:
        seen = {row["engine"]: part["quality"].get(row["engine"], {}) for row in rows}
        raise NotMeasured(f"no {precision} engine is within {limits}: {seen}")
    return max(good, key=lambda row: float(row["ratio"])), part


def _batching(precision: str, limits: dict[str, float]) -> Callable[[Path], tuple[float, str]]:
    def figure(folder: Path) -> tuple[float, str]:
        row, part = _best_row(folder, precision, limits)
        quality = _said(part["quality"].get(row["engine"], {}))
        return row["ratio"], (
            f"{row['engine']}, {row['plan']}: {row['tokens_per_s']:,.0f} real tokens/s of one "
            f"core, against {BASELINE} {NAIVE}; MiniLM: {quality}"
        )

    return figure


def _gemm_share(folder: Path) -> tuple[float, str]:
    row, part = _best_row(folder, "int8", INT8_LIMITS)
    return row["int8_gemm_share"], (
        f"{row['engine']}, {row['plan']}, against {part['gemm']['peaks']['int8']:,.0f} GOP/s, the "
        "best int8 product measured in this run"
    )


def _padding(folder: Path) -> tuple[float, str]:
    part = _part(folder, "padding")
    return part["ratio"], part["conditions"]


def _gateway(folder: Path) -> tuple[float, str]:
    part = _part(folder, "gateway_load")
    if not part["goodput_texts_per_s"]:
        raise NotMeasured("no rate was answered within the limit, or the client was saturated")
    return part["goodput_share"], (
        f"{part['engine']}, one core each for gateway and client, constant arrivals, one text a "
        f"request; {part['goodput_texts_per_s']:.1f} texts/s; of a text's "
        f"{part['gateway_ms_per_text']:.1f} ms the engine's thread has "
        f"{part['engine_ms_per_text']:.1f} and the event loop {part['loop_ms_per_text']:.1f}; the "
        f"engine alone, in batches of 1,024 tokens, {part['alone_ms_per_text']:.1f}"
    )


def library_seconds(row: Row) -> float:
    """What a library's setting took: its last rounds, or the best it did before it fell behind."""
    return median(row["last_cpu_s"]) if row["last_cpu_s"] else min(row["cpu_s"])


def _speed(row: Row) -> float:
    return 1.0 / library_seconds(row)


def _at_default(own: Row, theirs: Row) -> str:
    """What it is against their default size of batches, if that was run and is not their best."""
    if _DEFAULT_BATCH not in theirs["batch_size"] or theirs["best_batch"] == _DEFAULT_BATCH:
        return ""
    seconds = theirs["cpu_s"][theirs["batch_size"].index(_DEFAULT_BATCH)]
    return f" (of {_DEFAULT_BATCH}, its default: {_speed(own) * seconds:.2f} ×)"


def _when_new(own: Row, theirs: Row) -> float:
    """The same in the round that found their size: there, compiling for a shape counts."""
    number = theirs["batch_size"].index(theirs["best_batch"])
    return float(theirs["cpu_s"][number] / own["cpu_s"][number])


def _against(who: str, *, int8_only: bool) -> Callable[[Path], tuple[float, str]]:
    def figure(folder: Path) -> tuple[float, str]:
        part = _part(folder, "side_by_side")
        rows = [
            row for row in part["rows"] if row["last_cpu_s"] and "failure" not in row["quality"]
        ]
        theirs = [row for row in rows if row["who"] == who and (row["int8"] or not int8_only)]
        if not theirs:
            failures = [row.get("failure") for row in part["rows"] if row["who"] == who]
            raise NotMeasured(f"{who} did not run: {failures}")
        best = max(theirs, key=_speed)
        least = {name: best["quality"][name] for name in _COMPARED}
        ours = [row for row in rows if row["who"] == "matjip" and fits(row["quality"], least)]
        if not ours:
            raise NotMeasured(f"no engine has the quality of {who} {best['name']}: {least}")
        own = max(ours, key=_speed)
        return _speed(own) / _speed(best), (
            f"{own['name']} ({_said(own['quality'])}) against {who} {best['name']} "
            f"({_said(best['quality'])}) in batches of {best['best_batch']}"
            f"{_at_default(own, best)}; {part['texts']} texts, "
            f"medians of {len(own['last_cpu_s'])} rounds in turn over the same texts (where they "
            f"were new to both: {_when_new(own, best):.2f} ×), processor time, one thread"
        )

    return figure


def _of(part: str, key: str, conditions: str) -> Callable[[Path], tuple[float, str]]:
    def figure(folder: Path) -> tuple[float, str]:
        said = _part(folder, part)
        if said.get(key) is None:
            raise NotMeasured(f"part {part!r} says nothing of {key!r}")
        return float(said[key]), conditions

    return figure


def _settle(folder: Path) -> tuple[float, str]:
    part = _part(folder, "admission")["settle"]
    held, bound = (part[key] / 2**20 for key in ("in_flight_before_bytes", "bound_after_bytes"))
    if held <= bound:
        raise NotMeasured(f"{held:.0f} MiB in flight were within the new bound of {bound:.0f} MiB")
    return part["admission_settle_s"], (
        f"a child process takes half of that budget: {held:.0f} MiB were in flight, "
        f"{bound:.0f} may be; batches of tens of milliseconds"
    )


def _memory(key: str) -> Callable[[Path], tuple[float, str]]:
    def figure(folder: Path) -> tuple[float, str]:
        part = _part(folder, "memory_model")
        engines = {name: said for name, said in part.items() if "failure" not in said}
        if not engines:
            raise NotMeasured(f"no engine's memory could be fitted: {part}")
        worst = max(engines, key=lambda name: float(engines[name][key]))
        return float(engines[worst][key]), (
            f"{engines[worst]['held_out']} held-out batches of at most "
            f"{engines[worst]['max_batch_tokens']} tokens, fitted on {engines[worst]['fitted_on']} "
            f"others of this machine; the worst of {', '.join(sorted(engines))}"
        )

    return figure


def _batching_alone(folder: Path) -> tuple[float, str]:
    part = _part(folder, "engine_speeds")
    rows = [row for row in part["rows"] if row["engine"] == BASELINE and row["plan"] != NAIVE]
    if not rows:
        raise NotMeasured(f"{BASELINE} ran {NAIVE} alone")
    row = max(rows, key=lambda row: float(row["ratio"]))
    others = [each for each in part["rows"] if each["engine"].split("-")[1] == "fp32"]
    best = max(others, key=lambda row: float(row["ratio"]))
    return row["ratio"], (
        f"the same engine, {row['plan']}: {row['tokens_per_s']:,.0f} real tokens/s of one core, "
        f"against {NAIVE}; the fastest in fp32 is {best['engine']}, {best['ratio']:.2f} x"
    )


FIGURES: Final[dict[str, Callable[[Path], tuple[float, str]]]] = {
    "padding_ratio": _padding,
    "fp32_batching_x": _batching_alone,
    "bf16_batching_x": _batching("bf16", BF16_LIMITS),
    "int8_batching_x": _batching("int8", INT8_LIMITS),
    "gemm_share": _gemm_share,
    "gateway_goodput_share": _gateway,
    "vs_sentence_transformers_x": _against("sentence-transformers", int8_only=True),
    "vs_infinity_x": _against("infinity", int8_only=False),
    "memory_p999_under": _memory("memory_p999_under"),
    "memory_median_error": _memory("memory_median_error"),
    "admission_share": _of(
        "admission",
        "admission_share",
        "two units of sleeping compute, real memory in a small budget",
    ),
    "admission_settle_s": _settle,
}


def figures_of(folder: Path) -> dict[str, Row]:
    """Every figure: value (null where there is none), least, aim and conditions (or why not)."""
    answer: dict[str, Row] = {}
    for key, target in TARGETS.items():
        try:
            value, conditions = FIGURES[key](folder)
        except NotMeasured as reason:
            value, conditions = None, f"not measured: {reason}"
        answer[key] = {
            "what": target.what,
            "value": value,
            "least": target.least,
            "aim": target.aim,
            "conditions": conditions,
        }
    return answer


def shown(key: str, value: float | None) -> str:
    """A value with its unit, as tables print it."""
    if value is None:
        return "–"
    unit = TARGETS[key].unit
    if unit == "%":
        return f"{value:.1%}"
    return f"{value:.3f}" if key == "padding_ratio" else f"{value:.2f}{unit}"

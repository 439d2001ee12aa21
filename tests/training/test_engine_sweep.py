import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.errors import EngineError
from serving.engines.plan_folder import Profile
from training.engine_sweep import (
    SweptShape,
    choose_precision,
    sweep_engines,
    sweep_markdown,
    sweep_shapes,
    sweep_svg,
)


class Timed:
    """An engine that takes as long as it is told, on a clock of its own."""

    name, batch_invariant, computes_padding = "timed", True, True

    def __init__(self, clock: list[float], seconds_a_row: float, value: float = 0.0):
        self.clock, self.seconds, self.value = clock, seconds_a_row, value

    def run(self, input_ids: Any, attention_mask: Any) -> dict[str, Any]:
        assert attention_mask.all()
        self.clock[0] += self.seconds * len(input_ids)
        return {"embedding": np.full((len(input_ids), 2), self.value)}


def _row(precision: str, batch: int, tokens: int, speed: float) -> SweptShape:
    return SweptShape(
        precision=precision,
        batch=batch,
        tokens=tokens,
        latency_ms=1e3 * batch * tokens / speed,
        p99_ms=1.0,
        tokens_per_s=speed,
        held_mib=2.0,
    )


def test_rows_go_up_to_the_largest_batch_of_each_length() -> None:
    profiles = [Profile(batch=b, tokens=t) for t, b in ((8, 4), (8, 24), (16, 1))]
    assert sweep_shapes(profiles) == [*((n, 8) for n in (1, 2, 4, 8, 16, 24)), (1, 16)]


def test_latency_and_throughput_are_those_of_the_clock() -> None:
    clock = [0.0]
    engines: Any = {"fp16": Timed(clock, 0.002), "int8": Timed(clock, 0.001)}
    swept = sweep_engines(
        engines, [(4, 8)], held_bytes=lambda *_: 3 * 2**20, repeats=5, clock=lambda: clock[0]
    )
    slow, fast = swept
    assert (slow.precision, slow.batch, slow.tokens) == ("fp16", 4, 8)
    assert slow.latency_ms == pytest.approx(8)
    assert slow.tokens_per_s == pytest.approx(4000)
    assert fast.p99_ms == pytest.approx(4)
    assert fast.held_mib == 3
    assert choose_precision(swept).precision == "int8"


def test_nan_is_an_error_not_a_speed() -> None:
    engines: Any = {"fp16": Timed([0.0], 1, value=float("nan"))}
    with pytest.raises(EngineError, match=r"'fp16' engine answers 2 × 8 tokens with NaN"):
        sweep_engines(engines, [(2, 8)], held_bytes=lambda *_: 0)


def _both(int8_speeds: Iterator[float] | list[float]) -> list[SweptShape]:
    shapes = [(1, 8), (16, 8), (8, 64)]
    floats = [_row("fp16", *shape, 100.0) for shape in shapes]
    return floats + [
        _row("int8", *shape, speed) for shape, speed in zip(shapes, int8_speeds, strict=True)
    ]


def test_int8_that_is_slower_gives_way_and_the_reason_has_the_figures() -> None:
    choice = choose_precision(_both([500.0, 80.0, 90.0]))  # a lone row does not decide
    assert choice.precision == "fp16"
    assert re.search(r"INT8 does 0\.85 × .*0\.80 × at 16 × 8 tokens", choice.reason)
    assert choose_precision(_both([50.0, 100.0, 100.0])).precision == "fp16"
    assert choose_precision(_both([50.0, 90.0, 150.0])).precision == "int8"


def test_one_alone_serves_and_none_is_an_error() -> None:
    assert choose_precision([_row("int8", 1, 8, 1.0)]).precision == "int8"
    assert choose_precision([_row("fp16", 1, 8, 1.0)]).reason == "it is the only one that may serve"
    with pytest.raises(EngineError, match="no engine was measured"):
        choose_precision([])


def test_the_table_and_the_plot_show_every_row(tmp_path: Path) -> None:
    swept = _both([120.0, 130.0, 140.0])
    lines = sweep_markdown(swept).splitlines()
    assert lines[0].startswith("| precision | batch | tokens | latency ms |")
    assert len(lines) == 2 + len(swept)
    assert lines[2] == "| fp16 | 1 | 8 | 80.000 | 1.000 | 100 | 2.0 |"
    plot = sweep_svg(swept)
    assert plot.startswith("<svg")
    assert plot == sweep_svg(swept)

"""A model's TensorRT engines, built, looked into, compared and measured on the GPU at hand.

FP16 comes from the half-precision graph and INT8 from the one with Q/DQ. An engine that answers
unlike the model, is INT8 in name only, or is INT8 and slower, does not serve; plan.json says why.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from data.errors import EngineError, ExportError
from data.manifest import file_sha256, read_manifest, write_json, write_text_atomically
from serving.batching.planner import TOKEN_BUDGET, run_in_batches
from serving.engines.model_files import ModelFiles, Role, read_model_files
from serving.engines.plan_folder import (
    Plan,
    PlanPrecision,
    PlanSpec,
    Profile,
    plan_key,
    write_plan_spec,
)
from serving.engines.protocol import Engine, Floats
from serving.engines.tensor_rt import TensorRtEngine
from serving.engines.tensor_rt_library import import_tensorrt, this_sm
from serving.text_model import TextModel
from training.build_engine import build_engine
from training.engine_inspection import check_int8, engine_layers, products_in_int8, read_layers
from training.engine_profiles import choose_profiles, count_lengths
from training.engine_sweep import (
    choose_precision,
    sweep_engines,
    sweep_markdown,
    sweep_shapes,
    sweep_svg,
)
from training.half import write_half
from training.retrieval_parity import LIMITS, broken_retrieval, measure_retrieval

SOURCES: Final[dict[PlanPrecision, tuple[Role, ...]]] = {
    "fp16": ("graph-fp16", "graph"),
    "int8": ("qdq",),
}
"""Precision → which of the model's graphs it is built from, the first that there is."""

MOST_COMPARED: Final = 512
"""Windows: their answers are compared pair by pair, and stand in memory at once."""


class _Asked(NamedTuple):
    """What every build of one model shares."""

    digest: str
    files: dict[PlanPrecision, ModelFiles]
    out: Path
    library: Any
    sm: str
    profiles: tuple[Profile, ...]
    timing_cache: Path


def build_plans(
    model: Path,
    out: Path,
    *,
    windows: Sequence[Sequence[int]],
    reference: TextModel[object],
    max_tokens: int,
    timings: Path,
    compared: Sequence[Sequence[int]] | None = None,
    quantized: Path | None = None,
    batch_tokens: int = 8192,
    max_padding: float = 1.25,
) -> PlanSpec:
    """Build a model's engines for the GPU at hand, and choose one.

    Args:
        model: folder of a classifier or an embedding model, exported.
        out: empty folder; gets what serving/engines/plan_folder.py names.
        windows: token ids of real texts, whose lengths make the profiles.
        reference: the model on an engine that is trusted.
        max_tokens: of the longest window.
        compared: token ids of texts whose answers are compared with the reference's, at least 50;
            none that scales were taken from. Those of ``windows`` without. No more than
            ``MOST_COMPARED`` are.
        quantized: folder of the graph with Q/DQ, where it is not the model's own.
        timings: folder of the builder's timings, a file for each kind of GPU and version.
        batch_tokens: padded tokens of the largest batch.
        max_padding: padded over real tokens, at most.

    Raises:
        EngineError: TensorRT or the GPU is missing, or no engine may serve.
        ExportError: a graph is not what TensorRT reads.
        SettingsError: no profiles keep to the bound.
        ArtifactError: ``model`` is no model's folder.
    """
    library, sm = import_tensorrt(), this_sm()
    chosen = choose_profiles(
        count_lengths(map(len, windows)),
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        max_padding=max_padding,
    )
    out.mkdir(parents=True, exist_ok=True)
    asked = _Asked(
        read_manifest(model).digest,
        {"fp16": read_model_files(model), "int8": read_model_files(quantized or model)},
        out,
        library,
        sm,
        chosen.profiles,
        timings / f"tensorrt-{library.__version__}-sm{sm}.timings",
    )
    plans: dict[PlanPrecision, Plan] = {}
    left_out: dict[PlanPrecision, str] = {}
    for precision in SOURCES:
        built = _build(asked, precision)
        if isinstance(built, str):
            left_out[precision] = built
        else:
            plans[precision] = built
    answered = (windows if compared is None else compared)[:MOST_COMPARED]
    engines = _load_exact(asked, plans, left_out, answered, reference)
    swept = sweep_engines(
        engines,
        sweep_shapes(chosen.profiles),
        held_bytes=lambda name, rows, tokens: engines[name].device_bytes(rows, tokens),
    )
    if not swept:
        raise EngineError(f"no engine of {str(model)!r} may serve: {left_out!r}")
    best = choose_precision(swept)
    if best.precision == "fp16" and "int8" in plans:
        left_out["int8"] = f"FP16 serves: {best.reason}"
        (out / plans.pop("int8").file).unlink()
    write_json(out / "sweep.json", [row.model_dump() for row in swept])
    write_text_atomically(out / "sweep.md", sweep_markdown(swept))
    write_text_atomically(out / "sweep.svg", sweep_svg(swept))
    return _sealed(asked, plans, left_out, *best)


def _build(asked: _Asked, precision: PlanPrecision) -> Plan | str:
    """An engine that computes in what it is called, or why there is none."""
    roles = SOURCES[precision]
    files = asked.files[precision]
    source = next((path for role in roles if (path := files.path(role))), None)
    if source is None:
        names = [files.names[role] for role in roles if role in files.names]
        return f"{str(files.folder)!r} holds none of {names!r} to build it from; export it again"
    target = asked.out / f"{precision}.plan"
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / source.name
        write_half(source, graph)  # the types decide what TensorRT 11 computes in
        built = build_engine(
            graph,
            target,
            profiles=asked.profiles,
            timing_cache=asked.timing_cache,
            library=asked.library,
        )
        wanted = products_in_int8(graph)
    text = engine_layers(target.read_bytes(), asked.library)
    write_text_atomically(asked.out / f"{precision}.layers.json", text)
    report = read_layers(text, wanted)
    if precision == "int8":
        try:
            check_int8(report)
        except ExportError as error:
            target.unlink()
            return str(error)
    graph_sha256 = file_sha256(source)
    return Plan(
        file=target.name,
        sha256=built.sha256,
        graph=source.name,
        graph_sha256=graph_sha256,
        key=plan_key(
            sm=asked.sm,
            tensorrt=built.version,
            graph_sha256=graph_sha256,
            profiles=asked.profiles,
        ),
        build_s=built.seconds,
    )


def _load_exact(
    asked: _Asked,
    plans: dict[PlanPrecision, Plan],
    left_out: dict[PlanPrecision, str],
    windows: Sequence[Sequence[int]],
    reference: TextModel[object],
) -> dict[PlanPrecision, TensorRtEngine]:
    """Engines that answer like the model; the others move from ``plans`` to ``left_out``."""
    expected = answers_of(reference.engine, windows, reference.pad_id)
    engines: dict[PlanPrecision, TensorRtEngine] = {}
    for precision in list(plans):
        _sealed(asked, plans, left_out, precision, "being measured")
        engine = TensorRtEngine(
            asked.out, asked.files[precision].outputs, precision=precision, library=asked.library
        )
        found = answers_of(engine, windows, reference.pad_id)
        if problems := inexact(expected, found, precision):
            left_out[precision] = f"it does not answer like the model: {'; '.join(problems)}"
            (asked.out / plans.pop(precision).file).unlink()
        else:
            engines[precision] = engine
    return engines


def inexact(expected: Floats, found: Floats, precision: PlanPrecision) -> list[str]:
    """What an engine's answers break of its precision's limits, a phrase each.

    Args:
        expected: (windows, values) of the reference.
        found: the same of the engine.
        precision: whose limits hold (training/retrieval_parity.py).
    """
    if not np.isfinite(found).all():
        return ["it answers with NaN or infinite values"]
    return broken_retrieval(measure_retrieval(expected, found), LIMITS[precision])


def answers_of(engine: Engine, windows: Sequence[Sequence[int]], pad_id: int) -> Floats:
    """(windows, values): an engine's outputs side by side, in the windows' order."""
    outputs = run_in_batches(engine, windows, pad_id, token_budget=TOKEN_BUDGET)
    flat = [values.reshape(len(values), -1) for values in outputs.values()]
    return np.concatenate(flat, axis=1)


def _sealed(
    asked: _Asked,
    plans: dict[PlanPrecision, Plan],
    left_out: dict[PlanPrecision, str],
    precision: PlanPrecision,
    reason: str,
) -> PlanSpec:
    spec = PlanSpec(
        model=asked.digest,
        tensorrt=str(asked.library.__version__),
        sm=asked.sm,
        profiles=asked.profiles,
        plans=plans,
        left_out=left_out,
        chosen=precision,
        reason=reason,
    )
    write_plan_spec(asked.out, spec)
    return spec

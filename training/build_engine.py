"""ONNX to a TensorRT engine for this machine's GPU: FP16 or INT8, whichever is really faster.

Types come from the graph alone (TensorRT 11 is strongly typed): fp16 from its floats, INT8 from its
Q/DQ. Both are built, looked into and timed. INT8 is kept only if the engine's products really are
INT8 and it is faster; the plan says why.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from data.errors import EngineMemoryError, ExportError
from data.manifest import (
    file_sha256,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_text_atomically,
)
from serving.analyzer import load_analyzer
from serving.engines.tensor_rt import TensorRtEngine, compute_capability, load_tensorrt
from serving.engines.tensor_rt_plan import (
    ENGINE_NAME,
    PLAN_NAME,
    Plan,
    Profile,
    TrtPrecision,
    profiles_for,
)
from serving.logits import LOGITS
from serving.model_folder import MODEL_KIND
from training.half import write_half
from training.qdq import QDQ_NAME
from training.trt_network import Problems, parse, profile_of

LEAST_INT8_SHARE: Final = 0.5
"""Below this share of INT8 products, an engine is not called INT8."""
TIMED_RUNS: Final = 20
_PRODUCT_WORDS: Final = ("gemm", "matmul", "matrixmultiply", "matrix_multiply")


def build_plan(
    trt: Any,
    graph: Path,
    profiles: Sequence[Profile],
    *,
    timing_cache: Path | None = None,
    target: str | None = None,
) -> bytes:
    """Parse and build; returns the serialised engine.

    Args:
        trt: the ``tensorrt`` module, or TensorRT-RTX's, whose API is the same.
        graph: ONNX with the types that it is to compute in.
        profiles: fixed batches; each becomes an optimisation profile of one shape.
        timing_cache: read if it is there, and written: rebuilding then takes seconds.
        target: compute capability to build for where there is no GPU (TensorRT-RTX alone).

    Raises:
        ExportError: the parser or the builder refuses, in its own words.
    """
    problems = Problems(trt)
    builder = trt.Builder(problems.logger)
    network, refused = parse(trt, builder, graph, problems)
    if refused:
        raise ExportError(f"TensorRT refuses {str(graph)!r}: {'; '.join(refused)}; export it again")
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if target is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, target), 0)
    for profile in profiles:
        shape = (profile.batch, profile.tokens)
        config.add_optimization_profile(profile_of(builder, network, (shape, shape, shape)))
    if timing_cache is not None:
        known = timing_cache.read_bytes() if timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ExportError(
            f"TensorRT cannot build {str(graph)!r}: {'; '.join(problems.errors())}; build for "
            "smaller batches or leave more of the graph in float"
        )
    if timing_cache is not None and (cache := config.get_timing_cache()) is not None:
        timing_cache.parent.mkdir(parents=True, exist_ok=True)
        timing_cache.write_bytes(bytes(cache.serialize()))
    return bytes(engine)


def layer_types(inspected: str) -> tuple[dict[str, int], float]:
    """Layers by the type that they read, and the share of products in INT8.

    Args:
        inspected: the engine inspector's JSON, of an engine built with detailed verbosity.

    Raises:
        ExportError: it holds no layers' details.
    """
    layers = [each for each in json.loads(inspected).get("Layers", []) if isinstance(each, dict)]
    if not layers:
        raise ExportError(
            "the engine tells nothing of its layers; build it with verbosity DETAILED"
        )
    types = Counter[str]()
    products = Counter[str]()
    for layer in layers:
        read = [str(each.get("Format/Datatype", "")).lower() for each in layer.get("Inputs", [])]
        kind = next(
            (name for name in ("int8", "half", "fp16", "float") if name in " ".join(read)), "other"
        )
        kind = {"half": "fp16", "float": "fp32"}.get(kind, kind)
        types[kind] += 1
        told = " ".join(
            str(layer.get(key, "")) for key in ("LayerType", "Name", "TacticName")
        ).lower()
        if any(word in told for word in _PRODUCT_WORDS):
            products[kind] += 1
    return dict(types), products["int8"] / max(1, products.total())


def choose_precision(
    fp16_ms: float, int8_ms: float | None, int8_share: float
) -> tuple[TrtPrecision, str]:
    """The precision to keep, and why.

    Args:
        fp16_ms: time over all profiles in FP16.
        int8_ms: the same in INT8; None where there is no such engine.
        int8_share: share of the INT8 engine's products that are in INT8.
    """
    if int8_ms is None:
        return "fp16", "there is no graph with Q/DQ"
    if int8_share < LEAST_INT8_SHARE:
        return "fp16", (
            f"only {int8_share:.0%} of the products of the Q/DQ graph's engine are in INT8, "
            f"{LEAST_INT8_SHARE:.0%} at least are asked"
        )
    if int8_ms >= fp16_ms:
        return "fp16", f"INT8 is slower here: {int8_ms:.3f} ms against {fp16_ms:.3f} ms"
    return "int8", f"{int8_ms:.3f} ms against {fp16_ms:.3f} ms in FP16"


def build_engine(
    graphs: Mapping[TrtPrecision, Path],
    lengths: Sequence[int],
    out: Path,
    *,
    outputs: Sequence[str],
    token_budget: int,
    max_tokens: int,
    timing_cache: Path | None = None,
) -> Plan:
    """Build for this GPU, and keep the faster precision.

    Args:
        graphs: "fp16": a float graph; "int8": one with Q/DQ, if there is one.
        lengths: tokens of windows as they were measured; profiles follow them.
        out: folder for the engine and its plan.
        outputs: names of the graph's outputs.
        token_budget: padded tokens of one batch.
        max_tokens: the longest window.
        timing_cache: kept between builds.

    Raises:
        EngineError: TensorRT or the GPU is missing.
        ExportError: a graph is refused.
    """
    trt = load_tensorrt()
    capability = compute_capability()
    profiles = profiles_for(lengths, token_budget=token_budget, max_tokens=max_tokens)
    start_artifact(out)
    built: dict[TrtPrecision, tuple[Plan, float]] = {}
    for precision, graph in graphs.items():
        folder = out / precision
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            half = Path(scratch) / "half.onnx"
            write_half(graph, half)
            engine = build_plan(trt, half, profiles, timing_cache=timing_cache)
        (folder / ENGINE_NAME).write_bytes(engine)
        types, share = layer_types(_inspect(trt, engine))
        plan = Plan(
            precision=precision,
            reason="built to be timed",
            compute_capability=capability,
            tensorrt_version=str(trt.__version__),
            graph_sha256=file_sha256(graph),
            profiles=profiles,
            layers=types,
            int8_share=share,
        )
        write_text_atomically(folder / PLAN_NAME, plan.model_dump_json(indent=2) + "\n")
        built[precision] = (plan, sum(row["latency_ms"] for row in sweep(folder, outputs)))
    int8 = built.get("int8")
    kept, reason = choose_precision(
        built["fp16"][1], int8[1] if int8 else None, int8[0].int8_share if int8 else 0.0
    )
    plan = built[kept][0].model_copy(update={"reason": reason})
    (out / kept / ENGINE_NAME).replace(out / ENGINE_NAME)
    for precision in built:
        for name in (ENGINE_NAME, PLAN_NAME):
            (out / precision / name).unlink(missing_ok=True)
        (out / precision).rmdir()
    write_text_atomically(out / PLAN_NAME, plan.model_dump_json(indent=2) + "\n")
    return plan


def build_classifier_engine(
    exported: Path,
    quantized: Path,
    split: Path,
    out: Path,
    *,
    token_budget: int,
    timing_cache: Path | None = None,
) -> Plan:
    """Build a classifier's engine; profiles follow the lengths of the split's training part.

    Args:
        exported: model folder of format onnx-fp32.
        quantized: model folder of format onnx-int8; its ``qdq.onnx`` is tried if it has one.
        split: folder of kind "split".
        out: folder for the engine.
        token_budget: padded tokens of one batch.
        timing_cache: kept between builds.

    Raises:
        EngineError: TensorRT or the GPU is missing.
        ExportError: a graph is refused.
        ArtifactError: an input is missing or altered.
    """
    load_tensorrt()
    compute_capability()
    read_manifest(quantized, MODEL_KIND)
    read_manifest(split, "split")
    analyzer = load_analyzer(exported)
    texts = [row.review.text for row in read_labelled_reviews(split / "train.jsonl")]
    graphs: dict[TrtPrecision, Path] = {"fp16": exported / "tensorrt.onnx"}
    if (quantized / QDQ_NAME).is_file():
        graphs["int8"] = quantized / QDQ_NAME
    return build_engine(
        graphs,
        [len(window) for window in analyzer.windows(texts).ids],
        out,
        outputs=LOGITS,
        token_budget=token_budget,
        max_tokens=analyzer.spec.max_tokens,
        timing_cache=timing_cache,
    )


def _inspect(trt: Any, engine: bytes) -> str:
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise EngineMemoryError("TensorRT cannot load what it just built; free GPU memory")
    inspector = loaded.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def sweep(folder: Path, outputs: Sequence[str]) -> list[dict[str, float]]:
    """Latency, throughput and memory of each profile of an engine folder, a row each."""
    import torch

    engine = TensorRtEngine(folder, outputs)
    rows = []
    for profile in engine.plan.profiles:
        ids = np.ones((profile.batch, profile.tokens), dtype=np.int64)
        before = torch.cuda.mem_get_info()[0]
        engine.run(ids, ids)
        spent = []
        for _ in range(TIMED_RUNS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            engine.run(ids, ids)
            end.record()
            torch.cuda.synchronize()
            spent.append(start.elapsed_time(end))
        latency = median(spent)
        rows.append(
            {
                "batch": profile.batch,
                "tokens": profile.tokens,
                "latency_ms": latency,
                "tokens_per_s": 1e3 * profile.batch * profile.tokens / latency,
                "memory_bytes": max(0, before - torch.cuda.mem_get_info()[0]),
            }
        )
    return rows

"""OpenVINO answers like torch, alike for every caller, and never calls float INT8."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from data.errors import EngineError
from serving.embedding_folder import read_embedding_spec
from serving.engines.choice import BASELINE, make_engine
from serving.engines.open_vino import OpenVinoEngine, import_openvino
from serving.engines.protocol import Floats, TokenIds
from serving.sentence_encoder import load_sentence_encoder
from serving.windows import pad
from training.export import export_dynamo, halved
from training.qdq import quantize_qdq

# How far the lowest cosine may be from 1; beyond batch-mates, nothing may move an answer.
FARTHEST = {"fp32": 1e-6, "bf16": 1e-3, "int8": 1e-2}
UNCALLED_FOR = 1e-5


def has(feature: str) -> bool:
    core = import_openvino().Core()
    return feature in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def rows(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, count)
    return [rng.integers(5, 500, length).tolist() for length in lengths]


def answers(engine: OpenVinoEngine, batch: tuple[TokenIds, TokenIds]) -> Floats:
    return engine.run(*batch)["embedding"]


@pytest.fixture(scope="module", params=["fp32", "bf16", "int8"])
def engine(request: pytest.FixtureRequest, small_model: Path) -> OpenVinoEngine:
    if request.param != "fp32" and not has({"bf16": "BF16", "int8": "INT8"}[request.param]):
        pytest.skip(f"this processor has no {request.param}")
    return OpenVinoEngine(small_model / "graph.onnx", ["embedding"], precision=request.param)


def precision_of(engine: OpenVinoEngine) -> str:
    return engine.name.rsplit("-", 1)[1]


def test_it_answers_like_torch(engine, small_model):
    source = make_engine(BASELINE, small_model)
    batch = pad(rows(12, 40), 0)
    expected = source.run(*batch)["embedding"]
    found = answers(engine, batch)
    assert found.dtype == np.float32
    assert 1 - (expected * found).sum(1).min() < FARTHEST[precision_of(engine)]


def test_precisions_are_what_they_are_called(small_model):
    batch = pad(rows(12, 40), 0)
    exact = make_engine(BASELINE, small_model).run(*batch)["embedding"]
    errors = [
        np.abs(
            answers(OpenVinoEngine(small_model / "graph.onnx", ["embedding"], precision=p), batch)
            - exact
        ).max()
        for p in ("fp32", "bf16", "int8")
        if p == "fp32" or has(p.upper())
    ]
    assert errors == sorted(errors)
    assert len(set(errors)) == len(errors)


def test_batch_mates_and_padding_change_nothing(engine):
    several = rows(16, 40, seed=1)
    together = answers(engine, pad(several, 0))
    alone = np.concatenate([answers(engine, pad([row], 0)) for row in several])
    assert engine.batch_invariant
    np.testing.assert_allclose(together, alone, atol=UNCALLED_FOR, rtol=0)


def test_four_threads_get_what_one_gets(engine):
    batches = [pad(rows(1 + n % 5, 8 + n, seed=n), 0) for n in range(24)]
    expected = [answers(engine, batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(
            pool.map(lambda batch: answers(engine, batch), batches * 2), expected * 2, strict=True
        ):
            np.testing.assert_allclose(found, right, atol=UNCALLED_FOR, rtol=0)


# By itself, so that the bytes are the engine's: a process of tests keeps memory of many others.
GROWTH = """
import sys
from pathlib import Path

import numpy as np
import psutil

from serving.engines.open_vino import OpenVinoEngine

engine = OpenVinoEngine(Path(sys.argv[1]), ["embedding"], precision="fp32")
shapes = [(count, tokens) for count in range(1, 21) for tokens in range(4, 44)]
np.random.default_rng(0).shuffle(shapes)
for done, (count, tokens) in enumerate(shapes, 1):
    engine.run(np.full((count, tokens), 7), np.ones((count, tokens), np.int64))
    if done in (300, len(shapes)):
        print(psutil.Process().memory_info().rss)
"""


def test_ever_new_shapes_do_not_grow_memory(small_model):
    command = [sys.executable, "-c", GROWTH, str(small_model / "graph.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    begun, ended = map(int, done.stdout.split())
    assert ended - begun < 24 * 2**20


def test_a_batch_that_it_cannot_run_is_an_error_and_the_next_is_answered(engine):
    right = pad(rows(2, 10), 0)
    before = answers(engine, right)
    with pytest.raises(EngineError, match=r"failed on a batch of shape \(2, 70\)"):
        engine.run(np.full((2, 70), 7), np.ones((2, 70), np.int64))  # beyond 64 positions
    np.testing.assert_array_equal(answers(engine, right), before)


def test_no_file_and_no_graph_are_refused(tmp_path):
    with pytest.raises(EngineError, match=r"cannot load .*none\.onnx"):
        OpenVinoEngine(tmp_path / "none.onnx", ["embedding"], precision="fp32")
    (tmp_path / "broken.onnx").write_bytes(b"\x08 no graph")
    with pytest.raises(EngineError, match="export the model again"):
        OpenVinoEngine(tmp_path / "broken.onnx", ["embedding"], precision="fp32")


def test_an_output_that_is_not_there_is_refused(small_model):
    with pytest.raises(EngineError, match="sentiment"):
        OpenVinoEngine(small_model / "graph.onnx", ["sentiment"], precision="fp32")


def quantised(graph: Path, out: Path, *, activations: bool) -> Path:
    """Symmetric Q/DQ on every weight, and on every activation or on none."""
    model = onnx.load(graph)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in stored:
            name = f"{node.name}_{node.output[0]}"
            weight = numpy_helper.to_array(stored[node.input[1]])
            scale = (np.abs(weight).max(0) / 127).astype(np.float32)
            arrays = {
                "w": np.round(weight / scale).astype(np.int8),
                "ws": scale,
                "wz": np.zeros(len(scale), np.int8),
                "xs": np.float32(6 / 127),
                "xz": np.int8(0),
            }
            model.graph.initializer.extend(
                numpy_helper.from_array(np.asarray(array), name + key)
                for key, array in arrays.items()
            )
            weights = [name + key for key in ("w", "ws", "wz")]
            nodes.append(helper.make_node("DequantizeLinear", weights, [name + "f"], axis=1))
            if activations:
                scales = [name + "xs", name + "xz"]
                nodes.append(
                    helper.make_node("QuantizeLinear", [node.input[0], *scales], [name + "q"])
                )
                nodes.append(
                    helper.make_node("DequantizeLinear", [name + "q", *scales], [name + "d"])
                )
                node.input[0] = name + "d"
            node.input[1] = name + "f"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, out)
    return out


@pytest.mark.skipif(not has("INT8"), reason="this processor has no INT8 instructions")
def test_a_graph_with_q_and_dq_runs_in_int8(small_model, tmp_path):
    graph = quantised(small_model / "graph.onnx", tmp_path / "qdq.onnx", activations=True)
    engine = OpenVinoEngine(graph, ["embedding"], precision="int8")
    batch = pad(rows(8, 40), 0)
    expected = make_engine(BASELINE, small_model).run(*batch)["embedding"]
    assert 1e-6 < 1 - (expected * answers(engine, batch)).sum(1).min() < 0.05


@pytest.mark.skipif(not has("INT8"), reason="this processor has no INT8 instructions")
@pytest.mark.parametrize("scheme", [None, "smoothquant, ffn-down in float"])
def test_a_graph_in_fp16_runs_in_int8(small_model, tmp_path, scheme):
    spec = read_embedding_spec(small_model)
    model = load_sentence_encoder(
        small_model / "source", pooling=spec.pooling, normalize=spec.normalize
    )
    halved(model.backbone)
    graph = tmp_path / "fp16.onnx"
    export_dynamo(model, graph, ["embedding"])
    if scheme:
        batches = [pad(rows(16, 40, seed=seed), 0) for seed in range(4)]
        quantize_qdq(graph, tmp_path / "qdq.onnx", batches, scheme=scheme)
        graph = tmp_path / "qdq.onnx"
    engine = OpenVinoEngine(graph, ["embedding"], precision="int8")
    batch = pad(rows(8, 40), 0)
    expected = make_engine(BASELINE, small_model).run(*batch)["embedding"]
    assert 1e-6 < 1 - (expected * answers(engine, batch)).sum(1).min() < 0.05


def test_int8_weights_alone_are_not_called_int8(small_model, tmp_path):
    graph = quantised(small_model / "graph.onnx", tmp_path / "fake.onnx", activations=False)
    with pytest.raises(EngineError, match="computes 0 in INT8 and the rest in float"):
        OpenVinoEngine(graph, ["embedding"], precision="int8")


def test_products_that_stay_in_float_are_not_called_int8(small_model):
    from serving.engines import open_vino_int8

    core = import_openvino().Core()
    with pytest.raises(EngineError, match="128 x 256 in float on this processor"):
        open_vino_int8.check_dynamic(
            core, {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}, {(128, 256)}, group=128
        )


def test_a_model_too_narrow_for_int8_is_refused(small_model):
    with pytest.raises(EngineError, match="no matrix product whose width is a multiple"):
        OpenVinoEngine(small_model / "graph.onnx", ["embedding"], precision="int8", group_size=100)


def test_importing_it_neither_writes_nor_calls(tmp_path):
    code = """
import sys
seen = []
def watch(event, args):
    writes = event == "open" and isinstance(args[1], str) and any(m in args[1] for m in "wax+")
    if writes or event.startswith("socket.") or event == "subprocess.Popen":
        seen.append((event, str(args)))
sys.addaudithook(watch)
from serving.engines.open_vino import import_openvino
import_openvino().Core()
assert not [name for name in sys.modules if "telemetry" in name and "openvino" in name]
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"

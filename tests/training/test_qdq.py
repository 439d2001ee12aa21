from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime import InferenceSession

from data.errors import ExportError
from data.manifest import read_labelled_reviews
from serving.analyzer import load_analyzer
from serving.batching.planner import plan_batches
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.logits import LOGITS, Logits
from serving.windows import pad
from training.activations import Activations, observe
from training.encoder_products import Product, encoder_products
from training.half import write_half
from training.qdq import SCHEMES, quantize_qdq
from training.smoothing import divide_states, smoothing_scales

ALPHA = 0.5


def batches_of(model, split, part):
    """Padded windows of one part of a split."""
    texts = [row.review.text for row in read_labelled_reviews(split / f"{part}.jsonl")]
    analyzer = load_analyzer(model)
    ids = analyzer.windows(texts).ids
    return [
        pad([ids[row] for row in rows], analyzer.pad_id)
        for rows in plan_batches([len(window) for window in ids], 256)
    ]


@pytest.fixture(scope="module")
def calibration(tiny_onnx, toy_split):
    return batches_of(tiny_onnx, toy_split, "train")


@pytest.fixture(scope="module")
def quantised(tiny_onnx, calibration, tmp_path_factory):
    """Graph and report by scheme."""
    folder = tmp_path_factory.mktemp("qdq")
    made = {}
    for scheme in SCHEMES:
        path = folder / f"{scheme}.onnx"
        made[scheme] = (
            path,
            quantize_qdq(tiny_onnx / "tensorrt.onnx", path, calibration, scheme=scheme),
        )
    return made


def worst(graph, other, batches):
    """Mean squared difference of the logits of two graphs."""
    one, two = (OnnxRuntimeEngine(path, LOGITS) for path in (graph, other))
    return np.mean(
        [
            np.square(Logits(**one.run(*batch)).flat() - Logits(**two.run(*batch)).flat()).mean()
            for batch in batches
        ]
    )


def test_the_products_of_a_layer_are_found_and_the_heads_are_not(tiny_onnx):
    products = encoder_products(onnx.load(tiny_onnx / "tensorrt.onnx"))
    assert Counter(product.role for product in products) == {
        "attention in": 3,
        "attention out": 1,
        "ffn up": 1,
        "ffn down": 1,
    }


def test_a_fused_graph_has_none(tiny_onnx, calibration, tmp_path):
    with pytest.raises(ExportError, match="dynamo exporter's graph"):
        quantize_qdq(
            tiny_onnx / "model.onnx", tmp_path / "q.onnx", calibration, scheme="smoothquant"
        )


def smoothed_in_float(model, groups, seen):
    """Divide tensors with a forced alpha and quantise nothing; where the divisions went."""
    places = []
    for products in groups:
        constants = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
        reads = {node.name: list(node.input) for node in model.graph.node}
        weights = np.concatenate([constants[reads[own.node][1]] for own in products], axis=1)
        scales = smoothing_scales(seen[products[0].states].channel_max, weights, ALPHA)
        assert scales.max() > 1.1 * scales.min()  # else nothing would be asked
        places.append(divide_states(model, products, scales)[0])
    return places


def groups_of(model):
    """Products by the tensor that they share."""
    groups = {}
    for product in encoder_products(model):
        groups.setdefault(product.states, []).append(product)
    return groups


@pytest.mark.parametrize(
    ("role", "place"),
    [
        ("attention in", "inserted"),
        ("attention out", "value projection"),
        ("ffn up", "inserted"),
        ("ffn down", "constant"),
        (None, None),
    ],
)
def test_smoothing_leaves_float_answers_as_they_are(
    tiny_onnx, calibration, toy_split, tmp_path, role, place
):
    model = onnx.load(tiny_onnx / "tensorrt.onnx")
    groups = groups_of(model)
    seen = observe(model, list(groups), calibration)
    # Without a role, all together.
    chosen = [own for own in groups.values() if role in (None, own[0].role)]
    places = smoothed_in_float(model, chosen, seen)
    if place is not None:
        assert set(places) == {place}
    else:
        assert set(places) == {"inserted", "value projection", "constant"}
    onnx.save(model, tmp_path / "smoothed.onnx")
    one, other = (
        OnnxRuntimeEngine(path, LOGITS)
        for path in (tiny_onnx / "tensorrt.onnx", tmp_path / "smoothed.onnx")
    )
    for batch in batches_of(tiny_onnx, toy_split, "validation"):
        wanted, given = (Logits(**each.run(*batch)).flat() for each in (one, other))
        np.testing.assert_allclose(given, wanted, atol=1e-5)


def test_a_layer_norm_that_nothing_else_reads_is_divided_exactly():
    """No residual beside it, unlike in BERT: a graph of its own."""
    random = np.random.default_rng(0)
    values = {
        "gain": random.normal(1, 0.3, 8),
        "bias": random.normal(0, 0.3, 8),
        "weight": random.normal(0, 1, (8, 5)) * np.geomspace(0.1, 10, 8)[:, None],
    }
    graph = helper.make_graph(
        [
            helper.make_node("LayerNormalization", ["x", "gain", "bias"], ["states"], "norm"),
            helper.make_node("MatMul", ["states", "weight"], ["y"], "product"),
        ],
        "norm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, None, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, None, 5])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    given = random.normal(0, 1, (2, 3, 8)).astype(np.float32)
    before = InferenceSession(model.SerializeToString()).run(None, {"x": given})[0]
    product = Product("product", "ffn up", "states", "weight", 8, 5)
    seen = {"states": Activations(np.geomspace(0.5, 4, 8, dtype=np.float32), given[0])}
    assert smoothed_in_float(model, [[product]], seen) == ["layer norm"]
    after = InferenceSession(model.SerializeToString()).run(None, {"x": given})[0]
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_only_states_and_weights_are_rounded_and_symmetrically(quantised, scheme):
    path, report = quantised[scheme]
    graph = onnx.load(path).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    kinds = Counter(str(value.dtype) for value in constants.values())
    assert "int32" not in kinds
    for node in graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert constants[node.input[2]].dtype == np.int8
            assert not constants[node.input[2]].any()
    readers = Counter(
        node.op_type
        for node in graph.node
        if any(name.endswith("_DequantizeLinear_Output") for name in node.input)
    )
    assert readers == {"MatMul": sum(report.products.values())}
    assert report.products == {"attention in": 3, "attention out": 1, "ffn up": 1} | (
        {} if "float" in scheme else {"ffn down": 1}
    )
    assert not any(node.metadata_props for node in graph.node)


def test_the_report_says_what_is_in_int8(quantised):
    most, least = (quantised[scheme][1] for scheme in ("smoothquant", list(SCHEMES)[-1]))
    assert 0.3 < least.int8_share < most.int8_share < 1.0
    assert least.float_products == most.float_products + 1
    assert 0 < most.activation_scale_min <= most.activation_scale_max < 1
    assert sum(most.smoothing.values()) == sum(most.alphas.values())
    assert quantised["min-max"][1].alphas == {}
    assert most.source_sha256 == least.source_sha256
    assert most.sha256 != least.sha256


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_answers_nearly_as_the_float_graph(quantised, tiny_onnx, toy_split, scheme):
    batches = batches_of(tiny_onnx, toy_split, "validation")
    float_engine = OnnxRuntimeEngine(tiny_onnx / "tensorrt.onnx", LOGITS)
    engine = OnnxRuntimeEngine(quantised[scheme][0], LOGITS)
    assert engine.batch_invariant
    for batch in batches:
        one, other = (Logits(**each.run(*batch)) for each in (float_engine, engine))
        cosines = (one.flat() * other.flat()).sum(1) / (
            np.linalg.norm(one.flat(), axis=1) * np.linalg.norm(other.flat(), axis=1)
        )
        assert cosines.mean() > 0.99
        assert np.abs(one.flat() - other.flat()).max() > 0.0


def test_with_fp16_types_it_answers_the_same_and_stays_int8(
    quantised, tiny_onnx, toy_split, tmp_path
):
    write_half(quantised["smoothquant"][0], tmp_path / "half.onnx")
    graph = onnx.load(tmp_path / "half.onnx").graph
    types = {tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.FLOAT not in types
    assert {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8} <= types
    one, other = (
        OnnxRuntimeEngine(path, LOGITS)
        for path in (quantised["smoothquant"][0], tmp_path / "half.onnx")
    )
    for batch in batches_of(tiny_onnx, toy_split, "validation"):
        wanted, given = (Logits(**each.run(*batch)).flat() for each in (one, other))
        np.testing.assert_allclose(given, wanted, atol=0.1)


def test_an_fp16_graph_is_quantised_as_it_is(tiny_onnx, calibration, tmp_path):
    write_half(tiny_onnx / "tensorrt.onnx", tmp_path / "half.onnx")
    out = tmp_path / "q.onnx"
    report = quantize_qdq(tmp_path / "half.onnx", out, calibration, scheme="smoothquant")
    assert sum(report.products.values()) == 6
    constants = {tensor.name: tensor for tensor in onnx.load(out).graph.initializer}
    for node in onnx.load(out).graph.node:
        if node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            assert constants[node.input[1]].data_type == onnx.TensorProto.FLOAT16
    assert OnnxRuntimeEngine(out, LOGITS).run(*calibration[0])["sentiment"].shape[1] == 3


def test_an_unknown_scheme_names_the_known_ones(tiny_onnx, calibration, tmp_path):
    with pytest.raises(ExportError, match=r"no Q/DQ scheme 'all'.*smoothquant"):
        quantize_qdq(tiny_onnx / "tensorrt.onnx", tmp_path / "q.onnx", calibration, scheme="all")


def test_nothing_to_calibrate_on_is_refused(tiny_onnx, tmp_path):
    with pytest.raises(ExportError, match="no calibration"):
        quantize_qdq(tiny_onnx / "tensorrt.onnx", tmp_path / "q.onnx", [], scheme="smoothquant")

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from data.errors import ExportError
from training.half import write_half
from training.rtx_gate import check_tensorrt_shape

SIZE = 16
CEILING = {"max_batch": 4, "max_tokens": 8}


@pytest.fixture(scope="module")
def float_graph(tmp_path_factory):
    """Embedding, product, bias: (batch, tokens) in, (batch, tokens, size) out."""
    rng = np.random.default_rng(0)
    constants = {
        "table": rng.normal(size=(50, SIZE)).astype(np.float32),
        "weight": rng.normal(size=(SIZE, SIZE)).astype(np.float32),
        "bias": rng.normal(size=SIZE).astype(np.float32),
    }
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["input_ids", "attention_mask"], ["real"], "real"),
            helper.make_node("Gather", ["table", "real"], ["states"], "embed"),
            helper.make_node("MatMul", ["states", "weight"], ["product"], "product"),
            helper.make_node("Add", ["product", "bias"], ["out"], "biased"),
        ],
        "tiny",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [*shape, SIZE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = tmp_path_factory.mktemp("gate") / "float.onnx"
    onnx.save(model, path)
    return path


class Batches(CalibrationDataReader):
    def __init__(self):
        ids = np.arange(8, dtype=np.int64).reshape(2, 4)
        self.left = [{"input_ids": ids, "attention_mask": np.ones_like(ids)}]

    def get_next(self):
        return self.left.pop() if self.left else None


def quantise(source, out, **options):
    quantize_static(
        source,
        out,
        Batches(),
        per_channel=True,
        op_types_to_quantize=["MatMul", "Gemm", "Add"],
        weight_type=QuantType.QInt8,
        extra_options=options,
        activation_type=QuantType.QInt8 if options else QuantType.QUInt8,
    )
    return out


def test_fp32_is_accepted(float_graph):
    report = check_tensorrt_shape(float_graph, **CEILING)
    assert report.layers > 0
    assert report.engine_bytes > 0
    assert report.version.startswith("1.")


def test_fp16_is_accepted(float_graph, tmp_path):
    write_half(float_graph, tmp_path / "half.onnx")
    assert check_tensorrt_shape(tmp_path / "half.onnx", **CEILING).layers > 0


def test_symmetric_qdq_is_accepted(float_graph, tmp_path):
    graph = quantise(
        float_graph,
        tmp_path / "q.onnx",
        ActivationSymmetric=True,
        QuantizeBias=False,
        MatMulConstBOnly=True,
        OpTypesToExcludeOutputQuantization=["MatMul", "Add"],
    )
    assert check_tensorrt_shape(graph, **CEILING).layers > 0


def test_onnx_runtimes_default_is_refused_with_its_node(float_graph, tmp_path):
    graph = quantise(float_graph, tmp_path / "q.onnx")
    with pytest.raises(ExportError, match=r"refuses .*node '.*(Quantize|Dequantize)Linear"):
        check_tensorrt_shape(graph, **CEILING)


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="refuses"):
        check_tensorrt_shape(tmp_path / "no.onnx", **CEILING)


def test_a_gpu_it_does_not_know_names_those_it_does(float_graph):
    with pytest.raises(ExportError, match=r"'9\.0' is none of .*SM89"):
        check_tensorrt_shape(float_graph, **CEILING, compute_capability="9.0")


def test_a_builder_that_takes_too_long_is_ended(float_graph):
    with pytest.raises(ExportError, match=r"within 0\.01 s"):
        check_tensorrt_shape(float_graph, **CEILING, limit_s=0.01)


def test_a_builder_that_crashes_takes_nothing_with_it(tmp_path):
    with pytest.raises(ExportError, match="ended with status"):
        check_tensorrt_shape(tmp_path / "absent.onnx", **CEILING)

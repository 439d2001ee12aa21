"""Layers of five kinds of encoders are found in both exporters' graphs, and quantised alike."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
)

from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.sentence_encoder import OUTPUT, SentenceEncoder
from serving.windows import pad
from training.encoder_products import encoder_products, ffn_down_products
from training.export import export_dynamo, export_fused
from training.qdq import quantize_qdq
from training.quantize_embedding import SCHEMES

LAYERS, HIDDEN, INTERMEDIATE, VOCABULARY = 2, 32, 64, 80
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": INTERMEDIATE,
    "max_position_embeddings": 66,
    "attn_implementation": "eager",
}
DISTILLED = {
    "vocab_size": VOCABULARY,
    "dim": HIDDEN,
    "n_layers": LAYERS,
    "n_heads": 2,
    "hidden_dim": INTERMEDIATE,
    "attn_implementation": "eager",
}
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: BertModel(BertConfig(**SIZES), add_pooling_layer=False),
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=16)),
    "roberta-tanh": lambda: RobertaModel(
        RobertaConfig(**SIZES, hidden_act="gelu_new"), add_pooling_layer=False
    ),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(**DISTILLED)),
    "mpnet": lambda: MPNetModel(MPNetConfig(**SIZES), add_pooling_layer=False),
}


@pytest.fixture(scope="module", params=BACKBONES)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with fused.onnx and dynamo.onnx, both of one random model."""
    torch.manual_seed(1)
    model = SentenceEncoder(BACKBONES[request.param]()).eval()
    folder = tmp_path_factory.mktemp(request.param)
    export_fused(model, folder / "fused.onnx", [OUTPUT])
    export_dynamo(model, folder / "dynamo.onnx", [OUTPUT])
    return folder


def _batch() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return pad([rng.integers(5, VOCABULARY, size=size).tolist() for size in (4, 9, 17)], 1)


def _cosine(one: Path, other: Path) -> float:
    """The lowest of a batch's vectors of length 1."""
    first, second = (
        OnnxRuntimeEngine(path, [OUTPUT]).run(*_batch())[OUTPUT] for path in (one, other)
    )
    return float((first * second).sum(axis=1).min())


def test_every_product_of_a_layer_has_its_role(graphs: Path) -> None:
    products = encoder_products(onnx.load(graphs / "dynamo.onnx"))
    assert Counter(product.role for product in products) == {
        "attention in": 3 * LAYERS,
        "attention out": LAYERS,
        "ffn up": LAYERS,
        "ffn down": LAYERS,
    }


@pytest.mark.parametrize("name", ["fused.onnx", "dynamo.onnx"])
def test_ffn_down_is_found_whatever_it_is_called(graphs: Path, name: str) -> None:
    graph = onnx.load(graphs / name).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    down = [node for node in graph.node if node.name in ffn_down_products(graph)]
    assert [shapes[node.input[1]] for node in down] == [(INTERMEDIATE, HIDDEN)] * LAYERS


def test_the_scheme_that_leaves_ffn_down_out_leaves_that_alone_in_float(
    graphs: Path, tmp_path: Path
) -> None:
    scheme = "all products but FFN-down, activations by batch"
    SCHEMES[scheme](graphs / "fused.onnx", tmp_path / "int8.onnx")
    graph = onnx.load(tmp_path / "int8.onnx").graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    kept = [node.input[1] for node in graph.node if node.op_type == "MatMul"]
    kept = [shapes[name] for name in kept if name in shapes]
    assert kept == [(INTERMEDIATE, HIDDEN)] * LAYERS
    assert _cosine(graphs / "fused.onnx", tmp_path / "int8.onnx") > 0.99


def test_smoothing_and_static_scales_take_each_of_them(graphs: Path, tmp_path: Path) -> None:
    report = quantize_qdq(
        graphs / "dynamo.onnx", tmp_path / "qdq.onnx", [_batch()], scheme="smoothquant"
    )
    assert sum(report.products.values()) == 6 * LAYERS
    assert _cosine(graphs / "dynamo.onnx", tmp_path / "qdq.onnx") > 0.99

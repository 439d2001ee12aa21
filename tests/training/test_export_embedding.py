import runpy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from data.errors import ArtifactError, ExportError
from data.manifest import read_manifest, write_manifest
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import load_embedder
from serving.sentence_encoder import OUTPUT, load_sentence_encoder
from training import export_embedding as module
from training.adopt_embedding import adopt_embedding
from training.export import export_dynamo, export_fused, halved
from training.export_embedding import GRAPHS, embedder_of, export_embedding

write_sentence_transformer = runpy.run_path(str(Path(__file__).parents[1] / "sentence_models.py"))[
    "write_sentence_transformer"
]
TEXTS = ["맛있어요", "국물이 정말 맛있어요 대기 별로 w1 w2 w3", "불친절", "w4 w5 w6 w7 w8"]


def test_every_graph_answers_like_its_source(embedding_onnx):
    facts = read_manifest(embedding_onnx, EMBEDDING_KIND).facts
    assert set(facts["formats"]) == set(GRAPHS)
    assert facts["left_out"] == {}
    for name, found in facts["formats"].items():
        assert found["parity"]["cos_min"] > (0.9999 if "fp16" in name else 0.99999)
    assert facts["formats"]["model.onnx"]["precision"]["matrix_products"]["Attention"] == 2
    half = facts["formats"]["graph_fp16.onnx"]["precision"]["weight_elements"]
    assert half["FLOAT16"] > 10 * half["FLOAT"]


def test_the_exported_folder_serves_with_and_without_its_graphs(embedding_onnx):
    served = load_embedder(embedding_onnx)
    assert served.engine.name.startswith("onnxruntime")
    assert served.engine.batch_invariant
    source = load_embedder(embedding_onnx, engine="torch-fp32")
    assert np.abs(served.embed(TEXTS) - source.embed(TEXTS)).max() < 1e-5


@pytest.mark.parametrize("style", ["roberta", "bert"])
def test_other_architectures_and_dense_layers_are_exported(tmp_path, style):
    source = write_sentence_transformer(
        tmp_path / "st", style, dense=style == "bert", pooling="cls" if style == "bert" else "mean"
    )
    folder = tmp_path / "model"
    spec = adopt_embedding(str(source), folder, name="tiny")
    write_manifest(folder, EMBEDDING_KIND, {})
    expected = load_embedder(folder, engine="torch-fp32").embed(TEXTS)

    def model(attention: str):
        return load_sentence_encoder(
            folder / "source", pooling=spec.pooling, normalize=True, attention=attention
        )

    export_fused(model("eager"), folder / "model.onnx", [OUTPUT])
    half = model("sdpa")
    halved(half.backbone)
    export_dynamo(half, folder / "graph_fp16.onnx", [OUTPUT])
    for name, furthest in (("model.onnx", 1e-5), ("graph_fp16.onnx", 5e-3)):
        assert np.abs(embedder_of(folder / name).embed(TEXTS) - expected).max() < furthest


def test_a_layer_norm_does_not_overflow_in_float16():
    norm = torch.nn.LayerNorm(4)
    wrapped = halved(torch.nn.Sequential(norm))
    states = torch.tensor([[6e4, -6e4, 3e4, 1.0]], dtype=torch.float16)
    answer = wrapped(states)
    assert answer.dtype == torch.float16
    expected = torch.nn.functional.layer_norm(states.float(), (4,))
    assert torch.allclose(answer.float(), expected, atol=1e-2)


def test_a_graph_of_another_model_is_refused(tiny_embedding, language_split, tmp_path, monkeypatch):
    def another(model, path, outputs):
        torch.manual_seed(1)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        export_fused(model, path, outputs)

    monkeypatch.setattr(module, "export_fused", another)
    monkeypatch.setattr(module, "export_dynamo", export_fused)
    with pytest.raises(ExportError, match=r"model\.onnx .* cos_min"):
        export_embedding(tiny_embedding, language_split, tmp_path / "out", threads=1)


def test_half_precision_that_loses_too_much_is_left_out_with_its_reason(
    tiny_embedding, language_split, tmp_path, monkeypatch
):
    def rough(model, path, outputs):
        export_fused(model, path, outputs)
        if "fp16" in path.name:
            graph = onnx.load(str(path))
            kind = onnx.TensorProto.FLOAT
            tables = [
                t for t in graph.graph.initializer if len(t.dims) == 2 and t.data_type == kind
            ]
            noise = np.random.default_rng(0)
            for tensor in tables:
                values = onnx.numpy_helper.to_array(tensor)
                noisy = values + noise.normal(scale=values.std() / 3, size=values.shape)
                tensor.CopyFrom(onnx.numpy_helper.from_array(noisy.astype(np.float32), tensor.name))
            onnx.save(graph, str(path))

    monkeypatch.setattr(module, "export_dynamo", rough)
    monkeypatch.setattr(module, "halved", lambda backbone: backbone)
    out = tmp_path / "out"
    facts = export_embedding(tiny_embedding, language_split, out, threads=1).facts
    assert "cos_min" in facts["left_out"]["graph_fp16.onnx"]
    assert not (out / "graph_fp16.onnx").exists()


def test_an_altered_folder_is_refused(tiny_embedding, language_split, tmp_path):
    with pytest.raises(ArtifactError, match="manifest"):
        export_embedding(tmp_path, language_split, tmp_path / "out")

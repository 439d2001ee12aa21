import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from data.errors import ArtifactError, EngineError, ExportError
from data.manifest import MANIFEST_NAME, read_labelled_reviews, read_manifest, write_manifest
from serving.analyzer import load_analyzer
from serving.encoder import MultiTaskElectra, load_encoder, save_encoder
from serving.engines.onnx_runtime import OnnxRuntimeEngine
from serving.logits import LOGITS, Logits
from serving.model_folder import MODEL_KIND, read_spec
from training import export
from training.export import export_fused, export_onnx, precision_in_graph


@pytest.fixture
def texts(toy_split: Path) -> list[str]:
    return [row.review.text for row in read_labelled_reviews(toy_split / "test.jsonl")]


def skip_the_slow_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dynamo exporter takes seconds; where it is not in question, a fused graph does."""
    monkeypatch.setattr(export, "export_dynamo", export_fused)


def test_an_export_is_a_whole_folder_that_names_its_parent(tiny_onnx, tiny_model):
    manifest, parent = read_manifest(tiny_onnx, MODEL_KIND), read_manifest(tiny_model)
    assert set(manifest.files) == {
        "model.onnx",
        "tensorrt.onnx",
        "tokenizer.json",
        "model_spec.json",
    }
    facts = manifest.facts
    assert facts["format"] == "onnx-fp32"
    assert facts["parent_digest"] == parent.digest
    assert facts["recipe_digest"] == parent.facts["recipe_digest"]
    assert facts["bytes"] == (tiny_onnx / "model.onnx").stat().st_size
    assert (tiny_onnx / "tokenizer.json").read_bytes() == (
        tiny_model / "tokenizer.json"
    ).read_bytes()
    assert read_spec(tiny_onnx) == read_spec(tiny_model).model_copy(update={"format": "onnx-fp32"})


@pytest.mark.parametrize("graph", ["parity", "parity_tensorrt_graph"])
def test_both_graphs_were_compared_and_flip_no_label(tiny_onnx, graph):
    parity = read_manifest(tiny_onnx).facts[graph]
    assert parity["label_flips"] == 0
    assert parity["max_abs_diff"] < 1e-4
    assert parity["batch_abs_diff"] < 1e-4
    assert parity["texts"] > 50


@pytest.mark.parametrize("graph", ["model.onnx", "tensorrt.onnx"])
def test_both_graphs_take_any_batch_and_any_length(tiny_onnx, tiny_model, graph):
    engine = OnnxRuntimeEngine(tiny_onnx / graph, LOGITS)
    source = load_analyzer(tiny_model).engine
    for rows, tokens in ((1, 2), (1, 24), (5, 3), (3, 17)):
        ids = np.arange(rows * tokens, dtype=np.int64).reshape(rows, tokens) % 900 + 5
        mask = np.ones_like(ids)
        mask[-1, max(1, tokens // 2) :] = 0
        np.testing.assert_allclose(
            Logits(**engine.run(ids, mask)).flat(),
            Logits(**source.run(ids, mask)).flat(),
            atol=1e-4,
            rtol=0,
        )


def test_the_export_gives_the_labels_that_its_source_gives(tiny_onnx, tiny_model, texts):
    one, other = (load_analyzer(folder).analyze(texts) for folder in (tiny_onnx, tiny_model))
    assert [a.sentiment.label for a in one] == [a.sentiment.label for a in other]
    assert [a.windows for a in one] == [a.windows for a in other]


def test_the_served_graph_has_fused_attention_and_float_weights(tiny_onnx):
    found = precision_in_graph(tiny_onnx / "model.onnx")
    assert found == read_manifest(tiny_onnx).facts["precision"]
    assert found["matrix_products"]["Attention"] == 1
    assert found["integer_products"] == 0
    assert found["weight_elements"]["FLOAT"] > 50_000
    assert not {"INT8", "UINT8"} & set(found["weight_elements"])


def test_a_graph_of_other_weights_is_refused(
    tiny_model, tiny_onnx, toy_split, tmp_path, monkeypatch
):
    def another_model(model: MultiTaskElectra, path: Path) -> None:
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
        export_fused(model, path)

    monkeypatch.setattr(export, "export_fused", another_model)
    monkeypatch.setattr(
        export, "export_dynamo", lambda _, path: shutil.copy(tiny_onnx / "tensorrt.onnx", path)
    )
    with pytest.raises(ExportError, match=r"^model\.onnx of .*max_abs_diff=\S+ > 0\.001"):
        export_onnx(tiny_model, toy_split, tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_the_second_graph_is_checked_too(tiny_model, tiny_onnx, toy_split, tmp_path, monkeypatch):
    def tampered(_: MultiTaskElectra, path: Path) -> None:
        graph = onnx.load(tiny_onnx / "model.onnx")
        (bias,) = (t for t in graph.graph.initializer if t.name == "sentiment_head.bias")
        values = onnx.numpy_helper.to_array(bias) + np.asarray([9.0, 0.0, 0.0], np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(graph, path)

    monkeypatch.setattr(export, "export_dynamo", tampered)
    with pytest.raises(ExportError, match=r"^tensorrt\.onnx of .*label flips") as refused:
        export_onnx(tiny_model, toy_split, tmp_path / "out", threads=1)
    assert "max_abs_diff=9" in str(refused.value)


def test_altered_weights_are_refused_before_anything_is_written(tiny_model, toy_split, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x00\x00\x80\x3f")
    with pytest.raises(ArtifactError, match=r"model\.safetensors.*altered"):
        export_onnx(folder, toy_split, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_split_is_refused(tiny_model, tmp_path):
    with pytest.raises(ArtifactError, match="expected 'split'"):
        export_onnx(tiny_model, tiny_model, tmp_path / "out", threads=1)


def test_weights_that_overflow_are_refused(tiny_model, toy_split, tmp_path, monkeypatch):
    skip_the_slow_graph(monkeypatch)
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    model = load_encoder(folder)
    model.sentiment_head.weight.data.fill_(float("nan"))
    save_encoder(model, folder)
    write_manifest(folder, MODEL_KIND, read_manifest(tiny_model).facts)
    with pytest.raises((ExportError, EngineError)):
        export_onnx(folder, toy_split, tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()

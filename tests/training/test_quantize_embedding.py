import numpy as np
import onnx
import pytest

from data.errors import ArtifactError, ExportError
from data.manifest import read_manifest
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import load_embedder
from training import quantize_embedding as module
from training.export_embedding import embedder_of
from training.quantize_embedding import SCHEMES, quantize_embedding
from training.retrieval_parity import LIMITS, RetrievalLimits

TEXTS = ["국물이 정말 맛있어요", "직원이 불친절했어요", "주차장이 넓어요", "가격이 비싸요"]


def test_both_formats_are_in_int8_and_within_their_limits(embedding_int8, embedding_onnx):
    manifest = read_manifest(embedding_int8, EMBEDDING_KIND)
    assert manifest.facts["format"] == "onnx-int8"
    assert manifest.facts["parent_digest"] == read_manifest(embedding_onnx).digest
    formats = manifest.facts["formats"]
    assert set(formats) == {
        *read_manifest(embedding_onnx).facts["formats"],
        "int8.onnx",
        "qdq.onnx",
    }
    for name in ("int8.onnx", "qdq.onnx"):
        assert formats[name]["parity"]["top10_overlap"] >= LIMITS["int8"].top10_overlap
    assert formats["int8.onnx"]["precision"]["integer_products"] > 4
    assert formats["qdq.onnx"]["quantised"]["int8_share"] > 0.3


def test_it_serves_in_int8_nearly_the_same_vectors(embedding_int8):
    quantised = load_embedder(embedding_int8, engine="onnxruntime-int8")
    assert quantised.engine.name.endswith("-int8")
    served = quantised.embed(TEXTS)
    source = load_embedder(embedding_int8, engine="torch-fp32").embed(TEXTS)
    assert ((served * source).sum(axis=1) > 0.99).all()
    assert np.abs(served - source).max() > 1e-6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_makes_a_graph_in_int8(embedding_onnx, tmp_path, scheme):
    for name in ("tokenizer.json", "embedding_spec.json"):
        (tmp_path / name).write_bytes((embedding_onnx / name).read_bytes())
    SCHEMES[scheme](embedding_onnx / "model.onnx", tmp_path / "int8.onnx")
    operators = [node.op_type for node in onnx.load(str(tmp_path / "int8.onnx")).graph.node]
    assert {"DynamicQuantizeMatMul", "MatMulInteger", "MatMulNBits", "QAttention"} & set(operators)
    found = embedder_of(tmp_path / "int8.onnx")
    assert found.engine.batch_invariant == ("by block" in scheme)
    expected = load_embedder(embedding_onnx).embed(TEXTS)
    assert ((found.embed(TEXTS) * expected).sum(axis=1) > 0.98).all()


def test_the_next_scheme_is_tried_and_a_format_that_none_holds_is_left_out(
    embedding_onnx, language_split, tmp_path, monkeypatch
):
    asked: list[str] = []
    by_block = list(SCHEMES)[-1]

    def recorded(scheme: str):
        def quantise(source, target):
            asked.append(scheme)
            return SCHEMES[scheme](source, target)

        return quantise

    monkeypatch.setattr(module, "SCHEMES", {scheme: recorded(scheme) for scheme in SCHEMES})
    monkeypatch.setattr(module, "_static_schemes", lambda _batches, _threads: {})
    monkeypatch.setattr(module, "LIMITS", {"int8": RetrievalLimits(cos_mean=1.1)})
    out = tmp_path / "out"
    facts = quantize_embedding(embedding_onnx, language_split, out, threads=1).facts
    assert asked == list(SCHEMES)
    assert set(facts["left_out"]["int8.onnx"]) == set(SCHEMES)
    assert "cos_mean" in facts["left_out"]["int8.onnx"][by_block][0]
    assert facts["format"] == "onnx-fp32"
    assert not (out / "int8.onnx").exists()
    with pytest.raises(ExportError, match=r"demands \['int8'\]"):
        quantize_embedding(
            embedding_onnx, language_split, tmp_path / "two", demanded=("int8",), threads=1
        )


def test_scales_are_taken_from_the_training_part(
    embedding_onnx, language_split, tmp_path, monkeypatch
):
    seen: list[str] = []
    calibrated = module._calibration

    def noted(model, part):
        seen.append(part.name)
        return calibrated(model, part)

    monkeypatch.setattr(module, "_calibration", noted)
    monkeypatch.setattr(module, "QDQ_SCHEMES", {})
    quantize_embedding(embedding_onnx, language_split, tmp_path / "out", threads=1)
    assert seen == ["train.jsonl"]


def test_a_folder_that_was_not_exported_is_refused(tiny_embedding, language_split, tmp_path):
    with pytest.raises(ArtifactError, match=r"no model\.onnx"):
        quantize_embedding(tiny_embedding, language_split, tmp_path / "out")

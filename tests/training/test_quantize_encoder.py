import shutil
from pathlib import Path

import onnx
import pytest

from data.errors import ArtifactError, ExportError
from data.manifest import MANIFEST_NAME, read_labelled_reviews, read_manifest
from serving.analyzer import load_analyzer
from serving.model_folder import MODEL_KIND, read_spec
from training import quantize_encoder as module
from training.export import precision_in_graph
from training.parity import INT8_LIMITS, Parity, ParityLimits, broken_limits
from training.quantize_encoder import SCHEMES, quantize_encoder, quantize_graph

IMPOSSIBLE = ParityLimits(max_abs_diff=-1.0, label_flip_share=-1.0, cos_mean=2.0, cos_p1=2.0)


def test_int8_is_really_in_the_graph(tiny_int8, tiny_onnx):
    found = precision_in_graph(tiny_int8 / "model.onnx")
    facts = read_manifest(tiny_int8, MODEL_KIND).facts
    assert found == facts["precision"]
    assert found["integer_products"] > 0
    integers = sum(found["weight_elements"].get(kind, 0) for kind in ("INT8", "UINT8"))
    before = precision_in_graph(tiny_onnx / "model.onnx")["weight_elements"]["FLOAT"]
    gone = before - found["weight_elements"]["FLOAT"]
    assert 0.9 * integers < gone <= integers  # a scale a channel is the rest
    assert facts["format"] == read_spec(tiny_int8).format == "onnx-int8"
    assert facts["scheme"] in SCHEMES


def test_it_is_smaller_and_names_its_parent(tiny_int8, tiny_onnx):
    facts, parent = read_manifest(tiny_int8).facts, read_manifest(tiny_onnx)
    assert facts["bytes"] == (tiny_int8 / "model.onnx").stat().st_size
    elements = facts["precision"]["weight_elements"]["INT8"]
    assert facts["bytes"] < parent.facts["bytes"] - 1.5 * elements  # three bytes each, less scales
    assert facts["parent_digest"] == parent.digest
    assert facts["snapshot_id"] == "toy"
    assert "parity_tensorrt_graph" not in facts
    assert read_spec(tiny_int8) == read_spec(tiny_onnx).model_copy(update={"format": "onnx-int8"})


def test_what_it_cost_is_recorded_and_within_limits(tiny_int8):
    facts = read_manifest(tiny_int8).facts
    parity = Parity.model_validate(facts["parity"])
    assert broken_limits(parity, INT8_LIMITS) == []
    assert parity.max_abs_diff > 0.0  # INT8 is never the same
    assert parity.texts > 50


def test_it_answers_nearly_as_its_parent(tiny_int8, tiny_onnx, toy_split):
    texts = [row.review.text for row in read_labelled_reviews(toy_split / "test.jsonl")]
    one, other = (
        load_analyzer(folder).probabilities(texts).sentiment for folder in (tiny_int8, tiny_onnx)
    )
    assert (one.argmax(1) == other.argmax(1)).mean() > 0.9


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_keeps_the_heads_in_float(tiny_onnx, tmp_path, scheme):
    quantize_graph(tiny_onnx / "model.onnx", tmp_path / "model.onnx", scheme)
    assert precision_in_graph(tmp_path / "model.onnx")["integer_products"] > 0
    graph = onnx.load(tmp_path / "model.onnx").graph
    types = {t.name: onnx.TensorProto.DataType.Name(t.data_type) for t in graph.initializer}
    heads = {name: kind for name, kind in types.items() if "_head" in name}
    assert set(heads.values()) == {"FLOAT"}


def test_schemes_leave_more_and_more_in_float(tiny_onnx, tmp_path):
    floats = []
    for scheme in SCHEMES:
        quantize_graph(tiny_onnx / "model.onnx", tmp_path / "model.onnx", scheme)
        floats.append(precision_in_graph(tmp_path / "model.onnx")["weight_elements"]["FLOAT"])
    assert floats == sorted(set(floats))


def test_what_stays_in_float_is_found_whatever_nodes_are_called(tiny_onnx, tmp_path):
    model = onnx.load(tiny_onnx / "model.onnx")
    for number, node in enumerate(model.graph.node):
        if "_head" not in node.name:
            node.name = f"node_{number}"
    onnx.save(model, tmp_path / "renamed.onnx")
    floats = []
    for source in (tiny_onnx / "model.onnx", tmp_path / "renamed.onnx"):
        quantize_graph(source, tmp_path / "int8.onnx", "all products but FFN-down")
        floats.append(precision_in_graph(tmp_path / "int8.onnx")["weight_elements"]["FLOAT"])
    assert floats[0] == floats[1]


def test_when_no_scheme_is_good_enough_all_are_named(tiny_onnx, toy_split, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "INT8_LIMITS", IMPOSSIBLE)
    with pytest.raises(ExportError, match="serve onnx-fp32") as refused:
        quantize_encoder(tiny_onnx, toy_split, tmp_path / "out", threads=1)
    assert all(repr(scheme) in str(refused.value) for scheme in SCHEMES)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_refused_scheme_gives_way_to_the_next(tiny_onnx, toy_split, tmp_path, monkeypatch):
    first, second, *_ = SCHEMES
    real = module.measure_parity
    measured: list[Parity] = []

    def spoiled_once(*args: object) -> Parity:
        parity = real(*args)  # type: ignore[arg-type]
        measured.append(parity)
        return parity.model_copy(update={"label_flips": 60}) if len(measured) == 1 else parity

    monkeypatch.setattr(module, "measure_parity", spoiled_once)
    facts = quantize_encoder(tiny_onnx, toy_split, tmp_path / "out", threads=1).facts
    assert facts["scheme"] == second
    assert list(facts["refused_schemes"]) == [first]
    assert "label flips 60" in facts["refused_schemes"][first][0]
    assert facts["parity"] == measured[1].model_dump()


def test_a_float_graph_is_never_called_int8(tiny_onnx, toy_split, tmp_path, monkeypatch):
    monkeypatch.setattr(
        module, "quantize_graph", lambda source, target, scheme: shutil.copy(source, target)
    )
    with pytest.raises(ExportError, match="not called INT8"):
        quantize_encoder(tiny_onnx, toy_split, tmp_path / "out", threads=1)
    assert not (tmp_path / "out" / MANIFEST_NAME).exists()


def test_a_torch_folder_has_no_graph_to_quantise(tiny_model, toy_split, tmp_path):
    with pytest.raises(ArtifactError, match="'torch-fp32', expected 'onnx-fp32'"):
        quantize_encoder(tiny_model, toy_split, tmp_path / "out", threads=1)


def test_int8_is_not_quantised_again(tiny_int8, toy_split, tmp_path):
    with pytest.raises(ArtifactError, match="'onnx-int8', expected 'onnx-fp32'"):
        quantize_encoder(tiny_int8, toy_split, tmp_path / "out", threads=1)


def test_an_altered_parent_is_refused(tiny_onnx, toy_split, tmp_path):
    folder = Path(shutil.copytree(tiny_onnx, tmp_path / "model"))
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\x00")
    with pytest.raises(ArtifactError, match=r"model\.onnx.*altered"):
        quantize_encoder(folder, toy_split, tmp_path / "out", threads=1)


def test_a_graph_with_qdq_lies_beside_it_or_the_reason_why_not(tiny_int8):
    manifest = read_manifest(tiny_int8)
    qdq = manifest.facts["qdq"]
    assert (qdq["scheme"] is not None) == ("qdq.onnx" in manifest.files)
    if qdq["scheme"] is None:
        assert list(qdq["refused_schemes"]) == list(module.QDQ_SCHEMES)
    else:
        assert broken_limits(Parity.model_validate(qdq["parity"]), INT8_LIMITS) == []
        assert qdq["sha256"] == manifest.files["qdq.onnx"].sha256

import json
import shutil
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pytest

from data.errors import MetricError, SettingsError
from data.manifest import read_manifest, write_manifest
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import plain_engine
from training.evaluation import retrieval
from training.evaluation.retrieval import evaluate_embedding
from training.evaluation.retrieval_report import MADE_AS_TRAINED
from training.evaluation.retrieval_settings import RetrievalSettings

SETTINGS = RetrievalSettings(resamples=100, margin=0.1)


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    rows = ["score\tsentence1\tsentence2"]
    rows += [f"5.0\t국물이 맛있어요 {n}\t국물이 맛있네요 {n}" for n in range(10)]
    rows += [f"0.0\t직원이 친절해요 {n}\t주차장이 좁다 {n + 40}" for n in range(10)]
    path = tmp_path / "pairs.tsv"
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_int8_its_parent_the_other_engines_and_tfidf_stand_side_by_side(
    embedding_int8, language_split, tmp_path, scored
):
    settings = SETTINGS.model_copy(update={"korsts": str(scored)})
    facts = evaluate_embedding(
        language_split, embedding_int8, tmp_path / "out", settings=settings
    ).facts
    said = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert said["engines"] == {
        "candidate": "onnxruntime-int8",
        "parent": "onnxruntime-fp32",
        "torch-int8": "torch-int8",
    }
    # Groups of 128 do not fit a model of 32 channels.
    assert "group_size=128" in said["not_measured"]["openvino-int8"]
    assert said["judged"] == "onnxruntime-int8"
    assert said["served_untuned"] == plain_engine(embedding_int8) == "onnxruntime-fp32"
    names = {f"{kind}_{what}" for kind in ("retyped", "clause") for what in ("recall_1", "mrr")}
    for figures in said["metrics"].values():
        assert set(figures) == {*names, "korsts_spearman"}
        for figure in figures.values():
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert said["metrics"]["tfidf"]["korsts_spearman"]["value"] > 0.5
    assert said["metrics"]["candidate"]["retyped_mrr"]["value"] > 0.5
    assert facts["verdict"] == "pass"
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "KorSTS" in page
    assert "qdq.onnx" in page
    assert "onnxruntime-fp32 serves until" in page
    assert "torch-int8" in page
    assert "openvino-int8 was not measured" in page
    shown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "KorSTS" in shown
    # This model was trained on the noise that the queries are made of.
    assert said["queries"] == MADE_AS_TRAINED
    assert shown.endswith(f"{MADE_AS_TRAINED}\n")
    assert MADE_AS_TRAINED in page


def test_a_published_model_is_not_said_to_know_the_noise(
    embedding_onnx, language_split, tmp_path, monkeypatch
):
    figure = {"retyped_mrr": {"value": 0.9, "low": 0, "high": 1, "n": 3}}
    monkeypatch.setattr(retrieval, "_figures", lambda how, reviews, settings: figure)
    model = tmp_path / "model"
    shutil.copytree(embedding_onnx, model)
    facts = read_manifest(model, EMBEDDING_KIND).facts | {"pretrained": "someone/published"}
    write_manifest(model, EMBEDDING_KIND, facts)
    evaluate_embedding(language_split, model, tmp_path / "out", settings=SETTINGS)
    shown = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert shown.endswith("not trained on; people may err otherwise.\n")


def test_a_format_that_finds_less_than_fp32_does_not_pass(
    embedding_int8, language_split, tmp_path, monkeypatch
):
    worse = chain([False], repeat(True))  # INT8 comes first

    def figures(how, reviews, settings):
        return {"retyped_mrr": {"value": 0.9 if next(worse) else 0.7, "low": 0, "high": 1, "n": 3}}

    monkeypatch.setattr(retrieval, "_figures", figures)
    facts = evaluate_embedding(
        language_split, embedding_int8, tmp_path / "out", settings=SETTINGS
    ).facts
    assert facts["verdict"] == "fail"
    assert "retyped_mrr of onnxruntime-int8 is 0.7000" in facts["reason"]


def test_without_int8_the_plain_engine_is_judged(
    embedding_onnx, language_split, tmp_path, monkeypatch
):
    figure = {"retyped_mrr": {"value": 0.9, "low": 0, "high": 1, "n": 3}}
    monkeypatch.setattr(retrieval, "_figures", lambda how, reviews, settings: figure)
    evaluate_embedding(language_split, embedding_onnx, tmp_path / "out", settings=SETTINGS)
    said = json.loads((tmp_path / "out" / "metrics.json").read_bytes())
    assert said["judged"] == said["engines"]["candidate"] == "onnxruntime-fp32"


def test_a_tie_counts_against_the_wanted_review():
    def alike(first, second):
        return np.ones((len(first), 2)), np.ones((len(second), 2))

    ranks = retrieval._ranks(alike, ["a", "b"], ["a", "b", "c"], np.arange(2))
    assert ranks.tolist() == [3, 3]


def test_too_few_reviews_and_a_wrong_file_are_refused(
    embedding_onnx, language_split, tmp_path, scored
):
    few = tmp_path / "split"
    shutil.copytree(language_split, few)
    lines = (few / "test.jsonl").read_text(encoding="utf-8").splitlines()[:9]
    (few / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_manifest(few, "split", {})
    with pytest.raises(MetricError, match="9 reviews"):
        evaluate_embedding(few, embedding_onnx, tmp_path / "out", settings=SETTINGS)
    scored.write_text("a\tb\n1\t2\n", encoding="utf-8")
    wrong = SETTINGS.model_copy(update={"korsts": str(scored)})
    with pytest.raises(SettingsError, match=r"pairs\.tsv"):
        evaluate_embedding(language_split, embedding_onnx, tmp_path / "out", settings=wrong)

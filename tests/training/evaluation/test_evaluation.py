import json
from pathlib import Path

import numpy as np
import pytest

from data.contract import Label, LabelledReview, Review
from data.errors import ArtifactError, DataUnfitError, SettingsError
from data.manifest import (
    read_labelled_reviews,
    read_manifest,
    write_labelled_reviews,
    write_manifest,
)
from serving.analyzer import load_analyzer
from serving.predictions import ProbabilityArrays
from training.evaluation.evaluation import (
    Contestant,
    evaluate_contestants,
    evaluate_models,
    model_contestant,
)
from training.evaluation.figures import all_figures
from training.evaluation.measuring import values_of
from training.evaluation.predictions import read_predictions
from training.evaluation.slices import SLICE_NAMES


@pytest.fixture(scope="module")
def evaluated(split: Path, export_tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluation") / "out"
    models = {"candidate": export_tiny(seed=1), "parent": export_tiny(seed=2)}
    evaluate_models(split, models, out, resamples=200)
    return out


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def fixed(sentiment: list[list[float]]) -> Contestant:
    count = len(sentiment)
    arrays = ProbabilityArrays(
        sentiment=np.asarray(sentiment),
        intensity=np.full((count, 5), 0.2),
        emotions=np.full((count, 8), 0.1),
        aspects=np.tile([0.6, 0.1, 0.1, 0.1, 0.1], (count, 6, 1)),
    )
    return Contestant(predict=lambda _: arrays)


def test_the_folder_is_sealed_and_complete(evaluated: Path) -> None:
    manifest = read_manifest(evaluated, "evaluation")
    assert set(manifest.files) == {"predictions.jsonl", "metrics.json", "report.html", "report.md"}
    assert manifest.facts["models"] == ["candidate", "parent", "majority", "lexicon", "tfidf"]
    assert manifest.facts["n"] == 45


def test_every_model_has_every_figure_and_slice(evaluated: Path) -> None:
    result = metrics_of(evaluated)
    for model in ("candidate", "parent", "majority", "lexicon", "tfidf"):
        assert set(result["metrics"][model]) == set(all_figures())
        for cell in result["metrics"][model].values():
            assert (cell["value"] is None) <= bool(cell.get("reason"))
            if cell["low"] is not None:
                assert cell["low"] <= cell["high"]
    assert set(result["slices"]) == set(SLICE_NAMES)
    assert result["bootstrap"]["unit"] == "restaurant"
    assert result["bootstrap"]["units"] == 8
    assert result["metrics"]["tfidf"]["three_class_macro_f1"]["value"] > 0.9


def test_predictions_are_what_the_figures_were_computed_from(evaluated: Path) -> None:
    result = metrics_of(evaluated)
    gold, answers = read_predictions(evaluated / "predictions.jsonl", result["models"])
    again = values_of(all_figures(), gold, answers["candidate"])
    for name, cell in result["metrics"]["candidate"].items():
        assert again[name] == (cell["reason"] if cell["value"] is None else cell["value"]), name


def test_the_serving_engine_answered(evaluated: Path, split: Path, export_tiny) -> None:
    texts = [row.review.text for row in read_labelled_reviews(split / "test.jsonl")]
    expected = load_analyzer(export_tiny(seed=1)).analyze(texts)
    lines = (evaluated / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    mine = [row for row in rows if row["model"] == "candidate"]
    assert [row["predicted"]["sentiment"] for row in mine] == [p.sentiment.label for p in expected]
    assert [tuple(row["predicted"]["emotions"]) for row in mine] == [
        p.emotions.labels for p in expected
    ]
    assert any(p.windows > 1 for p in expected)


def test_speed_is_a_ratio_to_the_parent_with_its_conditions(evaluated: Path) -> None:
    speed = metrics_of(evaluated)["speed"]
    assert speed["models"][speed["reference"]]["ratio"] == 1.0
    assert speed["conditions"]["clock"] == "process CPU time"
    assert speed["models"]["parent"]["ratio"] > 0


def test_swapped_id2label_is_read_not_assumed(split: Path, export_tiny) -> None:
    texts = [row.review.text for row in read_labelled_reviews(split / "test.jsonl")]
    plain = load_analyzer(export_tiny(seed=3))
    swapped = load_analyzer(export_tiny(seed=3, id2sentiment=["positive", "neutral", "negative"]))
    first = model_contestant(plain).predict(texts).sentiment
    second = model_contestant(swapped).predict(texts).sentiment
    np.testing.assert_allclose(second, first[:, ::-1], atol=1e-12)
    labels = ["negative", "neutral", "positive"]
    assert [labels[i] for i in second.argmax(axis=1)] == [
        p.sentiment.label for p in swapped.analyze(texts)
    ]


def test_swapped_labels_show_in_the_figures(tmp_path: Path, split: Path) -> None:
    reviews = list(read_labelled_reviews(split / "test.jsonl"))
    right = [
        [float(row.label.sentiment == name) for name in ("negative", "neutral", "positive")]
        for row in reviews
    ]
    contestants = {"right": fixed(right), "swapped": fixed([row[::-1] for row in right])}
    evaluate_contestants(reviews, contestants, tmp_path / "out", facts={}, resamples=100)
    result = metrics_of(tmp_path / "out")["metrics"]
    assert result["right"]["two_class_accuracy"]["value"] == 1.0
    assert result["swapped"]["two_class_accuracy"]["value"] == 0.0


def test_unlabelled_tasks_are_null_with_a_reason_never_zero(tmp_path: Path) -> None:
    reviews = [
        LabelledReview(
            review=Review(review_id=f"r{i}", text="영화"),
            label=Label(sentiment=("negative", "positive")[i % 2]),
        )
        for i in range(30)
    ]
    evaluate_contestants(
        reviews, {"m": fixed([[0.2, 0.3, 0.5]] * 30)}, tmp_path, facts={}, resamples=100
    )
    result = metrics_of(tmp_path)
    cells = result["metrics"]["m"]
    assert cells["two_class_accuracy"]["value"] == 0.5
    for name in ("emotions_auroc", "aspect_macro_f1", "intensity_mae"):
        assert cells[name]["value"] is None
        assert "no labelled rows" in cells[name]["reason"]
    assert cells["sentiment_f1_neutral"]["value"] is None
    assert result["bootstrap"]["unit"] == "review"


def test_one_class_only_has_no_macro_f1(tmp_path: Path) -> None:
    reviews = [
        LabelledReview(
            review=Review(review_id=f"r{i}", text="좋다"), label=Label(sentiment="positive")
        )
        for i in range(20)
    ]
    evaluate_contestants(
        reviews, {"m": fixed([[0.1, 0.1, 0.8]] * 20)}, tmp_path, facts={}, resamples=100
    )
    cell = metrics_of(tmp_path)["metrics"]["m"]["three_class_macro_f1"]
    assert cell["value"] is None
    assert "at least two gold classes" in cell["reason"]


def test_the_report_escapes_what_diners_type(tmp_path: Path) -> None:
    attack = "<script>alert('맛')</script> & <b>굵게</b>"
    reviews = [
        LabelledReview(
            review=Review(review_id=f"r{i}", text=attack),
            label=Label(sentiment=("negative", "positive")[i % 2]),
        )
        for i in range(6)
    ]
    evaluate_contestants(
        reviews, {"<i>m</i>": fixed([[0.1, 0.1, 0.8]] * 6)}, tmp_path, facts={}, resamples=100
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<i>m</i>" not in page
    assert "&lt;script&gt;alert" in page
    assert page.count("<svg") >= 2
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "<i>" not in markdown


def test_bad_requests_are_refused(tmp_path: Path, split: Path, export_tiny) -> None:
    model = export_tiny(seed=1)
    with pytest.raises(SettingsError, match="at least one"):
        evaluate_models(split, {}, tmp_path / "out")
    with pytest.raises(SettingsError, match="tfidf"):
        evaluate_models(split, {"tfidf": model}, tmp_path / "out")
    with pytest.raises(SettingsError, match="reference"):
        evaluate_models(split, {"m": model}, tmp_path / "out", reference="parent")
    with pytest.raises(ArtifactError):
        evaluate_models(model, {"m": model}, tmp_path / "out")
    with pytest.raises(DataUnfitError, match="no reviews"):
        evaluate_contestants([], {"m": fixed([])}, tmp_path / "out", facts={})
    empty = tmp_path / "split"
    empty.mkdir()
    for part in ("train", "validation", "test"):
        write_labelled_reviews(empty / f"{part}.jsonl", [])
    write_manifest(empty, "split", {})
    with pytest.raises(DataUnfitError, match="is empty"):
        evaluate_models(empty, {"m": model}, tmp_path / "out")

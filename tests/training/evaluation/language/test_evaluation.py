"""Language models are evaluated beside null baselines, and the gate reads what was found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import ArtifactError, DataUnfitError, SettingsError
from data.manifest import read_manifest, write_labelled_reviews, write_manifest
from data.targets import build_targets
from serving.engines.chat import ChatRequest
from training.evaluation.language.baselines import NULLS
from training.evaluation.language.evaluation import evaluate_language_models
from training.evaluation.language.figures import all_figures
from training.evaluation.language.judge_endpoint import JudgeEndpoint
from training.language_gate import LanguageGatePolicy, language_gate

Town = tuple[Path, Path]
Say = Callable[[ChatRequest], str]
MetricsOf = Callable[[Path], Any]


def test_the_folder_is_sealed_and_complete(evaluated: Path, metrics_of: MetricsOf) -> None:
    manifest = read_manifest(evaluated, "language_evaluation")
    assert set(manifest.files) == {"predictions.jsonl", "metrics.json", "report.html", "report.md"}
    assert manifest.facts["models"] == ["gold", "garbage", "skeleton"]
    result = metrics_of(evaluated)
    assert set(result["metrics"]) == {"gold", "garbage", "skeleton", *NULLS}
    assert (result["bootstrap"]["unit"], result["bootstrap"]["units"]) == ("restaurant", 6)
    for cells in result["metrics"].values():
        assert set(cells) == set(all_figures())
        for cell in cells.values():
            assert (cell["value"] is None) <= bool(cell.get("reason"))
            assert cell["low"] is None or cell["low"] <= cell["high"]


def test_whoever_says_gold_is_best_in_everything(evaluated: Path, metrics_of: MetricsOf) -> None:
    cells = metrics_of(evaluated)["metrics"]["gold"]
    figures = all_figures()
    examples = {"examples", "free", "labels", "aspect", "overall", "strengths", "routing"}
    for name, cell in cells.items():
        if figures[name].needs in examples and cell["value"] is not None and name != "latin":
            assert cell["value"] == pytest.approx(float(figures[name].better == "higher")), name
    assert cells["summary_evidence_verbatim"]["value"] == 1.0
    assert cells["summary_aspect_f1"]["value"] == 1.0


def test_garbage_says_nothing_and_drifts(evaluated: Path, metrics_of: MetricsOf) -> None:
    cells = metrics_of(evaluated)["metrics"]["garbage"]
    for name in ("task_score", "parsed", "obeyed", "saved", "raw_parsed", "repaired_score"):
        assert cells[name]["value"] == 0.0, name
    assert cells["drift"]["value"] == 1.0
    assert cells["summary_answered"]["value"] == cells["summary_category_macro_f1"]["value"] == 0.0


def test_the_skeleton_obeys_where_the_schema_lets_it_and_scores_as_its_baseline(
    evaluated: Path, metrics_of: MetricsOf
) -> None:
    metrics = metrics_of(evaluated)["metrics"]
    assert metrics["skeleton"]["raw_parsed"]["value"] == 1.0
    for name in ("task_score", "category_macro_f1", "sentence_chrf", "obeyed"):
        assert metrics["skeleton"][name]["value"] == metrics["empty"][name]["value"]


def test_models_are_paired_with_the_best_null(evaluated: Path, metrics_of: MetricsOf) -> None:
    result = metrics_of(evaluated)
    lead = result["over_nulls"]["gold"]["category_macro_f1"]
    nulls = {name: result["metrics"][name]["category_macro_f1"]["value"] for name in NULLS}
    best = max(value for value in nulls.values() if value is not None)
    assert nulls[lead["null"]] == best
    assert lead["difference"] == pytest.approx(1.0 - best)
    assert 0 < lead["low"] <= lead["difference"] <= lead["high"]
    assert result["over_nulls"]["garbage"]["category_macro_f1"]["high"] < 0
    assert set(result["over_nulls"]) == {"gold", "garbage", "skeleton"}


def test_what_was_not_asked_says_so_and_is_not_zero(evaluated: Path, metrics_of: MetricsOf) -> None:
    result = metrics_of(evaluated)
    assert result["judge"] == {"asked": False, "reason": "not asked: no judge was given"}
    for name in ("judged", "perplexity"):
        cell = result["metrics"]["gold"][name]
        assert cell["value"] is None
        assert "not asked" in cell["reason"]
    assert "Judge: not asked" in (evaluated / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"engines": {}}, SettingsError, "at least one engine"),
        ({"engines": {"other": None}}, SettingsError, "none of them"),
        ({"folders": {"b": Path("b")}}, SettingsError, r"without an engine \['b'\]"),
        ({"repeats": 0}, SettingsError, "at least once"),
        ({"folders": {"a": Path("nowhere")}}, ArtifactError, "nowhere"),
        ({"judge": JudgeEndpoint("http://j/v1", "j"), "restaurants": False}, SettingsError, "'j'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_asked(
    change: dict[str, Any],
    error: type[Exception],
    match: str,
    town: Town,
    engine: Any,
    says_gold: Say,
    tmp_path: Path,
) -> None:
    split, targets = town
    quiet = engine("a", says_gold)
    options: dict[str, Any] = {"engines": {"a": quiet}, "split": split} | change
    engines = options.pop("engines")
    with pytest.raises(error, match=match):
        evaluate_language_models(targets, engines, tmp_path / "out", **options)
    assert quiet.asked == []
    assert not (tmp_path / "out").exists()


def test_targets_of_another_split_are_refused(
    town: Town, engine: Any, says_gold: Say, tmp_path: Path
) -> None:
    _, targets = town
    other = tmp_path / "split"
    other.mkdir()
    for part in ("train", "validation", "test"):
        write_labelled_reviews(other / f"{part}.jsonl", [])
    write_manifest(other, "split", {"seed": 1, "snapshot_id": "other"})
    engines = {"e": engine("e", says_gold)}
    with pytest.raises(ArtifactError, match="built from split"):
        evaluate_language_models(targets, engines, tmp_path / "out", split=other)
    build_targets(other, None, tmp_path / "targets")
    with pytest.raises(DataUnfitError, match="no example"):
        evaluate_language_models(tmp_path / "targets", engines, tmp_path / "out", split=other)


def test_the_gate_reads_what_the_evaluation_wrote(
    evaluated: Path, tmp_path: Path, metrics_of: MetricsOf
) -> None:
    policy = LanguageGatePolicy(resamples=200, parent_margin=0.1, least_items=20)
    language_gate(evaluated, tmp_path / "g", policy=policy, candidate="skeleton", parent="gold")
    result = json.loads((tmp_path / "g" / "gate.json").read_text(encoding="utf-8"))
    cells = metrics_of(evaluated)["metrics"]
    lost = cells["skeleton"]["task_score"]["value"] - cells["gold"]["task_score"]["value"]
    assert result["checks"][0]["difference"] == lost
    assert result["recovery"]["value"] == cells["skeleton"]["task_score"]["value"]
    assert result["verdict"] == "fail"
    language_gate(evaluated, tmp_path / "h", policy=policy, candidate="gold")
    result = json.loads((tmp_path / "h" / "gate.json").read_text(encoding="utf-8"))
    assert result["verdict"] == "pass"
    assert result["recovery"] is None

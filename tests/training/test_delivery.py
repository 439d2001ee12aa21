from pathlib import Path

import pytest

from data.errors import ArtifactError, GateError, RegistryError
from data.manifest import read_manifest, write_manifest
from training.delivery import (
    EvaluationSettings,
    deploy_candidate,
    evaluate_candidate,
    gate_candidate,
)
from training.evaluation.evaluation import EVALUATION_KIND
from training.gate import GatePolicy
from training.recipe import Recipe

NOBODY = "http://127.0.0.1:9"


def test_a_registry_that_is_not_there_is_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9"):
        deploy_candidate(
            NOBODY, "sentiment", challenger_share=0.5, models=tmp_path, out=tmp_path / "out"
        )
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9"):
        evaluate_candidate(
            tmp_path,
            exported=tmp_path,
            quantized=tmp_path,
            tracking_uri=NOBODY,
            model_name="sentiment",
            settings=EvaluationSettings(),
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_without_a_champion_nothing_is_deployed_and_it_says_so(
    tmp_path: Path, migrated_database: Path
) -> None:
    manifest = deploy_candidate(
        f"sqlite:///{migrated_database}",
        "sentiment",
        challenger_share=0.5,
        models=tmp_path,
        out=tmp_path / "out",
    )
    assert manifest.facts["status"] == "skipped"
    assert "no model has passed its gate" in manifest.facts["reason"]
    assert read_manifest(tmp_path / "out") == manifest


def test_a_gate_without_evidence_is_not_a_pass(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        gate_candidate(tmp_path, tmp_path / "gate", policy=GatePolicy(), recipe=Recipe(name="x"))
    (tmp_path / "metrics.json").write_text('{"models": {}, "slices": {}}', encoding="utf-8")
    (tmp_path / "predictions.jsonl").write_text("", encoding="utf-8")
    write_manifest(tmp_path, EVALUATION_KIND, {"models": []})
    with pytest.raises((GateError, ArtifactError)):
        gate_candidate(tmp_path, tmp_path / "gate", policy=GatePolicy(), recipe=Recipe(name="x"))
    assert not (tmp_path / "gate" / "gate.json").exists()

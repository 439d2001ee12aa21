"""What two runs made, as one JSON for machines: summary.json."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data.manifest import read_manifest
from pipelines.local import RunRecord, StepRecord

SHOWN_PARITY = ("max_abs_diff", "label_flips", "cos_mean", "cos_p1")


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def _snapshot(run: RunRecord) -> dict[str, Any]:
    frozen = read_manifest(run.artifact("ingest-labels", "snapshot")).facts
    fit = read_manifest(run.artifact("validate-labels", "validated")).facts
    return {
        "id": frozen["snapshot_id"],
        "rows_in": fit["rows_in"],
        "accepted": fit["accepted"],
        "quarantined": fit["quarantined"],
        "restaurants": frozen["restaurants"],
        "agreement": frozen["agreement"],
    }


def _figures(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {key: figure.get(key) for key in ("value", "low", "high", "reason") if key in figure}
        for name, figure in metrics.items()
    }


def _models(run: RunRecord, champion: str | None, challenger: str | None) -> list[dict[str, Any]]:
    registration = _json(run.artifact("register-model", "registration") / "registration.json")
    measured = _json(run.artifact("evaluate-sentiment", "evaluation") / "metrics.json")
    folders = {
        "onnx-fp32": ("parent", run.artifact("export-onnx", "exported")),
        "onnx-int8": ("candidate", run.artifact("quantize-encoder", "quantized")),
    }
    aliases = {champion: "champion", challenger: "challenger"}
    rows = []
    for version in registration["versions"]:
        role, folder = folders[version["format"]]
        facts = read_manifest(folder).facts
        speed = measured["speed"].get("models", {}).get(role, {})
        rows.append(
            {
                "name": version["name"],
                "version": version["version"],
                "alias": aliases.get(version["version"]),
                "parent": version["parent"],
                "format": version["format"],
                "bytes": facts["bytes"],  # of the graph that serves
                "metrics": _figures(measured["metrics"][role]),
                "parity": {name: facts["parity"][name] for name in SHOWN_PARITY},
                "speed_ratio": speed.get("ratio"),
            }
        )
    return rows


def _baselines(run: RunRecord) -> dict[str, Any]:
    folder = run.artifact("evaluate-sentiment", "evaluation")
    metrics = _json(folder / "metrics.json")["metrics"]
    return {name: _figures(metrics[name]) for name in ("tfidf", "lexicon", "majority")}


def _verdict(comparison: Path | None, why_not: str) -> dict[str, Any]:
    keys = ("decision", "reason", "exposures", "outcomes", "srm_p", "difference", "low", "high")
    if comparison is None:
        return dict.fromkeys(keys) | {"decision": "skipped", "reason": why_not}
    facts = read_manifest(comparison).facts
    return {key: facts[key] for key in (*keys, "margin", "traffic")}


def build_summary(
    trained: RunRecord,
    compared: RunRecord | None,
    steps: Sequence[StepRecord],
    *,
    wall_s: float,
    why_not_compared: str = "",
) -> dict[str, Any]:
    """One JSON of a training run and the comparison that followed.

    Raises:
        SettingsError: a step has not run.
        ArtifactError: an artifact was altered.
    """
    registration = _json(trained.artifact("register-model", "registration") / "registration.json")
    gate = _json(trained.artifact("gate-model", "gate") / "gate.json")
    champion, challenger = registration["champion"], registration["challenger"]
    comparison = None
    if compared is not None:
        comparison = compared.artifact("compare-arms", "comparison")
        promotion = _json(compared.artifact("promote-model", "promotion") / "promotion.json")
        champion, challenger = promotion["champion"], promotion["challenger"]
    return {
        "run_id": trained.run_id,
        "evidence_id": registration["evidence_id"],
        "wall_s": round(wall_s, 1),
        "steps": [
            {key: getattr(step, key) for key in ("name", "status", "seconds", "cached")}
            for step in steps
        ],
        "snapshot": _snapshot(trained),
        "models": _models(trained, champion, challenger),
        "baselines": _baselines(trained),
        "gate": {
            key: gate[key] for key in ("verdict", "reason", "margin", "checks", "slices", "tfidf")
        },
        "verdict": _verdict(comparison, why_not_compared),
    }

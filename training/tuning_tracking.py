"""A tuning in MLflow: one run for the whole, and one below it for each trial."""

import json
from pathlib import Path
from typing import Final

from data.manifest import read_manifest
from data.settings import flat
from serving.registry.connection import Metric, connect, log_run
from training.search_space import Kind, recipe_of
from training.tuning_report import BEST_NAME, TRIALS_NAME, TUNING_KIND, TrialRecord

EXPERIMENT: Final = "matjip-tuning"
_PARENT_TAG: Final = "mlflow.parentRunId"


def track_tuning(tracking_uri: str, tuning: Path) -> str:
    """Record a tuning and its trials; the same one is recorded once. Returns MLflow's run id.

    Raises:
        ArtifactError: ``tuning`` is not whole.
        RegistryError: MLflow cannot be reached.
    """
    manifest = read_manifest(tuning, TUNING_KIND)
    facts, registry = manifest.facts, connect(tracking_uri)
    text = (tuning / TRIALS_NAME).read_text(encoding="utf-8")
    trials = [TrialRecord.model_validate(each) for each in json.loads(text)]
    kind: Kind = facts["tuned"]
    best = recipe_of(kind, (tuning / BEST_NAME).read_text(encoding="utf-8"))
    measure, name = facts["measure"], f"{facts['recipe']}-{manifest.digest[:8]}"
    scored = [(trial.number, trial.score) for trial in trials if trial.score is not None]
    metrics: dict[str, Metric] = {f"trials/{measure}": scored, measure: facts["best"]["score"]}
    if facts["untuned_score"] is not None:
        metrics[f"untuned/{measure}"] = facts["untuned_score"]
    run_id = log_run(
        registry,
        experiment=EXPERIMENT,
        run_name=name,
        params=flat(best.model_dump(mode="json")) | {"pruner": facts["pruner"]},
        metrics=metrics,
        tags={key: str(facts[key]) for key in ("tuned", "part", "data_digest", "start_digest")},
        artifacts={"": tuning},
        idempotency_key=f"tuning:{manifest.digest}",
    )
    for trial in trials:
        log_run(
            registry,
            experiment=EXPERIMENT,
            run_name=f"{name}-trial-{trial.number}",
            params=trial.values,
            metrics=_metrics(trial, measure),
            tags={_PARENT_TAG: run_id, "ending": trial.ending, "reason": trial.reason or ""},
            artifacts={},
            idempotency_key=f"tuning:{manifest.digest}:{trial.number}",
        )
    return run_id


def _metrics(trial: TrialRecord, measure: str) -> dict[str, Metric]:
    costs: dict[str, Metric] = {"seconds": trial.seconds, "peak_bytes": float(trial.peak_bytes)}
    if trial.score is None:
        return costs
    # MLflow counts steps in whole numbers: a rung's share of the epochs, in thousandths.
    rungs = [(round(1000 * float(share)), score) for share, score in trial.rungs.items()]
    return {**costs, measure: rungs}

"""From the registry to the gateway and back: deploy the challenger, then act on the verdict."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from data.errors import ExperimentError
from data.manifest import canonical_digest, write_json, write_manifest
from serving.deployment import Arm, Deployment, write_deployment
from serving.registry.arms import DEPLOYMENT_KIND, deployment_facts, fetch_arms
from serving.registry.connection import (
    Metric,
    Registry,
    ResolvedVersion,
    log_run,
)
from serving.registry.evidence import ALIASES, Evidence
from serving.registry.journal import Kind, Plan
from serving.registry.transition import Tools, carry_out, recover
from serving.registry.versions import get_version, resolve

PROMOTION_KIND: Final = "promotion"
Decision = Literal["continue", "promote", "roll_back", "invalid"]


class Verdict(BaseModel):
    """What an experiment decided, and from what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Decision
    reason: str = Field(min_length=1)
    deployment_id: str
    artifact_digest: str = Field(description="Manifest digest of the comparison that decided.")
    arm: str | None = Field(
        default=None, description="That is promoted or rolled back; of two arms the second."
    )


class Promotion(BaseModel):
    """promotion.json: what the verdict did to the aliases."""

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "skipped"]
    decision: Decision
    reason: str
    deployment_id: str
    champion_before: str
    champion: str | None
    challenger: str | None
    run_id: str


def deploy_challenger(
    registry: Registry,
    *,
    name: str,
    share: float,
    work: Path,
    out: Path,
    salt: str | None = None,
) -> Deployment:
    """Resolve both aliases once, fetch both models with hashes checked, and write the deployment.

    The artifact holds the models, so it can be served where there is no registry. Without a
    challenger the champion takes all, and the manifest says ``status: skipped`` and why.

    Args:
        registry: where from.
        name: the registered model.
        share: the challenger's share of the units, 0 to 1, four decimals.
        work: folder that keeps fetched models from one run to the next.
        out: folder of the artifact: ``deployment.json``, ``models/``.
        salt: decides which unit goes to which arm; by default it follows from the two versions.

    Raises:
        RegistryError: there is no champion, a model is not what was registered, or MLflow is away.
        ExperimentError: the share is not one.
    """
    arms = [
        Arm(
            name=found.name,
            model_name=found.version.name,
            version=found.version.version,
            folder=found.folder,
            manifest_digest=found.version.tags["manifest_digest"],
            evidence_id=found.version.tags["evidence_id"],
            share=found.share,
        )
        for found in fetch_arms(registry, name=name, share=share, work=work, out=out)
    ]
    identity = canonical_digest([[arm.name, arm.evidence_id] for arm in arms])
    deployment = Deployment(
        experiment_id=f"{name}-{'-vs-'.join(arm.version for arm in reversed(arms))}",
        salt=salt or identity[:32],
        arms=tuple(arms),
        created_at=datetime.now(UTC),
    )
    write_deployment(out / "deployment.json", deployment)
    write_manifest(out, DEPLOYMENT_KIND, deployment_facts(deployment))
    return deployment


def promote_model(
    registry: Registry,
    *,
    verdict: Verdict,
    deployment: Deployment,
    experiment: str,
    metrics: Mapping[str, Metric],
    artifacts: Mapping[str, Path],
    out: Path,
    tools: Tools | None = None,
) -> Promotion:
    """Log the verdict to MLflow and do what it says: once, however often it is called.

    ``promote`` fetches the challenger as it was signed, makes it the champion if the champion is
    still the one it was compared with, and ends the challenger. ``roll_back`` ends the challenger
    and marks its version. ``continue`` and ``invalid`` change nothing. Whatever a killed process
    left half done with this model is completed first (transition.py).

    Args:
        registry: where.
        verdict: what was decided, about this deployment.
        deployment: what was compared.
        experiment: MLflow's experiment for verdicts.
        metrics: the comparison's figures.
        artifacts: its files, as for ``log_run``.
        out: folder of the artifact: ``promotion.json``.
        tools: what to turn the traffic and warm up with; without them the traffic stays, and models
            are fetched to the registry's state folder.

    Raises:
        ExperimentError: the verdict is about another deployment, or about one without challenger.
        RegistryError: an alias was moved meanwhile, the evidence does not fit, the challenger is
            not what was signed, or MLflow is away.
    """
    if verdict.deployment_id != deployment.deployment_id:
        raise ExperimentError(
            f"the verdict is about deployment {verdict.deployment_id!r}, given was "
            f"{deployment.deployment_id!r}; pass the deployment that was compared"
        )
    champion, challenger = _compared(deployment, verdict)
    run_id = _log_verdict(registry, verdict, deployment, experiment, metrics, artifacts)
    tools = tools or Tools(models=registry.state / "models")
    recover(registry, tools, name=champion.model_name)
    if challenger is not None and challenger.model_name != champion.model_name:
        # Rolled back, and of another registered model: there is no alias here that would end.
        if verdict.decision == "roll_back" and tools.turn is not None:
            turn, reason = tools.turn, verdict.reason
            turn(deployment.deployment_id, champion.name, by="verdict", reason=reason)
    elif challenger is not None and verdict.decision in {"promote", "roll_back"}:
        turns = tools.turn is not None
        carry_out(registry, _plan(verdict, champion, challenger, turns=turns), tools)
    now = {alias: resolve(registry, champion.model_name, alias) for alias in ALIASES}
    promotion = Promotion(
        status="ok" if verdict.decision in {"promote", "roll_back"} else "skipped",
        decision=verdict.decision,
        reason=verdict.reason,
        deployment_id=deployment.deployment_id,
        champion_before=champion.version,
        champion=_number(now["champion"]),
        challenger=_number(now["challenger"]),
        run_id=run_id,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "promotion.json", promotion.model_dump(mode="json"))
    write_manifest(out, PROMOTION_KIND, promotion.model_dump(mode="json"))
    return promotion


def _compared(deployment: Deployment, verdict: Verdict) -> tuple[Arm, Arm | None]:
    """The control, and the arm that the verdict is about."""
    control, others = deployment.control, deployment.arms[1:]
    if verdict.arm is None:
        tried = others[0] if len(others) == 1 else None
    else:
        tried = next((arm for arm in others if arm.name == verdict.arm), None)
    if verdict.decision not in {"promote", "roll_back"}:
        return control, tried
    if tried is None:
        raise ExperimentError(
            f"verdict {verdict.decision!r} about arm={verdict.arm!r} needs a champion and a "
            f"challenger, deployment {deployment.deployment_id!r} has "
            f"{[arm.name for arm in deployment.arms]!r}, the first its control; deploy a "
            "challenger and compare again"
        )
    if verdict.decision == "promote" and tried.model_name != control.model_name:
        raise ExperimentError(
            f"arm {tried.name!r} is of the model {tried.model_name!r}, the control of "
            f"{control.model_name!r}: an alias moves within one registered model; register the "
            "winner there and compare again"
        )
    return control, tried


def _log_verdict(
    registry: Registry,
    verdict: Verdict,
    deployment: Deployment,
    experiment: str,
    metrics: Mapping[str, Metric],
    artifacts: Mapping[str, Path],
) -> str:
    return log_run(
        registry,
        experiment=experiment,
        run_name=f"{verdict.decision}-{deployment.deployment_id[:8]}",
        params={f"{arm.name}_version": arm.version for arm in deployment.arms}
        | {f"{arm.name}_share": arm.share for arm in deployment.arms},
        metrics=metrics,
        tags={
            "decision": verdict.decision,
            "reason": verdict.reason,
            "deployment_id": deployment.deployment_id,
            "experiment_id": deployment.experiment_id,
            "evidence_digest": verdict.artifact_digest,
        },
        artifacts=artifacts,
        idempotency_key=f"verdict:{verdict.artifact_digest}",
    )


def _evidence(verdict: Verdict, champion: Arm, challenger: Arm) -> Evidence:
    return Evidence(
        kind="verdict",
        decision="promote" if verdict.decision == "promote" else "roll_back",
        evidence_id=challenger.evidence_id,
        artifact_digest=verdict.artifact_digest,
        reason=verdict.reason,
        deployment_id=verdict.deployment_id,
        champion_version=champion.version,
        challenger_version=challenger.version,
    )


def _plan(verdict: Verdict, champion: Arm, challenger: Arm, *, turns: bool) -> Plan:
    kind: Kind = "promote" if verdict.decision == "promote" else "roll_back"
    return Plan(
        kind=kind,
        name=champion.model_name,
        version=challenger.version,
        expected=champion.version,
        evidence=_evidence(verdict, champion, challenger),
        deployment_id=verdict.deployment_id if turns else None,
        arm=(challenger if kind == "promote" else champion).name,
        by="verdict",
    )


def _number(found: ResolvedVersion | None) -> str | None:
    return None if found is None else found.version


def restore_champion(
    registry: Registry,
    *,
    name: str,
    version: str,
    reason: str,
    ticket: str,
    by: str = "a person",
    tools: Tools | None = None,
) -> None:
    """Bring back an earlier champion, by a person's decision; it is put on record with the reason.

    The traffic is left alone: ``make rollback`` turns it too.

    Raises:
        RegistryError: the version was never champion, it is not what was signed, or MLflow is away.
    """
    tools = tools or Tools(models=registry.state / "models")
    recover(registry, tools, name=name)
    earlier = get_version(registry, name, version)
    evidence = Evidence(
        kind="restore",
        decision="restore",
        evidence_id=earlier.tags.get("evidence_id", ""),
        artifact_digest=ticket,
        reason=reason,
        by=by,
    )
    now = resolve(registry, name, "champion")
    carry_out(
        registry,
        Plan(
            kind="restore",
            name=name,
            version=version,
            expected=_number(now),
            evidence=evidence,
            by=by,
        ),
        tools,
    )

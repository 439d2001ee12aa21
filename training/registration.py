"""Register what was trained: the fp32 export and its quantised child, with all their evidence.

Both become versions of one registered model whatever the gate said, so that a refused model can be
looked at; aliases are set only where it passed. The first model of all has no champion to be
compared with: its fp32 export becomes the champion, and the quantised child its challenger.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict

from data.contract import CONTRACT_VERSION
from data.errors import GateError, RegistryError
from data.manifest import Manifest, canonical_digest, read_manifest, write_json, write_manifest
from data.settings import flat
from serving.model_folder import MODEL_KIND
from serving.registry.aliases import move_alias
from serving.registry.connection import Metric, Registry, ResolvedVersion, log_run
from serving.registry.evidence import ROLLED_BACK_TAG, Alias, Evidence
from serving.registry.versions import register_version, resolve
from training.model_card import figures_in, model_card
from training.recipe import Recipe

REGISTRATION_KIND: Final = "registration"
_VERDICTS: Final = ("pass", "fail", "inconclusive")


class RegisteredVersion(BaseModel):
    """One version, as later steps and the summary need it."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    name: str
    version: str
    alias: Alias | None
    parent: str | None
    format: str
    bytes: int
    manifest_digest: str
    evidence_id: str


class Registration(BaseModel):
    """registration.json: what was registered, and what the aliases name afterwards."""

    model_config = ConfigDict(frozen=True)

    run_id: str
    gate_verdict: str
    evidence_id: str
    versions: tuple[RegisteredVersion, ...]
    champion: str | None
    challenger: str | None
    note: str


@dataclass(frozen=True)
class _Sources:
    parent: Manifest
    candidate: Manifest
    snapshot: Manifest
    split: Manifest
    evaluation: Manifest
    gate: Manifest
    metrics: Mapping[str, Any]

    def measured_as(self, model: Manifest) -> str | None:
        """The name under which the evaluation measured a model."""
        models: Mapping[str, Mapping[str, Any]] = self.metrics["models"]
        return next((name for name, m in models.items() if m.get("digest") == model.digest), None)

    @property
    def champion_digest(self) -> str | None:
        """The champion that the gate compared with; none for a first model."""
        digest = self.metrics["models"].get("champion", {}).get("digest")
        return None if digest is None else str(digest)

    @property
    def verdict(self) -> str:
        return str(self.gate.facts["verdict"])

    def evidence_id(self, model: Manifest) -> str:
        return canonical_digest(
            {
                "snapshot": self.snapshot.digest,
                "split": self.split.digest,
                "model": model.digest,
                "evaluation": self.evaluation.digest,
                "gate": self.gate.digest,
            }
        )


def register_model(
    registry: Registry,
    *,
    name: str,
    experiment: str,
    parent: Path,
    candidate: Path,
    snapshot: Path,
    split: Path,
    evaluation: Path,
    gate: Path,
    recipe: Recipe,
    out: Path,
) -> Registration:
    """Register both versions and set the aliases that the gate allows; write ``registration.json``.

    Run again with the same artifacts it finds the same run and versions, and changes nothing.

    Args:
        registry: where to.
        name: the registered model.
        experiment: MLflow's experiment for the run that stores files and figures.
        parent: the fp32 export.
        candidate: its quantised child.
        snapshot: the labels (kind snapshot or validated).
        split: their split.
        evaluation: figures, with ``metrics.json``.
        gate: the verdict.
        recipe: what the model was trained by.
        out: folder of the artifact.

    Raises:
        ArtifactError: an artifact is missing or altered.
        GateError: the gate holds no verdict.
        RegistryError: the artifacts do not belong together, or MLflow refused or went away.
    """
    sources = _read_sources(parent, candidate, snapshot, split, evaluation, gate, recipe)
    evidence_id = sources.evidence_id(sources.candidate)
    run_id = log_run(
        registry,
        experiment=experiment,
        run_name=f"{recipe.name}-{evidence_id[:8]}",
        params=flat(recipe.model_dump()),
        metrics=_logged_metrics(sources),
        tags={
            "snapshot_id": str(sources.snapshot.facts.get("snapshot_id")),
            "evidence_id": evidence_id,
            "gate_verdict": sources.verdict,
        },
        artifacts={"evaluation": evaluation, "gate": gate},
        idempotency_key=f"registration:{evidence_id}",
    )
    fp32 = _register(registry, name, parent, sources, sources.parent, run_id, None)
    int8 = _register(registry, name, candidate, sources, sources.candidate, run_id, fp32)
    note = _set_aliases(registry, name, sources, fp32, int8)
    registration = _registration(registry, name, sources, run_id, fp32, int8, note)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "registration.json", registration.model_dump(mode="json"))
    write_manifest(out, REGISTRATION_KIND, registration.model_dump(mode="json"))
    return registration


def _read_sources(
    parent: Path,
    candidate: Path,
    snapshot: Path,
    split: Path,
    evaluation: Path,
    gate: Path,
    recipe: Recipe,
) -> _Sources:
    sources = _Sources(
        parent=read_manifest(parent, MODEL_KIND),
        candidate=read_manifest(candidate, MODEL_KIND),
        snapshot=read_manifest(snapshot),
        split=read_manifest(split, "split"),
        evaluation=read_manifest(evaluation, "evaluation"),
        gate=read_manifest(gate, "gate"),
        metrics=orjson.loads((evaluation / "metrics.json").read_bytes()),
    )
    if sources.gate.facts.get("verdict") not in _VERDICTS:
        raise GateError(
            f"{str(gate)!r} says verdict {sources.gate.facts.get('verdict')!r}, expected one of "
            f"{_VERDICTS}; run the gate again: a model is not registered without its verdict"
        )
    facts = sources.candidate.facts
    belongs = {
        "the candidate's parent_digest": (facts.get("parent_digest"), sources.parent.digest),
        "the candidate's split_digest": (
            facts.get("split_digest", sources.split.digest),
            sources.split.digest,
        ),
        "the candidate's recipe_digest": (
            facts.get("recipe_digest", recipe.digest),
            recipe.digest,
        ),
        "the split's snapshot_id": (
            sources.split.facts.get("snapshot_id"),
            sources.snapshot.facts.get("snapshot_id"),
        ),
        "the evaluation's split": (sources.evaluation.facts.get("split"), sources.split.digest),
        "the gate's evaluation": (sources.gate.facts.get("evaluation"), sources.evaluation.digest),
        "the model that the gate judged": (
            sources.gate.facts.get("candidate"),
            sources.measured_as(sources.candidate),
        ),
    }
    wrong = [f"{what} is {a!r}, given was {b!r}" for what, (a, b) in belongs.items() if a != b]
    if wrong:
        raise RegistryError(
            f"these artifacts do not belong together: {'; '.join(wrong)}; pass those of one run"
        )
    return sources


def _register(
    registry: Registry,
    name: str,
    folder: Path,
    sources: _Sources,
    model: Manifest,
    run_id: str,
    parent: ResolvedVersion | None,
) -> ResolvedVersion:
    evidence_id = sources.evidence_id(model)
    tags = {
        "snapshot_id": str(sources.snapshot.facts.get("snapshot_id")),
        "gate_verdict": sources.verdict,
        "gate_digest": sources.gate.digest,
        "compared_with": sources.champion_digest or "first model",
        "evidence_id": evidence_id,
        "format": str(model.facts["format"]),
        "bytes": str(sum(entry.bytes for entry in model.files.values())),
        "contract_version": CONTRACT_VERSION,
        "recipe": str(model.facts.get("recipe", "unknown")),
        "recipe_digest": str(model.facts.get("recipe_digest", "unknown")),
        "parent": str(model.facts.get("parent_digest", "none")),
    }
    if parent is not None:
        tags["parent_version"] = parent.version
    return register_version(
        registry,
        name=name,
        folder=folder,
        tags=tags,
        description=model_card(
            name,
            model=model,
            parent=sources.parent,
            snapshot=sources.snapshot,
            verdict=sources.verdict,
            metrics=sources.metrics,
            measured_as=sources.measured_as(model),
        ),
        run_id=run_id,
        idempotency_key=f"version:{evidence_id}",
    )


def _set_aliases(
    registry: Registry,
    name: str,
    sources: _Sources,
    fp32: ResolvedVersion,
    int8: ResolvedVersion,
) -> str:
    """Set what the gate allows; returns what was done or why nothing was, in a sentence."""
    if sources.verdict != "pass":
        return f"The gate said {sources.verdict!r}, so no alias was set."
    champion = resolve(registry, name, "champion")
    if champion is None:
        champion = fp32
        _pass(registry, name, "champion", "first_model", fp32, sources, expected=None)
    if champion.version == int8.version:
        return "The candidate is the champion already."
    compared = sources.champion_digest or sources.parent.digest
    if champion.tags["manifest_digest"] != compared:
        return (
            f"The gate compared with another champion than version {champion.version!r}, which "
            "is the champion now, so no alias was set: evaluate and gate again."
        )
    if int8.tags.get(ROLLED_BACK_TAG):
        return f"The candidate was rolled back by {int8.tags[ROLLED_BACK_TAG]!r}; no alias was set."
    challenger = resolve(registry, name, "challenger")
    expected = None if challenger is None else challenger.version
    _pass(registry, name, "challenger", "gate", int8, sources, expected=expected)
    return "The gate passed: the candidate is the challenger."


def _pass(
    registry: Registry,
    name: str,
    alias: Alias,
    kind: Any,
    version: ResolvedVersion,
    sources: _Sources,
    *,
    expected: str | None,
) -> None:
    evidence = Evidence(
        kind=kind,
        decision="pass",
        evidence_id=version.tags["evidence_id"],
        artifact_digest=sources.gate.digest,
        reason="the gate passed",
    )
    move_alias(registry, name, alias, version.version, evidence=evidence, expected_version=expected)


def _registration(
    registry: Registry,
    name: str,
    sources: _Sources,
    run_id: str,
    fp32: ResolvedVersion,
    int8: ResolvedVersion,
    note: str,
) -> Registration:
    aliases: dict[str, Alias] = {}
    named: dict[Alias, str | None] = {}
    for alias in ("champion", "challenger"):
        found = resolve(registry, name, alias)
        named[alias] = None if found is None else found.version
        if found is not None:
            aliases[found.version] = alias
    return Registration(
        run_id=run_id,
        gate_verdict=sources.verdict,
        evidence_id=int8.tags["evidence_id"],
        versions=tuple(
            RegisteredVersion(
                name=name,
                version=version.version,
                alias=aliases.get(version.version),
                parent=version.tags.get("parent_version"),
                format=version.tags["format"],
                bytes=int(version.tags["bytes"]),
                manifest_digest=version.tags["manifest_digest"],
                evidence_id=version.tags["evidence_id"],
            )
            for version in (fp32, int8)
        ),
        champion=named["champion"],
        challenger=named["challenger"],
        note=note,
    )


def _logged_metrics(sources: _Sources) -> dict[str, Metric]:
    logged: dict[str, Metric] = {}
    for path, figure in figures_in(sources.metrics["metrics"]):
        for part in ("value", "low", "high"):
            if isinstance(figure.get(part), int | float):
                logged[_metric_name(path if part == "value" else f"{path}.{part}")] = figure[part]
    if curve := sources.candidate.facts.get("curve"):
        logged["loss"] = [(int(step), float(value)) for step, value in curve]
    return logged


def _metric_name(path: str) -> str:
    # MLflow allows letters, digits and _-. :/ in names.
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in path)[:240]

"""A parent and its quantised child into the registry, with all their evidence: both or neither.

Both become versions of one registered model whatever the gate said, so that a refused model can be
looked at; aliases are set only where it passed (training/registration_aliases.py). What is special
to encoders and to language models stands in training/registration.py and language_registration.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import BaseModel, ConfigDict

from data.contract import CONTRACT_VERSION
from data.errors import GateError, RegistryError
from data.manifest import Manifest, canonical_digest, read_manifest, write_json, write_manifest
from serving.registry.connection import Metric, Registry, ResolvedVersion, log_run
from serving.registry.evidence import Alias
from serving.registry.signature import Signature
from serving.registry.versions import register_version, resolve
from training.model_card import figures_in
from training.registration_aliases import Passed, set_aliases

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
class Pair:
    """The manifests of two models, and of everything that was measured about them.

    Attributes:
        metrics: the evaluation's metrics.json.
    """

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
        """What the gate said."""
        return str(self.gate.facts["verdict"])

    def evidence_id(self, model: Manifest) -> str:
        """Follows from everything that the model rests on."""
        return canonical_digest(
            {
                "snapshot": self.snapshot.digest,
                "split": self.split.digest,
                "model": model.digest,
                "evaluation": self.evaluation.digest,
                "gate": self.gate.digest,
            }
        )


@dataclass(frozen=True)
class Recorded:
    """What is written down beside the two versions.

    Attributes:
        run_name: of the run that stores files and figures, before its evidence id.
        params: what the models were trained by.
        artifacts: folders that the run keeps, by name.
        signature: what goes into the models and comes out.
        card: a model's card, Markdown.
        tags: of both versions, over those that every version has.
    """

    run_name: str
    params: Mapping[str, Any]
    artifacts: Mapping[str, Path]
    signature: Signature
    card: Callable[[Manifest], str]
    tags: Mapping[str, str] = field(default_factory=dict)


def read_pair(
    *,
    parent: Manifest,
    candidate: Manifest,
    snapshot: Path,
    split: Path,
    evaluation: Manifest,
    metrics: Path,
    gate: Path,
) -> Pair:
    """Read what belongs to two models.

    Raises:
        ArtifactError: an artifact is missing or altered.
        GateError: the gate holds no verdict.
    """
    judged = read_manifest(gate, "gate")
    if judged.facts.get("verdict") not in _VERDICTS:
        raise GateError(
            f"{str(gate)!r} says verdict {judged.facts.get('verdict')!r}, expected one of "
            f"{_VERDICTS}; run the gate again: a model is not registered without its verdict"
        )
    return Pair(
        parent=parent,
        candidate=candidate,
        snapshot=read_manifest(snapshot),
        split=read_manifest(split, "split"),
        evaluation=evaluation,
        gate=judged,
        metrics=orjson.loads(metrics.read_bytes()),
    )


def check_pair(pair: Pair, **others: tuple[Any, Any]) -> None:
    """Check that all of it is of one run.

    Args:
        pair: what was read.
        **others: more pairs that must be equal, by what they are.

    Raises:
        RegistryError: names everything that is not of the same run.
    """
    belongs = {
        "the candidate's parent_digest": (
            pair.candidate.facts.get("parent_digest"),
            pair.parent.digest,
        ),
        "the split's snapshot_id": (
            pair.split.facts.get("snapshot_id"),
            pair.snapshot.facts.get("snapshot_id"),
        ),
        "the evaluation's split": (pair.evaluation.facts.get("split"), pair.split.digest),
        "the gate's evaluation": (pair.gate.facts.get("evaluation"), pair.evaluation.digest),
        "the model that the gate judged": (
            pair.gate.facts.get("candidate"),
            pair.measured_as(pair.candidate),
        ),
    } | {name.replace("_", " "): both for name, both in others.items()}
    wrong = [f"{what} is {a!r}, given was {b!r}" for what, (a, b) in belongs.items() if a != b]
    if wrong:
        raise RegistryError(
            f"these artifacts do not belong together: {'; '.join(wrong)}; pass those of one run"
        )


def register_pair(
    registry: Registry,
    pair: Pair,
    recorded: Recorded,
    *,
    name: str,
    experiment: str,
    parent: Path,
    candidate: Path,
    out: Path,
) -> Registration:
    """Register both versions and set the aliases that the gate allows; write ``registration.json``.

    Run again with the same artifacts it finds the same run and versions, and changes nothing.

    Args:
        registry: where to.
        pair: what the models are, and the evidence.
        recorded: what is written down beside them.
        name: the registered model.
        experiment: MLflow's experiment for the run that stores files and figures.
        parent: the parent's folder.
        candidate: its quantised child's.
        out: folder of the artifact.

    Raises:
        RegistryError: MLflow refused or went away.
    """
    evidence_id = pair.evidence_id(pair.candidate)
    run_id = log_run(
        registry,
        experiment=experiment,
        run_name=f"{recorded.run_name}-{evidence_id[:8]}",
        params=recorded.params,
        metrics=_logged_metrics(pair),
        tags={
            "snapshot_id": str(pair.snapshot.facts.get("snapshot_id")),
            "evidence_id": evidence_id,
            "gate_verdict": pair.verdict,
        },
        artifacts=recorded.artifacts,
        idempotency_key=f"registration:{evidence_id}",
    )
    first = _register(registry, name, parent, pair, pair.parent, recorded, run_id, None)
    second = _register(registry, name, candidate, pair, pair.candidate, recorded, run_id, first)
    passed = Passed(
        verdict=pair.verdict,
        gate_digest=pair.gate.digest,
        compared_with=pair.champion_digest or pair.parent.digest,
    )
    note = set_aliases(registry, name, passed, first, second)
    registration = _registration(registry, name, pair, run_id, first, second, note)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "registration.json", registration.model_dump(mode="json"))
    write_manifest(out, REGISTRATION_KIND, registration.model_dump(mode="json"))
    return registration


def _register(
    registry: Registry,
    name: str,
    folder: Path,
    pair: Pair,
    model: Manifest,
    recorded: Recorded,
    run_id: str,
    parent: ResolvedVersion | None,
) -> ResolvedVersion:
    evidence_id = pair.evidence_id(model)
    tags = {
        "snapshot_id": str(pair.snapshot.facts.get("snapshot_id")),
        "gate_verdict": pair.verdict,
        "gate_digest": pair.gate.digest,
        "evaluation_digest": pair.evaluation.digest,
        "split_digest": pair.split.digest,
        "snapshot_digest": pair.snapshot.digest,
        "compared_with": pair.champion_digest or "first model",
        "evidence_id": evidence_id,
        "format": str(model.facts["format"]),
        "bytes": str(sum(entry.bytes for entry in model.files.values())),
        "contract_version": CONTRACT_VERSION,
        "recipe": str(model.facts.get("recipe", "unknown")),
        "recipe_digest": str(model.facts.get("recipe_digest", "unknown")),
        "parent": str(model.facts.get("parent_digest", "none")),
        **recorded.tags,
    }
    if parent is not None:
        tags["parent_version"] = parent.version
    return register_version(
        registry,
        name=name,
        folder=folder,
        tags=tags,
        description=recorded.card(model),
        run_id=run_id,
        idempotency_key=f"version:{evidence_id}",
        signature=recorded.signature,
    )


def _registration(
    registry: Registry,
    name: str,
    pair: Pair,
    run_id: str,
    first: ResolvedVersion,
    second: ResolvedVersion,
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
        gate_verdict=pair.verdict,
        evidence_id=second.tags["evidence_id"],
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
            for version in (first, second)
        ),
        champion=named["champion"],
        challenger=named["challenger"],
        note=note,
    )


def _logged_metrics(pair: Pair) -> dict[str, Metric]:
    logged: dict[str, Metric] = {}
    for path, figure in figures_in(pair.metrics["metrics"]):
        for part in ("value", "low", "high"):
            if isinstance(figure.get(part), int | float):
                logged[_metric_name(path if part == "value" else f"{path}.{part}")] = figure[part]
    if curve := pair.candidate.facts.get("curve"):
        logged["loss"] = [(int(step), float(value)) for step, value in curve]
    return logged


def _metric_name(path: str) -> str:
    # MLflow allows letters, digits and _-. :/ in names.
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in path)[:240]

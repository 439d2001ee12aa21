"""The aliases that follow from a gate: who is champion, and who is tried beside it.

The first model of all has no champion to be compared with: the parent becomes the champion, and its
quantised child its challenger.
"""

from dataclasses import dataclass
from typing import Any

from serving.registry.aliases import move_alias
from serving.registry.connection import Registry, ResolvedVersion
from serving.registry.evidence import ROLLED_BACK_TAG, Alias, Evidence
from serving.registry.versions import resolve


@dataclass(frozen=True)
class Passed:
    """What a gate said.

    Attributes:
        verdict: pass, fail or inconclusive.
        gate_digest: of its artifact.
        compared_with: the digest of the champion; of a first model the parent's.
    """

    verdict: str
    gate_digest: str
    compared_with: str


def set_aliases(
    registry: Registry,
    name: str,
    passed: Passed,
    parent: ResolvedVersion,
    candidate: ResolvedVersion,
) -> str:
    """Set what the gate allows; returns what was done or why nothing was, in a sentence.

    Args:
        registry: where.
        name: the registered model.
        passed: what the gate said.
        parent: the version that a first model serves as.
        candidate: the version that the gate judged.

    Raises:
        RegistryError: an alias was moved meanwhile, or MLflow went away.
    """
    if passed.verdict != "pass":
        return f"The gate said {passed.verdict!r}, so no alias was set."
    champion = resolve(registry, name, "champion")
    if champion is None:
        champion = parent
        _pass(registry, name, "champion", "first_model", parent, passed, expected=None)
    if champion.version == candidate.version:
        return "The candidate is the champion already."
    if champion.tags["manifest_digest"] != passed.compared_with:
        return (
            f"The gate compared with another champion than version {champion.version!r}, which "
            "is the champion now, so no alias was set: evaluate and gate again."
        )
    if candidate.tags.get(ROLLED_BACK_TAG):
        by = candidate.tags[ROLLED_BACK_TAG]
        return f"The candidate was rolled back by {by!r}; no alias was set."
    challenger = resolve(registry, name, "challenger")
    expected = None if challenger is None else challenger.version
    _pass(registry, name, "challenger", "gate", candidate, passed, expected=expected)
    return "The gate passed: the candidate is the challenger."


def _pass(
    registry: Registry,
    name: str,
    alias: Alias,
    kind: Any,
    version: ResolvedVersion,
    passed: Passed,
    *,
    expected: str | None,
) -> None:
    evidence = Evidence(
        kind=kind,
        decision="pass",
        evidence_id=version.tags["evidence_id"],
        artifact_digest=passed.gate_digest,
        reason="the gate passed",
    )
    move_alias(registry, name, alias, version.version, evidence=evidence, expected_version=expected)

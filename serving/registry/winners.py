"""The winner of an experiment becomes champion: what its promotion means for the registry's alias.

The catalogue turned the traffic when the promotion was recorded; here the alias follows. It moves
only if the experiment's control is still the champion, on evidence that follows from the catalogue
alone: whoever calls again after a kill completes the same move.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.errors import ExperimentError
from data.manifest import canonical_digest
from serving.experiments.catalogue import Catalogue, Entry, Recorded
from serving.registry.aliases import move_alias, read_ledger
from serving.registry.connection import Registry, locked
from serving.registry.evidence import Evidence
from serving.registry.phases import served_by
from serving.registry.versions import resolve


@dataclass(frozen=True)
class Winner:
    """What became of the alias.

    Attributes:
        model: the winner, name and version: ``sentiment/7``.
        is_champion: whether the alias names it.
        sentence: what was done, or why the alias stays.
    """

    model: str
    is_champion: bool
    sentence: str


def crown(registry: Registry, catalogue: Catalogue, name: str) -> Winner:
    """Make the arm that an experiment has promoted the champion; once, however often it is called.

    Raises:
        ExperimentError: the experiment has promoted nothing, or nothing served it.
        RegistryError: the evidence does not allow it, the alias was moved by hand, or MLflow is
            away.
    """
    entry = catalogue.get(name)
    content = served_by(catalogue, entry)
    promoted = entry.lifecycle.promoted
    if promoted is None or content is None:
        raise ExperimentError(
            f"experiment {name!r} is {entry.lifecycle.state!r} and has promoted no arm that was "
            "served; promote one first"
        )
    arms = {arm["name"]: arm for arm in content["arms"]}
    control, winner = arms[entry.lifecycle.specification.control.name], arms[promoted]
    model = f"{winner['model_name']}/{winner['version']}"
    if winner["model_name"] != control["model_name"]:
        return Winner(
            model,
            is_champion=False,
            sentence=f"{model} is no version of {control['model_name']!r}, so only the traffic "
            "turned; register it under that name to make it champion",
        )
    return _moved(registry, _evidence(entry, content, control, winner), control, winner, model)


def _moved(
    registry: Registry,
    evidence: Evidence,
    control: Mapping[str, Any],
    winner: Mapping[str, Any],
    model: str,
) -> Winner:
    name, before, after = winner["model_name"], control["version"], winner["version"]
    with locked(registry):
        champion = resolve(registry, name, "champion")
        now = champion and champion.version
        ours = any(
            entry.evidence == evidence and entry.alias == "champion"
            for entry in read_ledger(registry, name)
        )
        if now == after and not ours:
            return Winner(model, is_champion=True, sentence=f"{model} is the champion already")
        if now not in {before, after}:
            return Winner(
                model,
                is_champion=False,
                sentence=f"{name}@champion names version {now!r}, not the control's {before!r}, so "
                "only the traffic turned; deploy, and compare again with the champion there is",
            )
        move_alias(registry, name, "champion", after, evidence=evidence, expected_version=before)
        challenger = resolve(registry, name, "challenger")
        if challenger is not None and challenger.version == after:
            move_alias(
                registry, name, "challenger", None, evidence=evidence, expected_version=after
            )
    return Winner(
        model, is_champion=True, sentence=f"{model} is champion now, version {before!r} was"
    )


def _evidence(
    entry: Entry,
    content: Mapping[str, Any],
    control: Mapping[str, Any],
    winner: Mapping[str, Any],
) -> Evidence:
    promotion = _promotion(entry)
    return Evidence(
        kind="verdict",
        decision="promote",
        evidence_id=winner["evidence_id"],
        artifact_digest=canonical_digest(
            {
                "specification": entry.lifecycle.specification.digest,
                "number": promotion.number,
                "event": promotion.event.model_dump(mode="json"),
            }
        ),
        reason=promotion.event.reason,
        deployment_id=content["deployment_id"],
        champion_version=control["version"],
        challenger_version=winner["version"],
    )


def _promotion(entry: Entry) -> Recorded:
    return next(each for each in reversed(entry.history) if each.event.action == "promote")

"""The winner of an experiment becomes champion: what its promotion means for the registry's alias.

The catalogue turned the traffic when the promotion was recorded; here the alias follows, as a
transition (transition.py). It moves only if the experiment's control is still the champion, on
evidence that follows from the catalogue alone: whoever calls again after a kill completes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data.errors import ExperimentError
from data.manifest import canonical_digest
from serving.experiments.catalogue import Catalogue, Entry, Recorded
from serving.registry.connection import Registry
from serving.registry.evidence import Evidence
from serving.registry.journal import Plan
from serving.registry.ledger import Checkpoint, pass_by, read_ledger
from serving.registry.phases import served_by
from serving.registry.transition import Tools, carry_out
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


def crown(
    registry: Registry, catalogue: Catalogue, name: str, *, checkpoint: Checkpoint = pass_by
) -> Winner:
    """Make the arm that an experiment has promoted the champion; once, however often it is called.

    Args:
        registry: where its alias is.
        catalogue: where the promotion was recorded.
        name: of the experiment.
        checkpoint: told of every instant between two writes.

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
    plan = Plan(
        kind="promote",
        name=winner["model_name"],
        version=winner["version"],
        expected=control["version"],
        evidence=_evidence(entry, content, control, winner),
        by=_promotion(entry).event.by,
    )
    return _moved(registry, plan, model, checkpoint)


def _moved(registry: Registry, plan: Plan, model: str, checkpoint: Checkpoint) -> Winner:
    now = resolve(registry, plan.name, "champion")
    named = now and now.version
    is_ours = any(entry.evidence == plan.evidence for entry in read_ledger(registry, plan.name))
    if named == plan.version and not is_ours:
        return Winner(model, is_champion=True, sentence=f"{model} is the champion already")
    if named not in {plan.expected, plan.version} and not is_ours:
        return Winner(
            model,
            is_champion=False,
            sentence=f"{plan.name}@champion names version {named!r}, not the control's "
            f"{plan.expected!r}, so only the traffic turned; deploy, and compare again with the "
            "champion there is",
        )
    carry_out(registry, plan, Tools(models=registry.state / "models", checkpoint=checkpoint))
    now = resolve(registry, plan.name, "champion")
    if now is None or now.version != plan.version:
        return Winner(
            model,
            is_champion=False,
            sentence=f"{model} became champion on this evidence before, and "
            f"{plan.name}@champion was moved to {now and now.version!r} since: it stays there",
        )
    return Winner(
        model,
        is_champion=True,
        sentence=f"{model} is champion now, version {plan.expected!r} was",
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

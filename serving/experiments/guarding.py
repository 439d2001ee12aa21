"""What follows from a look at a phase's guardrails: roll back, pause, or nothing.

A breached guardrail rolls the experiment back. A breached signal, or units that are not dealt as
they were meant to be, pause it for a person to look; whoever resumes it has seen what paused it,
and the same does not pause that phase again. Whoever acts first is heard: the event is written only
if nobody acted since the look, and it turns the route in the same transaction.
"""

import logging
from collections.abc import Iterator
from typing import Final

from data.errors import ExperimentError
from serving.experiments.catalogue import Catalogue, Entry
from serving.experiments.guardrail_readings import PhaseLook
from serving.experiments.lifecycle import OPENING, Event

BY: Final = "guardrails"
SAMPLE_RATIO: Final = "sample ratio"
_LONGEST: Final = 2_000
_log = logging.getLogger(__name__)


def act_on(catalogue: Catalogue, look: PhaseLook, entry: Entry) -> Entry | None:
    """Write down what a look demands.

    Args:
        catalogue: where the experiment is kept.
        look: at its open phase.
        entry: where it stood before the look.

    Returns:
        Where it stands after; None where nothing was to do, or somebody acted meanwhile.

    Raises:
        ExperimentError: the database refused.
    """
    event = demanded(look, entry)
    if event is None:
        return None
    seen = entry.lifecycle.events
    try:
        after = catalogue.record(look.experiment, event, after=seen)
    except ExperimentError:
        if catalogue.get(look.experiment).lifecycle.events == seen:
            raise
        return None  # the next look sees what was done
    _log.warning("experiment %s: %s: %s", look.experiment, event.action, event.reason)
    return after


def demanded(look: PhaseLook, entry: Entry) -> Event | None:
    """The event that a look demands, if any."""
    here = entry.lifecycle
    serving = here.current and here.current.deployment_id
    if serving != look.deployment_id or here.state not in {"running", "paused"}:
        return None
    breached = look.breached("guardrail")
    if breached:
        reason = " ".join(each.sentence for each in breached)
        return Event(action="roll_back", by=BY, reason=reason[:_LONGEST])
    if here.state == "paused":
        return None
    accepted = accepted_pauses(entry)
    reasons = [
        each.sentence
        for each in look.breached("signal")
        if not any(each.subject in reason for reason in accepted)
    ]
    ratio = look.sample_ratio
    if ratio and ratio.broken and not any(SAMPLE_RATIO in reason for reason in accepted):
        reasons.append(f"The {SAMPLE_RATIO} is broken. {ratio.sentence}")
    if not reasons:
        return None
    return Event(action="pause", by=BY, reason=" ".join(reasons)[:_LONGEST])


def accepted_pauses(entry: Entry) -> tuple[str, ...]:
    """Why guardrails paused the open phase, as far as somebody resumed it since."""
    return tuple(_accepted(entry))


def _accepted(entry: Entry) -> Iterator[str]:
    opened = max((each.number for each in entry.history if each.event.action in OPENING), default=0)
    waiting: list[str] = []
    for each in entry.history[opened:]:
        if each.event.action == "pause" and each.event.by == BY:
            waiting.append(each.event.reason)
        elif each.event.action == "resume":
            yield from waiting
            waiting.clear()

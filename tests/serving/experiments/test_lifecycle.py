"""An experiment goes only where it may go from where it stands."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data.errors import ExperimentError
from serving.experiments.lifecycle import ACTIONS, ENDED, Action, Event, Lifecycle
from serving.experiments.specification import ExperimentSpecification

NEEDS: dict[str, dict[str, Any]] = {
    "promote": {"arm": "int8"},
    "reallocate": {"allocation": {"float": 0.8, "int8": 0.2}},
}
# How to come to each place, and what may be done there.
WAYS: dict[str, tuple[list[Action], set[Action]]] = {
    "draft": ([], {"start", "abandon"}),
    "shadow": (["start"], {"advance", "pause", "roll_back", "abandon"}),
    "canary": (
        ["start", "advance"],
        {"advance", "reallocate", "pause", "roll_back", "abandon"},
    ),
    "ab": (
        ["start", "advance", "advance"],
        {"reallocate", "pause", "promote", "roll_back", "abandon"},
    ),
    "paused": (["start", "advance", "pause"], {"resume", "roll_back", "abandon"}),
    "resumed": (
        ["start", "advance", "pause", "resume"],
        {"advance", "reallocate", "pause", "roll_back", "abandon"},
    ),
    "promoted": (["start", "advance", "advance", "promote"], set()),
    "rolled_back": (["start", "roll_back"], set()),
    "abandoned": (["abandon"], set()),
}


def event(action: str, **given: Any) -> Event:
    said = {"action": action, "by": "tester", "reason": "a test"}
    return Event.model_validate(said | NEEDS.get(action, {}) | given)


@pytest.fixture
def specification(agreed: Callable[..., dict[str, Any]]) -> ExperimentSpecification:
    return ExperimentSpecification.model_validate(agreed())


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("place", WAYS)
def test_every_action_in_every_place(
    specification: ExperimentSpecification, place: str, action: Action
) -> None:
    way, allowed = WAYS[place]
    here = Lifecycle.of(specification, map(event, way))

    assert set(here.may) == allowed
    if action in allowed:
        assert here.after(event(action)).events == here.events + 1
    else:
        with pytest.raises(ExperimentError, match=f"cannot '{action}'") as refused:
            here.after(event(action))
        assert all(repr(other) in str(refused.value) for other in allowed)


def test_the_phases_come_one_after_the_other(specification: ExperimentSpecification) -> None:
    here = Lifecycle.of(specification, map(event, ["start", "advance", "advance"]))
    assert [each.phase.kind for each in here.opened] == ["shadow", "canary", "ab"]
    assert [each.planned for each in here.opened] == [0, 1, 2]


def test_other_shares_open_a_phase_of_their_own(specification: ExperimentSpecification) -> None:
    here = Lifecycle.of(specification, map(event, ["start", "advance", "reallocate"]))

    assert [each.planned for each in here.opened] == [0, 1, 1]
    assert here.opened[-1].phase.allocation == {"float": 0.8, "int8": 0.2}  # type: ignore[union-attr]
    assert here.opened[-2].phase == specification.phases[1]
    assert here.after(event("advance")).current.phase == specification.phases[2]  # type: ignore[union-attr]
    with pytest.raises(ExperimentError, match="has already"):
        here.after(event("reallocate"))


@pytest.mark.parametrize(
    ("allocation", "words"),
    [
        ({"float": 0.5, "int8": 0.4}, "adds up to 0.9"),
        ({"float": 0.5, "bf16": 0.5}, "names"),
        ({}, "names"),
    ],
)
def test_shares_that_do_not_fit_are_refused(
    specification: ExperimentSpecification, allocation: dict[str, float], words: str
) -> None:
    here = Lifecycle.of(specification, map(event, ["start", "advance"]))
    with pytest.raises(ExperimentError, match=words):
        here.after(event("reallocate", allocation=allocation))


def test_only_a_challenger_is_promoted(specification: ExperimentSpecification) -> None:
    here = Lifecycle.of(specification, map(event, WAYS["ab"][0]))
    assert here.after(event("promote")).promoted == "int8"
    with pytest.raises(ExperimentError, match="is the control"):
        here.after(event("promote", arm="float"))
    with pytest.raises(ExperimentError, match="no arm 'fp4'"):
        here.after(event("promote", arm="fp4"))


@pytest.mark.parametrize(
    "values",
    [
        {"action": "promote"},
        {"action": "start", "arm": "int8"},
        {"action": "reallocate"},
        {"action": "pause", "allocation": {"float": 0.5, "int8": 0.5}},
        {"action": "delete"},
        {"action": "start", "reason": ""},
    ],
)
def test_an_event_says_what_its_action_needs(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Event.model_validate({"by": "tester", "reason": "a test"} | values)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # it is never changed
@given(actions=st.lists(st.sampled_from(ACTIONS), max_size=30))
def test_no_way_leads_out_of_the_end_or_skips_a_phase(
    specification: ExperimentSpecification, actions: list[Action]
) -> None:
    here = Lifecycle(specification)
    for action in actions:
        ended = here.state in ENDED
        try:
            after = here.after(event(action))
        except ExperimentError:
            assert action not in here.may or action == "reallocate"
            continue
        assert not ended
        assert after.opened[: len(here.opened)] == here.opened
        planned = [each.planned for each in after.opened]
        assert planned == sorted(planned)
        assert set(planned) == set(range(len(set(planned))))
        if after.state == "promoted":
            assert after.current is not None
            assert after.current.phase.kind == "ab"
        here = after

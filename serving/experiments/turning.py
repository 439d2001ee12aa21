"""Everybody to one arm, whatever deals the units now: an experiment that runs, or a deployment.

Where a deployment serves the open phase of an experiment, its arm wins or its control takes over as
an event of the experiment, which turns the traffic in the same moment. Any other deployment has its
route turned. Either is done once, however often it is asked for.
"""

from collections.abc import Callable
from contextlib import closing

from data.errors import ExperimentError
from serving.experiments.catalogue import Catalogue
from serving.experiments.lifecycle import ENDED, Event
from serving.experiments.routes import Routes


def turner(url: str) -> Callable[..., None]:
    """``turn_traffic`` of one store, as transitions of the registry ask for it."""

    def turn(deployment_id: str, arm: str | None, *, by: str, reason: str) -> None:
        turn_traffic(url, deployment_id, arm, by=by, reason=reason)

    return turn


def is_at_work(url: str, deployment_id: str) -> bool:
    """Whether a gateway has ever put a deployment to work with this store.

    Raises:
        ExperimentError: the store cannot be read.
    """
    with closing(Routes(url)) as routes:
        return routes.get(deployment_id) is not None


def turn_traffic(url: str, deployment_id: str, arm: str | None, *, by: str, reason: str) -> None:
    """Send everybody of a deployment to an arm; None deals them again.

    Raises:
        ExperimentError: no such deployment was put to work, it has no such arm, its experiment is
            paused or in another phase by now, or the database refused.
    """
    with closing(Routes(url)) as routes:
        found = routes.get(deployment_id)
        phase = found.content.get("phase") if found else None
        if (
            found is None
            or arm is None
            or not phase
            or not _runs(url, phase["experiment"], deployment_id)
        ):
            routes.turn(deployment_id, arm, by=by, reason=reason)
            return
    wins = arm != found.content["arms"][0]["name"]
    event = Event(
        action="promote" if wins else "roll_back",
        arm=arm if wins else None,
        by=by,
        reason=reason,
    )
    with closing(Catalogue(url)) as catalogue:
        catalogue.record(phase["experiment"], event)


def _runs(url: str, experiment: str, deployment_id: str) -> bool:
    """Whether the deployment serves the open phase of an experiment that has not ended.

    Raises:
        ExperimentError: another deployment serves the experiment by now.
    """
    with closing(Catalogue(url)) as catalogue:
        here = catalogue.get(experiment).lifecycle
    if here.state in ENDED:
        return False
    serving = here.current and here.current.deployment_id
    if serving != deployment_id:
        raise ExperimentError(
            f"experiment {experiment!r} is served by deployment {serving!r} by now, not by "
            f"{deployment_id!r}: another phase was opened meanwhile; compare that one"
        )
    return True

"""Who answers everybody of what this gateway serves, asked of the store again and again.

A deployment is written down in the store, and its route known, before its first request; until
then it answers nobody, since it may have been rolled back. From then on its route is read every
second. Where the store does not answer, what was known goes on to hold, and a warning says so.
"""

import asyncio
import logging
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final, Protocol

from data.errors import ExperimentError
from serving.deployment import SharedArm
from serving.experiments.routes import DeploymentKind, Route, Routes
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.routing import Routing
from serving.gateway.settings import ServingSettings

_FIRST_TRIES_S: Final = (0.0, 0.1, 0.4)
"""A database that is busy for a moment must not leave a new deployment without its route."""
_log = logging.getLogger(__name__)


class Turnable(Protocol):
    """A deployment of any kind, which a route may send everybody of to one arm."""

    @property
    def deployment_id(self) -> str:
        """32 hex digits."""

    @property
    def experiment_id(self) -> str:
        """Whose."""

    @property
    def arms(self) -> Sequence[SharedArm]:
        """The control first."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """What its file says."""


@dataclass
class _Followed:
    kind: DeploymentKind
    deployment: Turnable
    routing: Routing[Any]
    known: bool = False
    route: Route | None = None
    failure: str | None = None


class RouteWatch:
    """Keeps every kind's routing as the store has it. Used from one event loop."""

    def __init__(self, settings: ServingSettings, metrics: GatewayMetrics):
        """Hold the settings; the store is opened when it is first asked."""
        self._url = settings.store_url
        self._poll_s = settings.route_poll_s
        self._metrics = metrics
        self._routes: Routes | None = None
        self._followed: dict[str, _Followed] = {}
        self._one_at_a_time = asyncio.Lock()

    async def follow(
        self, kind: DeploymentKind, deployment: Turnable, routing: Routing[Any]
    ) -> None:
        """Write a deployment down and let its route hold; where that fails, ``run`` goes on trying.

        Args:
            kind: of its models.
            deployment: whose first request is yet to come.
            routing: by which it is dealt.
        """
        one = self._followed.setdefault(
            deployment.deployment_id, _Followed(kind, deployment, routing)
        )
        for wait_s in _FIRST_TRIES_S:
            await asyncio.sleep(wait_s)
            if await self._look(one):
                return

    def keep(self, kind: DeploymentKind, deployment_ids: AbstractSet[str]) -> None:
        """Follow no other deployments of a kind any more."""
        for one in list(self._followed.values()):
            if one.kind == kind and one.deployment.deployment_id not in deployment_ids:
                del self._followed[one.deployment.deployment_id]
        self._show()

    async def run(self) -> None:
        """Look at every route, for ever."""
        while True:
            await asyncio.sleep(self._poll_s)
            for one in list(self._followed.values()):
                await self._look(one)

    async def close(self) -> None:
        """Let go of the store."""
        if self._routes is not None:
            await asyncio.to_thread(self._routes.close)

    def reasons(self, deployment_id: str) -> list[str]:
        """Why a deployment may not answer yet; empty if it may."""
        one = self._followed.get(deployment_id)
        if one is not None and one.known:
            return []
        return [f"who answers everybody of deployment {deployment_id} is not known yet"]

    def warnings(self) -> list[str]:
        """What went wrong when the store was last asked."""
        return [one.failure for one in self._followed.values() if one.failure]

    def fact(self, deployment_id: str) -> dict[str, Any]:
        """Who answers everybody of a deployment, for ``/ready``: arm (null: as dealt), number."""
        one = self._followed.get(deployment_id)
        route = one.route if one else None
        return {"arm": route.arm if route else None, "number": route.number if route else 0}

    async def _look(self, one: _Followed) -> bool:
        """Ask the store once; whether it answered."""
        try:
            async with self._one_at_a_time:
                route = await asyncio.to_thread(self._read, one)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may go well
            why = str(error) if isinstance(error, ExperimentError) else repr(error)
            if one.failure is None:
                _log.warning("routes stay as they were: %s", why)
            one.failure = f"routes stay as they were: {why}"
            return False
        one.failure = None
        self._take(one, route)
        return True

    def _read(self, one: _Followed) -> Route | None:
        if self._routes is None:
            self._routes = Routes(self._url)
        deployment = one.deployment
        if not one.known:
            content = deployment.model_dump(mode="json")
            self._routes.put(one.kind, deployment.deployment_id, deployment.experiment_id, content)
        return self._routes.now(deployment.deployment_id)

    def _take(self, one: _Followed, route: Route | None) -> None:
        deployment, arm = one.deployment, route.arm if route else None
        names = [each.name for each in deployment.arms]
        if arm is not None and arm not in names:
            one.failure = (
                f"route {route.number if route else 0} sends everybody of deployment "
                f"{deployment.deployment_id} to arm={arm!r}; it has {names!r}, so units stay as "
                "they were: turn it to one of those"
            )
            one.known = True
            return
        if arm != one.routing.forced(deployment.deployment_id):
            _log.info(
                "deployment %s: everybody is %s (%s)",
                deployment.deployment_id,
                f"answered by {arm}" if arm else "dealt",
                route.reason if route else "no route",
            )
        one.routing.force(deployment.deployment_id, arm)
        one.known, one.route = True, route
        self._show()

    def _show(self) -> None:
        shown = []
        for one in self._followed.values():
            deployment_id = one.deployment.deployment_id
            forced = one.routing.forced(deployment_id)
            shown += [
                (one.kind, arm.name, deployment_id, float(arm.name == forced))
                for arm in one.deployment.arms
            ]
        self._metrics.show_routes(shown)

"""Who answers a unit: as its deployment deals, or whom everybody is sent to now."""

from collections.abc import Set as AbstractSet
from typing import Generic

from serving.experiments.assignment import ArmT, Dealer, Deployed, Why


class Routing(Generic[ArmT]):
    """The dealers of the deployments of one kind, and where everybody is sent. One event loop."""

    def __init__(self) -> None:
        """Deal as deployments say."""
        self._dealers: dict[str, Dealer[ArmT]] = {}
        self._forced: dict[str, str] = {}

    def meet(self, deployment: Deployed[ArmT], hashed_unit: str) -> tuple[ArmT, Why]:
        """The arm that answers for a hashed unit, and why.

        Raises:
            ExperimentError: it is no hashed unit.
        """
        key = deployment.deployment_id
        dealer = self._dealers.get(key)
        if dealer is None:
            dealer = self._dealers[key] = Dealer(deployment)
        return dealer.meet(hashed_unit, forced=self._forced.get(key))

    def force(self, deployment_id: str, arm: str | None) -> None:
        """Send everybody of a deployment to an arm from now on; None deals them again."""
        if arm is None:
            self._forced.pop(deployment_id, None)
        else:
            self._forced[deployment_id] = arm

    def forced(self, deployment_id: str) -> str | None:
        """The arm that everybody of a deployment is sent to."""
        return self._forced.get(deployment_id)

    def forget_others(self, deployment_ids: AbstractSet[str]) -> None:
        """Let go of all deployments but these, which requests still hold."""
        for known in (self._dealers, self._forced):
            for key in known.keys() - deployment_ids:
                del known[key]

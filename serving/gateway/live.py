"""What answers now, and how another takes its place while requests come in.

A deployment is loaded, checked and warmed up beside the one at work; then one assignment makes it
the one that new requests meet. Requests that already hold the old one finish on it, after which its
arms drain. A deployment that cannot be loaded changes nothing but a warning.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Generic, Literal, Protocol, TypeVar

from data.errors import MatjipError
from serving.dealing import ArmName
from serving.deployment import AnyDeployment

_log = logging.getLogger(__name__)
SwapResult = Literal["swapped", "unchanged", "refused"]


class Running(Protocol):
    """What every kind of arm has once it is loaded."""

    @property
    def model_version(self) -> str:
        """What messages call the model by."""

    @property
    def warning(self) -> str | None:
        """What is not as it was meant, though it answers."""

    def reasons(self) -> Sequence[str]:
        """Why it cannot answer now; empty if it can."""

    async def drain(self, timeout_s: float) -> None:
        """Answer what is open, no later than in ``timeout_s``, and let go of it all."""


AnyArm = TypeVar("AnyArm", bound=Running)


class Live(Generic[AnyDeployment, AnyArm]):
    """A deployment with its arms in memory, and how many requests hold it."""

    def __init__(self, deployment: AnyDeployment, arms: Mapping[ArmName, AnyArm]):
        """Hold arms that have started."""
        self.deployment = deployment
        self.arms = arms
        self._users = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep it from being retired; a request holds one for as long as it lasts."""
        self._users += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._idle.set()

    async def retire(self, timeout_s: float) -> None:
        """Wait until nobody holds it, then drain its arms; no later than in ``timeout_s``."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        try:
            async with asyncio.timeout_at(end):
                await self._idle.wait()
        except TimeoutError:
            _log.warning(
                "%d requests still hold deployment %s after %s s",
                self._users,
                self.deployment.deployment_id,
                timeout_s,
            )
        left_s = max(end - loop.time(), 0.1)
        await asyncio.gather(*(arm.drain(left_s) for arm in self.arms.values()))


class Stage(Generic[AnyDeployment, AnyArm]):
    """The one place where a kind of model is at work. Used from one event loop."""

    def __init__(
        self,
        load: Callable[[AnyDeployment], Awaitable[Live[AnyDeployment, AnyArm]]],
        *,
        retire_s: float,
        swapped: Callable[[AnyDeployment], None],
        retired: Callable[[AbstractSet[str]], None] = lambda _: None,
    ):
        """Nothing answers yet.

        Args:
            load: a deployment to arms that have started and answered once; raises MatjipError.
            retire_s: how long a deployment that was replaced may take to finish.
            swapped: told of every deployment that new requests meet.
            retired: told, whenever a deployment is gone, the ids of those that are still held.
        """
        self._load = load
        self._retire_s = retire_s
        self._swapped = swapped
        self._retired = retired
        self._live: Live[AnyDeployment, AnyArm] | None = None
        self._reasons = ["the gateway is starting"]
        self._leaving: list[Live[AnyDeployment, AnyArm]] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self.warning: str | None = None

    @property
    def live(self) -> Live[AnyDeployment, AnyArm] | None:
        """What a request that begins now is answered by; ``hold`` it, and look only once."""
        return self._live

    async def start(self, deployment: AnyDeployment) -> None:
        """Load the first deployment; what goes wrong becomes a reason of ``/ready``."""
        try:
            self._live = await self._load(deployment)
        except MatjipError as error:
            _log.error("not ready: %s", error)
            self._reasons = [str(error)]
        else:
            self._reasons = []
            self._swapped(deployment)

    async def swap(self, read: Callable[[], AnyDeployment]) -> SwapResult:
        """Put another deployment to work; what goes wrong becomes a warning, and the old stays.

        Args:
            read: the other deployment, from its file.
        """
        async with self._one_at_a_time:
            old = self._live
            try:
                deployment = await asyncio.to_thread(read)
                if old and old.deployment.deployment_id == deployment.deployment_id:
                    self.warning = None
                    return "unchanged"
                new = await self._load(deployment)
            except Exception as error:  # noqa: BLE001  # the old one answers, whatever this is
                why = str(error) if isinstance(error, MatjipError) else repr(error)
                _log.error("the new deployment is not served: %s", why)
                self.warning = f"the new deployment is not served: {why}"
                return "refused"
            self._live, self._reasons, self.warning = new, [], None
            self._swapped(deployment)
            _log.info("deployment %s answers now", deployment.deployment_id)
            if old is not None:
                self._leaving.append(old)
                retiring = asyncio.create_task(self._retire(old))
                self._retiring.add(retiring)
                retiring.add_done_callback(self._retiring.discard)
            return "swapped"

    async def _retire(self, old: Live[AnyDeployment, AnyArm]) -> None:
        await old.retire(self._retire_s)
        self._leaving.remove(old)
        held = [*self._leaving, *([self._live] if self._live else [])]
        self._retired({each.deployment.deployment_id for each in held})

    def reasons(self) -> list[str]:
        """Why it cannot answer now; empty if it can."""
        arms = self._live.arms.values() if self._live else ()
        said = (f"{arm.model_version}: {why}" for arm in arms for why in arm.reasons())
        return [*self._reasons, *said]

    def warnings(self) -> list[str]:
        """What went wrong without keeping it from answering."""
        arms = self._live.arms.values() if self._live else ()
        said = [f"{arm.model_version}: {arm.warning}" for arm in arms if arm.warning]
        return [self.warning, *said] if self.warning else said

    async def stop(self) -> None:
        """Finish what runs, of what was replaced as well."""
        live = [self._live.retire(self._retire_s)] if self._live else []
        await asyncio.gather(*live, *self._retiring)

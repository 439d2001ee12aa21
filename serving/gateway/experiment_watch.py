"""What a gateway does for the experiments that it serves: guardrails, and notices of every change.

Both are turns in a thread, beside the requests; what goes wrong is a warning of ``/ready``.
"""

import asyncio
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry

from serving.experiments.notices import Notifier, Webhook
from serving.gateway.guardrail_metrics import GuardrailMetrics
from serving.gateway.guardrails import Guarded, Guardrails
from serving.gateway.repeating import Repeated
from serving.gateway.settings import ServingSettings


class ExperimentWatch:
    """Both of them, as far as the settings ask for them. Used from one event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        served: Callable[[], Sequence[Guarded]],
        registry: CollectorRegistry,
    ):
        """Open nothing yet.

        Args:
            settings: which of them, how often, and where the store is.
            served: the deployments that answer now; asked from a thread.
            registry: of the gateway's metrics.
        """
        self._store_url = settings.store_url
        self._webhook: Webhook | None = None
        if settings.webhook_url is not None and settings.webhook_secret is not None:
            self._webhook = Webhook(settings.webhook_url, settings.webhook_secret)
        self._notifier: Notifier | None = None
        self._guardrails = Guardrails(
            settings.store_url, served=served, metrics=GuardrailMetrics(registry)
        )
        every_s = settings.guardrail_poll_s
        self._repeated = []
        if settings.guardrails == "on":
            turn = self._guardrails.turn
            self._repeated.append(Repeated(turn, every_s=every_s, doing="guardrails"))
        if self._webhook is not None:
            self._repeated.append(Repeated(self._notify, every_s=every_s, doing="notices"))

    async def run(self) -> None:
        """Turn after turn, until cancelled."""
        await asyncio.gather(*(each.run() for each in self._repeated))

    async def close(self) -> None:
        """Wait for what is under way, and let go of the store; ``run`` was cancelled."""
        if self._notifier is not None:
            self._notifier.stop()
        await asyncio.gather(*(each.close() for each in self._repeated))
        await asyncio.to_thread(self._guardrails.close)
        if self._notifier is not None:
            await asyncio.to_thread(self._notifier.close)

    def warnings(self) -> list[str]:
        """What went wrong in the last turns."""
        return [warning for each in self._repeated for warning in each.warnings()]

    def _notify(self) -> bool:
        if self._notifier is None and self._webhook is not None:
            self._notifier = Notifier(self._store_url, self._webhook)
        if self._notifier is not None:
            self._notifier.deliver()
        return False

"""What every runner of the process shares: one admission, one set of limits, one observer."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from data.errors import EngineError
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.memory import GpuMemory, HostMemory
from serving.batching.runner import BatchRunner
from serving.engines.choice import ENGINES
from serving.engines.tuned import Chosen
from serving.gateway.metrics import GatewayMetrics
from serving.gateway.settings import ServingSettings
from serving.text_model import TextModel

Answer = TypeVar("Answer")
_WARM_UP_S: Final = 120.0


class Shared:
    """Makes runners that know of each other. Used from one event loop."""

    def __init__(self, settings: ServingSettings, metrics: GatewayMetrics):
        """Read how much memory there is.

        Raises:
            EngineError: the GPU's memory cannot be read.
        """
        self.settings = settings
        self.metrics = metrics
        self.admission = Admission(
            GpuMemory() if settings.device == "gpu" else HostMemory(),
            settings=settings.admission(),
        )

    async def start_runner(
        self, model: TextModel[Answer], *, name: str, chosen: Chosen | None, warm_up: str
    ) -> BatchRunner[Answer]:
        """A runner that has answered once: an engine's first run is slow, and no caller's to wait.

        Args:
            model: loaded.
            name: of the runner, in metrics and messages.
            chosen: the engine that it runs on, and the cost model fitted with it.
            warm_up: a text.

        Raises:
            ArtifactError: its cost model cannot be read.
            EngineError: the model does not answer, or computes on another device than the one
                whose memory is watched.
        """
        if chosen is not None:
            self._check_device(chosen.engine)
        runner = BatchRunner(
            model,
            name=name,
            admission=self.admission,
            costs=_costs(model, chosen),
            settings=self.settings.batching,
            observer=self.metrics.batches,
        )
        await runner.start()
        self.metrics.batches.show(name)
        try:
            await _answer_once(runner, warm_up)
        except BaseException:
            await runner.drain(0.0)
            raise
        self.admission.model_loaded()
        return runner

    def measure(self) -> None:
        """Bring the metrics of admission up to now: without batches nobody else does."""
        self.metrics.batches.admission(state=self.admission.state())

    def _check_device(self, engine: str) -> None:
        device, watched = ENGINES[engine].device, self.settings.device
        if device != watched:
            raise EngineError(
                f"engine {engine!r} computes on the {device}, but MATJIP_DEVICE={watched!r} says "
                f"whose memory is watched; set MATJIP_DEVICE={device}, or choose an engine of "
                f"the {watched}"
            )

    async def close(self, runners: Iterable[BatchRunner[Any]]) -> None:
        """Stop runners that nobody has asked yet."""
        await asyncio.gather(*(runner.drain(0.0) for runner in runners))


def _costs(model: TextModel[Any], chosen: Chosen | None) -> CostModel:
    if chosen is not None and chosen.costs is not None:
        return CostModel.load(chosen.costs)
    return CostModel.unfitted(computes_padding=model.engine.computes_padding)


async def _answer_once(runner: BatchRunner[Any], text: str) -> None:
    (answer,) = await runner.answer([text], timeout_s=_WARM_UP_S)
    if isinstance(answer, EngineError):
        raise answer

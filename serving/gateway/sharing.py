"""What every runner of the process shares: one admission, one set of limits, one observer."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from data.errors import EngineError
from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.memory import GpuMemory, HostMemory
from serving.batching.runner import BatchRunner
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
        self, model: TextModel[Answer], *, name: str, digest: str, warm_up: str
    ) -> BatchRunner[Answer]:
        """A runner that has answered once: an engine's first run is slow, and no caller's to wait.

        Args:
            model: loaded.
            name: of the runner, in metrics and messages.
            digest: of the model's manifest.
            warm_up: a text.

        Raises:
            ArtifactError: its cost model cannot be read.
            EngineError: the model does not answer.
        """
        runner = BatchRunner(
            model,
            name=name,
            admission=self.admission,
            costs=self._costs(model, digest),
            settings=self.settings.batching(),
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

    def _costs(self, model: TextModel[Any], digest: str) -> CostModel:
        if self.settings.costs_folder is not None:
            path = cost_file(Path(self.settings.costs_folder), digest, model.engine.name)
            if path.is_file():
                return CostModel.load(path)
        return CostModel.unfitted(computes_padding=model.engine.computes_padding)

    async def close(self, runners: Iterable[BatchRunner[Any]]) -> None:
        """Stop runners that nobody has asked yet."""
        await asyncio.gather(*(runner.drain(0.0) for runner in runners))


def cost_file(folder: Path, digest: str, engine: str) -> Path:
    """Where the cost model of a model in an engine stands: both decide what a batch costs.

    Args:
        folder: of this machine's cost models.
        digest: of the model's manifest.
        engine: its ``name``.
    """
    return folder / f"{digest[:12]}-{engine}.json"


async def _answer_once(runner: BatchRunner[Any], text: str) -> None:
    (answer,) = await runner.answer([text], timeout_s=_WARM_UP_S)
    if isinstance(answer, EngineError):
        raise answer

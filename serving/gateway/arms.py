"""The classifiers of a deployment, loaded and checked, each behind a runner of its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from data.errors import ArtifactError
from serving.analyzer import Analyzer, load_analyzer
from serving.batching.runner import BatchRunner
from serving.dealing import ArmName
from serving.deployment import Arm, Deployment
from serving.engines.protocol import Engine, Outputs
from serving.gateway.live import Live
from serving.gateway.settings import AUTO, ServingSettings
from serving.gateway.sharing import Shared
from serving.gateway.timed_engine import BATCH_SECONDS, ROW_SECONDS, TimedEngine
from serving.logits import Logits
from serving.model_signature import check_before_loading
from serving.prediction_json import prediction_json
from serving.predictions import probabilities
from serving.windows import Windows, merge_outputs

_WARM_UP: Final = "맛있어요"
_TIMES: Final = frozenset({BATCH_SECONDS, ROW_SECONDS})


class Answered(NamedTuple):
    """One review's answer.

    Attributes:
        prediction: its JSON, as it is sent and stored.
        compute_ms: of the engine, its share of the batches that it was part of.
    """

    prediction: bytes
    compute_ms: float


class PredictionWriter:
    """A ``TextModel`` whose answers are predictions' JSON, and what they took.

    They are made where the runner does its post-processing, off the event loop.
    """

    def __init__(self, analyzer: Analyzer):
        """Wrap a classifier."""
        self.analyzer = analyzer
        self.engine: Engine = TimedEngine(analyzer.engine)
        self.pad_id = analyzer.pad_id

    def windows(self, texts: Sequence[str]) -> Windows:
        """See ``TextModel.windows``."""
        return self.analyzer.windows(texts)

    def answers(self, outputs: Outputs, windows: Windows) -> list[Answered]:
        """See ``TextModel.answers``."""
        spec = self.analyzer.spec
        heads = {name: each for name, each in outputs.items() if name not in _TIMES}
        arrays = probabilities(Logits(**merge_outputs(heads, windows)), spec.temperatures)
        took_ms = 1e3 * np.bincount(
            windows.text_index, weights=outputs[ROW_SECONDS], minlength=windows.texts
        )
        written = prediction_json(arrays, windows.per_text, spec)
        return [Answered(*each) for each in zip(written, took_ms.tolist(), strict=True)]


@dataclass(frozen=True)
class LoadedArm:
    """An arm with its model in memory."""

    arm: Arm
    runner: BatchRunner[Answered]
    warning: str | None = None

    @property
    def model_version(self) -> str:
        """What the store knows the model by."""
        return _version(self.arm)

    def reasons(self) -> list[str]:
        """Why it cannot answer now; empty if it can."""
        return self.runner.reasons()

    async def drain(self, timeout_s: float) -> None:
        """Answer what is open, and stop the runner."""
        await self.runner.drain(timeout_s)


def _version(arm: Arm) -> str:
    return f"{arm.model_name}/{arm.version}"


async def load_arms(deployment: Deployment, shared: Shared) -> Live[Deployment, LoadedArm]:
    """Load every arm, start its runner, and have it answer once.

    Raises:
        ArtifactError: a file is missing or altered, it is another model than was deployed, or not
            the one that was signed.
        EngineError: an engine cannot load its model, or does not answer.
    """
    arms: dict[ArmName, LoadedArm] = {}
    try:
        for arm in deployment.arms:
            analyzer = await asyncio.to_thread(load_arm, arm, shared.settings)
            runner = await shared.start_runner(
                PredictionWriter(analyzer),
                name=_version(arm),
                chosen=analyzer.chosen,
                warm_up=_WARM_UP,
            )
            warning = analyzer.chosen.warning if analyzer.chosen else None
            arms[arm.name] = LoadedArm(arm, runner, warning)
    except BaseException:
        await shared.close(loaded.runner for loaded in arms.values())
        raise
    return Live(deployment, arms)


def load_arm(arm: Arm, settings: ServingSettings) -> Analyzer:
    """An arm's model, if it is the one that was deployed; see ``load_arms`` for the errors."""
    check_before_loading(arm.folder, settings.verify_key)
    engine = None if settings.engine == AUTO else settings.engine
    analyzer = load_analyzer(arm.folder, engine=engine, threads=settings.engine_threads)
    if analyzer.manifest.digest != arm.manifest_digest:
        raise ArtifactError(
            f"{arm.name} {_version(arm)}: {str(arm.folder)!r} holds the model "
            f"{analyzer.manifest.digest[:12]!r}, the deployment names "
            f"{arm.manifest_digest[:12]!r}; deploy again"
        )
    return analyzer

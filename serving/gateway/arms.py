"""The models of a deployment, loaded and checked, and how they answer a group of texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.contract import Prediction
from data.errors import ArtifactError, EngineError
from serving.analyzer import Analyzer, load_analyzer
from serving.deployment import Arm, ArmName, Deployment


@dataclass(frozen=True)
class LoadedArm:
    """An arm with its model in memory."""

    arm: Arm
    analyzer: Analyzer

    @property
    def model_version(self) -> str:
        """What the store knows the model by."""
        return f"{self.arm.model_name}/{self.arm.version}"


def load_arm(arm: Arm, *, threads: int) -> LoadedArm:
    """Load an arm's model folder, once.

    Raises:
        ArtifactError: a file is missing or altered, or it is another model than was deployed.
        EngineError: the engine cannot load it.
    """
    analyzer = load_analyzer(arm.folder, threads=threads)
    if analyzer.manifest.digest != arm.manifest_digest:
        raise ArtifactError(
            f"{arm.name} {arm.model_name}/{arm.version}: {str(arm.folder)!r} holds the model "
            f"{analyzer.manifest.digest[:12]!r}, the deployment names "
            f"{arm.manifest_digest[:12]!r}; deploy again"
        )
    analyzer.analyze(["맛있어요"])  # the first run of a graph is slow: not a caller's to wait for
    return LoadedArm(arm, analyzer)


def load_arms(deployment: Deployment, *, threads: int) -> dict[ArmName, LoadedArm]:
    """Load every arm of a deployment; see ``load_arm`` for the errors."""
    return {arm.name: load_arm(arm, threads=threads) for arm in deployment.arms}


Answer = tuple[Prediction, bytes]
"""A prediction, and its JSON as it is sent and stored."""


def answer_texts(analyzer: Analyzer, texts: Sequence[str]) -> list[Answer | None]:
    """Predictions and their JSON, None where the engine failed on a text.

    A text that breaks its batch is found by asking for each alone, so that it fails alone.
    """
    try:
        predictions = analyzer.analyze(texts)
    except EngineError:
        if len(texts) == 1:
            return [None]
        return [answer for text in texts for answer in answer_texts(analyzer, [text])]
    return [(one, one.model_dump_json().encode()) for one in predictions]

"""One language request on its way: which arm answers, and what store and caller learn."""

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import orjson

from serving.experiments.assignment import Why
from serving.experiments.store import Exposure, Status
from serving.gateway.language_arms import LoadedLanguageArm
from serving.language_deployment import LanguageDeployment


@dataclass(frozen=True)
class Turn:
    """One request.

    Attributes:
        request_id: the caller's, or a new one.
        route: which of our routes.
        unit: salted hash of who asks.
        deployment: that assigned the unit.
        loaded: the unit's arm.
        started: ``time.perf_counter()`` when the request's head had come.
        why: the unit met this arm.
    """

    request_id: str
    route: str
    unit: str
    deployment: LanguageDeployment
    loaded: LoadedLanguageArm
    started: float
    why: Why = "assigned"

    def exposure(
        self,
        asked_sha256: str,
        facts: dict[str, Any],
        *,
        at_us: int,
        status: Status = "ok",
        tokens: int | None = None,
    ) -> Exposure:
        """What the store keeps: facts of the answer and hashes, no words of anybody.

        Args:
            asked_sha256: of what was asked, masked, without the unit.
            facts: of the answer; of a failure, its code as ``error``.
            at_us: when, in microseconds since 1970.
            status: what came of it.
            tokens: of prompt and answer, which are what it cost; None where nobody counted them.
        """
        return Exposure(
            request_id=self.request_id,
            item=0,
            experiment_id=self.deployment.experiment_id,
            deployment_id=self.deployment.deployment_id,
            unit=self.unit,
            arm=self.loaded.arm.name,
            model_version=self.loaded.arm.model_version,
            text_sha256=asked_sha256,
            prediction=orjson.dumps(facts),
            latency_ms=(time.perf_counter() - self.started) * 1000,
            created_at_us=at_us,
            why=self.why,
            status=status,
            cost=None if tokens is None else float(tokens),
        )

    def mirrored(self, loaded: LoadedLanguageArm) -> "Turn":
        """The same request for another arm of a shadow, from now on."""
        return replace(self, loaded=loaded, started=time.perf_counter(), why="mirrored")

    def headers(self) -> dict[str, str]:
        """Which arm answered, for an answer whose body is OpenAI's."""
        said = {
            "X-Matjip-Arm": self.loaded.arm.name,
            "X-Matjip-Model": self.loaded.arm.model_version,
            "X-Matjip-Experiment": self.deployment.experiment_id,
            "X-Matjip-Deployment": self.deployment.deployment_id,
        }
        # A model may have a Korean name; a header may not.
        return {name: quote(value, safe="/") for name, value in said.items()}


def sha256(content: bytes) -> str:
    """SHA-256 of an answer's bytes, in hex."""
    return hashlib.sha256(content).hexdigest()

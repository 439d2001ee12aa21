"""The folder of a TensorRT engine: what it was built for, and whether that is this machine.

plan.json      this module's ``Plan``
engine.trt     the serialised engine: for one GPU generation and one version of TensorRT alone

ONNX is the source of truth; an engine is rebuilt from it wherever its key does not fit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import ArtifactError, EngineError
from data.manifest import canonical_digest

PLAN_NAME: Final = "plan.json"
ENGINE_NAME: Final = "engine.trt"
TrtPrecision = Literal["fp16", "int8"]


class Profile(BaseModel):
    """A fixed batch size and the longest window that it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int = Field(ge=1)
    tokens: int = Field(ge=1)


class Plan(BaseModel):
    """What an engine is.

    Attributes:
        precision: of its products, as inspected after the build and not as asked for.
        reason: why it is that precision.
        compute_capability: of the GPU it was built on, such as "9.0".
        tensorrt_version: that built it.
        graph_sha256: of the ONNX file.
        profiles: in the engine's order.
        layers: how many layers compute in each type.
        int8_share: share of the products that are in INT8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: TrtPrecision
    reason: str
    compute_capability: str
    tensorrt_version: str
    graph_sha256: str
    profiles: tuple[Profile, ...] = Field(min_length=1)
    layers: dict[str, int]
    int8_share: float = Field(ge=0, le=1)

    @property
    def key(self) -> str:
        """Names all that an engine depends on; another key needs another build."""
        return engine_key(
            self.compute_capability, self.tensorrt_version, self.graph_sha256, self.profiles
        )


def engine_key(
    compute_capability: str, tensorrt_version: str, graph_sha256: str, profiles: Sequence[Profile]
) -> str:
    """SM, version, and a digest of graph and profiles."""
    shapes = [[profile.batch, profile.tokens] for profile in profiles]
    digest = canonical_digest([graph_sha256, shapes])[:16]
    return f"sm{compute_capability.replace('.', '')}-trt{tensorrt_version}-{digest}"


def read_plan(folder: Path) -> Plan:
    """Read an engine folder's plan.

    Raises:
        ArtifactError: there is none, or it is not one.
    """
    path = folder / PLAN_NAME
    try:
        return Plan.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(path)!r} is no TensorRT plan: {error}; build the engine again"
        ) from error


def check_machine(plan: Plan, *, compute_capability: str, tensorrt_version: str) -> None:
    """Refuse an engine that was built for another machine.

    Raises:
        EngineError: names what differs.
    """
    for what, built, here in (
        ("compute capability", plan.compute_capability, compute_capability),
        ("TensorRT version", plan.tensorrt_version, tensorrt_version),
    ):
        if built != here:
            raise EngineError(
                f"the engine was built for {what} {built!r} and this machine has {here!r}; "
                "build it here from the same ONNX file"
            )


def smallest_profile(profiles: Sequence[Profile], rows: int, tokens: int) -> int:
    """Index of the profile that holds a batch with the fewest padded tokens.

    Raises:
        EngineError: none holds it.
    """
    fitting = [
        index
        for index, profile in enumerate(profiles)
        if profile.batch >= rows and profile.tokens >= tokens
    ]
    if not fitting:
        shapes = [(profile.batch, profile.tokens) for profile in profiles]
        raise EngineError(
            f"no profile of {shapes!r} holds a batch of shape {(rows, tokens)!r}; send smaller "
            "batches, or build the engine for larger ones"
        )
    return min(fitting, key=lambda index: profiles[index].batch * profiles[index].tokens)


def profiles_for(
    lengths: Sequence[int] | NDArray[np.int64],
    *,
    token_budget: int,
    max_tokens: int,
    max_profiles: int = 6,
    max_waste: float = 0.1,
) -> tuple[Profile, ...]:
    """Profiles that waste little on the lengths that were measured, and cover every other.

    Lengths are cut into the ranges that waste the fewest padded tokens (exactly, by dynamic
    programming over the distinct lengths), with as few profiles as ``max_waste`` allows. The last
    one holds ``max_tokens``, so that no window is refused.

    Args:
        lengths: tokens of windows, as traffic brought them.
        token_budget: padded tokens of one batch.
        max_tokens: the longest window there may be.
        max_profiles: a profile costs build time and memory.
        max_waste: padded tokens over real ones, less 1, that are good enough.

    Raises:
        EngineError: there are no lengths, or one is longer than ``max_tokens``.
    """
    values, counts = np.unique(np.asarray(lengths, dtype=np.int64), return_counts=True)
    if not len(values) or values[-1] > max_tokens or values[0] < 1:
        raise EngineError(
            f"lengths from {values[:1]!r} to {values[-1:]!r} cannot be planned for max_tokens="
            f"{max_tokens!r}; measure windows of this model"
        )
    real = float((values * counts).sum())
    for count in range(1, max_profiles + 1):
        tops, padded = _best_tops(values, counts, count)
        if padded <= real * (1 + max_waste):
            break
    if tops[-1] < max_tokens:
        tops = [*tops, max_tokens]
    return tuple(Profile(batch=max(1, token_budget // top), tokens=top) for top in tops)


def _best_tops(
    values: NDArray[np.int64], counts: NDArray[np.int64], parts: int
) -> tuple[list[int], float]:
    """Upper ends of at most ``parts`` ranges, and the tokens padded up to them."""
    below = np.concatenate([[0], np.cumsum(counts)])
    best = {0: (0.0, list[int]())}
    for _ in range(parts):
        longer = dict(best)
        for start, (cost, tops) in best.items():
            for end in range(start + 1, len(values) + 1):
                top = int(values[end - 1])
                total = cost + top * float(below[end] - below[start])
                if end not in longer or total < longer[end][0]:
                    longer[end] = (total, [*tops, top])
        best = longer
    cost, tops = best[len(values)]
    return tops, cost

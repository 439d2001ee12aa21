"""The folder of one model's TensorRT engines, bound to a GPU and a version of TensorRT.

plan.json      what was built, for which machine, and why one of them was chosen (this module)
fp16.plan      the engine in half precision
int8.plan      the engine in INT8, where it is INT8 indeed, as exact as asked, and faster
*.layers.json  what TensorRT says of the layers that it built
sweep.json, sweep.md, sweep.svg   latency, throughput and memory by batch size

It stands as ``tensorrt/`` in a model's folder, beside what the manifest seals: the ONNX graphs are
the source of truth, and engines are made again from them wherever they do not fit.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import ArtifactError
from data.manifest import (
    MANIFEST_NAME,
    Manifest,
    canonical_digest,
    file_sha256,
    write_text_atomically,
)

PLAN_FOLDER: Final = "tensorrt"
PLAN_NAME: Final = "plan.json"
PlanPrecision = Literal["fp16", "int8"]
MEND: Final = "build it here: make build-engine MODEL=folder"


class Profile(BaseModel):
    """Shapes that an engine was optimised for: exactly so many tokens, and at most so many rows.

    Tokens are fixed, so kernels and their tiles fit the length; rows may be fewer, and none are
    padded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int = Field(ge=1, description="Rows of the batch that kernels were chosen for.")
    tokens: int = Field(ge=1, description="Tokens that every row is padded to.")


class Plan(BaseModel):
    """One engine.

    Attributes:
        file: in this folder.
        sha256: of the file; an engine holds code, so it is checked before it is loaded.
        graph: name of the ONNX file that it was built from.
        graph_sha256: of that file.
        key: of what it depends on (``plan_key``).
        build_s: seconds that the builder took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    graph: str
    graph_sha256: str
    key: str
    build_s: float


class PlanSpec(BaseModel):
    """What was built, for which machine.

    Attributes:
        model: digest of the model's folder.
        tensorrt: version that built it.
        sm: compute capability of the GPU, such as "9.0".
        profiles: by number, as the engines hold them.
        plans: engines that may serve.
        left_out: why a precision may not.
        chosen: the one that serves unless it is asked otherwise.
        reason: why that one, in figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    tensorrt: str
    sm: str
    profiles: tuple[Profile, ...]
    plans: dict[PlanPrecision, Plan]
    left_out: dict[PlanPrecision, str]
    chosen: PlanPrecision
    reason: str


def plan_key(*, sm: str, tensorrt: str, graph_sha256: str, profiles: Sequence[Profile]) -> str:
    """What an engine depends on, as 64 hex digits: another one needs another engine."""
    return canonical_digest(
        {
            "sm": sm,
            "tensorrt": tensorrt,
            "graph": graph_sha256,
            "profiles": [profile.model_dump() for profile in profiles],
        }
    )


def write_plan_spec(folder: Path, spec: PlanSpec) -> None:
    """Write plan.json."""
    write_text_atomically(folder / PLAN_NAME, spec.model_dump_json(indent=2) + "\n")


def read_plan_spec(folder: Path) -> PlanSpec:
    """Read plan.json.

    Raises:
        ArtifactError: there is none, it is not one, or a key is not that of what it says.
    """
    path = folder / PLAN_NAME
    try:
        spec = PlanSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(path)!r} does not say what engines there are: {error}; {MEND}"
        ) from error
    for precision, plan in spec.plans.items():
        key = plan_key(
            sm=spec.sm,
            tensorrt=spec.tensorrt,
            graph_sha256=plan.graph_sha256,
            profiles=spec.profiles,
        )
        if plan.key != key:
            raise ArtifactError(
                f"{str(path)!r} was altered: key {plan.key!r} of {precision!r} is not that of the "
                f"GPU, version, graph and profiles beside it, {key!r}; {MEND}"
            )
    return spec


def unfit_reason(spec: PlanSpec, *, sm: str, tensorrt: str) -> str | None:
    """Why a machine cannot run these engines; None where it can.

    Args:
        spec: of the engines.
        sm: compute capability of the GPU at hand.
        tensorrt: version that is installed.
    """
    if spec.sm != sm:
        return (
            f"the engine was built for SM {spec.sm}, and this GPU is SM {sm}: an engine runs on "
            f"the GPU it was built for; {MEND}"
        )
    if spec.tensorrt != tensorrt:
        return (
            f"the engine was built by TensorRT {spec.tensorrt}, and {tensorrt} is installed; "
            f"{MEND}, or pip install 'tensorrt-cu13=={spec.tensorrt}'"
        )
    return None


def foreign_reason(spec: PlanSpec, model: Path) -> str | None:
    """Why engines are not of a model; None where they are.

    Args:
        spec: of the engines.
        model: the model's folder.

    Raises:
        ArtifactError: the model's manifest cannot be read.
    """
    try:
        manifest = Manifest.model_validate_json((model / MANIFEST_NAME).read_bytes())
    except (OSError, ValidationError) as error:
        raise ArtifactError(
            f"{str(model)!r} has no manifest to compare its engine with: {error}; run the step "
            "that writes it again"
        ) from error
    if manifest.digest == spec.model:
        return None
    return f"the engine was built from another model than {str(model)!r} holds; {MEND}"


def read_plan(folder: Path, spec: PlanSpec, precision: PlanPrecision) -> bytes:
    """An engine's bytes, checked against plan.json.

    Raises:
        ArtifactError: there is no such engine, or its file is missing or altered.
    """
    plan = spec.plans.get(precision)
    if plan is None:
        why = spec.left_out.get(precision, "it was not built")
        raise ArtifactError(
            f"{str(folder)!r} holds no {precision!r} engine: {why}; take one of "
            f"{sorted(spec.plans)!r}"
        )
    path = folder / plan.file
    if not path.is_file() or file_sha256(path) != plan.sha256:
        raise ArtifactError(
            f"{str(path)!r} is missing, or is not what {PLAN_NAME} says (sha256 "
            f"{plan.sha256[:12]}…); {MEND}"
        )
    return path.read_bytes()


def profile_for(profiles: Sequence[Profile], rows: int, tokens: int) -> int | None:
    """Number of the smallest profile that holds a batch.

    Fewest tokens first, because rows are never padded; then the fewest rows. Where no profile of
    that length holds all rows it is the one that holds most, and the batch goes in slices.

    Args:
        profiles: of the engine.
        rows: of the batch.
        tokens: of its longest row.

    Returns:
        None where no profile is that long.
    """
    able = [number for number, profile in enumerate(profiles) if profile.tokens >= tokens]
    if not able:
        return None
    edge = min(profiles[number].tokens for number in able)
    able = [number for number in able if profiles[number].tokens == edge]
    holding = [number for number in able if profiles[number].batch >= rows]
    if holding:
        return min(holding, key=lambda number: profiles[number].batch)
    return max(able, key=lambda number: profiles[number].batch)

"""Where steps run: images, cores, memory, GPUs, nodes, volumes, secrets; from one settings file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kfp import dsl, kubernetes
from pydantic import BaseModel, ConfigDict, Field

from components.profiles import MAIN
from data.errors import SettingsError
from data.settings import parse_settings


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gpu(_Settings):
    """Accelerators of one step."""

    resource: str = "nvidia.com/gpu"
    count: int = Field(ge=1, le=16)


class Volume(_Settings):
    """A claim that already exists, and where a step sees it."""

    claim: str
    mount_path: str


class StepPlacement(_Settings):
    """What one step asks of the cluster."""

    cpu: str | None = None
    memory: str | None = None
    gpu: Gpu | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    volumes: tuple[Volume, ...] = ()
    secret_env: dict[str, dict[str, str]] = Field(
        default={}, description="Secret name → {key in the secret: environment variable}."
    )
    pod_labels: dict[str, str] = Field(
        default={}, description="The registry's network policy lets in registry-client: 'true'."
    )
    retries: int = Field(default=0, ge=0, le=10)


class Placement(_Settings):
    """Images and step placements of a deployment. ``default`` holds for steps without their own."""

    images: dict[str, str]
    default: StepPlacement = StepPlacement()
    steps: dict[str, StepPlacement] = {}


def read_placement(path: Path) -> Placement:
    """Read a placement file.

    Raises:
        SettingsError: it is missing, not YAML, or has wrong keys.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read placement {str(path)!r}: {error}") from error
    return parse_settings(Placement, text, where=str(path))


def local_placement(source_digest: str) -> Placement:
    """Placement on one machine: the image's name stands for the code that runs.

    KFP's cache compares image names, so a changed line of code makes steps run again.
    """
    return Placement(images={"main": f"{MAIN}:{source_digest}"})


def place(task: dsl.PipelineTask, placement: Placement, *, profile: str = "main") -> None:
    """Apply the settings to one step.

    Raises:
        SettingsError: the placement has no image for the step's profile.
    """
    image = placement.images.get(profile)
    if image is None:
        raise SettingsError(
            f"images has no {profile!r}: build it with `make images` and write its digest there"
        )
    task.set_container_image(image)
    step = placement.steps.get(task.name.replace("-", "_"), placement.default)
    if step.cpu:
        task.set_cpu_request(step.cpu).set_cpu_limit(step.cpu)
    if step.memory:
        task.set_memory_request(step.memory).set_memory_limit(step.memory)
    if step.gpu:
        task.set_accelerator_type(step.gpu.resource).set_accelerator_limit(step.gpu.count)
    if step.retries:
        task.set_retry(num_retries=step.retries, backoff_duration="30s")
    _place_on_cluster(task, step)


def _place_on_cluster(task: dsl.PipelineTask, step: StepPlacement) -> None:
    """What KFP leaves to Kubernetes; it becomes the second document of the compiled file."""
    for key, value in step.node_selector.items():
        kubernetes.add_node_selector(task, label_key=key, label_value=value)
    for toleration in step.tolerations:
        kubernetes.add_toleration(task, **toleration)
    for key, value in step.pod_labels.items():
        kubernetes.add_pod_label(task, label_key=key, label_value=value)
    for volume in step.volumes:
        kubernetes.mount_pvc(task, pvc_name=volume.claim, mount_path=volume.mount_path)
    for secret, keys in step.secret_env.items():
        kubernetes.use_secret_as_env(task, secret_name=secret, secret_key_to_env=keys)


def unknown_steps(placement: Placement, known: Mapping[str, Any]) -> list[str]:
    """Steps that the settings name and no graph has; a typo there would silently do nothing."""
    return sorted(set(placement.steps) - set(known))

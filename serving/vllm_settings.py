"""How vLLM is started: settings from one YAML file, and the arguments and environment they make.

The file holds the defaults and, under ``profiles``, what a kind of machine needs otherwise. A
process, a Deployment and an InferenceService are all started with what is made here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from data.errors import SettingsError
from data.settings import check_settings

DEFAULT_PATH: Final = Path(__file__).with_name("vllm.yaml")
MODULE: Final = "vllm.entrypoints.openai.api_server"
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|[KMGT]i?)?$")]
Image = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$")]
Folder = Annotated[str, StringConstraints(min_length=1)]
Absolute = Annotated[str, StringConstraints(pattern=r"^/")]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StructuredOutputs(_Settings):
    """What constrains decoding. Compact JSON, as the model was taught to write it."""

    backend: Literal["guidance", "xgrammar"] = "guidance"
    disable_any_whitespace: bool = True


class Lora(_Settings):
    """Adapters on one base: the arms of an experiment share a server."""

    max_loras: int = Field(default=2, ge=1, le=64, description="Adapters in one batch.")
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = 32
    hot_swap: bool = Field(
        default=False,
        description="Adapters are loaded and unloaded while it runs, by whoever reaches it.",
    )
    adapters: dict[Name, Folder] = Field(default={}, description="Name → folder.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.adapters) > self.max_loras:
            raise ValueError(f"{len(self.adapters)} adapters; max_loras is {self.max_loras}")
        return self


class Cpu(_Settings):
    """vLLM's own settings on a CPU."""

    kv_cache_gib: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)
    omp_threads_bind: str = "auto"


class SecretKey(_Settings):
    """A key of a Kubernetes secret."""

    name: Name
    key: str = Field(min_length=1)


class Kubernetes(_Settings):
    """What a cluster must know besides."""

    image: Image = Field(description="Pinned by digest: a tag may be another image tomorrow.")
    name: Name = "vllm"
    namespace: Name = "matjip"
    replicas: int = Field(default=1, ge=0, le=64)
    models_claim: Name = Field(description="Volume claim that holds the model folders.")
    model_path: Absolute = Field(description="Model folder; the claim is mounted at its root.")
    cpu: Quantity
    memory: Quantity
    shared_memory: Quantity = "8Gi"
    gpu_resource: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, str], ...] = ()
    api_key_secret: SecretKey | None = None
    client_labels: dict[str, str] = Field(min_length=1)
    startup_s: int = Field(default=600, ge=30)


class LaunchSettings(_Settings):
    """One server."""

    target: Literal["cuda", "cpu"] = "cuda"
    served_model_name: str = Field(default="matjip", min_length=1)
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=1, le=65_535)
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "bfloat16"
    max_model_len: int = Field(default=4096, ge=16)
    max_num_seqs: int = Field(default=64, ge=1)
    seed: int = Field(default=0, ge=0)
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    kv_cache_dtype: Literal["auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    enable_prefix_caching: bool = True
    block_size: Literal[8, 16, 32, 64, 128] | None = None
    enforce_eager: bool = False
    chat_template: str | None = None
    structured_outputs: StructuredOutputs = StructuredOutputs()
    lora: Lora | None = None
    cpu: Cpu | None = None
    kubernetes: Kubernetes | None = None

    @model_validator(mode="after")
    def _fits_its_target(self) -> Self:
        if self.target == "cpu" and self.kv_cache_dtype.startswith("fp8"):
            raise ValueError(f"kv_cache_dtype {self.kv_cache_dtype!r} needs a GPU")
        if (self.target == "cpu") != (self.cpu is not None):
            raise ValueError(f"target {self.target!r} and the section cpu do not go together")
        if self.kubernetes and (self.target == "cuda") != (
            self.kubernetes.gpu_resource is not None
        ):
            raise ValueError(f"target {self.target!r} and gpu_resource do not go together")
        return self


def read_launch(path: Path = DEFAULT_PATH, *, profile: str | None = None) -> LaunchSettings:
    """Read a launch file; every profile in it is checked, whichever is wanted.

    Raises:
        SettingsError: the file or the profile is missing, or a key is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"cannot read {str(path)!r}: {error}; correct it") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{str(path)!r} holds {values!r}; write key: value")
    profiles = values.pop("profiles", None) or {}
    if not isinstance(profiles, dict):
        raise SettingsError(f"{str(path)!r}: profiles is {profiles!r}; write name: settings")
    launches = {None: check_settings(LaunchSettings, values, where=str(path))}
    for name, changes in profiles.items():
        where = f"{path}, profile {name!r}"
        launches[name] = check_settings(LaunchSettings, _merged(values, changes), where=where)
    if profile not in launches:
        raise SettingsError(
            f"{str(path)!r} has no profile {profile!r}; pick one of {sorted(profiles)!r}"
        )
    return launches[profile]


def launch_arguments(settings: LaunchSettings, model: str) -> list[str]:
    """Everything after ``python -m vllm.entrypoints.openai.api_server``.

    Args:
        settings: of the server.
        model: folder, as the server sees it.
    """
    given: dict[str, object] = {
        "model": model,
        "served-model-name": settings.served_model_name,
        "host": settings.host,
        "port": settings.port,
        "load-format": "safetensors",
        "dtype": settings.dtype,
        "max-model-len": settings.max_model_len,
        "max-num-seqs": settings.max_num_seqs,
        "seed": settings.seed,
        "tensor-parallel-size": settings.tensor_parallel_size,
        "kv-cache-dtype": settings.kv_cache_dtype,
        # What a checkpoint's author advises for chatting is not what was measured.
        "generation-config": "vllm",
        "structured-outputs-config": settings.structured_outputs.model_dump_json(),
    }
    if settings.target == "cuda":
        given["gpu-memory-utilization"] = settings.gpu_memory_utilization
    if settings.block_size is not None:
        given["block-size"] = settings.block_size
    if settings.chat_template is not None:
        given["chat-template"] = settings.chat_template
    arguments = [text for name, value in given.items() for text in (f"--{name}", str(value))]
    caching = "" if settings.enable_prefix_caching else "no-"
    arguments.append(f"--{caching}enable-prefix-caching")
    if settings.enforce_eager:
        arguments.append("--enforce-eager")
    return arguments + _lora_arguments(settings.lora)


def launch_environment(settings: LaunchSettings) -> dict[str, str]:
    """Variables to start it with, beside those that are there."""
    environment = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
    }
    if settings.lora is not None and settings.lora.hot_swap:
        environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if settings.cpu is not None:
        environment |= {
            "VLLM_CPU_KVCACHE_SPACE": str(settings.cpu.kv_cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": settings.cpu.omp_threads_bind,
            "OMP_NUM_THREADS": str(settings.cpu.threads),
        }
    return environment


def _lora_arguments(lora: Lora | None) -> list[str]:
    if lora is None:
        return []
    arguments = ["--enable-lora", "--max-loras", str(lora.max_loras)]
    arguments += ["--max-lora-rank", str(lora.max_lora_rank)]
    if lora.adapters:
        modules = [json.dumps({"name": name, "path": path}) for name, path in lora.adapters.items()]
        arguments += ["--lora-modules", *modules]
    return arguments


def _merged(values: Mapping[str, Any], changes: Any) -> Any:
    """Values with some changed, section by section."""
    if not isinstance(changes, Mapping):
        return changes
    merged = dict(values)
    for key, change in changes.items():
        before = values.get(key)
        both = isinstance(before, Mapping) and isinstance(change, Mapping) and change
        merged[key] = _merged(before, change) if both and isinstance(before, Mapping) else change
    return merged

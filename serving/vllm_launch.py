"""Starts vLLM for a model folder, or says how it would be; what cannot run is refused first.

    python -m serving.vllm_launch serve var/model --profile cpu --python /path/to/vllm/bin/python
    python -m serving.vllm_launch argv var/model
    python -m serving.vllm_launch manifest --kind inference-service

vLLM has an environment of its own: ``--python`` names its interpreter.
"""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
import yaml

from data.errors import ArtifactError, EngineError, MatjipError, SettingsError
from data.manifest import Manifest
from data.settings import check_settings
from serving.adapter_folder import read_adapter
from serving.language_folder import read_language_model
from serving.vllm_manifests import Kind, manifests
from serving.vllm_settings import (
    DEFAULT_PATH,
    MODULE,
    LaunchSettings,
    Lora,
    launch_arguments,
    launch_environment,
    read_launch,
)

Capability = tuple[int, int]
ANY: Final[Capability] = (99, 0)
RUNS_ON: Final[dict[str, tuple[Capability, Capability]]] = {
    # format: from this compute capability, and below that one
    "float32": ((7, 5), ANY),
    "bfloat16": ((8, 0), ANY),
    "w8a8": ((7, 5), (10, 0)),  # vLLM has INT8 kernels from Turing to Hopper, none for Blackwell
    "fp8": ((8, 9), ANY),  # below, vLLM would silently compute weight-only
    "w4a16": ((8, 0), ANY),
}
CPU_FORMATS: Final = ("float32", "bfloat16", "w8a8")


def formats_for(capability: Capability | None) -> list[str]:
    """Formats that vLLM runs on a GPU of this compute capability, or on a CPU (None)."""
    if capability is None:
        return list(CPU_FORMATS)
    return [name for name, (least, below) in RUNS_ON.items() if least <= capability < below]


def check_format(model_format: str, capability: Capability | None) -> None:
    """Refuse a format that the machine which is to serve it cannot run.

    Args:
        model_format: as a language model's manifest says it.
        capability: compute capability of its GPU, as (9, 0); None is a CPU.

    Raises:
        EngineError: names the format, the machine, and what would run there.
    """
    if model_format not in RUNS_ON:
        raise EngineError(f"format {model_format!r} is none of {list(RUNS_ON)!r}; correct it")
    fitting = formats_for(capability)
    if model_format in fitting:
        return
    where = "a CPU" if capability is None else f"compute capability {_shown(capability)}"
    least, below = RUNS_ON[model_format]
    needed = f"{_shown(least)} or more" if below == ANY else f"{_shown(least)} to {below[0] - 1}.x"
    raise EngineError(
        f"format {model_format!r} does not run on {where}: it needs compute capability {needed}. "
        f"There, these run: {fitting!r}; quantise to one of them, or serve elsewhere"
    )


def device_capability() -> Capability | None:
    """The least compute capability among this machine's NVIDIA GPUs; None if it has none.

    Asks the driver, so that no GPU memory is taken.

    Raises:
        EngineError: the driver's answer cannot be read.
    """
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    if said.returncode != 0:
        return None
    try:
        found = [line.strip().split(".") for line in said.stdout.splitlines() if line.strip()]
        return min((int(major), int(minor)) for major, minor in found)
    except ValueError as error:
        raise EngineError(
            f"nvidia-smi says {said.stdout!r} of its compute capability; update the driver"
        ) from error


@dataclass(frozen=True)
class Launch:
    """A process to start."""

    arguments: list[str]
    environment: dict[str, str]


def prepare(
    settings: LaunchSettings, model: Path, *, python: str, capability: Capability | None
) -> Launch:
    """Check a model and its adapters, and say how vLLM is started for them.

    Args:
        settings: of the server.
        model: sealed folder of the kind ``language_model``.
        python: interpreter of the environment that vLLM is in.
        capability: of the GPU, None without one; a CPU is not asked.

    Raises:
        ArtifactError: a folder is not whole, could run code, or an adapter is for another base.
        EngineError: the machine cannot run the model's format, or is not what the settings target.
    """
    manifest = read_language_model(model)
    if settings.target == "cpu":
        capability = None
    elif capability is None:
        raise EngineError(
            f"the settings target {settings.target!r}, and no NVIDIA GPU is found; pick another "
            "--profile, or another machine"
        )
    model_format = str(manifest.facts.get("format"))
    check_format(model_format, capability)
    if settings.dtype == "bfloat16":
        check_format("bfloat16", capability)
    settings = _fitted(settings, model)
    if settings.lora is not None:
        if capability is None and model_format == "w8a8":
            raise EngineError(
                "on a CPU, vLLM 0.32 lays no adapter on a 'w8a8' model: its INT8 kernel lets go of "
                "the weights. Leave the section lora out, or serve the base in 'bfloat16'"
            )
        _check_adapters(settings.lora, manifest)
    arguments = [python, "-m", MODULE, *launch_arguments(settings, str(model))]
    return Launch(arguments, launch_environment(settings))


def _fitted(settings: LaunchSettings, model: Path) -> LaunchSettings:
    """The settings with no longer context than the model has."""
    context = _number(model / "config.json", "max_position_embeddings")
    shorter = min(settings.max_model_len, context)
    return settings.model_copy(update={"max_model_len": shorter})


def _check_adapters(lora: Lora, base: Manifest) -> None:
    for name, folder in lora.adapters.items():
        read_adapter(Path(folder), base)
        rank = _number(Path(folder) / "adapter_config.json", "r")
        if rank > lora.max_lora_rank:
            raise SettingsError(
                f"adapter {name!r} has rank {rank!r}, max_lora_rank is {lora.max_lora_rank!r}; "
                "raise it"
            )


def _number(path: Path, key: str) -> int:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{str(path)!r} does not say {key!r}: {error!r}") from error


def _shown(capability: Capability) -> str:
    return f"{capability[0]}.{capability[1]}"


app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
Model = Annotated[Path, typer.Argument(help="Folder of a sealed language model.")]
File = Annotated[Path, typer.Option("--settings", help="Launch settings, YAML.")]
Profile = Annotated[str | None, typer.Option(help="A profile of the settings.")]
Python = Annotated[str, typer.Option(help="Interpreter of vLLM's environment.")]
Image = Annotated[str | None, typer.Option(help="NAME@sha256:DIGEST; else the settings'.")]
Hostname = Annotated[str | None, typer.Option(help="Address to listen on; else the settings'.")]
Port = Annotated[int | None, typer.Option(help="Port to listen on; else the settings'.")]
Adapter = Annotated[
    list[str] | None, typer.Option(help="NAME=FOLDER; in addition to the settings'. Repeatable.")
]


Report = Annotated[
    Path | None,
    typer.Option(help="File for what vLLM loaded, by its own log; another format ends it."),
]
ServedName = Annotated[
    str | None, typer.Option(help="What requests call the model; else the settings'.")
]


def _with_options(
    settings: LaunchSettings, adapters: list[str] | None, **said: str | int | None
) -> LaunchSettings:
    """Settings with what the command line says otherwise, checked again."""
    values = settings.model_dump() | {key: each for key, each in said.items() if each is not None}
    if adapters:
        pairs = dict(text.partition("=")[::2] for text in adapters)
        lora = values["lora"] or {}
        values["lora"] = lora | {"adapters": lora.get("adapters", {}) | pairs}
    return check_settings(LaunchSettings, values, where="the command line")


@app.command()
def argv(
    model: Model,
    settings: File = DEFAULT_PATH,
    profile: Profile = None,
    python: Python = "python",
) -> None:
    """Print environment and command, as a shell would take them; nothing is checked or started."""
    read = read_launch(settings, profile=profile)
    variables = [f"{name}={value}" for name, value in launch_environment(read).items()]
    command = [python, "-m", MODULE, *launch_arguments(read, str(model))]
    typer.echo(shlex.join(["env", *variables, *command]))


@app.command()
def manifest(
    kind: Kind = "deployment",
    settings: File = DEFAULT_PATH,
    profile: Profile = None,
    image: Image = None,
) -> None:
    """Print Kubernetes manifests, YAML."""
    read = read_launch(settings, profile=profile)
    if image is not None and read.kubernetes is not None:
        changed = read.model_dump() | {
            "kubernetes": read.kubernetes.model_dump() | {"image": image}
        }
        read = check_settings(LaunchSettings, changed, where="the command line")
    documents = manifests(read, kind)
    typer.echo(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), nl=False)


@app.command()
def serve(
    model: Model,
    settings: File = DEFAULT_PATH,
    profile: Profile = None,
    python: Python = "python",
    host: Hostname = None,
    port: Port = None,
    served_name: ServedName = None,
    adapter: Adapter = None,
    report: Report = None,
) -> None:
    """Start vLLM in the foreground: this process becomes it."""
    read = _with_options(
        read_launch(settings, profile=profile),
        adapter,
        host=host,
        port=port,
        served_model_name=served_name,
    )
    launch = prepare(read, model.resolve(), python=python, capability=device_capability())
    if report is not None:
        _have_it_read(model.resolve(), report.resolve())
    try:
        os.execvpe(python, launch.arguments, os.environ | launch.environment)  # noqa: S606  # no shell
    except OSError as error:
        raise EngineError(
            f"cannot start {python!r}: {error}; --python names the interpreter of vLLM's own "
            "environment"
        ) from error


def _have_it_read(model: Path, report: Path) -> None:
    """From now on, what this process says goes through a child that finds in it what is loaded."""
    command = [sys.executable, "-m", "serving.vllm_report", str(model), "--out", str(report)]
    reader = subprocess.Popen(  # our own module
        [*command, "--stop", str(os.getpid())], stdin=subprocess.PIPE
    )
    assert reader.stdin is not None  # noqa: S101  # asked for above
    for said in (1, 2):
        os.dup2(reader.stdin.fileno(), said)


def main() -> None:
    """The command; errors as one line."""
    try:
        app()
    except MatjipError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

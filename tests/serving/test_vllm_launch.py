"""What is checked before vLLM starts, and the command that becomes it."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import ArtifactError, EngineError, SettingsError
from serving.vllm_launch import check_format, device_capability, formats_for, prepare
from serving.vllm_settings import (
    LaunchSettings,
    launch_arguments,
    launch_environment,
    read_launch,
)

ROOT = Path(__file__).parents[2]
IMAGE = "registry.example.com/vllm@sha256:" + "a1" * 32
Launch = Callable[..., LaunchSettings]
Option = Callable[[list[str], str], str]


@pytest.mark.parametrize(
    ("capability", "formats"),
    [
        (None, ["float32", "bfloat16", "w8a8"]),
        ((7, 0), []),
        ((7, 5), ["float32", "w8a8"]),
        ((8, 0), ["float32", "bfloat16", "w8a8", "w4a16"]),
        ((8, 6), ["float32", "bfloat16", "w8a8", "w4a16"]),
        ((8, 9), ["float32", "bfloat16", "w8a8", "fp8", "w4a16"]),
        ((9, 0), ["float32", "bfloat16", "w8a8", "fp8", "w4a16"]),
        ((10, 0), ["float32", "bfloat16", "fp8", "w4a16"]),
        ((12, 0), ["float32", "bfloat16", "fp8", "w4a16"]),
    ],
)
def test_a_format_runs_or_is_refused_with_what_would(
    capability: tuple[int, int] | None, formats: list[str]
) -> None:
    assert formats_for(capability) == formats
    for name in ("float32", "bfloat16", "w8a8", "fp8", "w4a16"):
        if name in formats:
            check_format(name, capability)
            continue
        with pytest.raises(EngineError) as caught:
            check_format(name, capability)
        said = str(caught.value)
        assert repr(name) in said
        assert str(formats) in said
        assert ("a CPU" if capability is None else "{}.{}".format(*capability)) in said


def test_int8_on_blackwell_says_until_where_it_runs() -> None:
    with pytest.raises(
        EngineError, match=r"'w8a8' does not run on compute capability 10\.0.*7\.5 to 9\.x"
    ):
        check_format("w8a8", (10, 0))
    with pytest.raises(EngineError, match="'int3' is none of"):
        check_format("int3", (9, 0))


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi of our own, first on the path."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.mark.parametrize(
    ("script", "capability"),
    [("echo 9.0; echo 8.6", (8, 6)), ("echo 12.0", (12, 0)), ("exit 9", None)],
)
def test_the_driver_is_asked_for_the_least_capable_gpu(
    driver: Path, script: str, capability: tuple[int, int] | None
) -> None:
    assert device_capability() is None
    driver.write_text(f"#!/bin/sh\n{script}\n")
    driver.chmod(0o755)
    assert device_capability() == capability


def test_a_driver_that_says_nonsense_is_named(driver: Path) -> None:
    driver.write_text("#!/bin/sh\necho '[N/A]'\n")
    driver.chmod(0o755)
    with pytest.raises(EngineError, match=r"\[N/A\]"):
        device_capability()


def test_a_launch_is_the_arguments_and_the_environment(tiny_base: Path, launch: Launch) -> None:
    settings = launch("cpu", profiles__cpu__max_model_len=512)
    found = prepare(settings, tiny_base, python="/opt/python", capability=(9, 0))
    assert found.arguments[:3] == ["/opt/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert found.arguments[3:] == launch_arguments(settings, str(tiny_base))
    assert found.environment == launch_environment(settings)


def test_the_context_is_the_models_where_that_is_shorter(
    tiny_base: Path, option: Option, launch: Launch
) -> None:
    for asked, given in ((4096, "1024"), (1024, "1024"), (512, "512")):
        found = prepare(launch(max_model_len=asked), tiny_base, python="p", capability=(9, 0))
        assert option(found.arguments, "--max-model-len") == given


def test_what_cannot_run_is_refused_before_it_starts(
    tiny: Any, tiny_base: Path, tmp_path: Path, launch: Launch
) -> None:
    gpu, cpu = launch(max_model_len=1024), read_launch(profile="cpu")
    with pytest.raises(EngineError, match="no NVIDIA GPU is found"):
        prepare(gpu, tiny_base, python="p", capability=None)
    with pytest.raises(EngineError, match=r"'bfloat16' does not run on compute capability 7\.5"):
        prepare(gpu, tiny_base, python="p", capability=(7, 5))
    prepare(launch(max_model_len=1024, dtype="float16"), tiny_base, python="p", capability=(7, 5))
    with pytest.raises(ArtifactError, match="no manifest"):
        prepare(cpu, tmp_path, python="p", capability=None)
    tiny.write_model(tmp_path / "fp8")
    tiny.seal(tmp_path / "fp8", format="fp8")
    with pytest.raises(EngineError, match="'fp8' does not run on a CPU"):
        prepare(cpu, tmp_path / "fp8", python="p", capability=None)
    (tmp_path / "fp8" / "extra.py").write_text("")
    tiny.seal(tmp_path / "fp8")
    with pytest.raises(ArtifactError, match="can run code"):
        prepare(cpu, tmp_path / "fp8", python="p", capability=None)


def test_adapters_are_checked_before_it_starts(
    tiny: Any, tiny_base: Path, tmp_path: Path, launch: Launch
) -> None:
    tiny.write_adapter(tmp_path / "adapter", tiny_base)

    def settings(**lora: Any) -> LaunchSettings:
        given = {"adapters": {"challenger": str(tmp_path / "adapter")}} | lora
        return launch("cpu", lora=given)

    found = prepare(settings(), tiny_base, python="p", capability=None)
    assert "--enable-lora" in found.arguments
    adapter = tmp_path / "adapter" / "adapter_config.json"
    adapter.write_text(json.dumps(json.loads(adapter.read_text()) | {"r": 64}))
    with pytest.raises(ArtifactError, match="altered"):
        prepare(settings(), tiny_base, python="p", capability=None)
    tiny.write_model(tmp_path / "other", seed=9)
    tiny.write_adapter(tmp_path / "adapter", tmp_path / "other")
    with pytest.raises(ArtifactError, match="pass that base"):
        prepare(settings(), tiny_base, python="p", capability=None)


def test_no_adapter_lies_on_int8_on_a_cpu(int8_of_base: Path, launch: Launch) -> None:
    with pytest.raises(EngineError, match="lays no adapter on a 'w8a8' model"):
        prepare(launch("cpu", lora={}), int8_of_base, python="p", capability=None)
    gpu = launch(lora={}, max_model_len=512)
    assert "--enable-lora" in prepare(gpu, int8_of_base, python="p", capability=(9, 0)).arguments


def test_an_adapter_of_too_high_a_rank_is_refused(
    tiny: Any, tiny_base: Path, tmp_path: Path, launch: Launch
) -> None:
    tiny.write_adapter(tmp_path / "adapter", tiny_base, rank=16)
    lora = {"max_lora_rank": 8, "adapters": {"a": str(tmp_path / "adapter")}}
    with pytest.raises(SettingsError, match="adapter 'a' has rank 16, max_lora_rank is 8"):
        prepare(launch("cpu", lora=lora), tiny_base, python="p", capability=None)


# the command


def command(*arguments: str, path: str | None = None) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | ({"PATH": path} if path else {})
    return subprocess.run(
        [sys.executable, "-m", "serving.vllm_launch", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )


def test_argv_is_a_line_for_a_shell() -> None:
    words = shlex.split(command("argv", "/models/x", "--profile", "cpu").stdout)
    settings = read_launch(profile="cpu")
    assert words[0] == "env"
    assert dict(word.split("=", 1) for word in words[1 : words.index("python")]) == (
        launch_environment(settings)
    )
    assert words[words.index("python") + 3 :] == launch_arguments(settings, "/models/x")


def test_manifest_is_yaml_for_kubectl() -> None:
    done = command("manifest", "--kind", "inference-service", "--image", IMAGE)
    kinds = [each["kind"] for each in yaml.safe_load_all(done.stdout)]
    assert kinds == ["InferenceService", "NetworkPolicy"]
    refused = command("manifest", "--image", "vllm:latest")
    assert refused.returncode == 1
    assert "kubernetes.image='vllm:latest'" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_serve_becomes_the_process(tiny_base: Path, tmp_path: Path, option: Option) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho $$ "$VLLM_CPU_KVCACHE_SPACE" "$@"\nexit 3\n')
    python.chmod(0o755)
    options = ("--profile", "cpu", "--python", str(python), "--port", "8123")
    done = command("serve", str(tiny_base), *options)
    assert done.returncode == 3
    _pid, space, *said = shlex.split(done.stdout.replace('"', r"\""))
    assert space == "1"
    assert said[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert option(said, "--model") == str(tiny_base)
    assert option(said, "--port") == "8123"


@pytest.mark.parametrize("loaded", ["", "Selected CPUInt8 for CompressedTensorsW8A8Int8"])
def test_serve_has_its_log_read(int8_of_base: Path, tmp_path: Path, loaded: str) -> None:
    python, report = tmp_path / "python", tmp_path / "reports" / "vllm.json"
    start = "Initializing a V1 LLM engine (v0.32.0) with config: quantization=None"
    python.write_text(
        f"#!/bin/sh\necho '{start}'\necho '{loaded}' >&2\necho 'Application startup complete.'\n"
        f"trap 'echo ended; exit 5' TERM\nuntil [ -e '{report}' ]; do sleep 0.2; done\nexit 3\n"
    )
    python.chmod(0o755)
    options = ("--profile", "cpu", "--python", str(python), "--report", str(report))
    done = command("serve", str(int8_of_base), *options)
    assert start in done.stdout
    assert done.returncode == (3 if loaded else 5)
    assert report.is_file() == bool(loaded)
    if not loaded:
        assert "vLLM loaded it with {}" in done.stderr
        assert done.stdout.endswith("ended\n")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--profile", "cpu", "--python", "/no/python"), "cannot start '/no/python'"),
        ((), "no NVIDIA GPU is found"),
        (("--profile", "cpu", "--adapter", "a"), "lora.adapters"),
        (("--profile", "cpu", "--port", "0"), "port=0"),
    ],
)
def test_serve_says_in_a_line_why_it_cannot(
    tiny_base: Path, options: tuple[str, ...], reason: str
) -> None:
    done = command("serve", str(tiny_base), *options, path="/usr/bin:/bin")
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr

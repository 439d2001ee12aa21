"""The settings of a vLLM server, and the arguments and the environment that they become."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from data.errors import SettingsError
from serving.vllm_settings import (
    DEFAULT_PATH,
    LaunchSettings,
    launch_arguments,
    launch_environment,
    read_launch,
)

Launch = Callable[..., LaunchSettings]
WriteLaunch = Callable[[Mapping[str, Any]], Path]
Option = Callable[[list[str], str], str]


def test_the_file_of_the_house_is_valid_and_so_is_every_profile() -> None:
    assert read_launch().target == "cuda"
    for profile in yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))["profiles"]:
        assert read_launch(profile=profile).served_model_name == "matjip"


def test_a_profile_changes_only_what_it_says() -> None:
    gpu, cpu = read_launch(), read_launch(profile="cpu")
    assert (cpu.target, cpu.max_model_len) == ("cpu", 2048)
    assert gpu.structured_outputs == cpu.structured_outputs
    assert gpu.kubernetes is not None
    assert cpu.kubernetes is not None
    assert cpu.kubernetes.image == gpu.kubernetes.image
    assert cpu.kubernetes.tolerations == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtyp": "bfloat16"}, "dtyp='bfloat16': Extra inputs"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"max_model_len": 0}, "max_model_len=0"),
        ({"gpu_memory_utilization": 1.2}, "gpu_memory_utilization=1.2"),
        ({"structured_outputs": {"backend": "outlines"}}, "structured_outputs.backend='outlines'"),
        ({"lora": {"max_lora_rank": 33}}, "lora.max_lora_rank=33"),
        ({"lora": {"max_loras": 1, "adapters": {"a": "/a", "b": "/b"}}}, "2 adapters; max_loras"),
        ({"lora": {"adapters": {"A b": "/a"}}}, "lora.adapters"),
        ({"kubernetes.image": "vllm/vllm-openai:latest"}, "kubernetes.image="),
        ({"kubernetes.memory": "much"}, "kubernetes.memory='much'"),
        ({"kubernetes.gpu_resource": None}, "gpu_resource do not go together"),
        ({"kubernetes.client_labels": {}}, "kubernetes.client_labels"),
        ({"target": "cpu"}, "section cpu do not go together"),
        ({"profiles.cpu.kv_cache_dtype": "fp8"}, "profile 'cpu'.*needs a GPU"),
        ({"profiles.cpu.threads": 2}, "profile 'cpu'.*threads=2"),
        ({"profiles": ["cpu"]}, "write name: settings"),
    ],
)
def test_wrong_settings_name_the_key(
    write_launch: WriteLaunch, changes: dict[str, Any], reason: str
) -> None:
    path = write_launch(changes)
    with pytest.raises(SettingsError, match=reason):
        read_launch(path)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "nothing"])
def test_what_is_no_settings_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vllm.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=r"vllm\.yaml"):
        read_launch(path)
    with pytest.raises(SettingsError, match="cannot read"):
        read_launch(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match=r"no profile 'tpu'; pick one of \['cpu'\]"):
        read_launch(profile="tpu")


def test_all_wrong_keys_are_said_at_once(launch: Launch) -> None:
    with pytest.raises(SettingsError) as caught:
        launch(dtype="int8", seed=-1)
    assert "dtype='int8'" in str(caught.value)
    assert "seed=-1" in str(caught.value)


def test_arguments_say_what_the_settings_say(launch: Launch, option: Option) -> None:
    settings = launch(
        kv_cache_dtype="fp8",
        tensor_parallel_size=2,
        block_size=16,
        chat_template="/models/t.jinja",
        lora={"max_loras": 2, "hot_swap": True, "adapters": {"a": "/models/a", "b": "/models/b"}},
    )
    arguments = launch_arguments(settings, "/models/champion")
    assert option(arguments, "--model") == "/models/champion"
    assert option(arguments, "--kv-cache-dtype") == "fp8"
    assert option(arguments, "--tensor-parallel-size") == "2"
    assert option(arguments, "--block-size") == "16"
    assert option(arguments, "--chat-template") == "/models/t.jinja"
    assert option(arguments, "--gpu-memory-utilization") == "0.9"
    assert option(arguments, "--generation-config") == "vllm"
    assert json.loads(option(arguments, "--structured-outputs-config")) == {
        "backend": "guidance",
        "disable_any_whitespace": True,
    }
    assert "--enable-prefix-caching" in arguments
    assert "--enforce-eager" not in arguments
    first = arguments.index("--lora-modules") + 1
    assert [json.loads(each) for each in arguments[first : first + 2]] == [
        {"name": "a", "path": "/models/a"},
        {"name": "b", "path": "/models/b"},
    ]
    assert launch_environment(settings)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_what_is_not_set_is_not_said(launch: Launch) -> None:
    arguments = launch_arguments(launch("cpu", enable_prefix_caching=False), "m")
    assert "--no-enable-prefix-caching" in arguments
    assert "--enforce-eager" in arguments
    for absent in ("--enable-lora", "--gpu-memory-utilization", "--chat-template", "--api-key"):
        assert absent not in arguments
    environment = launch_environment(read_launch(profile="cpu"))
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment
    assert not any(name.startswith("VLLM_CPU") for name in launch_environment(read_launch()))

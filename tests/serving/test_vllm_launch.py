import copy
import json
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
import yaml

from data.errors import ArtifactError, EngineError, SettingsError
from serving.vllm_launch import check_format, device_capability, formats_for, prepare
from serving.vllm_manifests import manifests
from serving.vllm_settings import (
    DEFAULT_PATH,
    LaunchSettings,
    launch_arguments,
    launch_environment,
    read_launch,
)

ROOT = Path(__file__).parents[2]
MAKER = Path(__file__).parents[1] / "tiny_language_model.py"
IMAGE = "registry.example.com/vllm@sha256:" + "a1" * 32
NEWEST = kubernetes_validate.latest_version()


@pytest.fixture(scope="module")
def tiny() -> Any:
    return SimpleNamespace(**runpy.run_path(str(MAKER)))


@pytest.fixture(scope="module")
def model(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language") / "base"
    tiny.write_model(folder)
    return folder


def values() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(DEFAULT_PATH.read_text(encoding="utf-8"))
    return read


def merged(before: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    after = copy.deepcopy(before)
    for path, value in changes.items():
        *parents, last = path.split(".")
        section = after
        for name in parents:
            section = section[name]
        section[last] = value
    return after


def launch(tmp_path: Path, profile: str | None = None, **changes: Any) -> LaunchSettings:
    """The house's settings with some changed; two underscores stand for a dot."""
    path = tmp_path / "vllm.yaml"
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    path.write_text(yaml.safe_dump(merged(values(), dotted)), encoding="utf-8")
    return read_launch(path, profile=profile)


def option(arguments: list[str], name: str) -> str:
    assert arguments.count(name) == 1
    return arguments[arguments.index(name) + 1]


# settings


def test_the_file_of_the_house_is_valid_and_so_is_every_profile() -> None:
    assert read_launch().target == "cuda"
    for profile in values()["profiles"]:
        assert read_launch(profile=profile).served_model_name == "matjip"


def test_a_profile_changes_only_what_it_says() -> None:
    gpu, cpu = read_launch(), read_launch(profile="cpu")
    assert (cpu.target, cpu.max_model_len) == ("cpu", 512)
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
def test_wrong_settings_name_the_key(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    path = tmp_path / "vllm.yaml"
    path.write_text(yaml.safe_dump(merged(values(), changes)), encoding="utf-8")
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


def test_all_wrong_keys_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        launch(tmp_path, dtype="int8", seed=-1)
    assert "dtype='int8'" in str(caught.value)
    assert "seed=-1" in str(caught.value)


# arguments


def test_arguments_say_what_the_settings_say(tmp_path: Path) -> None:
    settings = launch(
        tmp_path,
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


def test_what_is_not_set_is_not_said(tmp_path: Path) -> None:
    arguments = launch_arguments(launch(tmp_path, "cpu", enable_prefix_caching=False), "m")
    assert "--no-enable-prefix-caching" in arguments
    assert "--enforce-eager" in arguments
    for absent in ("--enable-lora", "--gpu-memory-utilization", "--chat-template", "--api-key"):
        assert absent not in arguments
    environment = launch_environment(read_launch(profile="cpu"))
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in environment
    assert not any(name.startswith("VLLM_CPU") for name in launch_environment(read_launch()))


# formats


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


# a launch


def test_a_launch_is_the_arguments_and_the_environment(model: Path) -> None:
    settings = read_launch(profile="cpu")
    found = prepare(settings, model, python="/opt/python", capability=(9, 0))
    assert found.arguments[:3] == ["/opt/python", "-m", "vllm.entrypoints.openai.api_server"]
    assert found.arguments[3:] == launch_arguments(settings, str(model))
    assert found.environment == launch_environment(settings)


def test_what_cannot_run_is_refused_before_it_starts(
    tiny: Any, model: Path, tmp_path: Path
) -> None:
    gpu, cpu = launch(tmp_path, max_model_len=1024), read_launch(profile="cpu")
    with pytest.raises(EngineError, match="no NVIDIA GPU is found"):
        prepare(gpu, model, python="p", capability=None)
    with pytest.raises(EngineError, match=r"'bfloat16' does not run on compute capability 7\.5"):
        prepare(gpu, model, python="p", capability=(7, 5))
    prepare(
        launch(tmp_path, max_model_len=1024, dtype="float16"), model, python="p", capability=(7, 5)
    )
    with pytest.raises(SettingsError, match=r"max_model_len is 4096, the context of .* is 1024"):
        prepare(read_launch(), model, python="p", capability=(9, 0))
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


def test_adapters_are_checked_before_it_starts(tiny: Any, model: Path, tmp_path: Path) -> None:
    tiny.write_adapter(tmp_path / "adapter", model)

    def settings(**lora: Any) -> LaunchSettings:
        given = {"adapters": {"challenger": str(tmp_path / "adapter")}} | lora
        return launch(tmp_path, "cpu", lora=given)

    found = prepare(settings(), model, python="p", capability=None)
    assert "--enable-lora" in found.arguments
    adapter = tmp_path / "adapter" / "adapter_config.json"
    adapter.write_text(json.dumps(json.loads(adapter.read_text()) | {"r": 64}))
    with pytest.raises(ArtifactError, match="altered"):
        prepare(settings(), model, python="p", capability=None)
    tiny.write_model(tmp_path / "other", seed=9)
    tiny.write_adapter(tmp_path / "adapter", tmp_path / "other")
    with pytest.raises(ArtifactError, match="pass that base"):
        prepare(settings(), model, python="p", capability=None)


def test_no_adapter_lies_on_int8_on_a_cpu(tiny: Any, model: Path, tmp_path: Path) -> None:
    tiny.write_quantized(tmp_path / "int8", model)
    with pytest.raises(EngineError, match="lays no adapter on a 'w8a8' model"):
        prepare(launch(tmp_path, "cpu", lora={}), tmp_path / "int8", python="p", capability=None)
    gpu = launch(tmp_path, lora={}, max_model_len=512)
    assert (
        "--enable-lora" in prepare(gpu, tmp_path / "int8", python="p", capability=(9, 0)).arguments
    )


def test_an_adapter_of_too_high_a_rank_is_refused(tiny: Any, model: Path, tmp_path: Path) -> None:
    tiny.write_adapter(tmp_path / "adapter", model, rank=16)
    lora = {"max_lora_rank": 8, "adapters": {"a": str(tmp_path / "adapter")}}
    with pytest.raises(SettingsError, match="adapter 'a' has rank 16, max_lora_rank is 8"):
        prepare(launch(tmp_path, "cpu", lora=lora), model, python="p", capability=None)


# on a cluster


def documents(kind: Any, tmp_path: Path, **changes: Any) -> list[dict[str, Any]]:
    return manifests(launch(tmp_path, kubernetes__image=IMAGE, **changes), kind)


def test_the_deployment_is_valid_and_a_misspelt_field_would_be_found(tmp_path: Path) -> None:
    found = documents("deployment", tmp_path)
    assert [each["kind"] for each in found] == ["Deployment", "Service", "NetworkPolicy"]
    for document in found:
        kubernetes_validate.validate(document, NEWEST, strict=True)
        kubernetes_validate.validate(yaml.safe_load(yaml.safe_dump(document)), NEWEST, strict=True)
    broken = copy.deepcopy(found[0])
    broken["spec"]["template"]["spec"]["containers"][0]["arg"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="arg"):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


def test_the_inference_service_holds_the_deployments_container(tmp_path: Path) -> None:
    deployment = documents("deployment", tmp_path)[0]["spec"]["template"]["spec"]
    found, policy = documents("inference-service", tmp_path)
    assert (found["apiVersion"], found["kind"]) == (
        "serving.kserve.io/v1beta1",
        "InferenceService",
    )
    assert policy["kind"] == "NetworkPolicy"
    predictor = dict(found["spec"]["predictor"])
    assert {predictor.pop(key) for key in ("minReplicas", "maxReplicas")} == {1}
    labels = predictor.pop("labels")
    # What is left is a pod's specification, which Kubernetes' own schema knows.
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": predictor}
    kubernetes_validate.validate(pod, NEWEST, strict=True)
    assert labels == policy["spec"]["podSelector"]["matchLabels"]
    [container] = predictor.pop("containers")
    [same] = deployment.pop("containers")
    assert container.pop("name") == "kserve-container"
    same.pop("name")
    assert container == same
    assert predictor == deployment


def test_process_and_pod_are_started_alike(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"lora": {"adapters": {"challenger": "/models/challenger"}}}
    [container] = documents("deployment", tmp_path, **changes)[0]["spec"]["template"]["spec"][
        "containers"
    ]
    settings = launch(tmp_path, **changes)
    process = launch_arguments(settings, "/models/champion")
    differ = [pair for pair in zip(container["args"], process, strict=True) if pair[0] != pair[1]]
    assert differ == [("0.0.0.0", "127.0.0.1")]  # noqa: S104  # of its own pod
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert launch_environment(settings).items() <= environment.items()
    assert container["image"] == IMAGE
    secret = next(each for each in container["env"] if each["name"] == "VLLM_API_KEY")
    assert "value" not in secret


def test_the_pod_is_locked_down(tmp_path: Path) -> None:
    pod = documents("deployment", tmp_path, tensor_parallel_size=2)[0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    mounted = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in pod["volumes"]}
    assert mounted["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}


def test_only_the_gateway_reaches_it(tmp_path: Path) -> None:
    found = documents("deployment", tmp_path, port=8123)
    policy, service = found[2]["spec"], found[1]["spec"]
    [rule] = policy["ingress"]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {"language-client": "true"}}, "namespaceSelector": {}}
    ]
    assert rule["ports"] == [{"port": 8123, "protocol": "TCP"}]
    assert policy["egress"] == []
    pod_labels = found[0]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == service["selector"] == pod_labels


def test_a_cpu_pod_asks_for_no_gpu(tmp_path: Path) -> None:
    found = manifests(launch(tmp_path, "cpu", kubernetes__image=IMAGE), "deployment")
    pod = found[0]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}
    assert pod["nodeSelector"] == {}


def test_no_manifest_without_a_real_image(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="write the digest"):
        manifests(read_launch(), "deployment")
    with pytest.raises(SettingsError, match="no section kubernetes"):
        manifests(read_launch().model_copy(update={"kubernetes": None}), "deployment")


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


def test_serve_becomes_the_process(model: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho $$ "$VLLM_CPU_KVCACHE_SPACE" "$@"\nexit 3\n')
    python.chmod(0o755)
    options = ("--profile", "cpu", "--python", str(python), "--port", "8123")
    done = command("serve", str(model), *options)
    assert done.returncode == 3
    _pid, space, *said = shlex.split(done.stdout.replace('"', r"\""))
    assert space == "1"
    assert said[:2] == ["-m", "vllm.entrypoints.openai.api_server"]
    assert option(said, "--model") == str(model)
    assert option(said, "--port") == "8123"


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
    model: Path, options: tuple[str, ...], reason: str
) -> None:
    done = command("serve", str(model), *options, path="/usr/bin:/bin")
    assert done.returncode == 1
    assert reason in done.stderr
    assert "Traceback" not in done.stderr

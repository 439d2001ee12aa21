"""The manifests of a vLLM server: valid, locked down, and started as its process is."""

import copy
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from data.errors import SettingsError
from serving.vllm_manifests import manifests
from serving.vllm_settings import (
    LaunchSettings,
    launch_arguments,
    launch_environment,
    read_launch,
)

IMAGE = "registry.example.com/vllm@sha256:" + "a1" * 32
NEWEST = kubernetes_validate.latest_version()
Launch = Callable[..., LaunchSettings]
Documents = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def documents(launch: Launch) -> Documents:
    """The manifests of a kind, of the house's settings with some changed and a real image."""
    return lambda kind, **changes: manifests(launch(kubernetes__image=IMAGE, **changes), kind)


def test_the_deployment_is_valid_and_a_misspelt_field_would_be_found(documents: Documents) -> None:
    found = documents("deployment")
    assert [each["kind"] for each in found] == ["Deployment", "Service", "NetworkPolicy"]
    for document in found:
        kubernetes_validate.validate(document, NEWEST, strict=True)
        kubernetes_validate.validate(yaml.safe_load(yaml.safe_dump(document)), NEWEST, strict=True)
    broken = copy.deepcopy(found[0])
    broken["spec"]["template"]["spec"]["containers"][0]["arg"] = []
    with pytest.raises(kubernetes_validate.ValidationError, match="arg"):
        kubernetes_validate.validate(broken, NEWEST, strict=True)


def test_the_inference_service_holds_the_deployments_container(documents: Documents) -> None:
    deployment = documents("deployment")[0]["spec"]["template"]["spec"]
    found, policy = documents("inference-service")
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


def test_process_and_pod_are_started_alike(launch: Launch, documents: Documents) -> None:
    changes: dict[str, Any] = {"lora": {"adapters": {"challenger": "/models/challenger"}}}
    [container] = documents("deployment", **changes)[0]["spec"]["template"]["spec"]["containers"]
    settings = launch(**changes)
    process = launch_arguments(settings, "/models/champion")
    differ = [pair for pair in zip(container["args"], process, strict=True) if pair[0] != pair[1]]
    assert differ == [("0.0.0.0", "127.0.0.1")]  # noqa: S104  # of its own pod
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert launch_environment(settings).items() <= environment.items()
    assert container["image"] == IMAGE
    secret = next(each for each in container["env"] if each["name"] == "VLLM_API_KEY")
    assert "value" not in secret


def test_the_pod_is_locked_down(documents: Documents) -> None:
    pod = documents("deployment", tensor_parallel_size=2)[0]["spec"]["template"]["spec"]
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


def test_only_the_gateway_reaches_it(documents: Documents) -> None:
    found = documents("deployment", port=8123)
    policy, service = found[2]["spec"], found[1]["spec"]
    [rule] = policy["ingress"]
    assert rule["from"] == [
        {"podSelector": {"matchLabels": {"language-client": "true"}}, "namespaceSelector": {}}
    ]
    assert rule["ports"] == [{"port": 8123, "protocol": "TCP"}]
    assert policy["egress"] == []
    pod_labels = found[0]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"] == service["selector"] == pod_labels


def test_a_cpu_pod_asks_for_no_gpu(launch: Launch) -> None:
    found = manifests(launch("cpu", kubernetes__image=IMAGE), "deployment")
    pod = found[0]["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "4", "memory": "8Gi"}
    assert pod["nodeSelector"] == {}


def test_no_manifest_without_a_real_image() -> None:
    with pytest.raises(SettingsError, match="write the digest"):
        manifests(read_launch(), "deployment")
    with pytest.raises(SettingsError, match="no section kubernetes"):
        manifests(read_launch().model_copy(update={"kubernetes": None}), "deployment")

"""vLLM on a cluster: a Deployment with its Service and NetworkPolicy, or KServe's InferenceService.

Started with the same arguments and environment as a process on this machine. The pod is locked down
like MLflow's (mlflow/kubernetes): not root, no writable root file system, reached by the gateway
alone, because vLLM's management endpoints ask for no key.
"""

from typing import Any, Final, Literal

from data.errors import SettingsError
from serving.vllm_settings import (
    MODULE,
    Kubernetes,
    LaunchSettings,
    launch_arguments,
    launch_environment,
)

Kind = Literal["deployment", "inference-service"]
USER: Final = 10001
SCRATCH: Final = "/tmp"  # noqa: S108  # an emptyDir of the pod, the only place it may write to
_UNSET_DIGEST: Final = "@sha256:" + "0" * 64


def manifests(settings: LaunchSettings, kind: Kind) -> list[dict[str, Any]]:
    """Kubernetes objects that run this server.

    Raises:
        SettingsError: the settings have no section ``kubernetes``, or its image is still unnamed.
    """
    cluster = settings.kubernetes
    if cluster is None:
        raise SettingsError(
            "the settings have no section kubernetes; add it, see serving/vllm.yaml"
        )
    if cluster.image.endswith(_UNSET_DIGEST):
        raise SettingsError(
            f"kubernetes.image is {cluster.image!r}: write the digest of the image that your "
            "registry holds"
        )
    if kind == "inference-service":
        return [inference_service(settings, cluster), network_policy(settings, cluster)]
    return [
        deployment(settings, cluster),
        service(settings, cluster),
        network_policy(settings, cluster),
    ]


def deployment(settings: LaunchSettings, cluster: Kubernetes) -> dict[str, Any]:
    """apps/v1 Deployment."""
    labels = _labels(cluster)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(cluster),
        "spec": {
            "replicas": cluster.replicas,
            # A new pod would wait for a GPU that the old one holds.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1},
            },
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod(settings, cluster, container="vllm"),
            },
        },
    }


def service(settings: LaunchSettings, cluster: Kubernetes) -> dict[str, Any]:
    """v1 Service."""
    port = {"name": "http", "port": settings.port, "targetPort": "http"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(cluster),
        "spec": {"selector": _labels(cluster), "ports": [port]},
    }


def network_policy(settings: LaunchSettings, cluster: Kubernetes) -> dict[str, Any]:
    """networking.k8s.io/v1 NetworkPolicy: in from the gateway, out to nowhere."""
    caller = {"podSelector": {"matchLabels": cluster.client_labels}, "namespaceSelector": {}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(cluster),
        "spec": {
            "podSelector": {"matchLabels": _labels(cluster)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [caller], "ports": [{"port": settings.port, "protocol": "TCP"}]}],
            "egress": [],
        },
    }


def inference_service(settings: LaunchSettings, cluster: Kubernetes) -> dict[str, Any]:
    """serving.kserve.io/v1beta1 InferenceService, with the container that the Deployment has.

    No canary: KServe's is by percentage, and our arms are assigned by the gateway.
    """
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(cluster)
        | {"annotations": {"serving.kserve.io/deploymentMode": "RawDeployment"}},
        "spec": {
            "predictor": {
                "minReplicas": cluster.replicas,
                "maxReplicas": max(cluster.replicas, 1),
                "labels": _labels(cluster),
                **_pod(settings, cluster, container="kserve-container"),
            }
        },
    }


def _pod(settings: LaunchSettings, cluster: Kubernetes, *, container: str) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        # A service called vllm would set VLLM_PORT, which vLLM reads as its own setting.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 60,
        "nodeSelector": cluster.node_selector,
        "tolerations": [dict(each) for each in cluster.tolerations],
        "containers": [_container(settings, cluster) | {"name": container}],
        "volumes": [
            {
                "name": "models",
                "persistentVolumeClaim": {"claimName": cluster.models_claim, "readOnly": True},
            },
            {"name": "scratch", "emptyDir": {"sizeLimit": "16Gi"}},
            # Workers of one model talk through shared memory; a container has 64 MiB of it.
            {
                "name": "shared-memory",
                "emptyDir": {"medium": "Memory", "sizeLimit": cluster.shared_memory},
            },
        ],
    }


def _container(settings: LaunchSettings, cluster: Kubernetes) -> dict[str, Any]:
    everywhere = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104  # of its own pod
    health = {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    return {
        "name": "vllm",
        "image": cluster.image,
        "command": ["python3", "-m", MODULE],
        "args": launch_arguments(everywhere, cluster.model_path),
        "env": _environment(settings, cluster),
        "ports": [{"name": "http", "containerPort": settings.port, "protocol": "TCP"}],
        "startupProbe": health | {"periodSeconds": 10, "failureThreshold": cluster.startup_s // 10},
        "readinessProbe": health | {"periodSeconds": 5},
        "livenessProbe": health | {"periodSeconds": 20, "failureThreshold": 5},
        "resources": _resources(settings, cluster),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "models", "mountPath": _root(cluster.model_path), "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108  # POSIX's place
        ],
    }


def _environment(settings: LaunchSettings, cluster: Kubernetes) -> list[dict[str, Any]]:
    variables = launch_environment(settings) | {
        # An account without a name: caches and torch look for a home and a user.
        "HOME": SCRATCH,
        "USER": "vllm",
        "VLLM_CACHE_ROOT": f"{SCRATCH}/vllm",
    }
    found: list[dict[str, Any]] = [{"name": n, "value": v} for n, v in variables.items()]
    secret = cluster.api_key_secret
    if secret is not None:
        source = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        found.append({"name": "VLLM_API_KEY", "valueFrom": source})
    return found


def _resources(settings: LaunchSettings, cluster: Kubernetes) -> dict[str, dict[str, str]]:
    asked = {"cpu": cluster.cpu, "memory": cluster.memory}
    gpus = {}
    if cluster.gpu_resource is not None:
        gpus = {cluster.gpu_resource: str(settings.tensor_parallel_size)}
    return {"requests": asked | gpus, "limits": asked | gpus}


def _root(path: str) -> str:
    return "/" + path.strip("/").split("/", maxsplit=1)[0]


def _labels(cluster: Kubernetes) -> dict[str, str]:
    return {"app.kubernetes.io/name": cluster.name}


def _metadata(cluster: Kubernetes) -> dict[str, Any]:
    return {"name": cluster.name, "namespace": cluster.namespace, "labels": _labels(cluster)}

import configparser
import importlib.util
import re
import shlex
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "mlflow"
MANIFESTS = sorted((FOLDER / "kubernetes").glob("*.yaml"))
PINS = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;]+)", re.MULTILINE)


def documents():
    return [
        document
        for path in MANIFESTS
        if path.name != "kustomization.yaml"
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    ]


def named(kind, name):
    return next(d for d in documents() if d["kind"] == kind and d["metadata"]["name"] == name)


PODS = [("Deployment", "mlflow"), ("StatefulSet", "mlflow-postgres")]


def test_the_folder_does_not_stand_in_the_way_of_the_package():
    spec = importlib.util.find_spec("mlflow")
    assert "site-packages" in Path(spec.origin).parts
    assert [path for path in FOLDER.rglob("*") if path.suffix in {".py", ".pyc"}] == []


@pytest.mark.parametrize(
    "document", documents(), ids=lambda d: f"{d['kind']}-{d['metadata']['name']}"
)
def test_every_manifest_is_valid(document):
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


def test_a_misspelt_field_would_be_found():
    broken = named("Deployment", "mlflow")
    broken["spec"]["replica"] = 1
    with pytest.raises(kubernetes_validate.ValidationError, match="replica"):
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_the_kustomization_lists_every_manifest():
    kustomization = yaml.safe_load((FOLDER / "kubernetes/kustomization.yaml").read_text())
    listed = set(kustomization["resources"]) | {"kustomization.yaml"}
    assert listed == {path.name for path in MANIFESTS}


@pytest.mark.parametrize(("kind", "name"), PODS)
def test_pods_are_locked_down(kind, name):
    pod = named(kind, name)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= container["resources"].keys()
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert probe in container
        writable = {mount["name"] for mount in container["volumeMounts"]}
        claims = named(kind, name)["spec"].get("volumeClaimTemplates", [])
        known = {volume["name"] for volume in pod["volumes"]}
        assert writable == known | {claim["metadata"]["name"] for claim in claims}


@pytest.mark.parametrize(("kind", "name"), PODS)
def test_pods_take_secrets_by_reference_only(kind, name):
    [container] = named(kind, name)["spec"]["template"]["spec"]["containers"]
    secret = [e for e in container["env"] if re.search("PASSWORD|SECRET|TOKEN|KEY", e["name"])]
    assert secret
    assert all(set(entry["valueFrom"]) == {"secretKeyRef"} for entry in secret)
    assert not [document for document in documents() if document["kind"] == "Secret"]


def test_a_network_policy_holds_for_every_pod():
    policies = [d for d in documents() if d["kind"] == "NetworkPolicy"]
    held = {
        policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for policy in policies
    }
    assert held == {name for _, name in PODS}
    assert all(set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"} for p in policies)
    assert named("NetworkPolicy", "mlflow-postgres")["spec"]["egress"] == []


def test_the_services_names_are_allowed_hosts():
    namespace = yaml.safe_load((FOLDER / "kubernetes/kustomization.yaml").read_text())["namespace"]
    [container] = named("Deployment", "mlflow")["spec"]["template"]["spec"]["containers"]
    allowed = next(e["value"] for e in container["env"] if e["name"].endswith("ALLOWED_HOSTS"))
    service = named("Service", "mlflow")
    [port] = [port["port"] for port in service["spec"]["ports"]]
    for host in ("mlflow", f"mlflow.{namespace}", f"mlflow.{namespace}.svc.cluster.local"):
        assert f"{host}:{port}" in allowed.split(",")


def compose():
    return yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_holds_no_secret():
    example = (FOLDER / ".env.example").read_text(encoding="utf-8")
    found = 0
    for service in compose()["services"].values():
        for name, value in service["environment"].items():
            if re.search("PASSWORD|SECRET|KEY", name):
                asked = re.fullmatch(r"\$\{([A-Z_]+):\?.+\}", value)
                assert asked, f"{name} is not asked for"
                assert re.search(rf"^{asked[1]}=$", example, re.MULTILINE)
                found += 1
    assert found == 4


def test_compose_publishes_on_loopback_only():
    services = compose()["services"]
    assert services["mlflow"]["ports"] == ["${MLFLOW_BIND:-127.0.0.1}:${MLFLOW_PORT:-5000}:5000"]
    assert "ports" not in services["postgres"]
    assert services["postgres"]["networks"] == ["back"]
    assert compose()["networks"]["back"] == {"internal": True}


def test_compose_waits_for_health():
    services = compose()["services"]
    assert all("healthcheck" in service for service in services.values())
    assert services["mlflow"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}


def test_git_ignores_the_secrets():
    asked = ["git", "-C", str(ROOT), "check-ignore", "--quiet", "mlflow/.env"]
    assert subprocess.run(asked, check=False).returncode == 0
    example = ["git", "-C", str(ROOT), "check-ignore", "--quiet", "mlflow/.env.example"]
    assert subprocess.run(example, check=False).returncode == 1


def instructions():
    text = (FOLDER / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [line.split(maxsplit=1) for line in lines]


def test_the_image_takes_its_base_and_is_not_root():
    found = instructions()
    assert found[0][0] == "ARG"
    assert found[0][1].startswith("BASE=")
    assert found[1] == ["FROM", "${BASE}"]
    users = [words for name, words in found if name == "USER"]
    assert users == ["10001:10001"]
    assert [name for name, _ in found if name in {"USER", "CMD"}] == ["USER", "CMD"]


def test_the_server_asks_for_a_password_and_holds_none():
    command = yaml.safe_load(dict(instructions())["CMD"])
    assert command[command.index("--app-name") + 1] == "basic-auth"
    assert "@" not in shlex.join(command)
    settings = configparser.ConfigParser()
    settings.read(FOLDER / "basic_auth.ini")
    assert settings["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert "admin_password" not in settings["mlflow"]
    assert "@" not in settings["mlflow"]["database_uri"]


def test_server_and_clients_run_the_same_versions():
    server = dict(PINS.findall((FOLDER / "requirements.txt").read_text(encoding="utf-8")))
    clients = dict(PINS.findall((ROOT / "locks/main.txt").read_text(encoding="utf-8")))
    assert {"mlflow", "psycopg", "sqlalchemy", "flask-wtf"} <= server.keys()
    differ = {name for name in server.keys() & clients.keys() if server[name] != clients[name]}
    assert differ == set()


def test_every_package_of_the_server_is_pinned_by_hash():
    text = (FOLDER / "requirements.txt").read_text(encoding="utf-8")
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block

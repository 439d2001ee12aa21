"""The gateway as a process that serves both kinds of model, the language model by a server."""

import subprocess
import sys

import pytest

from data.errors import ArtifactError, SettingsError
from data.manifest import read_manifest
from serving.deployment import write_deployment
from serving.gateway.app import create_app
from serving.gateway.language_arms import load_engine
from serving.gateway.settings import ServingSettings
from serving.language_deployment import write_language_deployment

REVIEWS = [
    {"review_id": "r1", "text": "국물이 맛있어요. 사장님이 친절해요"},
    {"review_id": "r2", "text": "고기가 맛있어요! 조금 비싸요"},
]


def test_one_process_serves_both(vllm, fakes, deployment, tmp_path):
    both = {"--deployment": tmp_path / "a.json", "--language-deployment": tmp_path / "b.json"}
    write_deployment(both["--deployment"], deployment)
    language = fakes.language_deployment(vllm.endpoint)
    write_language_deployment(both["--language-deployment"], language)
    options = [part for option in both.items() for part in option]
    with fakes.run_gateway(tmp_path, *options) as client:
        ready = client.get("/ready").json()
        assert ready["ready"]
        assert ready["deployment_id"] == deployment.deployment_id
        assert ready["language"]["deployment_id"] == language.deployment_id
        analysed = client.post("/v1/analyze", json={"reviews": [{"text": "국물이 맛있어요"}]})
        assert analysed.json()["results"][0]["status"] == "ok"
        body = {"restaurant_id": "ga-01", "reviews": REVIEWS}
        answer = client.post("/v1/summary", json=body).json()
        assert answer["status"] == "ok"
        assert set(answer["summary"]["aspects"]) == {"food", "service", "price"}
        assert {sent["model"] for sent in vllm.bodies} == {"served"}
        vllm.mode = "500"
        degraded = client.post("/v1/summary", json=body)
        assert degraded.status_code == 200
        assert degraded.json()["status"] == "degraded"
        assert "2 of 2 reviews not read" in degraded.json()["reasons"][0]
        for said in (analysed.json(), answer):
            feedback = {"request_id": said["request_id"], "reward": 1.0}
            assert client.post("/v1/feedback", json=feedback).json()["status"] == "stored"


def test_a_server_that_is_not_there_leaves_the_gateway_ready(fakes, tmp_path):
    endpoint = {"kind": "openai", "base_url": f"http://127.0.0.1:{fakes.free_port()}", "model": "m"}
    path = tmp_path / "b.json"
    write_language_deployment(path, fakes.language_deployment(endpoint))
    with fakes.run_gateway(tmp_path, "--language-deployment", path) as client:
        ready = client.get("/ready")
        assert ready.status_code == 200
        assert ready.json()["language"]["arms"][0]["state"] == "down"
        body = {"restaurant_id": "ga-01", "reviews": REVIEWS}
        answer = client.post("/v1/summary", json=body)
        assert answer.status_code == 200
        assert (answer.json()["status"], answer.json()["summary"]) == ("degraded", None)
        chat = {"messages": [{"role": "user", "content": "네?"}]}
        refused = client.post("/v1/chat/completions", json=chat)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) >= 1
        assert client.post("/v1/analyze", json={}).status_code == 404


def test_nothing_to_serve_is_refused(fakes, tmp_path):
    with pytest.raises(SettingsError, match="nothing to serve"):
        create_app(ServingSettings())
    command = fakes.gateway_command()
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "--language-deployment" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_on_disk_is_served_only_if_it_is_what_was_deployed(fakes, tiny_base):
    endpoint = {"kind": "in_process", "folder": str(tiny_base)}
    arm = fakes.language_deployment(endpoint).arms[0]
    with pytest.raises(ArtifactError, match="the deployment names 'abababababab'"):
        load_engine(arm, ServingSettings())
    right = arm.model_copy(update={"manifest_digest": read_manifest(tiny_base).digest})
    assert load_engine(right, ServingSettings()).name.startswith("transformers")


def test_a_gateway_of_onnx_models_starts_without_torch(tiny_models):
    code = (
        "import sys\nfrom pathlib import Path\nimport serving.gateway.app\n"
        "from serving.analyzer import load_analyzer\n"
        f"load_analyzer(Path({str(tiny_models['champion'])!r})).analyze(['맛있어요'])\n"
        # scipy is not among them: a gateway judges its guardrails itself.
        "print(sorted({'torch', 'transformers', 'openvino'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

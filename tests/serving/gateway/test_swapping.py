"""Another model takes over while requests come in: none is lost, none is answered by a mixture."""

import signal
import sqlite3
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import numpy as np
import psutil
import pytest

from serving.deployment import write_deployment
from serving.embedding_deployment import write_embedding_deployment
from serving.engines.choice import load_embedder
from serving.gateway.reloading import DeploymentFiles

TEXTS = ["국물이 맛있어요", "별로"]


def wait_for(what, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_for_more(answers: list[httpx.Response], more: int) -> None:
    seen = len(answers)
    wait_for(lambda: len(answers) > seen + more)


@contextmanager
def under_load(ask, threads: int = 4):
    """Asks from several threads until the block ends; gives the list of what came back."""
    answers, done = [], threading.Event()

    def worker(number: int) -> None:
        turn = 0
        while not done.is_set():
            answers.append(ask(f"w{number}-{turn}"))
            turn += 1

    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(worker, number) for number in range(threads)]
        try:
            yield answers
        finally:
            done.set()
        for one in workers:
            one.result()


def test_an_embedding_model_is_swapped_under_load(
    start_embedding, embedding_deployments, tiny_embeddings, tmp_path
):
    first, second = embedding_deployments
    path = tmp_path / "embedding.json"
    write_embedding_deployment(path, first)
    expected = {
        one.model_version: load_embedder(folder).embed(TEXTS)
        for one, folder in zip(embedding_deployments, tiny_embeddings, strict=True)
    }

    serve = {"embedding": first, "files": DeploymentFiles(embedding=path)}
    with start_embedding(serve=serve, reload_poll_s=0.1) as client:

        def ask(request_id: str) -> httpx.Response:
            return client.post(
                "/v1/embeddings", json={"input": TEXTS}, headers={"X-Request-Id": request_id}
            )

        with under_load(ask) as answers:
            for deployment in (second, first, second):
                wait_for_more(answers, 20)
                write_embedding_deployment(path, deployment)
                wait_for(
                    lambda said=deployment.deployment_id: (
                        client.get("/ready").json()["embedding"]["deployment_id"] == said
                    )
                )
            wait_for_more(answers, 20)
        page = client.get("/metrics").text
    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == len(answers)
    versions = Counter(answer.headers["X-Matjip-Model"] for answer in answers)
    assert set(versions) == set(expected)
    for answer in answers:
        found = [row["embedding"] for row in answer.json()["data"]]
        right = expected[answer.headers["X-Matjip-Model"]]
        np.testing.assert_allclose(np.float32(found), right, atol=2e-6)
    assert 'deployment_swaps_total{kind="embedding",result="swapped"} 3.0' in page
    assert page.count("matjip_embedding_deployment{") == 1


def test_a_deployment_that_cannot_be_served_is_a_warning_and_the_old_one_stays(
    start_embedding, embedding_deployments, tmp_path
):
    first, second = embedding_deployments
    path = tmp_path / "embedding.json"
    write_embedding_deployment(path, first)
    serve = {"embedding": first, "files": DeploymentFiles(embedding=path)}
    bad = [
        lambda: path.write_text("{"),
        path.unlink,
        lambda: write_embedding_deployment(
            path, second.model_copy(update={"manifest_digest": "ab" * 32})
        ),
        lambda: write_embedding_deployment(
            path, second.model_copy(update={"folder": tmp_path / "nowhere"})
        ),
    ]
    with start_embedding(serve=serve, reload_poll_s=0.05) as client:
        seen: set[str] = set()

        def new_warning() -> set[str]:
            ready = client.get("/ready")
            assert ready.status_code == 200
            return set(ready.json()["warnings"]) - seen

        for break_it in bad:
            break_it()
            wait_for(new_warning)
            seen |= new_warning()
            answer = client.post("/v1/embeddings", json={"input": TEXTS})
            assert answer.headers["X-Matjip-Model"] == "matjip-embedding/1"
        refused = 'deployment_swaps_total{kind="embedding",result="refused"}'
        assert refused in client.get("/metrics").text
        write_embedding_deployment(path, second)
        wait_for(lambda: not client.get("/ready").json()["warnings"])
        answer = client.post("/v1/embeddings", json={"input": TEXTS})
        assert answer.headers["X-Matjip-Model"] == "matjip-embedding/2"


def test_a_swap_of_classifiers_keeps_every_exposure_with_the_deployment_that_answered(
    start_embedding, deployment, tmp_path
):
    arms = tuple(arm.model_copy(update={"version": arm.version + "0"}) for arm in deployment.arms)
    other = deployment.model_copy(update={"arms": arms})
    path = tmp_path / "deployment.json"
    write_deployment(path, deployment)
    serve = {"deployment": deployment, "files": DeploymentFiles(sentiment=path)}
    with start_embedding(serve=serve, reload_poll_s=0.1) as client:

        def ask(request_id: str) -> httpx.Response:
            reviews = [{"text": text, "unit": f"{request_id}-{text}"} for text in TEXTS * 2]
            return client.post(
                "/v1/analyze", json={"reviews": reviews}, headers={"X-Request-Id": request_id}
            )

        with under_load(ask) as answers:
            wait_for(lambda: len(answers) > 10)
            write_deployment(path, other)
            wait_for(lambda: client.get("/ready").json()["deployment_id"] == other.deployment_id)
            wait_for_more(answers, 10)
        page = client.get("/metrics").text
    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}
    store = sqlite3.connect(tmp_path / "store.db")
    stored = {
        (request_id, item): (deployment_id, version)
        for request_id, item, deployment_id, version in store.execute(
            "SELECT request_id, item, deployment_id, model_version FROM exposures"
        )
    }
    store.close()
    said = {}
    for answer in answers:
        body = answer.json()
        for item in body["results"]:
            model = item["model"]
            version = f"{model['name']}/{model['version']}"
            said[body["request_id"], item["item"]] = (body["deployment_id"], version)
    assert stored == said
    assert {which for which, _ in said.values()} == {deployment.deployment_id, other.deployment_id}
    assert {(which, version.endswith("0")) for which, version in said.values()} == {
        (deployment.deployment_id, False),
        (other.deployment_id, True),
    }
    assert deployment.deployment_id not in page


def test_the_command_swaps_on_sighup(fakes, embedding_deployments, tmp_path):
    path = tmp_path / "embedding.json"
    write_embedding_deployment(path, embedding_deployments[0])
    with fakes.run_gateway(tmp_path, "--embedding-deployment", path) as client:
        (process,) = (
            child for child in psutil.Process().children() if str(path) in child.cmdline()
        )
        write_embedding_deployment(path, embedding_deployments[1])
        answer = client.post("/v1/embeddings", json={"input": TEXTS})
        assert answer.headers["X-Matjip-Model"] == "matjip-embedding/1"
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: client.get("/ready").json()["embedding"]["model"]["version"] == "2")
        answer = client.post("/v1/embeddings", json={"input": TEXTS})
        assert answer.headers["X-Matjip-Model"] == "matjip-embedding/2"
        assert client.get("/health").status_code == 200


def test_a_gateway_that_could_not_start_serves_once_the_deployment_is_right(
    start_embedding, embedding_deployments, tmp_path
):
    wrong = embedding_deployments[0].model_copy(update={"manifest_digest": "ab" * 32})
    path = tmp_path / "embedding.json"
    write_embedding_deployment(path, wrong)
    serve = {"embedding": wrong, "files": DeploymentFiles(embedding=path)}
    with start_embedding(serve=serve, reload_poll_s=0.05) as client:
        assert client.get("/ready").status_code == 503
        refused = client.post("/v1/embeddings", json={"input": "맛"})
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "not_ready"
        write_embedding_deployment(path, embedding_deployments[0])
        wait_for(lambda: client.get("/ready").status_code == 200)
        assert client.post("/v1/embeddings", json={"input": "맛"}).status_code == 200


@pytest.mark.parametrize("poll_s", [0.0, 0.05])
def test_a_file_that_says_the_same_swaps_nothing(
    start_embedding, embedding_deployments, tmp_path, poll_s
):
    path = tmp_path / "embedding.json"
    write_embedding_deployment(path, embedding_deployments[0])
    files = DeploymentFiles(embedding=path)
    serve = {"embedding": embedding_deployments[0], "files": files}
    with start_embedding(serve=serve, reload_poll_s=poll_s) as client:
        time.sleep(0.3)
        page = client.get("/metrics").text
    assert 'result="swapped"' not in page
    assert ('result="unchanged"' in page) == bool(poll_s)

"""Other models take over in a running gateway process, while requests come in to both routes."""

import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serving.analyzer import load_analyzer
from serving.deployment import write_deployment
from serving.embedding_deployment import write_embedding_deployment
from serving.engines.choice import load_embedder

pytestmark = pytest.mark.services
TEXTS = ["국물 정말 맛있어요", "별로", "친절 ! 대기", "고기 존맛 ."]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": TEXTS},
    "/v1/analyze": {"reviews": [{"text": text} for text in TEXTS]},
}
SWAPPED_S = 5.0
Answers = dict[str, list[httpx.Response]]


def versions(answer: httpx.Response) -> set[str]:
    """Of the models that answered; one, if all is well."""
    if "data" in answer.json():
        return {answer.headers["X-Matjip-Model"].rpartition("/")[2]}
    return {each["model"]["version"] for each in answer.json()["results"]}


def numbers(answer: httpx.Response) -> Any:
    """What was answered to each text, (texts, numbers)."""
    said = answer.json()
    if "data" in said:
        return np.array([row["embedding"] for row in said["data"]])
    found = [each["prediction"]["sentiment"]["probabilities"] for each in said["results"]]
    return np.array([list(each.values()) for each in found])


def expected(route: str, folder: Path) -> Any:
    """The same from the model itself, without a gateway."""
    if route == "/v1/embeddings":
        return load_embedder(folder).embed(TEXTS)
    found = [each.sentiment.probabilities for each in load_analyzer(folder).analyze(TEXTS)]
    return np.array([list(each.values()) for each in found])


def wait_for(what: Callable[[], bool], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def under_load(url: httpx.URL) -> Iterator[Answers]:
    """Two callers a route ask again and again until the block ends; gives what came back."""
    answers: Answers = {route: [] for route in BODIES}
    done = threading.Event()

    def ask(route: str, name: str) -> None:
        turn = 0
        with httpx.Client(base_url=url, timeout=60) as client:
            while not done.is_set():
                named = {"X-Request-Id": f"{name}-{turn}"}
                answers[route].append(client.post(route, json=BODIES[route], headers=named))
                turn += 1

    with ThreadPoolExecutor(2 * len(BODIES)) as pool:
        calls = [
            pool.submit(ask, route, f"{route[4:]}-{number}")
            for route in BODIES
            for number in (0, 1)
        ]
        try:
            yield answers
        finally:
            done.set()
        for call in calls:
            call.result()


@pytest.mark.parametrize("poll_s", [0.0, 0.2], ids=["sighup", "polled"])
def test_both_kinds_of_model_are_swapped_under_load(
    start_site: Any, embeddings: Any, classifiers: Any, tmp_path: Path, poll_s: float
) -> None:
    files = tmp_path / "embedding.json", tmp_path / "deployment.json"

    def deploy(number: int) -> None:
        write_embedding_deployment(files[0], embeddings[number])
        write_deployment(files[1], classifiers[number])

    deploy(0)
    options = ["--embedding-deployment", files[0], "--deployment", files[1]]
    with (
        start_site(*options, reload_poll_s=poll_s) as site,
        under_load(site.client.base_url) as answers,
    ):
        for number in (1, 0, 1):
            seen = {route: len(said) + 20 for route, said in answers.items()}
            wait_for(lambda seen=seen: all(len(answers[route]) > seen[route] for route in BODIES))
            deploy(number)
            if not poll_s:
                site.process.send_signal(signal.SIGHUP)
            new = {str(number + 1)}
            for route in BODIES:
                wait_for(
                    lambda route=route, new=new: versions(answers[route][-1]) == new, SWAPPED_S
                )
    models = {
        "/v1/embeddings": [each.folder for each in embeddings],
        "/v1/analyze": [each.arms[0].folder for each in classifiers],
    }
    for route, said in answers.items():
        assert Counter(answer.status_code for answer in said) == {200: len(said)}
        assert len({answer.headers["X-Request-Id"] for answer in said}) == len(said)
        right = {str(n): expected(route, folder) for n, folder in enumerate(models[route], start=1)}
        assert np.abs(right["1"] - right["2"]).max() > 1e-3
        for answer in said:
            (version,) = versions(answer)
            np.testing.assert_allclose(numbers(answer), right[version], atol=2e-6)
    store = sqlite3.connect(tmp_path / "store.db")
    stored = store.execute("SELECT count(*), count(DISTINCT request_id) FROM exposures").fetchone()
    store.close()
    assert stored == (len(answers["/v1/analyze"]) * len(TEXTS), len(answers["/v1/analyze"]))

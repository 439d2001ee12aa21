"""The SDK against a server of the test's own, over HTTP."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest

from data.contract import Label, Review
from data.errors import SourceError
from data.sources.label_studio import export_tasks
from data.sources.label_studio_server import TOKEN_VARIABLE, read_server, split_project_url
from data.sources.rows import SourceRow

TOKEN = "0123456789abcdef0123456789abcdef01234567"


class Fake(BaseHTTPRequestHandler):
    """Two answers: a project, and a page of its tasks; 503 as often as ``failures`` says."""

    tasks: list[dict[str, Any]] = []  # noqa: RUF012  # replaced by each test
    failures = 0

    def do_GET(self) -> None:
        url = urlparse(self.path)
        if type(self).failures > 0:
            type(self).failures -= 1
            return self.answer(503, {"detail": "busy"})
        if self.headers["Authorization"] != f"Token {TOKEN}":
            return self.answer(401, {"detail": "Invalid token."})
        if url.path == "/api/projects/7/":
            return self.answer(200, {"id": 7, "title": "reviews"})
        if url.path == "/api/tasks/":
            query = parse_qs(url.query)
            page, size = int(query["page"][0]), int(query["page_size"][0])
            found = self.tasks[(page - 1) * size : page * size]
            counts = {"total": len(self.tasks), "total_annotations": 0, "total_predictions": 0}
            return self.answer(200, {"tasks": found, **counts})
        return self.answer(404, {"detail": "Not found."})

    def answer(self, status: int, body: object) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    said = [("3", Label(sentiment="positive", emotions=("joy",)), None)]
    reviews = (Review(review_id=f"v{n}", text=f"맛있어요 {n}") for n in range(230))
    Fake.tasks = export_tasks((review, None, said) for review in reviews)
    for task in Fake.tasks:
        task["annotations"][0]["completed_by"] = 3
    Fake.failures = 0
    running = ThreadingHTTPServer(("127.0.0.1", 0), Fake)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()
    thread.join()


def test_every_page_is_read(server: str) -> None:
    rows = list(read_server(f"{server}/projects/7/data?tab=1", token=TOKEN))
    assert [row.review.review_id for row in rows if isinstance(row, SourceRow)] == [
        f"v{n}" for n in range(230)
    ]
    assert isinstance(rows[0], SourceRow)
    assert rows[0].annotations[0].annotator == "3"
    assert rows[0].annotations[0].label.emotions == ("joy",)


def test_a_busy_server_is_asked_again(server: str) -> None:
    Fake.failures = 2
    assert len(list(read_server(f"{server}/projects/7", token=TOKEN))) == 230


def test_a_server_that_stays_busy_is_a_source_error(server: str) -> None:
    Fake.failures = 99
    with pytest.raises(SourceError, match="answered 503"):
        list(read_server(f"{server}/projects/7", token=TOKEN, attempts=2))


def test_a_refused_token_is_named_by_its_variable_and_never_shown(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "a-wrong-secret")
    with pytest.raises(SourceError, match=TOKEN_VARIABLE) as caught:
        list(read_server(f"{server}/projects/7"))
    assert "a-wrong-secret" not in str(caught.value)


def test_an_unknown_project_and_an_empty_one(server: str) -> None:
    with pytest.raises(SourceError, match="no project 8"):
        list(read_server(f"{server}/projects/8", token=TOKEN))
    Fake.tasks = []
    with pytest.raises(SourceError, match="holds no tasks"):
        list(read_server(f"{server}/projects/7", token=TOKEN))


def test_no_server_and_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="start the server"):
        list(read_server("http://127.0.0.1:9/projects/1", token=TOKEN, attempts=2))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(SourceError, match=TOKEN_VARIABLE):
        list(read_server("http://127.0.0.1:9/projects/1"))


def test_an_address_is_split_or_refused() -> None:
    assert split_project_url("https://ls.example/base/projects/12/data") == (
        "https://ls.example/base",
        12,
    )
    with pytest.raises(SourceError, match="HOST:PORT"):
        split_project_url("reviews.json")

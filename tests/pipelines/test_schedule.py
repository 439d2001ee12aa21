import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from data.errors import SettingsError
from pipelines.cluster import SubmitError
from pipelines.schedule import cron_of, schedule_graph

PLACEMENT = Path(__file__).resolve().parents[2] / "pipelines" / "placement.yaml"
GIVEN = {"deployment": "file:///matjip/배포", "store_url": "postgresql://store/matjip"}


class Kubeflow(BaseHTTPRequestHandler):
    """Keeps recurring runs in memory, a page of two at a time."""

    runs: dict[str, dict[str, Any]]

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if asked.path.endswith("/experiments"):
            self._say({"experiments": [{"experiment_id": "e", "display_name": "matjip"}]})
        else:
            start = int(parse_qs(asked.query).get("page_token", ["0"])[0])
            found = list(self.runs.values())
            more = {"next_page_token": str(start + 2)} if start + 2 < len(found) else {}
            self._say({"recurringRuns": found[start : start + 2]} | more)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        made = body | {"recurring_run_id": f"run-{len(self.runs)}-{body['display_name']}"}
        self.runs[made["recurring_run_id"]] = made
        self._say(made)

    def do_DELETE(self) -> None:
        del self.runs[self.path.rsplit("/", 1)[1]]
        self._say({})

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def _say(self, answer: dict[str, Any]) -> None:
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def kubeflow() -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    Kubeflow.runs = {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kubeflow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Kubeflow.runs
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_recurring_run_of_a_name_is_left_however_often_it_is_asked_for(kubeflow) -> None:
    host, runs = kubeflow
    for name in ("of-a-colleague", "another", "a-third"):
        runs[name] = {"recurring_run_id": name, "display_name": name}
    first = schedule_graph(host, PLACEMENT, every="1h", given=GIVEN)
    second = schedule_graph(host, PLACEMENT, every="15m", given=GIVEN)
    assert first != second
    assert second.startswith(f"{host}/#/recurringrun/details/run-4")
    mine = [run for run in runs.values() if run["display_name"] == "compare-and-promote"]
    assert len(mine) == 1
    assert len(runs) == 4
    assert mine[0]["trigger"]["cron_schedule"]["cron"] == "0 */15 * * * *"
    assert mine[0]["no_catchup"] is True
    assert mine[0]["max_concurrency"] in {1, "1"}
    assert mine[0]["mode"] == "ENABLE"
    parameters = mine[0]["runtime_config"]["parameters"]
    assert parameters["deployment"] == GIVEN["deployment"]
    assert parameters["tracking_uri"].startswith("http://mlflow")
    tasks = mine[0]["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert {"compare-arms", "promote-model"} <= set(tasks)
    assert not any(task["cachingOptions"].get("enableCache") for task in tasks.values())


@pytest.mark.parametrize(
    ("every", "cron"),
    [
        ("15m", "0 */15 * * * *"),
        ("6h", "0 0 */6 * * *"),
        ("1d", "0 0 0 * * *"),
        (" 0 30 9  * * 1-5 ", "0 30 9 * * 1-5"),
    ],
)
def test_a_time_becomes_a_cron_expression(every: str, cron: str) -> None:
    assert cron_of(every) == cron


@pytest.mark.parametrize("every", ["", "7m", "60m", "5h", "2d", "0m", "매시간", "*/5 * * * *"])
def test_a_time_that_is_none_or_does_not_come_out_even_is_told(every: str) -> None:
    with pytest.raises(SettingsError, match="every="):
        cron_of(every)


def test_what_is_missing_or_unknown_is_told() -> None:
    with pytest.raises(SettingsError, match="make schedule HOST"):
        schedule_graph("", PLACEMENT, every="1h", given=GIVEN)
    with pytest.raises(SettingsError, match=r"needs \['store_url'\].*know \['shop'\]"):
        schedule_graph(
            "http://127.0.0.1:9",
            PLACEMENT,
            every="1h",
            given={"deployment": "x", "shop": "맛집"},
        )
    with pytest.raises(SubmitError, match=r"127\.0\.0\.1:9"):
        schedule_graph("http://127.0.0.1:9", PLACEMENT, every="1h", given=GIVEN)

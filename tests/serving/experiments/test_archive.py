import orjson
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from serving.experiments.archive import app
from serving.experiments.store import ExperimentStore, Exposure, Feedback

DAY = 86_400_000_000


@pytest.fixture
def run(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = ExperimentStore(url)
    for number in (0, 1, 30_000):
        shown = Exposure(
            request_id=f"request-{number}",
            item=0,
            experiment_id="even" if number % 2 == 0 else "odd",
            deployment_id="d",
            unit=f"{number:064x}",
            arm="champion",
            model_version="sentiment/1",
            text_sha256="0" * 64,
            prediction=orjson.dumps({"sentiment": {"label": "positive"}}),
            latency_ms=1.0,
            created_at_us=number * DAY,
        )
        store.write([shown], [Feedback(shown.request_id, 0, number * DAY, reward=1.0)])
    store.close()

    def invoke(*arguments):
        return CliRunner().invoke(app, list(arguments), env={"MATJIP_STORE_URL": url})

    return invoke


def times(folder):
    return pq.read_table(folder / "exposures.parquet")["created_at"].cast("int64").to_pylist()


def test_a_copy_is_written_and_told(run, tmp_path):
    result = run("export", str(tmp_path / "all"))
    assert result.exit_code == 0, result.output
    assert "all: 3 exposures, 3 outcomes, 0 of them orphans" in result.output
    result = run("export", str(tmp_path / "some"), "--before", "1970-01-02", "--experiment", "even")
    assert result.exit_code == 0, result.output
    assert times(tmp_path / "some") == [0]


def test_what_is_old_is_moved_and_told(run, tmp_path):
    result = run("retain", str(tmp_path / "out"), "--older-than-days", "365")
    assert result.exit_code == 0, result.output
    assert "2 exposures, 2 outcomes" in result.output
    result = run("retain", str(tmp_path / "out"), "--older-than-days", "365")
    assert "nothing is old enough" in result.output


def test_an_error_is_one_line_and_an_exit_status(run, tmp_path):
    assert run("export", str(tmp_path / "out")).exit_code == 0
    result = run("export", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert result.output.startswith("ExperimentError: ")
    assert run("retain", str(tmp_path / "out"), "--older-than-days", "0").exit_code == 1
    assert run("retain", str(tmp_path / "out")).exit_code == 2

"""What `make serve` serves, where runs and experiments have deployed."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from data.errors import SettingsError
from pipelines.deployments import CLASSIFIER, LANGUAGE
from pipelines.live import deployments_to_serve, live_folder
from pipelines.local import Home, RunRecord, StepRecord, save_run
from serving.dealing import PhasePlan
from serving.deployment import Arm, Deployment, read_deployment, write_deployment
from serving.experiments.catalogue import Catalogue, Served
from serving.experiments.lifecycle import Event
from serving.experiments.specification import specification_of
from serving.language_deployment import (
    InProcessEndpoint,
    LanguageArm,
    LanguageDeployment,
    read_language_deployment,
    write_language_deployment,
)

NOW = datetime(2026, 11, 30, tzinfo=UTC)
SPECIFICATION = {
    "name": "lighter",
    "hypothesis": "가벼운 모델도 똑같이 답한다",
    "owner": "review-analysis",
    "unit": "user",
    "arms": [{"name": "now", "model": "models:/m/1"}, {"name": "lighter", "model": "models:/m/2"}],
    "metrics": {"primary": {"name": "sentiment_accuracy", "direction": "increase"}},
    "phases": [{"kind": "ab", "allocation": {"now": 0.5, "lighter": 0.5}}],
}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path)


def _deployment(hours: int, experiment: str = "m-1", phase: PhasePlan | None = None) -> Deployment:
    names = ("now", "lighter") if phase else ("champion",)
    arms = tuple(
        Arm(
            name=name,
            model_name="m",
            version=str(number),
            folder=Path("models") / name,
            manifest_digest="a" * 64,
            evidence_id=f"e{number}-{hours}",
            share=1.0 / len(names),
        )
        for number, name in enumerate(names, 1)
    )
    at = NOW + timedelta(hours=hours)
    return Deployment(
        experiment_id=experiment, salt="a salt of tests", arms=arms, created_at=at, phase=phase
    )


def _run(home: Home, hours: int) -> tuple[Path, str]:
    """What a run deployed at that hour: its file, and its id."""
    folder = home.folder(f"run-{hours}")
    deployment = _deployment(hours)
    write_deployment(folder / "deployment.json", deployment)
    outputs = {"deployment": {"uri": str(folder)}}
    step = StepRecord(
        name="deploy-challenger", status="succeeded", seconds=1.0, cached=False, outputs=outputs
    )
    run_id = f"train-encoder-20261130-{hours:06d}-000"
    record = RunRecord(
        run_id=run_id, graph="train-encoder", status="succeeded", arguments={}, steps=[step]
    )
    save_run(home, record)
    return folder / "deployment.json", deployment.deployment_id


def _experiment(home: Home, hours: int) -> tuple[Catalogue, str]:
    """An experiment whose phase was opened at that hour, killed before it went live."""
    catalogue = Catalogue(home.store_url)
    entry = catalogue.put(specification_of(SPECIFICATION, where="test"))
    event = Event(action="start", by="tester", reason="시험")
    plan = entry.lifecycle.after(event).plan(entry.version)
    deployment = _deployment(hours, "lighter", plan)
    write_deployment(
        home.root / "live" / "phases" / deployment.deployment_id / "deployment.json", deployment
    )
    content = deployment.model_dump(mode="json")
    catalogue.record(
        "lighter", event, serves=Served("sentiment", deployment.deployment_id, content)
    )
    return catalogue, deployment.deployment_id


def _serves(home: Home) -> tuple[str, tuple[str, ...]]:
    served = deployments_to_serve(home)
    assert served.deployments[CLASSIFIER] == live_folder(home) / "deployment.json"
    return read_deployment(served.deployments[CLASSIFIER]).deployment_id, served.notes


def test_what_a_run_deployed_is_served_from_the_live_folder(home: Home) -> None:
    file, deployment_id = _run(home, 1)
    assert _serves(home) == (deployment_id, ())
    [arm] = read_deployment(home.root / "live" / "deployment.json").arms
    assert arm.folder.resolve() == file.parent / "models" / "champion"
    _, newer = _run(home, 2)
    assert _serves(home) == (newer, ())


def test_a_running_experiment_is_served_whatever_was_deployed_since(home: Home) -> None:
    _, before = _run(home, 1)
    assert _serves(home) == (before, ())
    catalogue, phase = _experiment(home, 2)
    assert _serves(home) == (phase, ())  # it had not gone live when its command was killed
    file, since = _run(home, 3)
    served, [note] = _serves(home)
    assert served == phase
    assert "experiment 'lighter' is served" in note
    assert str(file) in note
    catalogue.record("lighter", Event(action="roll_back", by="tester", reason="끝"))
    assert _serves(home) == (since, ())
    catalogue.close()


def test_an_experiment_that_ended_is_served_until_something_is_deployed(home: Home) -> None:
    catalogue, phase = _experiment(home, 2)
    _run(home, 1)
    _serves(home)
    catalogue.record("lighter", Event(action="promote", arm="lighter", by="tester", reason="끝"))
    assert _serves(home) == (phase, ())
    catalogue.close()


def test_a_language_model_that_went_live_is_served_too(home: Home) -> None:
    arm = LanguageArm(
        name="now",
        model_name="m",
        version="1",
        manifest_digest="a" * 64,
        evidence_id="e1",
        share=1.0,
        endpoint=InProcessEndpoint(folder=Path("models/now")),
    )
    file = home.root / "live" / "language_deployment.json"
    write_language_deployment(
        file,
        LanguageDeployment(experiment_id="m", salt="a salt of tests", arms=(arm,), created_at=NOW),
    )
    assert dict(deployments_to_serve(home).deployments) == {LANGUAGE: file}


def test_a_language_model_of_a_run_goes_live_with_its_adapter(home: Home) -> None:
    folder = home.folder("run")
    endpoint = InProcessEndpoint(folder=Path("models/base"), adapter=Path("models/adapter"))
    arm = LanguageArm(
        name="champion",
        model_name="m",
        version="1",
        manifest_digest="a" * 64,
        evidence_id="e1",
        share=1.0,
        endpoint=endpoint,
    )
    deployment = LanguageDeployment(
        experiment_id="m", salt="a salt of tests", arms=(arm,), created_at=NOW
    )
    write_language_deployment(folder / "language_deployment.json", deployment)
    outputs = {"deployment": {"uri": str(folder)}}
    step = StepRecord(
        name="deploy-llm", status="succeeded", seconds=1.0, cached=False, outputs=outputs
    )
    record = RunRecord(
        run_id="train-language-20261130-000001-000",
        graph="train-language",
        status="succeeded",
        arguments={},
        steps=[step],
    )
    save_run(home, record)
    file = deployments_to_serve(home).deployments[LANGUAGE]
    assert file == live_folder(home) / "language_deployment.json"
    [live] = read_language_deployment(file).arms
    assert live.endpoint.folder.resolve() == folder / "models" / "base"
    assert live.endpoint.adapter.resolve() == folder / "models" / "adapter"


def test_where_nothing_is_there_to_serve_the_mend_is_told(home: Home) -> None:
    with pytest.raises(SettingsError, match="make demo"):
        deployments_to_serve(home)

"""The connection to MLflow: runs logged once and whole, and addresses where no registry is."""

import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

import serving.registry.connection as module
from data.errors import RegistryError
from serving.registry.connection import connect


def test_a_run_keeps_its_curve_and_its_files(registry, tmp_path, new_run):
    report = tmp_path / "report.json"
    report.write_text("{}")
    run_id = new_run(artifacts={"evaluation": report})
    history = registry.client.get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.9), (2, 0.5), (3, 0.4)]
    run = registry.client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3"}
    assert [entry.path for entry in registry.client.list_artifacts(run_id, "evaluation")] == [
        "evaluation/report.json"
    ]


def test_long_curves_and_many_settings_are_logged_whole(registry, new_run):
    run_id = new_run(
        metrics={"loss": [(step, 1 / (step + 1)) for step in range(250)]},
        params={f"setting_{number}": number for number in range(150)},
    )
    assert len(registry.client.get_metric_history(run_id, "loss")) == 250
    assert len(registry.client.get_run(run_id).data.params) == 150


def test_the_same_key_is_the_same_run(new_run):
    first = new_run()
    assert new_run() == first
    assert new_run(key="run-2") != first


def test_a_run_that_was_killed_is_finished_without_a_point_twice(
    registry, monkeypatch, new_run, interrupt
):
    client = type(registry.client)
    with monkeypatch.context() as patch:
        patch.setattr(client, "set_terminated", interrupt)
        with pytest.raises(KeyboardInterrupt):
            new_run()
    run_id = new_run()
    assert len(registry.client.get_metric_history(run_id, "loss")) == 3
    experiment = registry.client.get_experiment_by_name("training")
    assert len(registry.client.search_runs([experiment.experiment_id])) == 1
    assert registry.client.get_run(run_id).info.status == "FINISHED"


def test_a_key_that_could_change_a_search_is_refused(new_run):
    with pytest.raises(RegistryError, match="idempotency key"):
        new_run(key="x' or tags.a = 'b")


def test_an_experiment_that_was_deleted_is_named(registry, new_run):
    new_run()
    experiment = registry.client.get_experiment_by_name("training")
    registry.client.delete_experiment(experiment.experiment_id)
    with pytest.raises(RegistryError, match="was deleted; restore it"):
        new_run(key="run-2")


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PROBE_FOR_S", 0.5)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://someone:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryError, match="does not answer") as caught:
            connect(uri, state=tmp_path)
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_address_that_is_none_is_refused(tmp_path):
    with pytest.raises(RegistryError, match="no-such-store"):
        connect("no-such-store://here", state=tmp_path)


def test_a_database_that_is_none_is_refused(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(RegistryError, match="file is not a database"):
        connect(f"sqlite:///{tmp_path}/mlflow.db")


def test_nothing_is_written_outside_the_registrys_folder(registry, make_model, tmp_path, register):
    make_model(tmp_path / "model")
    register(tmp_path / "model")
    with sqlite3.connect(registry.state / "mlflow.db") as database:
        [[location]] = database.execute(
            "select artifact_location from experiments where name = 'training'"
        ).fetchall()
    assert location.startswith(registry.state.as_uri())
    assert not Path("mlruns").exists()


def test_importing_the_registry_does_not_import_mlflow():
    modules = "sys, training.registered_pair, serving.registry.promotion"
    code = f"import {modules}; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

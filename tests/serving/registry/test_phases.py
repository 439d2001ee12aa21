import json
import signal
import subprocess
import sys
import time
from functools import partial

import httpx
import pytest

from data.errors import ArtifactError, ExperimentError, RegistryError, SettingsError
from data.manifest import read_manifest
from serving.deployment import read_deployment
from serving.experiments.lifecycle import Event
from serving.experiments.routes import Routes
from serving.registry.phases import live_id, mend, open_phase, put_live, served_by
from serving.registry.promotion import deploy_challenger


@pytest.fixture
def open_(versions, catalogue, tmp_path):
    """Opens a phase: ``open_("lighter", "start")``."""
    return partial(
        open_phase,
        versions,
        catalogue,
        by="tester",
        reason="시험",
        live=tmp_path / "live",
        work=tmp_path / "work",
    )


@pytest.fixture
def live(tmp_path):
    return tmp_path / "live"


def end(catalogue, name):
    catalogue.record(name, Event(action="abandon", by="tester", reason="끝"))


def test_a_phase_is_served_from_the_live_folder(open_, agree, live, catalogue):
    entry = open_(agree(), "start")
    served = read_deployment(live / "deployment.json")
    assert entry.lifecycle.current.deployment_id == served.deployment_id == live_id(live)
    assert (served.phase.kind, served.phase.number, served.phase.mirrored) == ("shadow", 1, 0.2)
    assert served.salt == catalogue.salt()
    assert {arm.name: (arm.version, arm.share) for arm in served.arms} == {
        "now": ("1", 1.0),
        "lighter": ("2", 0.0),
    }
    for arm in served.arms:
        assert read_manifest(arm.folder).digest == arm.manifest_digest


def test_the_live_folder_may_be_moved(open_, agree, live, tmp_path):
    open_(agree(), "start")
    live.rename(tmp_path / "elsewhere")
    for arm in read_deployment(tmp_path / "elsewhere" / "deployment.json").arms:
        assert read_manifest(arm.folder).digest == arm.manifest_digest


def test_every_phase_is_a_deployment_of_its_own_with_the_same_models(open_, agree, live, catalogue):
    name = agree()
    served = []
    for action, allocation in (
        ("start", None),
        ("advance", None),
        ("reallocate", {"now": 0.8, "lighter": 0.2}),
        ("advance", None),
    ):
        open_(name, action, allocation=allocation)
        served.append(read_deployment(live / "deployment.json"))
    assert [one.phase.kind for one in served] == ["shadow", "canary", "canary", "ab"]
    assert [one.phase.number for one in served] == [1, 2, 3, 4]
    assert [one.share("lighter") for one in served] == [0.0, 0.05, 0.2, 0.5]
    assert len({one.deployment_id for one in served}) == 4
    assert len({arm.folder for one in served for arm in one.arms}) == 2
    ids = [phase.deployment_id for phase in catalogue.get(name).lifecycle.opened]
    assert ids == [one.deployment_id for one in served]


def test_an_alias_that_moves_by_hand_leaves_a_running_experiment_alone(
    open_, agree, live, versions
):
    name = agree()
    open_(name, "start")
    versions.client.set_registered_model_alias("sentiment", "champion", "3")
    open_(name, "advance")
    assert [arm.version for arm in read_deployment(live / "deployment.json").arms] == ["1", "2"]


def test_what_may_not_be_done_fetches_nothing(open_, agree, live, catalogue):
    with pytest.raises(ExperimentError, match="cannot 'advance'"):
        open_(agree(), "advance")
    with pytest.raises(ExperimentError, match="no experiment 'unknown'"):
        open_("unknown", "start")
    with pytest.raises(SettingsError, match="allocation goes with 'reallocate'"):
        open_("lighter", "start", allocation={"now": 1.0})
    with pytest.raises(SettingsError, match="by="):
        open_("lighter", "start", by="")
    assert not (live / "models").exists()


def test_whoever_decided_on_another_history_is_refused(open_, agree, catalogue, live):
    name = agree()
    open_(name, "start", after=0)
    with pytest.raises(ExperimentError, match="somebody acted meanwhile"):
        open_(name, "advance", after=0)
    assert read_deployment(live / "deployment.json").phase.number == 1


def test_one_folder_serves_one_experiment_at_a_time(open_, agree, live, catalogue, tmp_path):
    first, second = agree(), agree({"name": "other"})
    open_(first, "start")
    with pytest.raises(ExperimentError, match=r"'lighter' is served from .*end 'lighter' first"):
        open_(second, "start")
    assert read_deployment(live / "deployment.json").experiment_id == first
    open_(second, "start", live=tmp_path / "beside")  # with gateways of its own
    assert read_deployment(live / "deployment.json").experiment_id == first
    assert mend(catalogue, live) == []
    end(catalogue, first)
    end(catalogue, second)
    third = agree({"name": "third"})
    open_(third, "start")
    assert read_deployment(live / "deployment.json").experiment_id == third


def test_layers_that_overlap_are_refused_and_nothing_is_served(open_, agree, live, tmp_path):
    layer = {"layer": {"name": "models", "start": 0, "stop": 6_000}}
    open_(agree(layer), "start")
    before = live_id(live)
    overlapping = {"name": "other", "layer": {"name": "models", "start": 5_000, "stop": 10_000}}
    with pytest.raises(ExperimentError, match="layer 'models'"):
        open_(agree(overlapping), "start", live=tmp_path / "beside")
    assert live_id(live) == before
    assert live_id(tmp_path / "beside") is None


def test_a_deployment_file_that_was_edited_is_written_anew(open_, agree, live, catalogue):
    entry = open_(agree(), "start")
    for text in ("{", json.dumps({"salt": "edited"})):
        (live / "deployment.json").write_text(text, encoding="utf-8")
        assert mend(catalogue, live) == [live.resolve() / "deployment.json"]
        assert live_id(live) == entry.lifecycle.current.deployment_id
    assert mend(catalogue, live) == []


def test_a_prepared_file_that_was_edited_is_not_served(open_, agree, live, catalogue):
    entry = open_(agree(), "start")
    prepared = live / "phases" / entry.lifecycle.current.deployment_id / "deployment.json"
    prepared.write_text(prepared.read_text().replace('"share": 1.0', '"share": 0.0'))
    (live / "deployment.json").unlink()
    with pytest.raises(ExperimentError, match="is not a deployment"):
        mend(catalogue, live)
    assert not (live / "deployment.json").exists()


def test_a_folder_that_cannot_be_written_is_told(open_, agree, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write in"):
        open_(agree(), "start", live=tmp_path / "file" / "live")


def test_a_model_that_was_altered_is_not_served(open_, agree, live, tmp_path):
    name = agree()
    open_(name, "start")
    [weights, *_] = (tmp_path / "work").rglob("model.onnx")
    weights.unlink()
    with pytest.raises(RegistryError, match="was altered"):
        open_(name, "advance")
    assert read_deployment(live / "deployment.json").phase.number == 1


def test_deployments_without_an_experiment_go_live_too(versions, live, tmp_path, open_, agree):
    deployed = deploy_challenger(
        versions, name="sentiment", share=0.3, work=tmp_path / "work", out=tmp_path / "run"
    )
    file = put_live(tmp_path / "run" / "deployment.json", live)
    assert live_id(live) == deployed.deployment_id
    written = file.stat().st_mtime_ns
    put_live(tmp_path / "run" / "deployment.json", live)
    assert file.stat().st_mtime_ns == written
    for arm in read_deployment(file).arms:
        assert read_manifest(arm.folder).digest == arm.manifest_digest
    open_(agree(), "start")
    assert live_id(live) != deployed.deployment_id


def test_what_serves_a_phase_is_in_the_store(open_, agree, catalogue):
    name = agree()
    assert served_by(catalogue, catalogue.get(name)) is None
    entry = open_(name, "start")
    content = served_by(catalogue, entry)
    assert content["deployment_id"] == entry.lifecycle.current.deployment_id
    assert [arm["version"] for arm in content["arms"]] == ["1", "2"]


KILLED = """
import os, signal, sys
from pathlib import Path
from serving.experiments.catalogue import Catalogue
from serving.registry import phase_arms, phases
from serving.registry.connection import connect

step, store, tracking, live, work = sys.argv[1:]

def dies(real, at):
    calls = []
    def call(*arguments, **named):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    return call

if step == "between fetches":
    phase_arms.place_model = dies(phase_arms.place_model, 2)
elif step == "before prepare":
    phases._write = dies(phases._write, 1)
elif step == "before commit":
    Catalogue.record = dies(Catalogue.record, 1)
elif step == "before apply":
    phases._write = dies(phases._write, 2)
phases.open_phase(connect(tracking), Catalogue(store), "lighter", "advance", by="t", reason="r",
                  live=Path(live), work=Path(work))
"""


@pytest.mark.parametrize(
    ("step", "is_committed"),
    [
        ("between fetches", False),
        ("before prepare", False),
        ("before commit", False),
        ("before apply", True),
    ],
)
def test_a_kill_at_any_step_leaves_one_phase_served_and_the_next_command_goes_on(
    open_, agree, live, catalogue, store_address, versions, tmp_path, step, is_committed
):
    name = agree()
    first = open_(name, "start").lifecycle.current.deployment_id
    arguments = [step, store_address, versions.uri, str(live), str(tmp_path / "work")]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert live_id(live) == first  # whole, and what answered before
    assert len(catalogue.get(name).lifecycle.opened) == (2 if is_committed else 1)
    if is_committed:
        assert mend(catalogue, live) == [live.resolve() / "deployment.json"]
    else:
        open_(name, "advance")
    entry = catalogue.get(name)
    assert [phase.phase.kind for phase in entry.lifecycle.opened] == ["shadow", "canary"]
    assert live_id(live) == entry.lifecycle.current.deployment_id
    for arm in read_deployment(live / "deployment.json").arms:
        assert read_manifest(arm.folder).digest == arm.manifest_digest


def test_a_gateway_takes_each_phase_as_it_opens(
    registry, register, give_alias, tiny_models, agree, catalogue, store_address, run_gateway, live
):
    for number, arm in (("1", "champion"), ("2", "challenger")):
        register(tiny_models[arm], f"tiny-{number}", evidence_id=f"e{number}")
        give_alias(arm, number)
    opening = partial(
        open_phase, registry, catalogue, agree(), by="t", reason="r", live=live, work=live / "work"
    )
    opening("start")
    first = read_deployment(live / "deployment.json")

    def answered(url):
        said = {"reviews": [{"text": "국물이 맛있어요", "unit": "user-7"}]}
        return httpx.post(f"{url}/v1/analyze", json=said, timeout=30.0).raise_for_status().json()

    settings = {"reload_poll_s": 0.1, "store_url": store_address}
    with run_gateway(live, first, **settings) as gateway:
        assert answered(gateway.url)["deployment_id"] == first.deployment_id
        second = opening("advance").lifecycle.current.deployment_id
        end_at = time.monotonic() + 30.0
        while answered(gateway.url)["deployment_id"] != second:
            assert time.monotonic() < end_at, gateway.log.read_text()
            time.sleep(0.1)
    routes = Routes(store_address)
    assert routes.latest("sentiment").deployment_id == second
    routes.close()

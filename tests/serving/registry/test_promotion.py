import pytest

from data.errors import ExperimentError, RegistryError
from data.manifest import read_manifest, write_manifest
from serving.deployment import read_deployment
from serving.model_folder import MODEL_KIND
from serving.registry.aliases import move_alias, read_ledger
from serving.registry.connection import log_run
from serving.registry.evidence import Evidence
from serving.registry.promotion import Verdict, deploy_challenger, promote_model, restore_champion
from serving.registry.transition import Tools
from serving.registry.versions import register_version, resolve

NAME = "sentiment"


@pytest.fixture
def register(registry, make_model, tmp_path):
    """Registers versions 1, 2, … with the evidence e1, e2, …"""
    run_id = log_run(
        registry,
        experiment="training",
        run_name="run",
        params={},
        metrics={},
        tags={},
        artifacts={},
        idempotency_key="run",
    )

    def one(number: int) -> None:
        make_model(tmp_path / f"model-{number}", weight=float(number))
        register_version(
            registry,
            name=NAME,
            folder=tmp_path / f"model-{number}",
            tags={"evidence_id": f"e{number}", "gate_verdict": "pass"},
            description="",
            run_id=run_id,
            idempotency_key=f"version-{number}",
        )

    return one


def gate(registry, alias, number, expected):
    kind = "gate" if alias == "challenger" else "first_model"
    why = Evidence(
        kind=kind,
        decision="pass",
        evidence_id=f"e{number}",
        artifact_digest="gate",
        reason="passed",
    )
    move_alias(registry, NAME, alias, str(number), evidence=why, expected_version=expected)


@pytest.fixture
def pair(registry, register):
    register(1)
    register(2)
    gate(registry, "champion", 1, None)
    gate(registry, "challenger", 2, None)
    return registry


def deploy(registry, tmp_path, out="deployment", share=0.3):
    return deploy_challenger(
        registry, name=NAME, share=share, work=tmp_path / "work", out=tmp_path / out
    )


def promote(registry, deployment, decision, tmp_path, out="promotion", tools=None, **changes):
    verdict = {
        "decision": decision,
        "reason": "the interval says so",
        "deployment_id": deployment.deployment_id,
        "artifact_digest": f"comparison-{decision}",
    }
    return promote_model(
        registry,
        verdict=Verdict.model_validate(verdict | changes),
        deployment=deployment,
        experiment="verdicts",
        metrics={"difference": 0.02},
        artifacts={},
        out=tmp_path / out,
        tools=tools,
    )


def named(registry, alias):
    found = resolve(registry, NAME, alias)
    return None if found is None else found.version


def test_a_deployment_holds_both_models_whole(pair, tmp_path):
    deployment = deploy(pair, tmp_path)
    manifest = read_manifest(tmp_path / "deployment", "deployment")
    assert manifest.facts["status"] == "ok"
    assert manifest.facts["shares"] == {"champion": 0.7, "challenger": 0.3}
    read = read_deployment(tmp_path / "deployment/deployment.json")
    assert read.deployment_id == deployment.deployment_id
    for arm in read.arms:
        assert read_manifest(arm.folder, MODEL_KIND).digest == arm.manifest_digest
    assert [arm.version for arm in read.arms] == ["1", "2"]


def test_a_deployment_does_not_follow_an_alias_that_moves_later(pair, register, tmp_path):
    deployment = deploy(pair, tmp_path)
    register(3)
    gate(pair, "challenger", 3, "2")
    read = read_deployment(tmp_path / "deployment/deployment.json")
    assert read.deployment_id == deployment.deployment_id
    assert read.arm("challenger").version == "2"


def test_the_same_versions_are_the_same_deployment(pair, tmp_path):
    first = deploy(pair, tmp_path, "first")
    assert deploy(pair, tmp_path, "second").deployment_id == first.deployment_id
    assert deploy(pair, tmp_path, "third", share=0.5).deployment_id != first.deployment_id


def test_without_a_challenger_the_champion_takes_all(registry, register, tmp_path):
    register(1)
    gate(registry, "champion", 1, None)
    deployment = deploy(registry, tmp_path)
    assert [(arm.name, arm.share) for arm in deployment.arms] == [("champion", 1.0)]
    facts = read_manifest(tmp_path / "deployment", "deployment").facts
    assert facts["status"] == "skipped"
    assert "no version of 'sentiment' is its challenger" in facts["reason"]


def test_without_a_champion_nothing_is_deployed(registry, register, tmp_path):
    register(1)
    with pytest.raises(RegistryError, match="has no champion"):
        deploy(registry, tmp_path)
    assert not (tmp_path / "deployment").exists()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused(pair, tmp_path, share):
    with pytest.raises(ExperimentError, match="not a share"):
        deploy(pair, tmp_path, share=share)


def test_a_model_altered_in_the_store_is_not_deployed(pair, tmp_path):
    for stored in pair.state.glob("artifacts/*/*/artifacts/models/*/model.onnx"):
        stored.write_bytes(stored.read_bytes() + b"\0")
    with pytest.raises(RegistryError, match="not what was registered"):
        deploy(pair, tmp_path)
    assert not (tmp_path / "deployment/deployment.json").exists()


def test_a_promoted_challenger_is_the_champion(pair, tmp_path):
    promotion = promote(pair, deploy(pair, tmp_path), "promote", tmp_path)
    assert (named(pair, "champion"), named(pair, "challenger")) == ("2", None)
    assert (promotion.status, promotion.champion_before, promotion.champion) == ("ok", "1", "2")
    assert read_manifest(tmp_path / "promotion", "promotion").facts["champion"] == "2"
    run = pair.client.get_run(promotion.run_id)
    assert run.data.tags["decision"] == "promote"
    assert run.data.metrics == {"difference": 0.02}
    last = read_ledger(pair, NAME)[-1]
    assert (last.evidence.artifact_digest, last.alias) == ("comparison-promote", "challenger")


def test_a_rolled_back_challenger_is_marked_and_does_not_return(pair, tmp_path):
    deployment = deploy(pair, tmp_path)
    promote(pair, deployment, "roll_back", tmp_path)
    assert (named(pair, "champion"), named(pair, "challenger")) == ("1", None)
    tags = pair.client.get_model_version(NAME, "2").tags
    assert tags["rolled_back_by"] == deployment.deployment_id
    with pytest.raises(RegistryError, match="was rolled back"):
        gate(pair, "challenger", 2, None)


@pytest.mark.parametrize("decision", ["continue", "invalid"])
def test_no_alias_moves_without_a_decision(pair, tmp_path, decision):
    before = read_ledger(pair, NAME)
    promotion = promote(pair, deploy(pair, tmp_path), decision, tmp_path)
    assert (promotion.status, promotion.champion, promotion.challenger) == ("skipped", "1", "2")
    assert read_ledger(pair, NAME) == before
    assert pair.client.get_run(promotion.run_id).data.tags["decision"] == decision


@pytest.mark.parametrize("decision", ["promote", "roll_back"])
def test_a_second_call_changes_nothing(pair, tmp_path, decision):
    deployment = deploy(pair, tmp_path)
    first = promote(pair, deployment, decision, tmp_path)
    ledger = read_ledger(pair, NAME)
    assert promote(pair, deployment, decision, tmp_path, "again") == first
    assert read_ledger(pair, NAME) == ledger


def test_a_promotion_that_was_killed_halfway_is_completed(pair, tmp_path, monkeypatch):
    deployment = deploy(pair, tmp_path)

    def killed(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(pair.client), "delete_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            promote(pair, deployment, "promote", tmp_path)
    assert (named(pair, "champion"), named(pair, "challenger")) == ("2", "2")
    promote(pair, deployment, "promote", tmp_path)
    assert (named(pair, "champion"), named(pair, "challenger")) == ("2", None)


def test_a_champion_moved_by_hand_stops_the_promotion(pair, register, tmp_path):
    deployment = deploy(pair, tmp_path)
    register(3)
    pair.client.set_registered_model_alias(NAME, "champion", "3")
    with pytest.raises(RegistryError, match=r"by hand.*deploy and compare again"):
        promote(pair, deployment, "promote", tmp_path)
    assert (named(pair, "champion"), named(pair, "challenger")) == ("3", "2")
    assert not (tmp_path / "promotion").exists()


def test_a_newer_challenger_keeps_its_alias(pair, register, tmp_path):
    deployment = deploy(pair, tmp_path)
    register(3)
    gate(pair, "challenger", 3, "2")
    promotion = promote(pair, deployment, "promote", tmp_path)
    assert (promotion.champion, promotion.challenger) == ("2", "3")


def test_a_champion_is_not_rolled_back(pair, tmp_path):
    deployment = deploy(pair, tmp_path)
    promote(pair, deployment, "promote", tmp_path)
    with pytest.raises(RegistryError, match="it is the champion"):
        promote(pair, deployment, "roll_back", tmp_path, "again")


def test_a_verdict_about_another_deployment_is_refused(pair, tmp_path):
    with pytest.raises(ExperimentError, match="about deployment 'other'"):
        promote(pair, deploy(pair, tmp_path), "promote", tmp_path, deployment_id="other")
    assert named(pair, "champion") == "1"


def test_a_verdict_without_a_challenger_promotes_nothing(registry, register, tmp_path):
    register(1)
    gate(registry, "champion", 1, None)
    deployment = deploy(registry, tmp_path)
    with pytest.raises(ExperimentError, match="needs a champion and a challenger"):
        promote(registry, deployment, "promote", tmp_path)
    assert promote(registry, deployment, "invalid", tmp_path).status == "skipped"


def test_the_arm_that_a_verdict_names_becomes_champion_whatever_it_is_called(pair, tmp_path):
    served = deploy(pair, tmp_path)
    control, challenger = (
        arm.model_copy(update={"name": name})
        for arm, name in zip(served.arms, ("float", "int8"), strict=True)
    )
    named_so = served.model_copy(update={"arms": (control, challenger)})
    with pytest.raises(ExperimentError, match="'turbo' needs a champion"):
        promote(pair, named_so, "promote", tmp_path, arm="turbo")
    with pytest.raises(ExperimentError, match="'float' needs a champion"):
        promote(pair, named_so, "promote", tmp_path, arm="float")
    promotion = promote(pair, named_so, "promote", tmp_path, "int8", arm="int8")
    assert (promotion.champion_before, promotion.champion) == ("1", "2")


def several_arms(deployment, **changes):
    """The same models, and one more, under arms of other names."""
    champion, challenger = deployment.arms
    arms = (
        champion.model_copy(update={"name": "control", "share": 0.4}),
        challenger.model_copy(update={"name": "int8", "share": 0.3, **changes}),
        challenger.model_copy(update={"name": "bf16", "share": 0.3, "version": "9"}),
    )
    return deployment.model_copy(update={"arms": arms})


@pytest.mark.parametrize(("decision", "champion"), [("promote", "2"), ("roll_back", "1")])
def test_of_several_arms_the_verdict_names_one(pair, tmp_path, decision, champion):
    deployment = several_arms(deploy(pair, tmp_path))
    turned = []
    tools = Tools(
        models=tmp_path / "fetched", turn=lambda where, arm, **why: turned.append((where, arm))
    )
    promotion = promote(pair, deployment, decision, tmp_path, arm="int8", tools=tools)
    assert (promotion.champion, promotion.challenger) == (champion, None)
    arm = "int8" if decision == "promote" else "control"
    assert turned == [(deployment.deployment_id, arm)]


@pytest.mark.parametrize("arm", ["challenger", "control"])
def test_a_verdict_about_an_arm_that_is_none_is_refused(pair, tmp_path, arm):
    deployment = several_arms(deploy(pair, tmp_path))
    with pytest.raises(ExperimentError, match=f"arm='{arm}' needs a champion and a challenger"):
        promote(pair, deployment, "promote", tmp_path, arm=arm)
    assert named(pair, "champion") == "1"


def test_an_arm_of_another_registered_model_is_not_promoted(pair, tmp_path):
    deployment = several_arms(deploy(pair, tmp_path), model_name="other")
    with pytest.raises(ExperimentError, match="moves within one registered model"):
        promote(pair, deployment, "promote", tmp_path, arm="int8")


def test_an_arm_of_another_registered_model_is_rolled_back_by_traffic_alone(pair, tmp_path):
    deployment = several_arms(deploy(pair, tmp_path), model_name="other")
    turned = []
    tools = Tools(
        models=tmp_path / "fetched", turn=lambda where, arm, **why: turned.append((where, arm))
    )
    promotion = promote(pair, deployment, "roll_back", tmp_path, arm="int8", tools=tools)
    assert turned == [(deployment.deployment_id, "control")]
    assert (promotion.champion, promotion.challenger) == ("1", "2")


def test_a_promotion_turns_the_traffic_where_it_is_told_how(pair, tmp_path):
    deployment = deploy(pair, tmp_path)
    turned = []

    def turn(deployment_id, arm, *, by, reason):
        turned.append((deployment_id, arm, by, reason))

    tools = Tools(models=tmp_path / "fetched", turn=turn)
    promote(pair, deployment, "promote", tmp_path, tools=tools)
    why = (deployment.deployment_id, "challenger", "verdict", "the interval says so")
    assert turned == [why]
    promote(pair, deployment, "promote", tmp_path, "again", tools=tools)
    assert turned == [why]


def test_a_verdict_that_was_undone_is_not_carried_out_again(pair, tmp_path):
    deployment = deploy(pair, tmp_path)
    promote(pair, deployment, "promote", tmp_path)
    restore_champion(pair, name=NAME, version="1", reason="wrong answers", ticket="OPS-1")
    again = promote(pair, deployment, "promote", tmp_path, "again")
    assert (again.champion, named(pair, "champion")) == ("1", "1")


def test_a_person_can_restore_an_earlier_champion(pair, tmp_path):
    promote(pair, deploy(pair, tmp_path), "promote", tmp_path)
    restore_champion(pair, name=NAME, version="1", reason="wrong answers", ticket="OPS-1")
    assert named(pair, "champion") == "1"
    assert read_ledger(pair, NAME)[-1].evidence.artifact_digest == "OPS-1"


def test_a_deployment_refolded_elsewhere_still_reads(pair, tmp_path):
    deploy(pair, tmp_path)
    moved = (tmp_path / "deployment").rename(tmp_path / "elsewhere")
    for arm in read_deployment(moved / "deployment.json").arms:
        assert (arm.folder / "model.onnx").is_file()
    assert write_manifest(moved, "deployment", {}).kind == "deployment"

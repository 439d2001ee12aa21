import orjson
import pytest

from data.contract import CONTRACT_VERSION
from data.errors import ArtifactError, GateError, RegistryError
from data.manifest import canonical_digest, read_manifest, write_json, write_manifest
from serving.registry.aliases import read_ledger
from serving.registry.promotion import Verdict, deploy_challenger, promote_model
from serving.registry.versions import get_version, resolve
from training.model_card import figures_in
from training.recipe import Recipe
from training.registered_pair import Registration
from training.registration import register_model

NAME = "sentiment"
RECIPE = Recipe(name="tiny")


class Artifacts:
    """What the steps before registration leave behind, with real manifests."""

    def __init__(self, make_model, folder, weight, verdict="pass", champion=None, **gate_facts):
        self.folder = folder
        snapshot = {
            "snapshot_id": "s1",
            "source": "label-studio-export",
            "rows_in": 810,
            "accepted": 805,
            "quarantined": 5,
            "restaurants": 41,
        }
        self.snapshot = self._seal("snapshot", "validated", snapshot)
        split = self._seal("split", "split", {"snapshot_id": "s1"})
        facts = {
            "recipe": "tiny",
            "recipe_digest": RECIPE.digest,
            "snapshot_id": "s1",
            "split_digest": split.digest,
            "curve": [[1, 0.9], [2, 0.4]],
            "pretrained": None,
            "bytes": 1000,
        }
        self.parent = make_model(
            folder / "parent", weight=weight, parent_digest="torch", parity={}, **facts
        )
        self.candidate = make_model(
            folder / "candidate",
            weight=weight + 0.5,
            model_format="onnx-int8",
            **facts
            | {
                "parent_digest": self.parent.digest,
                "bytes": 300,
                "parity": {"label_flips": 2, "cos_mean": 0.9991},
            },
        )
        models = {"candidate": self.candidate.digest, "parent": self.parent.digest}
        if champion is not None:
            models["champion"] = champion
        figure = {"value": 0.81, "low": 0.77, "high": 0.85}
        metrics = {
            "models": {name: {"digest": digest} for name, digest in models.items()},
            "metrics": {
                "candidate": {"sentiment_macro_f1": figure, "emotion_auroc": {"value": None}},
                "parent": {"sentiment_macro_f1": figure | {"value": 0.82}},
                "majority": {"sentiment_macro_f1": figure | {"value": 0.25}},
            },
        }
        (folder / "evaluation").mkdir()
        write_json(folder / "evaluation/metrics.json", metrics)
        evaluation = self._seal("evaluation", "evaluation", {"split": split.digest})
        judged = {"verdict": verdict, "candidate": "candidate", "evaluation": evaluation.digest}
        self.gate = self._seal("gate", "gate", judged | gate_facts)

    def _seal(self, name, kind, facts):
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return write_manifest(self.folder / name, kind, facts)

    def register(self, registry, **changes) -> Registration:
        arguments = {
            name: self.folder / name
            for name in ("parent", "candidate", "snapshot", "split", "evaluation", "gate")
        }
        return register_model(
            registry,
            name=NAME,
            experiment="matjip",
            recipe=RECIPE,
            out=self.folder / "registration",
            **(arguments | changes),
        )


@pytest.fixture
def make_artifacts(make_model, tmp_path):
    def make(name, weight=1.0, **changes):
        return Artifacts(make_model, tmp_path / name, weight, **changes)

    return make


def test_the_first_model_becomes_champion_and_its_child_challenger(registry, make_artifacts):
    artifacts = make_artifacts("first")
    registration = artifacts.register(registry)
    assert [(v.version, v.alias, v.parent, v.format) for v in registration.versions] == [
        ("1", "champion", None, "onnx-fp32"),
        ("2", "challenger", "1", "onnx-int8"),
    ]
    assert (registration.champion, registration.challenger) == ("1", "2")
    facts = read_manifest(artifacts.folder / "registration", "registration").facts
    written = (artifacts.folder / "registration/registration.json").read_bytes()
    assert orjson.loads(written) == facts == registration.model_dump(mode="json")
    kinds = [e.evidence.kind for e in read_ledger(registry, NAME) if e.phase == "moved"]
    assert kinds == ["first_model", "gate"]


def test_a_version_says_what_it_is_and_why_it_may(registry, make_artifacts):
    artifacts = make_artifacts("first")
    artifacts.register(registry)
    tags = get_version(registry, NAME, "2").tags
    assert tags["snapshot_id"] == "s1"
    assert tags["gate_verdict"] == "pass"
    assert tags["format"] == "onnx-int8"
    assert tags["contract_version"] == CONTRACT_VERSION
    assert tags["parent"] == artifacts.parent.digest
    assert tags["parent_version"] == "1"
    assert tags["recipe"] == "tiny"
    assert tags["manifest_digest"] == artifacts.candidate.digest
    digests = {
        name: read_manifest(artifacts.folder / name).digest
        for name in ("snapshot", "split", "evaluation", "gate")
    }
    assert tags["evidence_id"] == canonical_digest(digests | {"model": artifacts.candidate.digest})


def test_the_card_tells_data_figures_cost_and_limits(registry, make_artifacts):
    make_artifacts("first").register(registry)
    card = registry.client.get_model_version(NAME, "2").description
    for said in (
        "# sentiment · onnx-int8",
        "Rows: 810,\naccepted 805, quarantined 5.\nRestaurants: 41.",
        "0.8500 |\n\nSlices and plots",
        "composed for it with the help of a language model",
        "| candidate.sentiment_macro_f1 | 0.8100 | 0.7700 | 0.8500 |",
        "| majority.sentiment_macro_f1 | 0.2500 | 0.7700 | 0.8500 |",
        "300 bytes, 1000 before",
        "label_flips 2",
        "Verdict: **pass**",
        "## Limits",
    ):
        assert said in card
    parent = registry.client.get_model_version(NAME, "1").description
    assert "parent.sentiment_macro_f1 | 0.8200" in parent
    assert "not quantised" in parent


def test_the_run_keeps_figures_settings_and_the_curve(registry, make_artifacts):
    registration = make_artifacts("first").register(registry)
    run = registry.client.get_run(registration.run_id)
    assert run.data.metrics["candidate.sentiment_macro_f1"] == 0.81
    assert run.data.metrics["candidate.sentiment_macro_f1.low"] == 0.77
    assert run.data.params["fine_tuning.batch_tokens"] == "2048"
    curve = registry.client.get_metric_history(registration.run_id, "loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.9), (2, 0.4)]


def test_registering_again_changes_nothing(registry, make_artifacts):
    artifacts = make_artifacts("first")
    first = artifacts.register(registry)
    ledger = read_ledger(registry, NAME)
    assert artifacts.register(registry) == first
    assert read_ledger(registry, NAME) == ledger
    assert len(registry.client.search_model_versions(f"name = '{NAME}'")) == 2


@pytest.mark.parametrize("killed_in", ["create_model_version", "set_registered_model_alias"])
def test_a_registration_that_was_killed_is_completed(
    registry, make_artifacts, monkeypatch, killed_in
):
    artifacts = make_artifacts("first")
    client = type(registry.client)
    real = getattr(client, killed_in)
    calls = []

    def killed_the_second_time(*arguments, **names):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **names)

    with monkeypatch.context() as patch:
        patch.setattr(client, killed_in, killed_the_second_time)
        with pytest.raises(KeyboardInterrupt):
            artifacts.register(registry)
    assert resolve(registry, NAME, "challenger") is None
    registration = artifacts.register(registry)
    assert (registration.champion, registration.challenger) == ("1", "2")
    assert len(registry.client.search_model_versions(f"name = '{NAME}'")) == 2


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_gate_that_did_not_pass_sets_no_alias(registry, make_artifacts, verdict):
    registration = make_artifacts("first", verdict=verdict).register(registry)
    assert [v.version for v in registration.versions] == ["1", "2"]
    assert (registration.champion, registration.challenger) == (None, None)
    assert verdict in registration.note
    assert get_version(registry, NAME, "2").tags["gate_verdict"] == verdict


def test_a_second_model_challenges_the_champion(registry, make_artifacts):
    first = make_artifacts("first")
    first.register(registry)
    second = make_artifacts("second", weight=3.0, champion=first.parent.digest)
    registration = second.register(registry)
    assert (registration.champion, registration.challenger) == ("1", "4")
    assert get_version(registry, NAME, "4").tags["compared_with"] == first.parent.digest


@pytest.mark.parametrize("compared_with", [None, "another champion's digest"])
def test_a_gate_against_another_champion_sets_no_alias(registry, make_artifacts, compared_with):
    make_artifacts("first").register(registry)
    registration = make_artifacts("second", weight=3.0, champion=compared_with).register(registry)
    assert (registration.champion, registration.challenger) == ("1", "2")
    assert "evaluate and gate again" in registration.note


@pytest.mark.parametrize("decision", ["promote", "roll_back"])
def test_a_model_that_was_decided_on_is_not_challenger_again(registry, make_artifacts, decision):
    artifacts = make_artifacts("first")
    artifacts.register(registry)
    folder = artifacts.folder
    deployment = deploy_challenger(
        registry, name=NAME, share=0.5, work=folder / "work", out=folder / "deployment"
    )
    promote_model(
        registry,
        verdict=Verdict(
            decision=decision,
            reason="because",
            deployment_id=deployment.deployment_id,
            artifact_digest="comparison",
        ),
        deployment=deployment,
        experiment="matjip",
        metrics={},
        artifacts={},
        out=folder / "promotion",
    )
    registration = artifacts.register(registry)
    assert registration.challenger is None
    assert registration.champion == ("2" if decision == "promote" else "1")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("parent", "the candidate's parent_digest"),
        ("split", "the evaluation's split"),
        ("evaluation", "the gate's evaluation"),
        ("gate", "the gate's evaluation"),
        ("candidate", "the model that the gate judged"),
        ("snapshot", "the split's snapshot_id"),
    ],
)
def test_artifacts_of_two_runs_are_refused(registry, make_artifacts, other, message):
    ours, theirs = make_artifacts("ours"), make_artifacts("theirs", weight=5.0, policy="other")
    for name, kind in (("snapshot", "validated"), ("split", "split")):
        write_manifest(theirs.folder / name, kind, {"snapshot_id": "s2"})
    with pytest.raises(RegistryError, match=message):
        ours.register(registry, **{other: theirs.folder / other})
    assert registry.client.search_registered_models() == []


def test_a_gate_without_a_verdict_is_refused(registry, make_artifacts):
    artifacts = make_artifacts("first", verdict="maybe")
    with pytest.raises(GateError, match="says verdict 'maybe'"):
        artifacts.register(registry)


def test_an_artifact_that_was_altered_is_refused(registry, make_artifacts):
    artifacts = make_artifacts("first")
    (artifacts.folder / "evaluation/metrics.json").write_text("{}")
    with pytest.raises(ArtifactError, match="altered"):
        artifacts.register(registry)


def test_figures_are_found_at_any_depth():
    values = {"a": {"b": {"value": 1.0}, "c": 3}, "d": {"value": None}, "e": [{"value": 2}]}
    assert [path for path, _ in figures_in(values)] == ["a.b"]

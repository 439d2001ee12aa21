"""Language models go to the registry with their prompts and evidence, and from it to a gateway."""

import json
import runpy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from data.errors import ArtifactError, ExperimentError, RegistryError
from data.manifest import read_manifest, write_json, write_manifest
from data.prompts import TASKS, prompt_version
from serving.language_deployment import read_language_deployment
from serving.registry.arms import DEPLOYMENT_KIND
from serving.registry.language_deploy import (
    DEPLOYMENT_NAME,
    deploy_language,
    served_language_model,
)
from serving.registry.prompts import register_prompts
from serving.registry.versions import get_version
from training.evaluation.language.evaluation import LANGUAGE_EVALUATION_KIND, METRICS_NAME
from training.language_recipe import LanguageRecipe
from training.language_registration import register_language_model
from training.registered_pair import Registration

NAME = "language"
RECIPE = LanguageRecipe(name="tiny")


class Artifacts:
    """Two real models, and what the steps before registration leave behind about them."""

    def __init__(self, merged: Path, quantized: Path, folder: Path, verdict: str = "pass"):
        self.folder, self.merged, self.quantized = folder, merged, quantized
        self._seal("snapshot", "validated", {"snapshot_id": "s1", "accepted": 9, "quarantined": 1})
        split = self._seal("split", "split", {"snapshot_id": "s1"})
        figure = {"value": 0.5, "low": 0.4, "high": 0.6}
        models = {"candidate": quantized, "parent": merged}
        (folder / "evaluation").mkdir()
        write_json(
            folder / "evaluation" / METRICS_NAME,
            {
                "models": {
                    name: {"digest": read_manifest(at).digest} for name, at in models.items()
                }
                | {"majority": {"kind": "null"}},
                "metrics": {
                    "candidate": {"category_macro_f1": figure, "drift": {"value": None}},
                    "parent": {"category_macro_f1": figure},
                    "majority": {"category_macro_f1": figure | {"value": 0.1}},
                },
            },
        )
        evaluation = self._seal("evaluation", LANGUAGE_EVALUATION_KIND, {"split": split.digest})
        judged = {"verdict": verdict, "candidate": "candidate", "evaluation": evaluation.digest}
        self._seal("gate", "gate", judged)

    def _seal(self, name: str, kind: str, facts: dict[str, Any]) -> Any:
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return write_manifest(self.folder / name, kind, facts)

    def register(self, registry: Any, **changes: Any) -> Registration:
        parts = ("snapshot", "split", "evaluation", "gate")
        arguments = {name: self.folder / name for name in parts}
        models = {"merged": self.merged, "quantized": self.quantized}
        return register_language_model(
            registry,
            name=NAME,
            experiment="matjip",
            recipe=RECIPE,
            out=self.folder / "registration",
            **(arguments | models | changes),
        )


@pytest.fixture
def artifacts(tiny_merged: Path, tiny_w8a8: Path, tmp_path: Path) -> Artifacts:
    return Artifacts(tiny_merged, tiny_w8a8, tmp_path / "made")


def test_the_merged_model_is_champion_and_int8_its_challenger(registry, artifacts):
    registration = artifacts.register(registry)
    assert [(v.version, v.alias, v.parent, v.format) for v in registration.versions] == [
        ("1", "champion", None, "float32"),
        ("2", "challenger", "1", "w8a8"),
    ]
    assert artifacts.register(registry) == registration
    assert len(registry.client.search_model_versions(f"name = '{NAME}'")) == 2


def test_a_version_names_its_prompts_and_the_registry_has_them(registry, artifacts):
    artifacts.register(registry)
    tags = get_version(registry, NAME, "2").tags
    assert tags["recipe_digest"] == RECIPE.digest()
    for task in TASKS:
        name, version = tags[f"prompt.{task}"].split("/")
        prompt = registry.client.get_prompt_version(name, version)
        assert prompt.tags["prompt_version"] == prompt_version(task)
        assert [message["role"] for message in prompt.template] == ["system", "user"]
        assert "{{" in prompt.template[-1]["content"]
    assert register_prompts(registry) == {key: tags[key] for key in tags if "prompt." in key}


def test_a_prompt_whose_words_change_gets_a_version(registry, monkeypatch):
    before = register_prompts(registry)
    monkeypatch.setattr(
        "serving.registry.prompts.prompt_version",
        lambda task: "changed" if task == "labels" else prompt_version(task),
    )
    after = register_prompts(registry)
    assert after == before | {"prompt.labels": "matjip-labels/2"}


def test_the_card_tells_prompts_figures_cost_and_limits(registry, artifacts):
    artifacts.register(registry)
    card = registry.client.get_model_version(NAME, "2").description
    for said in (
        "# language · w8a8",
        f"- labels: `{prompt_version('labels')}`",
        "9 labelled reviews,\n1 quarantined",
        "0.5000 [0.4000, 0.6000] | 0.1000 [0.4000, 0.6000]",
        "bytes of weights before",
        "Verdict: **pass**",
        "composed for it with the help of a language model",
    ):
        assert said in card
    assert "not quantised" in registry.client.get_model_version(NAME, "1").description


def test_it_is_deployed_whole_and_read_again(registry, artifacts, tmp_path):
    artifacts.register(registry)
    out = tmp_path / "deployment"
    deployment = deploy_language(registry, name=NAME, share=0.25, work=tmp_path / "models", out=out)
    read = read_language_deployment(out / DEPLOYMENT_NAME)
    assert read.deployment_id == deployment.deployment_id
    assert [(arm.name, arm.version, arm.share) for arm in read.arms] == [
        ("champion", "1", 0.75),
        ("challenger", "2", 0.25),
    ]
    for arm in read.arms:
        assert read_manifest(arm.endpoint.folder).digest == arm.manifest_digest
        config = json.loads((arm.endpoint.folder / "config.json").read_bytes())
        assert arm.max_answer_tokens == min(1_024, config["max_position_embeddings"] // 2)
    assert read_manifest(out, DEPLOYMENT_KIND).facts["status"] == "ok"


def test_servers_may_answer_for_the_arms(registry, artifacts, tmp_path):
    artifacts.register(registry)

    def ends(base_url: str) -> list[tuple[str, str]]:
        places = {"work": tmp_path / "models", "out": tmp_path / "deployment"}
        made = deploy_language(registry, name=NAME, share=0.5, base_url=base_url, **places)
        return [(arm.endpoint.base_url, arm.endpoint.model) for arm in made.arms]

    both = "champion=http://127.0.0.1:1 challenger=http://127.0.0.1:2"
    assert ends(both) == [
        ("http://127.0.0.1:1", "language-champion"),
        ("http://127.0.0.1:2", "language-challenger"),
    ]
    assert {url for url, _ in ends("http://127.0.0.1:3")} == {"http://127.0.0.1:3"}
    with pytest.raises(ExperimentError, match="no server of the challenger"):
        ends("champion=http://127.0.0.1:1")


def test_a_server_must_serve_its_arms_model(registry, artifacts, tmp_path):
    artifacts.register(registry)
    fakes = runpy.run_path(str(Path(__file__).parents[1] / "fake_language.py"))
    champion = FastAPI()
    champion.get("/v1/models")(lambda: {"data": [{"id": "language-champion"}]})
    places = {"work": tmp_path / "models", "out": tmp_path / "deployment"}
    with fakes["serve"](champion) as url:
        made = partial(deploy_language, registry, name=NAME, share=0.5, **places)
        assert made(base_url=f"champion={url} challenger=http://127.0.0.1:2")
        with pytest.raises(
            ExperimentError, match=r"challenger's server .* serves \['language-champion'\], not"
        ):
            made(base_url=url)


def test_what_an_alias_names_is_fetched_for_vllm(registry, artifacts, tmp_path):
    uri = registry.uri
    with pytest.raises(RegistryError, match="language@champion names nothing"):
        served_language_model(uri, NAME, "champion", tmp_path)
    artifacts.register(registry)
    folder = served_language_model(uri, NAME, "challenger", tmp_path)
    assert read_manifest(folder).digest == read_manifest(artifacts.quantized).digest


def test_a_template_of_another_hand_stays_out(registry, tiny_merged, tiny_w8a8, tmp_path):
    strange = tmp_path / "strange"
    strange.mkdir()
    source = read_manifest(tiny_w8a8)
    for name in source.files:
        (strange / name).write_bytes((tiny_w8a8 / name).read_bytes())
    (strange / "chat_template.jinja").write_text("{{ ''.__class__ }}")
    write_manifest(strange, source.kind, source.facts)
    made = Artifacts(tiny_merged, strange, tmp_path / "made")
    with pytest.raises(RegistryError, match="not the chat template that matjip trains"):
        made.register(registry)


def test_models_that_do_not_belong_together_are_refused(registry, artifacts):
    with pytest.raises(RegistryError, match="parent_digest"):
        artifacts.register(registry, merged=artifacts.quantized)


def test_an_evaluation_that_was_altered_is_refused(registry, artifacts):
    (artifacts.folder / "evaluation" / METRICS_NAME).write_text("{}")
    with pytest.raises(ArtifactError, match="altered"):
        artifacts.register(registry)

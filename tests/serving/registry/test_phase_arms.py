from functools import partial

import pytest

from data.errors import ExperimentError, RegistryError
from serving.experiments.specification import specification_of
from serving.language_deployment import read_language_deployment
from serving.registry.phase_arms import moved_aliases, resolve_arms
from serving.registry.phases import open_phase, served_by


@pytest.fixture
def resolved(versions, experiment_values):
    """Resolves two arms by their models: ``resolved("models:/sentiment/1", …)``."""

    def resolve(*models, **more):
        names = ("now", "lighter", "third")
        arms = [{"name": name, "model": model} for name, model in zip(names, models, strict=False)]
        share = {arm["name"]: round(1 / len(arms), 4) for arm in arms}
        share["now"] = round(1.0 - sum(list(share.values())[1:]), 4)
        phases = [{"kind": "ab", "allocation": share}]
        values = experiment_values({"arms": arms, "phases": phases} | more)
        found = resolve_arms(versions, specification_of(values, where="test"))
        return {name: version.version for name, version in found.items()}

    return resolve


def test_models_are_versions_or_aliases(resolved):
    found = resolved("models:/sentiment@champion", "models:/sentiment/3", "models:/sentiment/2")
    assert found == {"now": "1", "lighter": "3", "third": "2"}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("models:/sentiment@nobody", "'lighter': 'models:/sentiment@nobody' names nothing"),
        ("models:/unknown@champion", "names nothing"),
        ("models:/sentiment/99", "could not find version '99' of 'sentiment'"),
        ("models:/맛집/1", "could not find version '1' of '맛집'"),
    ],
)
def test_a_model_that_is_not_there_is_told(resolved, model, told):
    with pytest.raises(RegistryError, match=told):
        resolved("models:/sentiment/1", model)


@pytest.mark.parametrize("other", ["models:/sentiment/1", "models:/sentiment@champion"])
def test_arms_that_are_the_same_version_are_refused(resolved, other):
    models = ["models:/sentiment@champion", other]
    if models[0] == other:
        models[0] = "models:/sentiment/1"
    with pytest.raises(ExperimentError, match=r"'now' and 'lighter' are the same model"):
        resolved(*models)


def test_the_same_files_registered_twice_are_the_same_model(resolved, register, tmp_path):
    register(tmp_path / "model-1", "again", evidence_id="e9")
    with pytest.raises(ExperimentError, match="whose files are those of '1'"):
        resolved("models:/sentiment/1", "models:/sentiment/4")


@pytest.mark.parametrize(
    ("tag", "value", "told"),
    [
        ("gate_verdict", "fail", "its gate said 'fail'"),
        ("rolled_back_by", "d" * 32, "was rolled back by"),
        ("status", "half", "did not register it whole"),
    ],
)
def test_what_may_not_serve_is_no_arm(resolved, versions, tag, value, told):
    versions.client.set_model_version_tag("sentiment", "3", tag, value)
    with pytest.raises(
        RegistryError, match=f"version '3' of 'sentiment' may answer nobody.*{told}"
    ):
        resolved("models:/sentiment/1", "models:/sentiment/3")


@pytest.fixture
def opening(versions, catalogue, tmp_path):
    return partial(
        open_phase,
        versions,
        catalogue,
        by="t",
        reason="r",
        live=tmp_path / "live",
        work=tmp_path / "work",
    )


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"prompt": "matjip-labels/2"}, "answer with the prompts that they were trained with"),
        ({"parameters": {"threshold": 0.4}}, "a classifier takes none"),
    ],
)
def test_a_classifier_is_asked_with_nothing_more(opening, agree, catalogue, asked, told):
    arms = [
        {"name": "now", "model": "models:/sentiment/1"},
        {"name": "lighter", "model": "models:/sentiment/1", **asked},
    ]
    with pytest.raises(ExperimentError, match=told):
        opening(agree({"arms": arms}), "start")
    assert catalogue.get("lighter").lifecycle.state == "draft"


def test_aliases_that_moved_since_the_start_are_told(opening, agree, catalogue, versions):
    name = agree()
    entry = opening(name, "start")
    specification, content = entry.lifecycle.specification, served_by(catalogue, entry)
    assert moved_aliases(versions, specification, content) == []
    versions.client.set_registered_model_alias("sentiment", "champion", "3")
    versions.client.delete_registered_model_alias("sentiment", "challenger")
    champion, challenger = moved_aliases(versions, specification, content)
    assert champion.startswith("sentiment@champion names version '3' by now; arm 'now' stays '1'")
    assert challenger.startswith("sentiment@challenger names version None by now")


@pytest.fixture
def speakers(versions, register, tiny, tiny_base, tmp_path):
    """Two language models, versions 4 and 5 of the same registered model."""
    tiny.write_model(tmp_path / "other", seed=2)
    for number, folder in ((4, tiny_base), (5, tmp_path / "other")):
        register(folder, f"version-{number}", evidence_id=f"e{number}")


def _arms(second="models:/sentiment/5", **parameters):
    arms = [{"name": "now", "model": "models:/sentiment/4"}, {"name": "lighter", "model": second}]
    return {"arms": [arms[0], arms[1] | ({"parameters": parameters} if parameters else {})]}


def test_language_models_have_a_file_of_their_own(opening, agree, versions, speakers, tmp_path):
    server = {"base-url": "http://127.0.0.1:8001/v1", "served-model": "matjip-int8"}
    opening(agree(_arms(**server)), "start")
    served = read_language_deployment(tmp_path / "live" / "language_deployment.json")
    now, lighter = served.arms
    assert now.endpoint.folder.is_dir()
    assert now.max_answer_tokens == 512
    assert (lighter.endpoint.base_url, lighter.endpoint.model) == (
        "http://127.0.0.1:8001",
        "matjip-int8",
    )
    # A classifiers' experiment may run beside it.
    opening(agree({"name": "beside"}), "start")
    assert (tmp_path / "live" / "deployment.json").is_file()


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        (_arms("models:/sentiment/2"), "compare models of one kind"),
        (_arms(temperature=0.2), "'base-url' and 'served-model'"),
        (_arms(**{"base-url": "ftp://a", "served-model": "b"}), "base-url='ftp://a'"),
    ],
)
def test_language_models_that_cannot_be_asked_are_refused(opening, agree, speakers, arms, told):
    with pytest.raises(ExperimentError, match=told):
        opening(agree(arms), "start")

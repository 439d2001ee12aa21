"""The parity chain as the step runs it: engines of its own, short answers, a server or none."""

import json
import runpy
from pathlib import Path

import pytest
from fastapi import FastAPI

from data.errors import EngineError, ExportError, SettingsError
from data.manifest import read_manifest
from data.settings import parse_settings
from serving.registry.connection import log_run
from serving.registry.signature import CHAT_SIGNATURE
from serving.registry.versions import register_version
from training.language_delivery import (
    LanguageEvaluationSettings,
    LanguageParitySettings,
    _device,
    compare_language_chain,
    deploy_language_candidate,
    evaluate_language_candidate,
)
from training.llm_parity import PARITY_KIND
from training.parity_limits import FEW_ANSWERS, LIMITS

LOOSE = "{max_abs_diff: 4, top1_agreement: 0.8, kl_mean: 0.2, answer_agreement: 0, score_drop: 1}"
"""A random model's likeliest tokens are near ties."""
SETTINGS = f"{{examples: 4, answers: 2, answer_tokens: 400, limits: {{w8a8: {LOOSE}}}}}"

JUDGED = "judge: {base_url: 'http://127.0.0.1:9/v1', model: reader}"


@pytest.fixture
def parts(language_targets, tiny_base, tiny_adapter, tiny_merged, tiny_w8a8):
    """What the step is given."""
    return {
        "targets": language_targets,
        "base": tiny_base,
        "adapter": tiny_adapter,
        "merged": tiny_merged,
        "quantized": tiny_w8a8,
    }


def compare(parts, out, text=SETTINGS, **more):
    settings = parse_settings(LanguageParitySettings, text, where="parity settings")
    return compare_language_chain(**parts, settings=settings, out=out, **more)


def test_without_a_server_the_chain_ends_with_int8_and_says_why(tmp_path, parts):
    manifest = compare(parts, tmp_path / "parity")
    assert read_manifest(tmp_path / "parity", PARITY_KIND) == manifest
    said = json.loads((tmp_path / "parity" / "parity.json").read_bytes())
    first, second = said["links"]
    assert (first["name"], second["name"]) == ("adapter → merged", "merged → quantized")
    assert first["prompts"] == second["scores"]["examples"] == 4
    assert first["answers"]["examples"] == second["answers"]["examples"] == 2
    assert first["answers"]["agreement"] == 1.0
    assert said["engines"].keys() == {"adapter", "merged", "quantized"}
    assert all(name.startswith("transformers-") for name in said["engines"].values())
    assert "no server was given" in said["left_out"]["served"]


def test_the_same_models_leave_the_same_digest(tmp_path, parts):
    one, other = (compare(parts, tmp_path / name).digest for name in ("one", "other"))
    assert one == other


def test_a_server_that_is_not_there_breaks_the_last_link(tmp_path, parts):
    with pytest.raises(ExportError, match="quantized → served is broken: vllm matjip") as refused:
        compare(
            parts,
            tmp_path / "parity",
            SETTINGS.removesuffix("}") + ", served_model: matjip}",
            served_url="http://127.0.0.1:9",
        )
    assert "vLLM cannot be reached" in str(refused.value)
    said = json.loads((tmp_path / "parity" / "parity.json").read_bytes())
    assert [link["problem"] is None for link in said["links"]] == [True, True, False]
    assert said["engines"]["served"] == "vllm matjip"
    assert said["left_out"] == {}


def test_a_server_that_is_not_there_and_not_named_is_missed_before_anything_is_loaded(
    tmp_path, parts
):
    with pytest.raises(EngineError, match="vLLM cannot be reached"):
        compare(parts, tmp_path / "parity", served_url="http://127.0.0.1:9")
    assert not (tmp_path / "parity").exists()


@pytest.mark.parametrize(("free", "device"), [(10**9, "cuda"), (1_000, "cpu")])
def test_models_that_do_not_fit_the_gpu_together_answer_on_the_cpu(
    tiny_merged, monkeypatch, capsys, free, device
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free, free))
    assert _device(tiny_merged, copies=3) == device
    assert ("3 copies of a model need" in capsys.readouterr().out) == (device == "cpu")


def test_of_a_servers_models_one_must_be_named(tmp_path, parts):
    fakes = runpy.run_path(str(Path(__file__).parents[1] / "fake_language.py"))
    several = FastAPI()
    several.get("/v1/models")(lambda: {"data": [{"id": "base"}, {"id": "first"}]})
    with (
        fakes["serve"](several) as url,
        pytest.raises(SettingsError, match=r"serves \['base', 'first'\].*served_model"),
    ):
        compare(parts, tmp_path / "parity", served_url=url)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{examples: 0}", "examples"), ("{limits: {int8: {}}}", "int8"), ("{asked: 3}", "asked")],
)
def test_wrong_settings_are_refused(text, says):
    with pytest.raises(SettingsError, match=says):
        parse_settings(LanguageParitySettings, text, where="parity settings")


def test_few_answers_may_lose_one_whole():
    assert FEW_ANSWERS.keys() == LIMITS.keys()
    for name, limits in FEW_ANSWERS.items():
        assert 1 / LanguageParitySettings().answers < limits.score_drop
        # Token by token nothing is loosened.
        for figure in ("max_abs_diff", "top1_agreement", "kl_mean"):
            assert getattr(limits, figure) == getattr(LIMITS[name], figure)


@pytest.fixture
def champion(registry, tiny_merged):
    """The merged model, registered, and champion."""
    run_id = log_run(
        registry,
        experiment="matjip",
        run_name="r",
        params={},
        metrics={},
        tags={},
        artifacts={},
        idempotency_key="k",
    )
    version = register_version(
        registry,
        name="language",
        folder=tiny_merged,
        tags={"evidence_id": "e1"},
        description="",
        run_id=run_id,
        idempotency_key="v",
        signature=CHAT_SIGNATURE,
    )
    registry.client.set_registered_model_alias("language", "champion", version.version)
    return version


@pytest.mark.parametrize("parent", ["tiny_base", "tiny_merged"])
def test_the_champion_is_measured_too_but_never_twice(
    registry, champion, tiny_w8a8, tmp_path, monkeypatch, request, parent
):
    asked = {}
    judges = []

    def evaluate(targets, engines, out, *, folders, judge, **rest):
        asked.update({name: read_manifest(folders[name]).digest for name in engines})
        judges.append(judge)

    monkeypatch.setattr("training.language_delivery.evaluate_language_models", evaluate)
    merged = request.getfixturevalue(parent)
    evaluate_language_candidate(
        tmp_path / "targets",
        split=tmp_path / "split",
        merged=merged,
        quantized=tiny_w8a8,
        tracking_uri=registry.uri,
        model_name="language",
        settings=parse_settings(LanguageEvaluationSettings, JUDGED, where="x"),
        out=tmp_path / "out",
        judge_key="geheim",
    )
    [judge] = judges
    assert (judge.base_url, judge.model) == ("http://127.0.0.1:9/v1", "reader")
    assert (judge.api_key, "geheim" in repr(judge)) == ("geheim", False)
    assert asked["parent"] == read_manifest(merged).digest
    if parent == "tiny_merged":
        assert asked.keys() == {"candidate", "parent"}
    else:
        assert asked["champion"] == champion.tags["manifest_digest"]


def test_without_a_champion_nothing_is_deployed_and_the_folder_says_so(registry, tmp_path):
    manifest = deploy_language_candidate(
        registry.uri,
        "language",
        challenger_share=0.5,
        models=tmp_path / "models",
        base_url="",
        out=tmp_path / "out",
    )
    assert manifest.facts["status"] == "skipped"
    assert "no champion" in manifest.facts["reason"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]

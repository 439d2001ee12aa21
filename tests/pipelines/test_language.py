"""The language model's way, small and whole: labels and summaries to a judged model in INT8."""

import json
from pathlib import Path
from typing import Any

import pytest
from markupsafe import escape

from data.errors import SettingsError
from data.manifest import read_labelled_reviews, read_manifest
from pipelines.arguments import gold_labels, language_arguments
from pipelines.deployments import deployments_of
from pipelines.language import run_language
from pipelines.language_report import render_language
from pipelines.language_summary import language_summary
from pipelines.language_traffic import ask_summary
from pipelines.local import Home, load_run, run_graph, source_digest
from pipelines.placement import local_placement
from pipelines.steps import one_step
from pipelines.train_language import train_language
from serving.gateway.language_schemas import SummaryOut
from serving.registry.connection import connect
from serving.registry.language_deploy import DEPLOYMENT_NAME
from serving.vllm_report import report_path

# The module's fixture runs a whole graph, minutes on a busy core, inside the first test's time.
pytestmark = pytest.mark.timeout(900)

SMALL = """
name: small
threads: 1
base: {vocabulary: 1500, hidden_size: 64, layers: 2, attention_heads: 2, key_value_heads: 1,
       head_size: 32, intermediate_size: 128, context_tokens: 2048}
pretraining: {clause_reviews: 100, synthetic_reviews: 500, synthetic_restaurants: 6, epochs: 1,
              batch_tokens: 2048}
lora: {rank: 8, alpha: 16}
tuning: {epochs: 0.5, batch_examples: 8, max_tokens: 2048, learning_rate: 1.0e-3}
quantization: {samples: 16}
"""
PARITY = """
{examples: 8, answers: 4, limits: {w8a8: {max_abs_diff: 1, top1_agreement: 0.9, kl_mean: 0.01,
                                          answer_agreement: 0, score_drop: 1}}}
"""
"""Half trained, the likeliest tokens are nearly ties; how far logits are apart says more."""
REVIEWS = 130
STEPS = [
    "ingest-labels",
    "validate-labels",
    "split-dataset",
    "build-targets",
    "pretrain-llm",
    "train-llm",
    "merge-llm",
    "quantize-llm",
    "compare-llm",
    "evaluate-llm",
    "gate-llm",
    "register-llm",
    "deploy-llm",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("language")
    labels, recipe = folder / "export.json", folder / "small.yaml"
    tasks = json.loads(gold_labels().read_bytes())[:REVIEWS]
    labels.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
    recipe.write_text(SMALL, encoding="utf-8")
    home = Home(root=folder / "var")
    summary = run_language(
        home,
        labels=str(labels),
        summaries=str(gold_labels().with_name("summaries.json")),
        recipe=str(recipe),
        given={
            "parity_settings": PARITY,
            "evaluation_settings": "{repeats: 1, free: 4, resamples: 200, threads: 1}",
        },
    )
    return {"home": home, "summary": summary}


def test_every_step_ran_in_order(small):
    run = load_run(small["home"], small["summary"]["run_id"])
    assert [step.name for step in run.steps] == STEPS
    assert run.status == "succeeded"


def test_the_summary_names_what_was_made(small):
    found = small["summary"]
    quantized, merged = found["models"]
    assert (quantized["format"], merged["format"]) == ("w8a8", "float32")
    assert quantized["bytes"] < merged["bytes"]
    for model in found["models"]:
        assert model["metrics"]["obeyed"]["value"] == 1.0  # decoded under the schema
        assert model["metrics"]["cited"]["value"] == 1.0
    assert found["nulls"]["majority"]["category_macro_f1"]["value"] < 0.5
    links = {link["name"]: link["scores"] for link in found["parity"]["links"]}
    assert links["adapter → merged"]["top1_agreement"] > 0.999
    assert 0 < links["merged → quantized"]["max_abs_diff"] < 1
    assert "compared with itself" in found["parity"]["left_out"]["served"]
    assert found["gate"]["verdict"] != "pass"  # so little is not enough to beat every baseline
    assert found["deployment"] is None
    assert "no alias was set" in found["registration"]
    assert [model["version"] for model in found["models"]] == ["2", "1"]
    assert found["targets"]["restaurants"]["test"] > 0
    written = Path(small["home"].root / "language" / "summary.json")
    assert json.loads(written.read_bytes())["run_id"] == found["run_id"]


def test_what_vllm_computed_it_with_is_said_once_it_has_served_it(small, tmp_path):
    run = load_run(small["home"], small["summary"]["run_id"])
    assert [model["kernel"] for model in small["summary"]["models"]] == [None, None]
    assert "serve-llm" in small["summary"]["models"][0]["kernel_reason"]
    digest = read_manifest(run.artifact("quantize-llm", "quantized")).digest
    kernels = {"CompressedTensorsW8A8Int8": "CPUInt8ScaledMMLinearKernel"}
    report_path(tmp_path, digest).write_text(json.dumps({"kernels": kernels}), encoding="utf-8")
    quantized, merged = language_summary(run, tmp_path)["models"]
    assert quantized["kernel"] == "CompressedTensorsW8A8Int8 by CPUInt8ScaledMMLinearKernel"
    assert (quantized["kernel_reason"], merged["kernel"]) == (None, None)


def test_the_chain_of_evidence_is_whole(small):
    run = load_run(small["home"], small["summary"]["run_id"])
    facts = {
        name: read_manifest(run.artifact(step, output))
        for name, step, output in (
            ("targets", "build-targets", "targets"),
            ("base", "pretrain-llm", "base"),
            ("adapter", "train-llm", "adapter"),
            ("merged", "merge-llm", "merged"),
            ("quantized", "quantize-llm", "quantized"),
        )
    }
    assert facts["adapter"].facts["base_digest"] == facts["base"].digest
    assert facts["adapter"].facts["targets_digest"] == facts["targets"].digest
    assert facts["merged"].facts["adapter_digest"] == facts["adapter"].digest
    assert facts["quantized"].facts["parent_digest"] == facts["merged"].digest
    digests = {each.facts.get("tokenizer_digest") for each in facts.values()} - {None}
    assert len(digests) == 1


def test_what_an_alias_names_is_deployed_and_answers_through_the_gateway(small, tmp_path):
    """The gate refuses so small a model; here a person makes it champion by hand."""
    home = small["home"]
    run = load_run(home, small["summary"]["run_id"])
    with pytest.raises(SettingsError, match="has deployed nothing"):
        deployments_of(run)
    registry = connect(run.arguments["tracking_uri"])
    registry.client.set_registered_model_alias("matjip-language", "champion", "2")
    graph = train_language(local_placement(source_digest()))
    run_graph(one_step(graph, "deploy-llm", run, {}), {}, run, home, caching=False)
    deployment = run.artifact("deploy-llm", "deployment")
    assert deployments_of(run) == {"--language-deployment": deployment / DEPLOYMENT_NAME}
    split = run.artifact("split-dataset", "split")
    log, store_url = tmp_path / "gateway.log", f"sqlite:///{tmp_path}/store.db"
    answer = SummaryOut.model_validate(ask_summary(deployment, split, store_url, log))
    assert (answer.arm, answer.model.version) == ("champion", "2")
    texts = {
        row.review.review_id: row.review.text for row in read_labelled_reviews(split / "test.jsonl")
    }
    cited = [
        each
        for part in (answer.summary.aspects.values() if answer.summary else ())
        for bullet in part.bullets
        for each in bullet.evidence
    ]
    assert cited
    assert all(each.span in texts[each.review_id] for each in cited)
    page = render_language(small["summary"] | {"sample": answer.model_dump(mode="json")})
    assert "Gate: fail." in page or "Gate: inconclusive." in page
    assert str(escape(cited[0].span)) in page
    assert "w8a8" in page


def test_summaries_of_restaurants_that_are_not_there_are_quarantined(small):
    targets = small["summary"]["targets"]
    assert targets["quarantined"] == 49 - sum(targets["restaurants"].values())


def test_what_is_not_there_is_named(tmp_path):
    home = Home(root=tmp_path)
    with pytest.raises(SettingsError, match="no summaries at"):
        language_arguments(home, summaries="nowhere.json")
    with pytest.raises(SettingsError, match="no-such"):
        language_arguments(home, recipe="no-such")
    assert language_arguments(home, labels=str(gold_labels()))["summaries"] == ""

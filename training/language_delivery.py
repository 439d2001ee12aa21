"""The steps between a quantised language model and the traffic, from folders and addresses.

compare → evaluate → gate → register → deploy. Each function is what one component calls: it loads
the engines that would serve, reads the artifacts it is given, and leaves a sealed folder.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from data.errors import SettingsError
from data.manifest import Manifest, read_manifest, write_manifest
from serving.engines.chat import ChatEngine
from serving.engines.chat_transformers import TransformersChatEngine
from serving.engines.vllm_server import VllmServerEngine, served_models
from serving.language_folder import Format
from serving.language_model import LanguageModel, load_language_model
from serving.registry.arms import DEPLOYMENT_KIND
from serving.registry.connection import connect
from serving.registry.language_deploy import deploy_language
from serving.registry.versions import download, resolve
from training.delivery import CANDIDATE, CHAMPION, EXPERIMENT, PARENT
from training.evaluation.language.comparisons import LanguageGatePolicy
from training.evaluation.language.evaluation import (
    FREE_EXAMPLES,
    LANGUAGE_EVALUATION_KIND,
    evaluate_language_models,
)
from training.evaluation.language.judge_endpoint import JudgeEndpoint
from training.language_gate import language_gate
from training.language_recipe import LanguageRecipe
from training.language_registration import register_language_model
from training.llm_parity import Asking, check_parity_chain
from training.parity_limits import FEW_ANSWERS, LinkLimits
from training.parity_links import Stage, load_as_trained

_ROOM: Final = 1.3
"""Of what a model's weights take, with what computing on them takes."""


class LanguageJudge(BaseModel):
    """Another model that says whether a bullet's evidence supports it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str = Field(
        pattern=r"^https?://", description="Of an OpenAI-compatible endpoint, with /v1."
    )
    model: str = Field(min_length=1, description="As the endpoint names it.")
    controls: int = Field(
        default=60, ge=1, description="Written bullets, and as many mismatched, for its agreement."
    )

    def endpoint(self, api_key: str | None) -> JudgeEndpoint:
        """Where it is asked, and with what key."""
        return JudgeEndpoint(self.base_url, self.model, api_key=api_key, controls=self.controls)


class LanguageEvaluationSettings(BaseModel):
    """How an evaluation is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    resamples: int = Field(default=2000, ge=100)
    repeats: int = Field(default=2, ge=1, description="Temperature 0 under batching still varies.")
    free: int = Field(
        default=FREE_EXAMPLES, ge=0, description="Examples asked without a schema, for raw rates."
    )
    threads: int = Field(
        default=1, ge=1, description="Of torch; on a CPU a small model answers fastest with one."
    )
    judge: LanguageJudge | None = Field(default=None, description="None asks no judge.")


class LanguageParitySettings(BaseModel):
    """On what the links from an adapter to what is served are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    examples: int = Field(default=32, ge=1, description="Whose token ids and logits are compared.")
    answers: int = Field(default=16, ge=1, description="Reviews whose whole answers are compared.")
    answer_tokens: int = Field(
        default=128, ge=16, description="Of an answer; reviews whose right one is longer are left."
    )
    limits: dict[Format | Literal["served"], LinkLimits] = Field(
        default={}, description="In place of those of training/parity_limits.py, by format."
    )
    served_model: str | None = Field(
        default=None, description="What the server calls the model; none asks one that has one."
    )
    seed: int = 0
    threads: int = Field(default=1, ge=1, description="Of torch; more fight over shared cores.")


def compare_language_chain(
    targets: Path,
    *,
    base: Path,
    adapter: Path,
    merged: Path,
    quantized: Path,
    settings: LanguageParitySettings,
    out: Path,
    served_url: str = "",
    api_key: str | None = None,
) -> Manifest:
    """Compare adapter, merged, quantised and served model, link by link.

    Args:
        targets: artifact of kind targets.
        base: what the adapter was trained over.
        adapter: what was merged.
        merged: what was quantised.
        quantized: what is served.
        settings: what is compared.
        out: folder for ``parity.json``.
        served_url: root of a vLLM that serves ``quantized``; empty leaves that link out, and
            ``parity.json`` says so: in this process a model would be compared with itself.
        api_key: what that server wants, if anything.

    Raises:
        ExportError: a link is broken; the message and ``parity.json`` say which, and where.
        ArtifactError: an input is missing or altered.
        DataUnfitError: no example is short enough.
        SettingsError: the address is none, or its server has several models and none is named.
        EngineError: no model is named, and the server does not say what it serves.
    """
    there = _server(served_url, settings.served_model, api_key) if served_url else None
    torch.set_num_threads(settings.threads)
    device = _device(merged, copies=3)
    folders: Mapping[Stage, Path] = {"merged": merged, "quantized": quantized}
    loaded = {stage: load_language_model(path, device=device) for stage, path in folders.items()}
    adapted = load_as_trained(adapter, base, merged)
    models: dict[Stage, LanguageModel] = {
        "adapter": replace(loaded["merged"], model=adapted.to(device)),
        **loaded,
    }
    here = {stage: TransformersChatEngine(model) for stage, model in models.items()}
    engines: Mapping[Stage, ChatEngine] = {**here, "served": there} if there else here
    try:
        return check_parity_chain(
            out,
            targets=targets,
            merged=merged,
            adapter=adapter,
            base=base,
            quantized=quantized,
            engines=engines,
            limits=FEW_ANSWERS | settings.limits,
            examples=settings.examples,
            seed=settings.seed,
            asking=Asking(settings.answers, "labels", settings.answer_tokens),
            models={stage: each.model for stage, each in models.items()},
            reader=there,
        )
    finally:
        for engine in here.values():
            engine.close()


def _server(url: str, model: str | None, api_key: str | None) -> VllmServerEngine:
    if model is None:
        served = served_models(url, api_key)
        if len(served) != 1:
            raise SettingsError(
                f"served_url={url!r} serves {served!r}; say which of them with "
                "settings={served_model: …}"
            )
        [model] = served
    return VllmServerEngine(url, model, api_key=api_key)


def evaluate_language_candidate(
    targets: Path,
    *,
    split: Path,
    merged: Path,
    quantized: Path,
    tracking_uri: str,
    model_name: str,
    settings: LanguageEvaluationSettings,
    out: Path,
    judge_key: str | None = None,
) -> Manifest:
    """Measure the INT8 candidate, its merged parent and the champion, if there is one.

    All answer through the engine that would serve. A champion that is one of the two is measured
    once, under that name. The judge, if there is one, is given ``judge_key``.

    Raises:
        RegistryError: the champion cannot be asked for or fetched.
        ArtifactError: an input is missing or altered.
        EngineError: an engine answers nothing.
        MetricError: the judge answers nothing.
    """
    torch.set_num_threads(settings.threads)
    registry = connect(tracking_uri)
    champion = resolve(registry, model_name, "champion")
    folders = {CANDIDATE: quantized, PARENT: merged}
    known = {read_manifest(folder).digest for folder in folders.values()}
    with tempfile.TemporaryDirectory() as fetched:
        if champion is not None and champion.tags["manifest_digest"] not in known:
            folders[CHAMPION] = download(registry, champion, Path(fetched))
        device = _device(merged, copies=len(folders) + 1)  # one more for perplexity
        engines = {
            name: TransformersChatEngine.load(folder, device=device)
            for name, folder in folders.items()
        }
        return evaluate_language_models(
            targets,
            engines,
            out,
            split=split,
            repeats=settings.repeats,
            free=settings.free,
            folders=folders,
            judge=settings.judge.endpoint(judge_key) if settings.judge else None,
            seed=settings.seed,
            resamples=settings.resamples,
        )


def gate_language_candidate(evaluation: Path, out: Path, *, policy: LanguageGatePolicy) -> Manifest:
    """Judge what ``evaluate_language_candidate`` measured.

    Raises:
        GateError: a model or figure is missing.
    """
    measured = read_manifest(evaluation, LANGUAGE_EVALUATION_KIND).facts["models"]
    return language_gate(
        evaluation,
        out,
        policy=policy,
        candidate=CANDIDATE,
        parent=PARENT,
        champion=CHAMPION if CHAMPION in measured else None,
    )


def register_language_candidate(
    tracking_uri: str,
    model_name: str,
    *,
    validated: Path,
    split: Path,
    merged: Path,
    quantized: Path,
    evaluation: Path,
    gate: Path,
    recipe: LanguageRecipe,
    out: Path,
) -> Manifest:
    """Register parent and candidate with their evidence and prompts; aliases follow the gate.

    Raises:
        RegistryError: MLflow refused or went away, or the artifacts do not belong together.
    """
    register_language_model(
        connect(tracking_uri),
        name=model_name,
        experiment=EXPERIMENT,
        merged=merged,
        quantized=quantized,
        snapshot=validated,
        split=split,
        evaluation=evaluation,
        gate=gate,
        recipe=recipe,
        out=out,
    )
    return read_manifest(out)


def deploy_language_candidate(
    tracking_uri: str,
    model_name: str,
    *,
    challenger_share: float,
    models: Path,
    base_url: str,
    out: Path,
    api_key: str | None = None,
) -> Manifest:
    """Fetch champion and challenger and write the language deployment that the gateway serves.

    While no model has passed its gate there is nothing to serve: the folder then holds a manifest
    that says so, with ``status: skipped``, and no deployment.

    Raises:
        RegistryError: a model is not what was registered, or MLflow is away.
        ExperimentError: a server of ``base_url`` does not serve its arm's model.
    """
    registry = connect(tracking_uri)
    if resolve(registry, model_name, "champion") is None:
        out.mkdir(parents=True, exist_ok=True)
        reason = f"{model_name!r} has no champion: no model has passed its gate yet"
        return write_manifest(out, DEPLOYMENT_KIND, {"status": "skipped", "reason": reason})
    deploy_language(
        registry,
        name=model_name,
        share=challenger_share,
        work=models,
        out=out,
        base_url=base_url,
        api_key=api_key,
    )
    return read_manifest(out)


def _device(merged: Path, *, copies: int) -> str:
    """Where models answer: on the GPU, if there is one with room for so many copies of the merged.

    A quantised model is computed from weights in float, so that it takes as much.
    """
    if not torch.cuda.is_available():
        return "cpu"
    free, _ = torch.cuda.mem_get_info()
    need = int(copies * sum(path.stat().st_size for path in merged.glob("*.safetensors")) * _ROOM)
    if need <= free:
        return "cuda"
    print(
        f"{copies} copies of a model need {need / 1e9:.1f} GB, the GPU has {free / 1e9:.1f} GB "
        "free: they answer on the CPU, which takes far longer; free the GPU, or take a larger one",
        flush=True,
    )
    return "cpu"

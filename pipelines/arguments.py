"""The arguments of the graphs on this machine, from the embedded defaults and what is given."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

from data.errors import SettingsError
from data.manifest import file_sha256, read_manifest
from pipelines.local import Home, RunRecord
from pipelines.named_files import evaluation_files_digest, recipe_files_digest
from serving.experiments.store import ExperimentStore
from training.embedding_recipe import embedding_recipe_text
from training.language_recipe import language_recipe_text
from training.recipe import read_recipe


def home_from_environment() -> Home:
    """``MATJIP_VAR``, else ``var`` in the working folder."""
    return Home(root=Path(os.environ.get("MATJIP_VAR", "var")).resolve())


def gold_labels() -> Path:
    """The gold corpus that comes with the code."""
    return Path(str(resources.files("data") / "gold" / "reviews.json"))


def tracking_uri(home: Home) -> str:
    """``MLFLOW_TRACKING_URI``, else the embedded one."""
    home.folder("mlflow")
    return os.environ.get("MLFLOW_TRACKING_URI") or home.tracking_uri


def encoder_arguments(
    home: Home, *, labels: str | None = None, recipe: str = "tiny", **given: Any
) -> dict[str, Any]:
    """Arguments of ``train_encoder``; ``given`` wins over the defaults.

    Raises:
        SettingsError: the labels or the recipe are not there.
    """
    source = labels or str(gold_labels())
    kind = given.get("labels_kind", "label_studio_file")
    if kind == "label_studio_server":
        digest = "live"
    elif Path(source).is_file():
        digest = file_sha256(Path(source))
    else:
        raise SettingsError(f"no labels at {source!r}; pass --labels FILE, or --set labels_kind=…")
    return {
        "labels": source,
        "labels_digest": digest,
        "recipe": read_recipe(recipe),
        "tracking_uri": tracking_uri(home),
        "checkpoints": str(home.folder("checkpoints")),
        "models": str(home.folder("models")),
        **given,
    }


def embedding_arguments(
    home: Home, *, labels: str | None = None, recipe: str = "embedding-tiny", **given: Any
) -> dict[str, Any]:
    """Arguments of ``train_embedding``; ``given`` wins over the defaults.

    KorSTS is asked where ``MATJIP_REAL_DATA`` names the folder of korsts_dev.tsv.gz.

    Raises:
        SettingsError: the labels or the recipe are not there, or settings are wrong.
    """
    korsts = Path(os.environ.get("MATJIP_REAL_DATA", "")) / "korsts_dev.tsv.gz"
    asked = {"evaluation_settings": f"korsts: {korsts.resolve()}\n"} if korsts.is_file() else {}
    arguments = encoder_arguments(home, labels=labels, **(asked | given))
    text = given.get("recipe") or embedding_recipe_text(recipe)
    return {
        "recipe_files_digest": recipe_files_digest(text),
        "evaluation_files_digest": evaluation_files_digest(
            arguments.get("evaluation_settings", "")
        ),
        **arguments,
        "recipe": text,
    }


def engine_arguments(home: Home, trained: RunRecord) -> dict[str, Any]:
    """Arguments of ``build_engine`` for the embedding model that a run quantised.

    Raises:
        SettingsError: the run has no such model.
    """
    if trained.graph != "train-embedding":
        raise SettingsError(
            f"run {trained.run_id!r} is of {trained.graph!r} and made no embedding model; name one "
            "of train-embedding, RUN=train-embedding-…, or a classifier's folder, MODEL=folder"
        )
    model = trained.artifact("quantize-embedding", "quantized")
    return {
        "model": str(model),
        "quantized": str(model),
        "inputs": read_manifest(model).digest,
        "split": str(trained.artifact("split-dataset", "split")),
        "checkpoints": str(home.folder("checkpoints")),
    }


def language_arguments(
    home: Home,
    *,
    labels: str | None = None,
    summaries: str | None = None,
    recipe: str = "language-tiny",
    **given: Any,
) -> dict[str, Any]:
    """Arguments of ``train_language``; ``given`` wins over the defaults.

    The gold corpus comes with its summaries; labels of one's own have none unless they are given.

    Raises:
        SettingsError: the labels, the summaries or the recipe are not there.
    """
    if summaries is None:
        summaries = "" if labels else str(gold_labels().with_name("summaries.json"))
    if summaries and not Path(summaries).is_file():
        raise SettingsError(
            f"no summaries at {summaries!r}; pass --summaries FILE, or leave it out"
        )
    return encoder_arguments(home, labels=labels, **given) | {
        "summaries": summaries,
        "summaries_digest": file_sha256(Path(summaries)) if summaries else "",
        "recipe": language_recipe_text(recipe),
    }


def train_arguments(
    home: Home,
    *,
    labels: str | None = None,
    summaries: str | None = None,
    recipe: str = "tiny",
    language_recipe: str = "language-tiny",
    **given: Any,
) -> dict[str, Any]:
    """Arguments of ``train_and_deploy``; ``given`` wins over the defaults.

    Raises:
        SettingsError: the labels, the summaries or a recipe are not there.
    """
    language = language_arguments(
        home, labels=labels, summaries=summaries, recipe=language_recipe, **given
    )
    encoder = encoder_arguments(home, labels=labels, recipe=recipe, **given)
    return language | encoder | {"language_recipe": language["recipe"]}


def watermark(store_url: str) -> str:
    """Changes whenever the store gains an exposure or an outcome."""
    store = ExperimentStore(store_url)
    try:
        return " ".join(f"{table}={rows}" for table, rows in sorted(store.counts().items()))
    finally:
        store.close()


def compare_arguments(home: Home, trained: RunRecord, **given: Any) -> dict[str, Any]:
    """Arguments of ``compare_and_promote`` for a training run's deployment.

    Raises:
        SettingsError: that run has deployed nothing.
    """
    store_url = given.pop("store_url", home.store_url)
    return {
        "deployment": str(trained.artifact("deploy-challenger", "deployment")),
        "store_url": store_url,
        "tracking_uri": trained.arguments["tracking_uri"],
        "watermark": watermark(store_url),
        **given,
    }

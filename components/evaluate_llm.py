"""A language model in INT8, its parent and the champion, on restaurants that training never saw."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def evaluate_llm(
    targets: Input[Dataset],
    split: Input[Dataset],
    merged: Input[Model],
    quantized: Input[Model],
    tracking_uri: str,
    model_name: str,
    settings: str,
    inputs: str,
    evaluation: Output[Dataset],
    metrics: Output[Metrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> str:
    """Ask examples and whole restaurants, null baselines beside; returns the evaluation's digest.

    ``settings`` is YAML text (training/language_delivery.py); empty, the defaults. A judge that
    wants a key is given ``MATJIP_JUDGE_KEY`` of the environment.
    """
    import os
    from pathlib import Path

    from components.artifacts import show_figures
    from data.settings import parse_settings
    from training.language_delivery import LanguageEvaluationSettings, evaluate_language_candidate

    manifest = evaluate_language_candidate(
        Path(targets.path),
        split=Path(split.path),
        merged=Path(merged.path),
        quantized=Path(quantized.path),
        tracking_uri=tracking_uri,
        model_name=model_name,
        settings=parse_settings(LanguageEvaluationSettings, settings, where="evaluation settings"),
        out=Path(evaluation.path),
        judge_key=os.environ.get("MATJIP_JUDGE_KEY"),
    )
    evaluation.metadata.update({"digest": manifest.digest, "inputs": inputs})
    show_figures(Path(evaluation.path), metrics, report, summary)
    return manifest.digest

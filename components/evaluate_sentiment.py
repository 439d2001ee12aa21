"""The candidate, its fp32 parent and the champion on the same held-out reviews."""

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def evaluate_sentiment(
    split: Input[Dataset],
    exported: Input[Model],
    quantized: Input[Model],
    tracking_uri: str,
    model_name: str,
    settings: str,
    inputs: str,
    evaluation: Output[Dataset],
    confusion: Output[ClassificationMetrics],
    roc: Output[ClassificationMetrics],
    metrics: Output[Metrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> str:
    """Measure with the engine that will serve, baselines beside; returns the digest."""
    from pathlib import Path

    from components.artifacts import show_evaluation
    from data.settings import parse_settings
    from training.delivery import EvaluationSettings, evaluate_candidate

    folder = Path(evaluation.path)
    manifest = evaluate_candidate(
        Path(split.path),
        exported=Path(exported.path),
        quantized=Path(quantized.path),
        tracking_uri=tracking_uri,
        model_name=model_name,
        settings=parse_settings(EvaluationSettings, settings, where="evaluation settings"),
        out=folder,
    )
    show_evaluation(folder, confusion, roc, metrics, report, summary)
    evaluation.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest

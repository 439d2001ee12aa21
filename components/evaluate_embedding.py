"""What an embedding model finds on each engine of a CPU, beside fp32 and TF-IDF."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Markdown, Metrics, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def evaluate_embedding(
    split: Input[Dataset],
    model: Input[Model],
    settings: str,
    files_digest: str,
    inputs: str,
    evaluation: Output[Dataset],
    metrics: Output[Metrics],
    report: Output[HTML],
    summary: Output[Markdown],
) -> str:
    """Measure the plain engine and INT8, and judge INT8; returns the digest.

    ``settings`` is YAML text (training/evaluation/retrieval.py); ``korsts`` in it names a file of
    sentence pairs that people scored, and ``files_digest`` changes with it, so that an unchanged
    one comes from the cache.
    """
    from pathlib import Path

    from components.artifacts import show_figures
    from data.settings import parse_settings
    from training.evaluation.retrieval import evaluate_embedding as evaluate
    from training.evaluation.retrieval_settings import RetrievalSettings

    folder = Path(evaluation.path)
    manifest = evaluate(
        Path(split.path),
        Path(model.path),
        folder,
        settings=parse_settings(RetrievalSettings, settings, where="evaluation settings"),
    )
    show_figures(folder, metrics, report, summary)
    evaluation.metadata.update(
        {"digest": manifest.digest, "inputs": inputs, "files_digest": files_digest}
    )
    return manifest.digest

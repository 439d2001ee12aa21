"""A model on reviews that come from elsewhere than its own split."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Model, Output

from components.profiles import MAIN


@dsl.component(base_image=MAIN, install_kfp_package=False)
def evaluate_held_out(
    split: Input[Dataset],
    reviews: Input[Dataset],
    model: Input[Model],
    parent: Input[Model],
    settings: str,
    inputs: str,
    evaluation: Output[Dataset],
    report: Output[HTML],
) -> str:
    """Measure a model and its parent on every validated review; returns the digest.

    Baselines are fitted on ``split``'s training part, as the model was.
    """
    import shutil
    from pathlib import Path

    from data.settings import parse_settings
    from training.delivery import EvaluationSettings, evaluate_held_out

    manifest = evaluate_held_out(
        Path(split.path),
        reviews=Path(reviews.path),
        candidate=Path(model.path),
        parent=Path(parent.path),
        settings=parse_settings(EvaluationSettings, settings, where="evaluation settings"),
        out=Path(evaluation.path),
    )
    shutil.copyfile(Path(evaluation.path) / "report.html", report.path)
    evaluation.metadata.update({"digest": manifest.digest, "inputs": inputs})
    return manifest.digest

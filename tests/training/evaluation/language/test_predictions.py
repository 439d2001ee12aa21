"""The predictions that an evaluation leaves: what its figures were summed from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import ArtifactError
from training.evaluation.intervals import draw_resamples
from training.evaluation.language.figures import all_figures
from training.evaluation.language.measuring import measured
from training.evaluation.language.predictions import read_predictions

MetricsOf = Callable[[Path], Any]


def test_predictions_are_what_the_figures_were_summed_from(
    evaluated: Path, metrics_of: MetricsOf
) -> None:
    result = metrics_of(evaluated)
    answered = {name: facts["answered"] for name, facts in result["models"].items()}
    items, tallies = read_predictions(evaluated / "predictions.jsonl", answered)
    drawn = draw_resamples([item.restaurant for item in items], resamples=200)
    for model in ("gold", "garbage", "other"):
        for name, figure in all_figures().items():
            cell = result["metrics"][model][name]
            if cell["value"] is not None:
                assert measured(figure, tallies[model], drawn).value == cell["value"], name


def test_predictions_of_other_items_are_refused(evaluated: Path, tmp_path: Path) -> None:
    lines = (evaluated / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "predictions.jsonl"
    broken.write_text("\n".join(lines[:1] + lines[2:]), encoding="utf-8")
    with pytest.raises(ArtifactError, match="other items"):
        read_predictions(broken, {"gold": ["labels"]})
    with pytest.raises(ArtifactError, match="no rows of"):
        read_predictions(broken, {"absent": ["labels"]})

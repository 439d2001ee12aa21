"""Hand-computed values, and the vectorised twins that the bootstrap uses."""

import importlib
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

from data.errors import MetricError
from training.evaluation import metrics, weighted
from training.evaluation.intervals import point
from training.evaluation.metrics import MODULES, compute_figure

SURE = [0.0, 0.0, 0.0, 0.0, 1.0]


def intensity(*steps: int) -> list[list[float]]:
    return [[float(step == s) for s in range(-2, 3)] for step in steps]


def test_macro_f1_by_hand() -> None:
    # class 0: tp 1, fp 0, fn 1 -> 2/3; class 1: tp 1, fp 1, fn 0 -> 2/3; class 2: 1
    gold, predicted = [0, 0, 1, 2], [0, 1, 1, 2]
    assert compute_figure(
        "macro_f1", "macro_f1", predictions=predicted, references=gold
    ) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    for number, expected in enumerate((2 / 3, 2 / 3, 1.0)):
        assert compute_figure(
            "macro_f1", f"f1:{number}", predictions=predicted, references=gold
        ) == pytest.approx(expected)
    assert compute_figure("macro_f1", "accuracy", predictions=predicted, references=gold) == 0.75


def test_macro_f1_leaves_out_a_class_without_gold() -> None:
    # class 1 has no gold; class 0: tp 1, fn 1 -> 2/3; class 2: tp 1 -> 1
    value = compute_figure("macro_f1", "macro_f1", predictions=[0, 1, 2], references=[0, 0, 2])
    assert value == pytest.approx((2 / 3 + 1) / 2)


def test_intensity_by_hand() -> None:
    gold, predicted = [-2, 0, 1, 2], intensity(-2, 1, 1, -1)
    ask = {"predictions": predicted, "references": gold}
    assert compute_figure("intensity_error", "mae", **ask) == pytest.approx((0 + 1 + 0 + 3) / 4)
    assert compute_figure("intensity_error", "exact", **ask) == 0.5
    assert compute_figure("intensity_error", "within_one", **ask) == 0.75
    # observed squared distances 0+1+0+9 = 10; expected by margins: sum over all pairs / 4
    expected = sum((g - p) ** 2 for g in gold for p in (-2, 1, 1, -1)) / 4
    assert compute_figure("intensity_error", "quadratic_weighted_kappa", **ask) == pytest.approx(
        1 - 10 / expected
    )


def test_intensity_error_is_of_the_expected_value() -> None:
    half = [[0.5, 0.0, 0.0, 0.0, 0.5]]
    assert compute_figure("intensity_error", "mae", predictions=half, references=[0]) == 0.0
    assert compute_figure("intensity_error", "exact", predictions=half, references=[0]) == 0.0


def test_emotions_by_hand() -> None:
    scores = [[0.9, 0.1], [0.4, 0.2], [0.6, 0.3], [0.1, 0.4]]
    gold = [[1, 0], [1, 0], [0, 0], [0, 0]]
    # label 0: pairs (0.9, 0.4) x (0.6, 0.1): 3 of 4 in order; label 1 has one class only
    assert compute_figure("emotions", "auroc", predictions=scores, references=gold) == 0.75
    assert compute_figure(
        "emotions", "macro_f1", predictions=scores, references=gold, thresholds=[0.5, 0.5]
    ) == pytest.approx(0.5)
    assert compute_figure(
        "emotions", "f1:0", predictions=scores, references=gold, thresholds=[0.4, 0.5]
    ) == pytest.approx(0.8)
    with pytest.raises(MetricError, match="have both"):
        compute_figure("emotions", "auroc:1", predictions=scores, references=gold)
    with pytest.raises(MetricError, match="threshold"):
        compute_figure("emotions", "f1:0", predictions=scores, references=gold)


def test_aspects_by_hand() -> None:
    gold = [[3, 0], [1, 0], [0, 1], [0, 0]]
    predicted = [[3, 0], [3, 1], [0, 1], [2, 0]]
    # presence of aspect 0: tp 2, fp 1 -> 0.8; of aspect 1: tp 1, fp 1 -> 2/3
    ask = {"predictions": predicted, "references": gold}
    assert compute_figure("aspects", "presence_macro_f1", **ask) == pytest.approx((0.8 + 2 / 3) / 2)
    assert compute_figure("aspects", "presence_f1:0", **ask) == pytest.approx(0.8)
    # state 1: gold 2, predicted 2, hit 1 -> 0.5; state 3: gold 1, predicted 2, hit 1 -> 2/3
    assert compute_figure("aspects", "state_macro_f1", **ask) == pytest.approx((0.5 + 2 / 3) / 2)


def test_calibration_by_hand() -> None:
    chances = [[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.0, 0.6, 0.4], [0.2, 0.2, 0.6]]
    gold = [0, 1, 1, 2]
    # bin 0.9: two rows, one right: |1 - 1.8| = 0.8; bin 0.6: two rows, both right: |2 - 1.2| = 0.8
    ask = {"predictions": chances, "references": gold}
    assert compute_figure("calibration", "ece", **ask) == pytest.approx((0.8 + 0.8) / 4)
    brier = (0.02 + 1.62 + 0.32 + 0.24) / 4
    assert compute_figure("calibration", "brier", **ask) == pytest.approx(brier)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_load_offline_with_evaluate(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(metrics.__file__).with_name(f"{module}.py")
    loaded = evaluate.load(str(path), cache_dir=str(tmp_path), keep_in_memory=True)
    assert isinstance(loaded, evaluate.Metric)
    if module == "macro_f1":
        assert loaded.compute(predictions=[0, 1], references=[0, 1]) == {"macro_f1": 1.0}


@pytest.mark.parametrize(
    ("module", "figure", "predictions", "references"),
    [
        ("macro_f1", "macro_f1", [0, 0], [0, 0]),
        ("macro_f1", "macro_f1", [0, 7], [0, 1]),
        ("macro_f1", "f1:1", [0, 2], [0, 2]),
        ("macro_f1", "precision", [0, 1], [0, 1]),
        ("intensity_error", "quadratic_weighted_kappa", [SURE, SURE], [2, 2]),
        ("intensity_error", "mae", [SURE], [3]),
        ("intensity_error", "mae", [[0.5, 0.5]], [1]),
        ("intensity_error", "median", [SURE], [2]),
        ("emotions", "auroc", [[0.5], [0.1]], [[1], [1]]),
        ("emotions", "recall", [[0.5], [0.1]], [[1], [0]]),
        ("aspects", "presence_macro_f1", [[1], [1]], [[1], [1]]),
        ("aspects", "state_macro_f1", [[1], [0]], [[0], [0]]),
        ("aspects", "precision", [[1], [0]], [[1], [0]]),
        ("calibration", "ece", [[0.5, 0.5], [0.5, 0.5]], [1, 1]),
        ("calibration", "slope", [[0.5, 0.5], [0.5, 0.5]], [1, 0]),
        ("macro_f1", "macro_f1", [], []),
        ("macro_f1", "macro_f1", [0], [0, 1]),
        ("rouge", "rouge1", [0], [0]),
    ],
)
def test_what_cannot_be_computed_raises(
    module: str, figure: str, predictions: list, references: list
) -> None:
    with pytest.raises(MetricError):
        compute_figure(module, figure, predictions=predictions, references=references)


def test_a_missing_module_is_an_error_not_a_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "training.evaluation.metrics.aspects", None)
    with pytest.raises(MetricError, match="cannot be loaded"):
        compute_figure("aspects", "presence_macro_f1", predictions=[[1]], references=[[0]])
    monkeypatch.undo()
    assert importlib.import_module("training.evaluation.metrics.aspects")


@pytest.mark.parametrize("seed", range(5))
def test_vectorised_twins_agree_with_the_modules(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gold, predicted = generator.integers(0, 3, 60), generator.integers(0, 3, 60)
    chances = generator.dirichlet([1, 1, 1], 60)
    steps, said = generator.integers(0, 5, 60), generator.integers(0, 5, 60)
    # Ties among scores are common once probabilities are rounded.
    scores, truth = generator.integers(0, 6, 60) / 5, generator.integers(0, 2, 60)
    states, answers = generator.integers(0, 5, (60, 6)), generator.integers(0, 5, (60, 6))
    pairs = [
        (weighted.macro_f1(gold, predicted, 3), ("macro_f1", "macro_f1", predicted, gold)),
        (weighted.class_f1(gold, predicted, 3, 2), ("macro_f1", "f1:2", predicted, gold)),
        (
            weighted.quadratic_kappa(steps, said),
            ("intensity_error", "quadratic_weighted_kappa", np.eye(5)[said], steps - 2),
        ),
        (weighted.auroc(truth, scores), ("emotions", "auroc", scores[:, None], truth[:, None])),
        (
            weighted.macro_f1(states, answers, 5, first=1),
            ("aspects", "state_macro_f1", answers, states),
        ),
        (weighted.calibration_error(gold, chances, 10), ("calibration", "ece", chances, gold)),
    ]
    for statistic, (module, figure, predictions, references) in pairs:
        expected = compute_figure(
            module, figure, predictions=predictions.tolist(), references=references.tolist()
        )
        assert point(60, statistic) == pytest.approx(expected, abs=1e-6), (module, figure)


def test_weights_mean_repeated_rows() -> None:
    generator = np.random.default_rng(9)
    gold, scores = generator.integers(0, 2, 40), generator.random(40)
    counts = generator.multinomial(40, [1 / 40] * 40)
    repeated = weighted.auroc(np.repeat(gold, counts), np.repeat(scores, counts))
    drawn = weighted.auroc(gold, scores)(counts[None, :].astype(np.float32))
    assert float(drawn[0]) == pytest.approx(point(40, repeated))


def test_unlabelled_rows_count_for_nothing() -> None:
    gold, predicted = np.array([0, 1, 2, -1, -1]), np.array([0, 1, 1, 0, 2])
    with_them = point(5, weighted.macro_f1(gold, predicted, 3))
    assert with_them == point(3, weighted.macro_f1(gold[:3], predicted[:3], 3))

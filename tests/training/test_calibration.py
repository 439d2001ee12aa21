import numpy as np
import pytest

from data.contract import ASPECTS, CONTRACT_VERSION, EMOTIONS
from serving.logits import Logits
from serving.model_folder import ModelSpec, Temperatures
from serving.predictions import probabilities
from training.batches import Targets
from training.calibration import LEAST_ROWS, calibrate, choose_thresholds, fit_temperatures

TASKS = ("sentiment", "intensity", "emotions", "aspects")


def honest(rows: int, seed: int = 0) -> tuple[Logits, Targets]:
    """Logits, and labels drawn from just the probabilities that they stand for."""
    random = np.random.default_rng(seed)
    score = random.normal(scale=2.0, size=(rows, 1))
    logits = Logits(
        sentiment=random.normal(scale=2.0, size=(rows, 3)),
        intensity=score + np.asarray([1.5, 0.5, -0.5, -1.5]),
        emotions=random.normal(scale=2.0, size=(rows, 8)),
        aspects=random.normal(scale=2.0, size=(rows, 6, 3)),
    )
    chances = probabilities(logits, Temperatures())

    def drawn(several: np.ndarray) -> np.ndarray:
        below = random.uniform(size=(rows, 1)) > several.cumsum(1)
        return np.minimum(below.sum(1), several.shape[1] - 1)

    coins = random.uniform(size=(rows, 6, 3)) < 1 / (1 + np.exp(-logits.aspects))
    coins[:, :, 1:] &= coins[:, :, :1]
    mask = np.ones(rows, dtype=np.float32)
    targets = Targets(
        sentiment=drawn(chances.sentiment),
        sentiment_mask=mask,
        intensity=drawn(chances.intensity),
        intensity_mask=mask,
        emotions=(random.uniform(size=(rows, 8)) < chances.emotions).astype(np.float32),
        emotions_mask=mask,
        aspects=coins.astype(np.float32),
        aspects_mask=mask,
    )
    return logits, targets


def overconfident(logits: Logits, **factors: float) -> Logits:
    return Logits(**{task: getattr(logits, task) * factors.get(task, 1.0) for task in TASKS})


def with_masks(targets: Targets, **masks: np.ndarray) -> Targets:
    return Targets(**(vars(targets) | {f"{task}_mask": mask for task, mask in masks.items()}))


def test_the_temperatures_that_were_put_in_come_out():
    logits, targets = honest(3000)
    known = {"sentiment": 2.0, "intensity": 0.5, "emotions": 3.0, "aspects": 1.5}
    fitted = fit_temperatures(overconfident(logits, **known), targets)
    assert fitted.model_dump() == pytest.approx(known, rel=0.12)


def test_a_temperature_never_changes_the_likeliest_sentiment_but_its_confidence():
    logits, targets = honest(500)
    loud = overconfident(logits, sentiment=4.0)
    raw = probabilities(loud, Temperatures()).sentiment
    calm = probabilities(loud, fit_temperatures(loud, targets)).sentiment
    np.testing.assert_array_equal(raw.argmax(1), calm.argmax(1))
    hits = (calm.argmax(1) == targets.sentiment).mean()
    assert abs(calm.max(1).mean() - hits) < 0.05 < abs(raw.max(1).mean() - hits)


@pytest.mark.parametrize("task", TASKS)
def test_a_head_with_too_few_labels_is_left_alone(task):
    logits, targets = honest(400)
    few = np.zeros(400, dtype=np.float32)
    few[: LEAST_ROWS - 1] = 1.0
    loud = overconfident(logits, **dict.fromkeys(TASKS, 3.0))
    fitted = fit_temperatures(loud, with_masks(targets, **{task: few})).model_dump()
    assert fitted.pop(task) == 1.0
    assert min(fitted.values()) > 1.5
    enough = few.copy()
    enough[LEAST_ROWS - 1] = 1.0
    again = fit_temperatures(loud, with_masks(targets, **{task: enough}))
    assert getattr(again, task) != 1.0


def test_unlabelled_rows_have_no_say():
    logits, targets = honest(600)
    mask = np.zeros(600, dtype=np.float32)
    mask[:300] = 1.0
    targets.sentiment[300:] = 0
    fitted = fit_temperatures(logits, with_masks(targets, sentiment=mask)).sentiment
    assert fitted == pytest.approx(1.0, rel=0.3)
    assert fit_temperatures(logits, targets).sentiment > fitted


def a_timid_model(rows: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Scores that tell present from absent labels apart, all of them below 0.5."""
    random = np.random.default_rng(1)
    present = random.uniform(size=(rows, 8)) < 0.3
    return np.where(present, 0.35, 0.1) + random.uniform(-0.05, 0.05, (rows, 8)), present


def f1(scores: np.ndarray, truth: np.ndarray, thresholds: list[float]) -> float:
    chosen = scores >= np.asarray(thresholds)
    return float(2 * (chosen & truth).sum() / (chosen.sum() + truth.sum()))


def test_thresholds_beat_a_half_on_a_timid_model():
    scores, truth = a_timid_model()
    assert f1(scores, truth, [0.5] * 8) == 0.0
    assert f1(scores, truth, choose_thresholds(scores, truth)) > 0.95


def test_a_rare_label_is_drawn_to_the_threshold_that_serves_all():
    scores, truth = a_timid_model()
    truth[:, 0] = False
    truth[0, 0] = True
    scores[:, 0] = 0.5
    scores[0, 0] = 0.79  # on its one positive alone, its threshold would be far up
    own = choose_thresholds(scores, truth, prior_weight=0.0)[0]
    drawn = choose_thresholds(scores, truth, prior_weight=4.0)[0]
    shared = choose_thresholds(scores, truth, prior_weight=1e9)[0]
    assert own > 0.5 > shared
    assert drawn == pytest.approx((own + 4 * shared) / 5)
    truth[0, 0] = False
    unseen = choose_thresholds(scores, truth)
    assert unseen[0] == pytest.approx(choose_thresholds(scores, truth, prior_weight=1e9)[1])


@pytest.mark.parametrize("rows", [0, 50])
def test_without_a_positive_thresholds_stay_at_a_half(rows):
    nothing = np.zeros((rows, 6), dtype=bool)
    assert choose_thresholds(np.full((rows, 6), 0.3), nothing) == [0.5] * 6


SPEC = ModelSpec(
    contract_version=CONTRACT_VERSION,
    format="torch-fp32",
    architecture="electra",
    max_tokens=32,
    overlap_tokens=8,
)


def test_a_spec_is_calibrated_in_all_its_parts_and_still_valid():
    logits, targets = honest(400)
    spec = calibrate(SPEC, overconfident(logits, sentiment=3.0), targets)
    assert spec.temperatures.sentiment > 2.0
    assert set(spec.emotion_thresholds) == set(EMOTIONS)
    assert set(spec.mention_thresholds) == set(ASPECTS)
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.mention_thresholds != SPEC.mention_thresholds


def test_labels_of_sentiment_alone_leave_the_other_heads_as_they_were():
    logits, targets = honest(400)
    none = np.zeros(400, dtype=np.float32)
    spec = calibrate(
        SPEC,
        overconfident(logits, sentiment=3.0),
        with_masks(targets, intensity=none, emotions=none, aspects=none),
    )
    assert spec.temperatures.sentiment > 2.0
    assert spec.model_copy(update={"temperatures": SPEC.temperatures}) == SPEC
    assert spec.temperatures.model_copy(update={"sentiment": 1.0}) == SPEC.temperatures

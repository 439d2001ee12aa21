import math

import numpy as np
import pytest
import torch

from data.contract import EMOTIONS, Label
from training.batches import Batch, targets_of
from training.losses import MOST_WEIGHT, ClassWeights, TaskLogits, task_losses, total_loss

ONES = ClassWeights(torch.ones(3), torch.ones(5), torch.ones(8), torch.ones(6))
TASKS = ("sentiment", "intensity", "emotions", "aspects")


def batch_of(*labels: Label) -> Batch:
    return targets_of(labels).rows(np.arange(len(labels)))


def random_logits(rows: int) -> TaskLogits:
    torch.manual_seed(0)
    shapes = ((rows, 3), (rows, 4), (rows, 8), (rows, 6, 3))
    one, two, three, four = (torch.randn(shape, requires_grad=True) for shape in shapes)
    return one, two, three, four


def losses_of(
    logits: TaskLogits, batch: Batch, weights: ClassWeights = ONES, smoothing: float = 0.0
) -> dict[str, torch.Tensor]:
    return task_losses(logits, batch, weights, label_smoothing=smoothing)


def zeros(rows: int) -> TaskLogits:
    return (
        torch.zeros(rows, 3),
        torch.zeros(rows, 4),
        torch.zeros(rows, 8),
        torch.zeros(rows, 6, 3),
    )


def softplus(value: float) -> float:
    return math.log1p(math.exp(value))


def test_cross_entropy_by_hand():
    logits = (torch.tensor([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]]), *zeros(2)[1:])
    batch = batch_of(Label(sentiment="neutral"), Label(sentiment="positive"))
    total = sum(math.exp(v) for v in (1.0, 2.0, -1.0))
    expected = (math.log(total) - 2.0 + math.log(3)) / 2
    assert losses_of(logits, batch)["sentiment"].item() == pytest.approx(expected, rel=1e-5)


def test_label_smoothing_by_hand():
    logits = (torch.tensor([[1.0, 2.0, -1.0]]), *zeros(1)[1:])
    got = losses_of(logits, batch_of(Label(sentiment="neutral")), smoothing=0.3)["sentiment"]
    surprises = [math.log(sum(map(math.exp, (1.0, 2.0, -1.0)))) - v for v in (1.0, 2.0, -1.0)]
    assert got.item() == pytest.approx(0.7 * surprises[1] + 0.1 * sum(surprises), rel=1e-5)


def test_the_scale_is_learned_step_by_step():
    scores = [2.0, 1.0, -1.0, -2.0]
    logits = (zeros(1)[0], torch.tensor([scores]), *zeros(1)[2:])
    got = losses_of(logits, batch_of(Label(intensity=0)))["intensity"].item()
    # 0 is above -2 and -1, not above 0 and 1.
    expected = softplus(-2.0) + softplus(-1.0) + softplus(-1.0) + softplus(-2.0)
    assert got == pytest.approx(expected, rel=1e-5)


def test_emotions_by_hand_with_a_weight_for_present_ones():
    logits = (*zeros(1)[:2], torch.full((1, 8), 1.5), zeros(1)[3])
    weights = ClassWeights(ONES.sentiment, ONES.intensity, torch.full((8,), 3.0), ONES.mentions)
    batch = batch_of(Label(emotions=("joy", "anger")))
    got = losses_of(logits, batch, weights)["emotions"].item()
    assert got == pytest.approx(2 * 3.0 * softplus(-1.5) + 6 * softplus(1.5), rel=1e-5)


def test_polarity_counts_only_where_an_aspect_is_mentioned():
    scores = torch.zeros(1, 6, 3)
    scores[0, 0] = torch.tensor([1.0, 2.0, -2.0])  # food
    scores[0, 3] = torch.tensor([-1.0, 5.0, 5.0])  # price, not mentioned
    got = losses_of((*zeros(1)[:3], scores), batch_of(Label(aspects={"food": "positive"})))
    food = softplus(-1.0) + softplus(-2.0) + softplus(-2.0)
    others = softplus(-1.0) + 4 * math.log(2)
    assert got["aspects"].item() == pytest.approx(food + others, rel=1e-5)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_without_labels_adds_nothing_and_teaches_nothing(task):
    full = {
        "sentiment": "positive",
        "intensity": 1,
        "emotions": ("joy",),
        "aspects": {"food": "positive"},
    }
    labels = [Label.model_validate(full | {task: None})] * 3
    logits = random_logits(3)
    losses = losses_of(logits, batch_of(*labels))
    assert losses[task].item() == 0.0
    total_loss(losses, dict.fromkeys(TASKS, 1.0)).backward()
    for name, values in zip(TASKS, logits, strict=True):
        assert values.grad is not None
        assert values.grad.any().item() is (name != task)


def test_unlabelled_rows_do_not_dilute_the_labelled_ones():
    logits = random_logits(2)
    full = Label(sentiment="positive", intensity=2, emotions=("joy",), aspects={"food": "mixed"})
    alone = losses_of(tuple(v[:1] for v in logits), batch_of(full))  # type: ignore[arg-type]
    mixed = losses_of(logits, batch_of(full, Label(sentiment="negative")))
    for task in ("intensity", "emotions", "aspects"):
        torch.testing.assert_close(mixed[task], alone[task])
    one, two = logits[0].clone().detach(), batch_of(full, Label(intensity=0))
    torch.testing.assert_close(losses_of((one, *logits[1:]), two)["sentiment"], alone["sentiment"])


def test_class_weights_by_hand():
    labels = [Label(sentiment="negative")] * 6 + [Label(sentiment="positive")] * 2
    weights = ClassWeights.from_targets(targets_of(labels), power=1.0).sentiment
    # 8/6 and 8/2, divided by their mean over the reviews, (6*8/6 + 2*8/2) / 8 = 2.
    torch.testing.assert_close(weights, torch.tensor([4 / 6, 0.0, 2.0]))
    root = ClassWeights.from_targets(targets_of(labels), power=0.5).sentiment
    assert (root[2] / root[0]).item() == pytest.approx(math.sqrt(3.0))


def test_power_0_weighs_all_alike():
    labels = [
        Label(sentiment="negative", intensity=-2, emotions=("joy",), aspects={"food": "mixed"}),
        *[Label(sentiment="neutral", intensity=0, emotions=(), aspects={})] * 5,
        Label(sentiment="positive", intensity=1),
    ]
    weights = ClassWeights.from_targets(targets_of(labels), power=0.0)
    torch.testing.assert_close(weights.sentiment, torch.ones(3))
    torch.testing.assert_close(weights.intensity, torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(weights.emotions, torch.ones(8))
    torch.testing.assert_close(weights.mentions, torch.ones(6))


def test_rare_labels_weigh_their_odds_up_to_a_limit():
    labels = [Label(emotions=("joy",), aspects={"food": "mixed"})] + [
        Label(emotions=("anger",), aspects={"food": "neutral"})
    ] * 3
    weights = ClassWeights.from_targets(targets_of(labels), power=1.0)
    by_emotion = dict(zip(EMOTIONS, weights.emotions.tolist(), strict=True))
    assert by_emotion["joy"] == pytest.approx(3.0)
    assert by_emotion["anger"] == 1.0
    assert by_emotion["sadness"] == MOST_WEIGHT
    assert weights.mentions[0].item() == 1.0


def test_a_corpus_without_a_task_has_finite_weights():
    weights = ClassWeights.from_targets(targets_of([Label(sentiment="neutral")]), power=0.5)
    for values in vars(weights).values():
        assert torch.isfinite(values).all()
    torch.testing.assert_close(weights.intensity, torch.ones(5))


def test_the_total_is_the_weighted_sum():
    losses = {"sentiment": torch.tensor(2.0), "intensity": torch.tensor(3.0)}
    assert total_loss(losses, {"sentiment": 1.0, "intensity": 0.5}).item() == 3.5
    assert total_loss(losses, {"intensity": 1.0}).item() == 3.0

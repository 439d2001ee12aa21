import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data.contract import ASPECTS, CONTRACT_VERSION, EMOTIONS, INTENSITIES, SENTIMENTS
from data.errors import EngineError
from serving.logits import Logits
from serving.model_folder import ModelSpec, Temperatures
from serving.predictions import probabilities, to_predictions

ONE = np.asarray([1], dtype=np.int64)


def spec(**changes: object) -> ModelSpec:
    return ModelSpec.model_validate(
        {
            "contract_version": CONTRACT_VERSION,
            "format": "onnx-fp32",
            "architecture": "electra",
            "max_tokens": 32,
            "overlap_tokens": 8,
        }
        | changes
    )


def logits(**given_values: object) -> Logits:
    """One row of zeros, but for what is given."""
    shapes = {"sentiment": (3,), "intensity": (4,), "emotions": (8,), "aspects": (6, 3)}
    return Logits(
        **{
            name: np.asarray([given_values.get(name, np.zeros(shape))], dtype=np.float32)
            for name, shape in shapes.items()
        }
    )


def sigmoid(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value))


@given(
    flat=arrays(np.float32, (4, 33), elements=st.floats(-80, 80, width=32)),
    temperature=st.floats(0.25, 8.0),
)
def test_probabilities_add_up_to_1_whatever_the_logits(flat, temperature):
    values = Logits(
        sentiment=flat[:, :3],
        intensity=-np.sort(-flat[:, 3:7], axis=1),
        emotions=flat[:, 7:15],
        aspects=flat[:, 15:].reshape(-1, 6, 3),
    )
    got = probabilities(
        values,
        Temperatures(
            sentiment=temperature, intensity=temperature, emotions=temperature, aspects=temperature
        ),
    )
    assert got.sentiment.shape == (4, 3)
    assert got.aspects.shape == (4, 6, 5)
    for several in (got.sentiment, got.intensity, got.aspects):
        np.testing.assert_allclose(several.sum(-1), 1.0, atol=1e-9)
    for every in (got.sentiment, got.intensity, got.emotions, got.aspects):
        assert ((every >= 0) & (every <= 1)).all()
    assert len(to_predictions(got, np.ones(4, np.int64), spec())) == 4


def test_the_scale_is_cumulative():
    got = probabilities(logits(intensity=[2.0, 1.0, -1.0, -2.0]), Temperatures()).intensity[0]
    above = [sigmoid(value) for value in (2.0, 1.0, -1.0, -2.0)]
    expected = [
        1 - above[0],
        above[0] - above[1],
        above[1] - above[2],
        above[2] - above[3],
        above[3],
    ]
    np.testing.assert_allclose(got, expected, atol=1e-12)


@given(shift=st.floats(-5, 5), gaps=st.lists(st.floats(0.01, 3), min_size=3, max_size=3))
def test_a_higher_score_never_expects_a_lower_step(shift, gaps):
    thresholds = np.concatenate([[1.5], 1.5 - np.cumsum(gaps)])
    lower, higher = (
        to_predictions(
            probabilities(logits(intensity=thresholds + score), Temperatures()), ONE, spec()
        )[0].intensity
        for score in (shift, shift + 1.0)
    )
    assert lower.expected < higher.expected
    for step in INTENSITIES[:-1]:  # the chance to be above a step can only grow
        above = [
            sum(p for s, p in one.probabilities.items() if s > step) for one in (lower, higher)
        ]
        assert above[0] <= above[1] + 1e-12


def test_aspect_states_by_hand():
    mentioned, positive, negative = 1.0, 2.0, -0.5
    values = np.zeros((6, 3))
    values[ASPECTS.index("price")] = [mentioned, positive, negative]
    got = probabilities(logits(aspects=values), Temperatures())
    m, p, n = sigmoid(mentioned), sigmoid(positive), sigmoid(negative)
    answer = to_predictions(got, ONE, spec())[0].aspects
    assert answer["price"].probabilities == pytest.approx(
        {
            "absent": 1 - m,
            "negative": m * n * (1 - p),
            "neutral": m * (1 - p) * (1 - n),
            "positive": m * p * (1 - n),
            "mixed": m * p * n,
        }
    )
    assert answer["price"].label == "positive"
    assert answer["food"].probabilities["absent"] == pytest.approx(0.5)
    assert list(answer) == list(ASPECTS)


@pytest.mark.parametrize(
    ("scores", "state"),
    [
        ((-3, 3, 3), "absent"),
        ((3, 3, -3), "positive"),
        ((3, -3, 3), "negative"),
        ((3, -3, -3), "neutral"),
        ((3, 3, 3), "mixed"),
    ],
)
def test_each_aspect_state_can_be_said(scores, state):
    got = probabilities(logits(aspects=[scores] * 6), Temperatures())
    answer = to_predictions(got, ONE, spec())[0]
    assert {aspect.label for aspect in answer.aspects.values()} == {state}


def test_a_temperature_divides_the_logits_of_its_own_head():
    values = logits(
        sentiment=[2.0, 0.0, -2.0],
        emotions=[1.0] * 8,
        intensity=[3, 1, -1, -3],
        aspects=[[1] * 3] * 6,
    )
    halves = logits(
        sentiment=[1.0, 0.0, -1.0],
        emotions=[1.0] * 8,
        intensity=[3, 1, -1, -3],
        aspects=[[1] * 3] * 6,
    )
    cooled = probabilities(values, Temperatures(sentiment=2.0))
    expected = probabilities(halves, Temperatures())
    for name, array in vars(expected).items():
        np.testing.assert_allclose(getattr(cooled, name), array, atol=1e-12)


@pytest.mark.parametrize("head", ["sentiment", "intensity", "emotions", "aspects"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_refused(head, bad):
    values = logits()
    getattr(values, head)[0].flat[-1] = bad
    with pytest.raises(EngineError, match="NaN or infinite"):
        probabilities(values, Temperatures())


def test_labels_are_read_through_the_maps_not_by_position():
    permuted = spec(
        id2sentiment={0: "positive", 1: "negative", 2: "neutral"},
        id2intensity={i: -step for i, step in enumerate(INTENSITIES)},
    )
    values = logits(sentiment=[3.0, 1.0, 0.0], intensity=[4.0, 3.0, 2.0, 1.0])
    got = probabilities(values, Temperatures())
    plain, answer = (to_predictions(got, ONE, s)[0] for s in (spec(), permuted))
    assert (plain.sentiment.label, answer.sentiment.label) == ("negative", "positive")
    assert answer.sentiment.probabilities == pytest.approx(
        dict(zip(("positive", "negative", "neutral"), got.sentiment[0], strict=True))
    )
    assert (plain.intensity.label, answer.intensity.label) == (2, -2)
    assert answer.intensity.expected == pytest.approx(-plain.intensity.expected)
    for one in (plain, answer):
        assert one.intensity.expected == pytest.approx(
            sum(step * p for step, p in one.intensity.probabilities.items())
        )


def test_each_emotion_has_its_own_threshold_and_reaching_it_is_enough():
    thresholds = dict.fromkeys(EMOTIONS, 0.9) | {"anger": 0.5, "joy": 0.4}
    got = probabilities(logits(), Temperatures())  # every score is 0.5
    answer = to_predictions(got, ONE, spec(emotion_thresholds=thresholds))[0].emotions
    assert answer.labels == ("joy", "anger")
    assert answer.scores == dict.fromkeys(EMOTIONS, 0.5)
    nothing = to_predictions(got, ONE, spec(emotion_thresholds=dict.fromkeys(EMOTIONS, 0.51)))
    assert nothing[0].emotions.labels == ()


def test_an_aspect_is_spoken_of_from_its_own_threshold_on():
    # Spoken of by 0.3, and if so positive: the likeliest single state is "absent".
    scores = [[math.log(0.3 / 0.7), 3.0, -3.0]] * 6
    got = probabilities(logits(aspects=scores), Temperatures())
    lowered = spec(mention_thresholds=dict.fromkeys(ASPECTS, 0.5) | {"hygiene": 0.25})
    answer = to_predictions(got, ONE, lowered)[0].aspects
    assert {name: aspect.label for name, aspect in answer.items()} == dict.fromkeys(
        ASPECTS, "absent"
    ) | {"hygiene": "positive"}
    assert answer["hygiene"].probabilities == answer["food"].probabilities


def test_the_number_of_windows_is_passed_on():
    got = probabilities(logits(), Temperatures())
    answer = to_predictions(got, np.asarray([7]), spec())[0]
    assert answer.windows == 7
    assert list(answer.sentiment.probabilities) == list(SENTIMENTS)

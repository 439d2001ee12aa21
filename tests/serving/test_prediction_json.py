import numpy as np
import pytest

from data.contract import CONTRACT_VERSION
from serving.logits import Logits
from serving.model_folder import ModelSpec, Temperatures
from serving.prediction_json import prediction_json
from serving.predictions import probabilities, to_predictions


def _spec(**changes) -> ModelSpec:
    return ModelSpec(
        contract_version=CONTRACT_VERSION,
        format="onnx-fp32",
        architecture="electra",
        max_tokens=128,
        overlap_tokens=32,
        **changes,
    )


@pytest.mark.parametrize(
    "spec",
    [
        _spec(),
        _spec(temperatures=Temperatures(sentiment=0.02, intensity=3.0, aspects=0.1)),
        _spec(
            id2sentiment={0: "positive", 1: "negative", 2: "neutral"},
            id2intensity={0: 2, 1: 1, 2: 0, 3: -1, 4: -2},
        ),
    ],
)
def test_the_bytes_are_those_of_the_predictions_themselves(spec):
    draw = np.random.default_rng(3)
    shapes = ((200, 3), (200, 4), (200, 8), (200, 6, 3))
    sentiment, intensity, emotions, aspects = (
        draw.normal(0, 6, shape).astype(np.float32) for shape in shapes
    )
    falling = np.sort(intensity, axis=1)[:, ::-1].copy()
    arrays = probabilities(Logits(sentiment, falling, emotions, aspects), spec.temperatures)
    windows = draw.integers(1, 9, 200)
    expected = [one.model_dump_json().encode() for one in to_predictions(arrays, windows, spec)]
    assert prediction_json(arrays, windows, spec) == expected


def test_a_probability_at_its_threshold_counts_in_both():
    zero = np.zeros((1, 6, 3), dtype=np.float32)
    logits = Logits(
        zero[:, 0, :3], np.zeros((1, 4), np.float32), np.zeros((1, 8), np.float32), zero
    )
    spec = _spec()
    arrays = probabilities(logits, spec.temperatures)
    (prediction,) = to_predictions(arrays, np.asarray([1]), spec)
    assert len(prediction.emotions.labels) == 8
    assert prediction_json(arrays, np.asarray([1]), spec) == [prediction.model_dump_json().encode()]

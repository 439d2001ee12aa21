import json

import pytest
from pydantic import ValidationError

from data.contract import CONTRACT_VERSION, EMOTIONS, INTENSITIES, SENTIMENTS
from data.errors import ArtifactError
from serving.model_folder import SPEC_NAME, ModelSpec, Temperatures, read_spec, write_spec

SPEC = ModelSpec(
    contract_version=CONTRACT_VERSION,
    format="onnx-int8",
    architecture="electra",
    max_tokens=128,
    overlap_tokens=32,
    id2sentiment={0: "positive", 1: "neutral", 2: "negative"},
    temperatures=Temperatures(sentiment=1.3, aspects=0.1 + 0.2),
    emotion_thresholds=dict.fromkeys(EMOTIONS, 1 / 3),
)


def test_a_spec_comes_back_as_it_was(tmp_path):
    write_spec(tmp_path, SPEC)
    assert read_spec(tmp_path) == SPEC


def test_the_defaults_are_the_contracts_order_uncalibrated():
    spec = ModelSpec(
        contract_version=CONTRACT_VERSION,
        format="torch-fp32",
        architecture="electra",
        max_tokens=8,
        overlap_tokens=0,
    )
    assert tuple(spec.id2sentiment.values()) == SENTIMENTS
    assert tuple(spec.id2intensity.values()) == INTENSITIES
    assert set(spec.temperatures.model_dump().values()) == {1.0}
    assert spec.emotion_thresholds == dict.fromkeys(EMOTIONS, 0.5)


def test_a_missing_spec_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match=SPEC_NAME):
        read_spec(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "pickle"},
        {"max_tokens": 7},
        {"overlap_tokens": -1},
        {"temperatures": {"sentiment": 0.0}},
        {"temperatures": {"mood": 1.0}},
        {"max_token": 128},
        {"id2sentiment": {"0": "good", "1": "neutral", "2": "negative"}},
        {"id2sentiment": {"0": "positive", "1": "neutral"}},
        {"id2sentiment": {"0": "positive", "1": "positive", "2": "negative"}},
        {"id2sentiment": {"1": "positive", "2": "neutral", "3": "negative"}},
        {"id2intensity": {"0": -2, "1": -1, "2": 0, "3": 1, "4": 1}},
        {"emotion_thresholds": {"joy": 0.5}},
        {"emotion_thresholds": dict.fromkeys(EMOTIONS)},
        {"mention_thresholds": {"food": 0.5}},
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_read_by_is_refused_when_it_is_loaded(tmp_path, changes):
    values = json.loads(SPEC.model_dump_json()) | changes
    (tmp_path / SPEC_NAME).write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ArtifactError, match="is not a model spec"):
        read_spec(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x80\x04", b"\xff\xfe"])
def test_what_is_no_json_is_refused(tmp_path, content):
    (tmp_path / SPEC_NAME).write_bytes(content)
    with pytest.raises(ArtifactError, match="export the model again"):
        read_spec(tmp_path)


def test_a_spec_does_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.max_tokens = 64  # type: ignore[misc]

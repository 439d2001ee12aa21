import importlib.util
from pathlib import Path

import numpy as np
import pytest

from data.contract import ASPECTS, INTENSITIES, SENTIMENTS, Label, LabelledReview, Review
from data.errors import DataUnfitError
from serving.predictions import ProbabilityArrays
from training.evaluation.baselines import fit_baselines, predict_by_lexicon
from training.evaluation.lexicon import POLARITY, clause_score, text_score

TRAIN = [
    LabelledReview(
        review=Review(review_id=f"r{i}", text=text + "!" * (i % 3)),
        label=Label(sentiment=sentiment, intensity=intensity, emotions=(), aspects=aspects),
    )
    for i, (text, sentiment, intensity, aspects) in enumerate(
        [
            ("맛있어요 최고", "positive", 2, {"food": "positive"}),
            ("불친절해서 별로", "negative", -1, {"service": "negative"}),
            ("위치는 역 앞입니다", "neutral", 0, {"access": "neutral"}),
            ("국물이 끝내줘요", "positive", 1, {"food": "positive"}),
        ]
        * 10
    )
]


def check_arrays(arrays: ProbabilityArrays, count: int) -> None:
    assert arrays.sentiment.shape == (count, 3)
    assert arrays.intensity.shape == (count, 5)
    assert arrays.emotions.shape == (count, 8)
    assert arrays.aspects.shape == (count, 6, 5)
    for values in (arrays.sentiment, arrays.intensity, arrays.aspects):
        np.testing.assert_allclose(values.sum(axis=-1), 1.0, atol=1e-6)
    assert ((arrays.emotions >= 0) & (arrays.emotions <= 1)).all()


@pytest.mark.parametrize("name", ["majority", "lexicon", "tfidf"])
def test_every_baseline_answers_every_task(name: str) -> None:
    baseline = fit_baselines(TRAIN)[name]
    check_arrays(baseline.predict(["맛있어요", "", "x" * 5000]), 3)
    assert baseline.tasks == {"sentiment", "intensity", "emotions", "aspects"}


def test_majority_says_the_shares_of_the_training_part() -> None:
    arrays = fit_baselines(TRAIN)["majority"].predict(["별로", "최고"])
    np.testing.assert_allclose(arrays.sentiment, [[0.25, 0.25, 0.5]] * 2)
    assert arrays.aspects[0, ASPECTS.index("food"), 0] == 0.5


def test_tfidf_learns_what_it_was_shown() -> None:
    baseline = fit_baselines(TRAIN)["tfidf"]
    arrays = baseline.predict([row.review.text for row in TRAIN])
    expected = [SENTIMENTS.index(row.label.sentiment) for row in TRAIN]
    assert (arrays.sentiment.argmax(axis=1) == expected).mean() > 0.95
    steps = [INTENSITIES.index(row.label.intensity) for row in TRAIN]
    assert (arrays.intensity.argmax(axis=1) == steps).mean() > 0.9
    spoken = arrays.aspects.argmax(axis=2) > 0
    assert spoken[0, ASPECTS.index("food")]
    assert not spoken[1, ASPECTS.index("food")]


def test_tfidf_is_the_same_twice() -> None:
    texts = ["국물이 좋아요", "별로"]
    first = fit_baselines(TRAIN)["tfidf"].predict(texts).sentiment
    np.testing.assert_array_equal(first, fit_baselines(TRAIN)["tfidf"].predict(texts).sentiment)


def test_a_task_without_labels_is_not_answered() -> None:
    stars = [
        LabelledReview(
            review=row.review,
            label=Label(sentiment=row.label.sentiment, intensity=row.label.intensity),
        )
        for row in TRAIN
    ]
    baselines = fit_baselines(stars)
    assert baselines["tfidf"].tasks == {"sentiment", "intensity"}
    assert baselines["majority"].tasks == {"sentiment", "intensity"}
    check_arrays(baselines["tfidf"].predict(["맛있어요"]), 1)


def test_one_class_only_does_not_break_the_baselines() -> None:
    same = [row for row in TRAIN if row.label.sentiment == "positive"]
    arrays = fit_baselines(same)["tfidf"].predict(["별로"])
    assert arrays.sentiment[0].tolist() == [0.0, 0.0, 1.0]


def test_an_empty_training_part_is_refused() -> None:
    with pytest.raises(DataUnfitError, match="empty"):
        fit_baselines([])


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("친절해요", 1),
        ("불친절해요", -1),
        ("친절하지 않아요", -1),
        ("안 친절해요", -1),
        ("맛있어요", 1),
        ("맛이 없어요", -1),
        ("맛있지 않아요", -1),
        ("하나도 안 맛있어요", -1),
        ("불친절하지는 않아요", 1),
        ("맛은 좋은데 직원이 불친절하고 위생이 최악", -1),
        ("영업시간은 열 시까지입니다", 0),
    ],
)
def test_the_lexicon_reads_negation(text: str, sign: int) -> None:
    assert np.sign(text_score(text)) == sign


def test_the_lexicon_finds_mixed_aspects_and_weights_stay_on_the_scale() -> None:
    arrays = predict_by_lexicon(["음식은 정말 맛있어요. 직원은 불친절해요."])
    states = arrays.aspects[0].argmax(axis=1)
    assert states[ASPECTS.index("food")] == 3
    assert states[ASPECTS.index("service")] == 1
    assert states[ASPECTS.index("hygiene")] == 0
    assert all(-2 <= weight <= 2 for weight in POLARITY.values())
    assert clause_score("") == 0.0


def test_the_lexicon_beats_chance_on_the_behaviour_cases() -> None:
    path = Path(__file__).parents[1] / "behaviour_cases.py"
    spec = importlib.util.spec_from_file_location("behaviour_cases", path)
    assert spec is not None
    assert spec.loader is not None
    cases = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cases)
    assert len(cases.CASES) >= 40
    rates = cases.pass_rates(predict_by_lexicon)
    assert set(rates) == {"minimum", "invariance", "direction"}
    assert all(0.0 <= passed <= total for passed, total in rates.values())
    assert sum(p for p, _ in rates.values()) > 0.5 * len(cases.CASES)
    nothing = cases.pass_rates(
        lambda texts: ProbabilityArrays(
            sentiment=np.tile([0.2, 0.6, 0.2], (len(texts), 1)),
            intensity=np.full((len(texts), 5), 0.2),
            emotions=np.zeros((len(texts), 8)),
            aspects=np.zeros((len(texts), 6, 5)),
        )
    )
    assert nothing["direction"][0] == 0

"""One good record of each kind that the contract knows.

Loaded by path (`runpy.run_path`): tests are no package.
"""

from data.contract import (
    ASPECT_STATES,
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    SENTIMENTS,
    AspectPrediction,
    EmotionsPrediction,
    IntensityPrediction,
    Prediction,
    SentimentPrediction,
)

LABEL = {
    "sentiment": "negative",
    "intensity": -1,
    "emotions": ["anger", "joy"],
    "aspects": {"price": "negative", "food": "mixed"},
    "evidence": [
        {"aspect": "food", "polarity": "positive", "start": 0, "end": 2, "text": "맛은"},
        {"aspect": "price", "polarity": "negative", "start": 3, "end": 5, "text": "비싸"},
    ],
    "phenomena": ["mixed", "slang"],
}
CITATION = {"review_id": "r1", "span": "맛은"}
BULLET = {"text": "맛이 좋다", "polarity": "positive", "evidence": [CITATION]}
ASPECT_SUMMARY = {"polarity": "positive", "sentence": "맛이 좋다는 평이다.", "bullets": [BULLET]}
SUMMARY = {"overall": "맛이 좋은 집이다.", "aspects": {"food": ASPECT_SUMMARY}}
STRENGTH = {"aspect": "food", "claim": "오래 끓여 진한 국물이 좋다", "evidence": [CITATION]}
STRENGTHS = {"representative": [STRENGTH], "distinct": []}


def a_prediction() -> Prediction:
    return Prediction(
        sentiment=SentimentPrediction(
            label="neutral", probabilities=dict.fromkeys(SENTIMENTS, 1 / 3)
        ),
        intensity=IntensityPrediction(
            label=0, expected=0.0, probabilities=dict.fromkeys(INTENSITIES, 0.2)
        ),
        emotions=EmotionsPrediction(labels=(), scores=dict.fromkeys(EMOTIONS, 0.1)),
        aspects={
            aspect: AspectPrediction(
                label="absent", probabilities=dict.fromkeys(ASPECT_STATES, 0.2)
            )
            for aspect in ASPECTS
        },
        windows=1,
    )

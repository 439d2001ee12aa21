"""The figures of answers alone are those of a whole evaluation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import MetricError
from serving.engines.chat import ChatAnswer, ChatRequest
from training.evaluation.language.gold import Gold
from training.evaluation.language.measuring import values_of

Say = Callable[[ChatRequest], str]
MetricsOf = Callable[[Path], Any]


def test_values_alone_are_those_of_the_evaluation(
    gold: Gold, evaluated: Path, says_empties: Say, metrics_of: MetricsOf
) -> None:
    answers = [
        ChatAnswer(says_empties(ChatRequest(example.messages)), "stop") for example in gold.examples
    ]
    values = values_of(gold.examples, answers)
    cells = metrics_of(evaluated)["metrics"]["skeleton"]
    assert values["task_score"] == cells["task_score"]["value"]
    assert not any(name.startswith("summary") for name in values)
    with pytest.raises(MetricError, match="at least one"):
        values_of([], [])
    with pytest.raises(MetricError):
        values_of(gold.examples, answers[1:])

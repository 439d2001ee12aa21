"""What is asked, how often and in which order, and answers that fail."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.errors import EngineError
from serving.engines.chat import ChatAnswer, ChatRequest
from training.evaluation.language.asking import in_turn
from training.evaluation.language.evaluation import evaluate_language_models
from training.evaluation.language.gold import Gold

Town = tuple[Path, Path]
Say = Callable[[ChatRequest], str]
MetricsOf = Callable[[Path], Any]


def test_repeats_ask_in_another_order_and_what_varies_is_told(
    town: Town,
    gold: Gold,
    engine: Any,
    says_gold: Say,
    says_empties: Say,
    tmp_path: Path,
    metrics_of: MetricsOf,
) -> None:
    split, targets = town
    first = gold.examples[0].messages[-1]["content"]
    times: list[int] = []

    def say(request: ChatRequest) -> str:
        if request.messages[-1]["content"] == first:
            times.append(1)
            return says_gold(request) if len(times) == 1 else says_empties(request)
        return says_gold(request)

    wavering = engine("wavering", say)
    evaluate_language_models(
        targets,
        {"wavering": wavering},
        tmp_path / "out",
        split=split,
        repeats=2,
        restaurants=False,
        free=0,
        resamples=100,
    )
    asked = [request.messages[-1]["content"] for request in wavering.asked]
    count = len(gold.examples)
    assert sorted(asked[:count]) == sorted(asked[count:])
    assert asked[:count] != asked[count:]
    assert all(request.schema is not None for request in wavering.asked)
    cells = metrics_of(tmp_path / "out")["metrics"]["wavering"]
    low, high = cells["task_score"]["spread"]
    assert low < cells["task_score"]["value"] < high == 1.0
    assert cells["varied"]["value"] == pytest.approx(1 / count)
    assert cells["raw_parsed"]["reason"].startswith("not asked")
    assert cells["summary_category_macro_f1"]["reason"].startswith("not asked")


def test_free_asks_without_a_schema_and_is_kept_apart(
    town: Town, engine: Any, says_gold: Say, tmp_path: Path, metrics_of: MetricsOf
) -> None:
    def say(request: ChatRequest) -> str:
        text = says_gold(request)
        return text if request.schema else f"```json\n{text}\n```"

    split, targets = town
    evaluate_language_models(
        targets,
        {"fenced": engine("fenced", say)},
        tmp_path / "out",
        split=split,
        repeats=1,
        restaurants=False,
        resamples=100,
    )
    cells = metrics_of(tmp_path / "out")["metrics"]["fenced"]
    assert cells["obeyed"]["value"] == cells["task_score"]["value"] == 1.0
    assert cells["raw_parsed"]["value"] == cells["raw_score"]["value"] == 0.0
    assert cells["raw_saved"]["value"] == cells["repaired_score"]["value"] == 1.0
    assert cells["task_score"]["spread"] is None


def test_free_may_ask_a_few_of_every_task(
    town: Town, gold: Gold, engine: Any, says_gold: Say, tmp_path: Path, metrics_of: MetricsOf
) -> None:
    places = in_turn(gold.examples, 6)
    chosen = [gold.examples[place].task for place in places]
    assert len(set(places)) == 6
    assert set(chosen) == {example.task for example in gold.examples}
    assert in_turn(gold.examples, 10_000) == list(range(len(gold.examples)))
    split, targets = town
    evaluate_language_models(
        targets,
        {"m": engine("m", says_gold)},
        tmp_path / "out",
        split=split,
        repeats=1,
        free=6,
        restaurants=False,
        resamples=100,
    )
    cells = metrics_of(tmp_path / "out")["metrics"]["m"]
    assert cells["raw_obeyed"]["n"] == 6
    assert cells["obeyed"]["n"] == len(gold.examples)


def test_one_answer_that_fails_is_counted_and_harms_no_other(
    town: Town, gold: Gold, engine: Any, says_gold: Say, tmp_path: Path, metrics_of: MetricsOf
) -> None:
    class Failing(engine):  # type: ignore[misc]
        async def complete(self, requests: Any) -> list[ChatAnswer]:
            answers = await super().complete(requests)
            return [ChatAnswer("", "error", error="refused"), *answers[1:]]

    split, targets = town
    evaluate_language_models(
        targets,
        {"f": Failing("f", says_gold)},
        tmp_path / "out",
        split=split,
        repeats=1,
        restaurants=False,
        free=0,
        resamples=100,
    )
    cells = metrics_of(tmp_path / "out")["metrics"]["f"]
    assert cells["failed"]["value"] == pytest.approx(1 / len(gold.examples))
    assert cells["task_score"]["value"] == pytest.approx(1 - 1 / len(gold.examples))


def test_an_engine_that_answers_nothing_or_too_little_is_an_error(
    town: Town, engine: Any, says_gold: Say, tmp_path: Path
) -> None:
    class Down(engine):  # type: ignore[misc]
        async def complete(self, requests: Any) -> list[ChatAnswer]:
            return [ChatAnswer("", "error", error="connection refused") for _ in requests]

    class Short(engine):  # type: ignore[misc]
        async def complete(self, requests: Any) -> list[ChatAnswer]:
            return (await super().complete(requests))[1:]

    split, targets = town
    for kind, match in ((Down, "connection refused"), (Short, "must answer each once")):
        with pytest.raises(EngineError, match=match):
            evaluate_language_models(
                targets, {"e": kind("e", says_gold)}, tmp_path / "out", split=split
            )

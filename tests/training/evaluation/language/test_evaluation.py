import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data.errors import ArtifactError, DataUnfitError, EngineError, MetricError, SettingsError
from data.manifest import read_manifest, write_labelled_reviews, write_manifest
from data.targets import build_targets
from serving.engines.chat import ChatAnswer, ChatRequest
from training.evaluation.intervals import draw_resamples
from training.evaluation.language.asking import in_turn
from training.evaluation.language.baselines import NULLS
from training.evaluation.language.evaluation import evaluate_language_models
from training.evaluation.language.figures import all_figures
from training.evaluation.language.gold import Gold
from training.evaluation.language.judge_endpoint import JudgeEndpoint
from training.evaluation.language.measuring import measured, values_of
from training.evaluation.language.predictions import read_predictions
from training.language_gate import LanguageGatePolicy, language_gate

Town = tuple[Path, Path]
Say = Callable[[ChatRequest], str]


def metrics_of(folder: Path) -> Any:
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def evaluated(
    town: Town,
    engine: Any,
    says_gold: Say,
    says_garbage: Say,
    says_empties: Say,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    split, targets = town
    out = tmp_path_factory.mktemp("evaluation") / "out"
    engines = {"gold": says_gold, "garbage": says_garbage, "skeleton": says_empties}
    evaluate_language_models(
        targets,
        {name: engine(name, say) for name, say in engines.items()},
        out,
        split=split,
        resamples=200,
    )
    return out


def test_the_folder_is_sealed_and_complete(evaluated: Path) -> None:
    manifest = read_manifest(evaluated, "language_evaluation")
    assert set(manifest.files) == {"predictions.jsonl", "metrics.json", "report.html", "report.md"}
    assert manifest.facts["models"] == ["gold", "garbage", "skeleton"]
    result = metrics_of(evaluated)
    assert set(result["metrics"]) == {"gold", "garbage", "skeleton", *NULLS}
    assert (result["bootstrap"]["unit"], result["bootstrap"]["units"]) == ("restaurant", 6)
    for cells in result["metrics"].values():
        assert set(cells) == set(all_figures())
        for cell in cells.values():
            assert (cell["value"] is None) <= bool(cell.get("reason"))
            assert cell["low"] is None or cell["low"] <= cell["high"]


def test_whoever_says_gold_is_best_in_everything(evaluated: Path) -> None:
    cells = metrics_of(evaluated)["metrics"]["gold"]
    figures = all_figures()
    examples = {"examples", "free", "labels", "aspect", "overall", "strengths", "routing"}
    for name, cell in cells.items():
        if figures[name].needs in examples and cell["value"] is not None and name != "latin":
            assert cell["value"] == pytest.approx(float(figures[name].better == "higher")), name
    assert cells["summary_evidence_verbatim"]["value"] == 1.0
    assert cells["summary_aspect_f1"]["value"] == 1.0


def test_garbage_says_nothing_and_drifts(evaluated: Path) -> None:
    cells = metrics_of(evaluated)["metrics"]["garbage"]
    for name in ("task_score", "parsed", "obeyed", "saved", "raw_parsed", "repaired_score"):
        assert cells[name]["value"] == 0.0, name
    assert cells["drift"]["value"] == 1.0
    assert cells["summary_answered"]["value"] == cells["summary_category_macro_f1"]["value"] == 0.0


def test_the_skeleton_obeys_where_the_schema_lets_it_and_scores_as_its_baseline(
    evaluated: Path,
) -> None:
    metrics = metrics_of(evaluated)["metrics"]
    assert metrics["skeleton"]["raw_parsed"]["value"] == 1.0
    for name in ("task_score", "category_macro_f1", "sentence_chrf", "obeyed"):
        assert metrics["skeleton"][name]["value"] == metrics["empty"][name]["value"]


def test_models_are_paired_with_the_best_null(evaluated: Path) -> None:
    result = metrics_of(evaluated)
    lead = result["over_nulls"]["gold"]["category_macro_f1"]
    nulls = {name: result["metrics"][name]["category_macro_f1"]["value"] for name in NULLS}
    best = max(value for value in nulls.values() if value is not None)
    assert nulls[lead["null"]] == best
    assert lead["difference"] == pytest.approx(1.0 - best)
    assert 0 < lead["low"] <= lead["difference"] <= lead["high"]
    assert result["over_nulls"]["garbage"]["category_macro_f1"]["high"] < 0
    assert set(result["over_nulls"]) == {"gold", "garbage", "skeleton"}


def test_what_was_not_asked_says_so_and_is_not_zero(evaluated: Path) -> None:
    result = metrics_of(evaluated)
    assert result["judge"] == {"asked": False, "reason": "not asked: no judge was given"}
    for name in ("judged", "perplexity"):
        cell = result["metrics"]["gold"][name]
        assert cell["value"] is None
        assert "not asked" in cell["reason"]
    assert "Judge: not asked" in (evaluated / "report.md").read_text(encoding="utf-8")


def test_predictions_are_what_the_figures_were_summed_from(evaluated: Path) -> None:
    result = metrics_of(evaluated)
    answered = {name: facts["answered"] for name, facts in result["models"].items()}
    items, tallies = read_predictions(evaluated / "predictions.jsonl", answered)
    drawn = draw_resamples([item.restaurant for item in items], resamples=200)
    for model in ("gold", "garbage", "other"):
        for name, figure in all_figures().items():
            cell = result["metrics"][model][name]
            if cell["value"] is not None:
                assert measured(figure, tallies[model], drawn).value == cell["value"], name


def test_predictions_of_other_items_are_refused(evaluated: Path, tmp_path: Path) -> None:
    lines = (evaluated / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    broken = tmp_path / "predictions.jsonl"
    broken.write_text("\n".join(lines[:1] + lines[2:]), encoding="utf-8")
    with pytest.raises(ArtifactError, match="other items"):
        read_predictions(broken, {"gold": ["labels"]})
    with pytest.raises(ArtifactError, match="no rows of"):
        read_predictions(broken, {"absent": ["labels"]})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.linked: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.linked += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_report_is_one_file_and_runs_nothing(
    town: Town, engine: Any, says_gold: Say, tmp_path: Path
) -> None:
    def say(request: ChatRequest) -> str:
        if "총평" in request.messages[-1]["content"]:
            return '{"overall":"<script>alert(1)</script> 맛있다"}'
        return says_gold(request)

    split, targets = town
    evaluate_language_models(
        targets, {"m": engine("m", say)}, tmp_path / "out", split=split, repeats=1, resamples=100
    )
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)" in text
    assert {"svg", "table"} <= set(page.tags)
    assert all(link.startswith("#") for link in page.linked)
    assert "category assignment" in text.lower()


def test_repeats_ask_in_another_order_and_what_varies_is_told(
    town: Town, gold: Gold, engine: Any, says_gold: Say, says_empties: Say, tmp_path: Path
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
    town: Town, engine: Any, says_gold: Say, tmp_path: Path
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
    town: Town, gold: Gold, engine: Any, says_gold: Say, tmp_path: Path
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
    town: Town, gold: Gold, engine: Any, says_gold: Say, tmp_path: Path
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


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"engines": {}}, SettingsError, "at least one engine"),
        ({"engines": {"other": None}}, SettingsError, "none of them"),
        ({"folders": {"b": Path("b")}}, SettingsError, r"without an engine \['b'\]"),
        ({"repeats": 0}, SettingsError, "at least once"),
        ({"folders": {"a": Path("nowhere")}}, ArtifactError, "nowhere"),
        ({"judge": JudgeEndpoint("http://j/v1", "j"), "restaurants": False}, SettingsError, "'j'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_asked(
    change: dict[str, Any],
    error: type[Exception],
    match: str,
    town: Town,
    engine: Any,
    says_gold: Say,
    tmp_path: Path,
) -> None:
    split, targets = town
    quiet = engine("a", says_gold)
    options: dict[str, Any] = {"engines": {"a": quiet}, "split": split} | change
    engines = options.pop("engines")
    with pytest.raises(error, match=match):
        evaluate_language_models(targets, engines, tmp_path / "out", **options)
    assert quiet.asked == []
    assert not (tmp_path / "out").exists()


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


def test_targets_of_another_split_are_refused(
    town: Town, engine: Any, says_gold: Say, tmp_path: Path
) -> None:
    _, targets = town
    other = tmp_path / "split"
    other.mkdir()
    for part in ("train", "validation", "test"):
        write_labelled_reviews(other / f"{part}.jsonl", [])
    write_manifest(other, "split", {"seed": 1, "snapshot_id": "other"})
    engines = {"e": engine("e", says_gold)}
    with pytest.raises(ArtifactError, match="built from split"):
        evaluate_language_models(targets, engines, tmp_path / "out", split=other)
    build_targets(other, None, tmp_path / "targets")
    with pytest.raises(DataUnfitError, match="no example"):
        evaluate_language_models(tmp_path / "targets", engines, tmp_path / "out", split=other)


def test_values_alone_are_those_of_the_evaluation(
    gold: Gold, evaluated: Path, says_empties: Say
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


def test_the_gate_reads_what_the_evaluation_wrote(evaluated: Path, tmp_path: Path) -> None:
    policy = LanguageGatePolicy(resamples=200, parent_margin=0.1, least_items=20)
    language_gate(evaluated, tmp_path / "g", policy=policy, candidate="skeleton", parent="gold")
    result = json.loads((tmp_path / "g" / "gate.json").read_text(encoding="utf-8"))
    cells = metrics_of(evaluated)["metrics"]
    lost = cells["skeleton"]["task_score"]["value"] - cells["gold"]["task_score"]["value"]
    assert result["checks"][0]["difference"] == lost
    assert result["recovery"]["value"] == cells["skeleton"]["task_score"]["value"]
    assert result["verdict"] == "fail"
    language_gate(evaluated, tmp_path / "h", policy=policy, candidate="gold")
    result = json.loads((tmp_path / "h" / "gate.json").read_text(encoding="utf-8"))
    assert result["verdict"] == "pass"
    assert result["recovery"] is None

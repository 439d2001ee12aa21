import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from data.contract import ASPECTS, Label, LabelledReview, Review
from data.errors import ArtifactError, GateError
from data.manifest import read_manifest, write_json, write_manifest
from serving.predictions import ProbabilityArrays
from training.evaluation.evaluation import Contestant, evaluate_contestants
from training.gate import GatePolicy, gate

NAMES = ("negative", "neutral", "positive")
COUNT = 600
POLICY = GatePolicy(resamples=800)


def reviews(count: int = COUNT, *, full: bool = True) -> list[LabelledReview]:
    rows = []
    for i in range(count):
        sentiment = NAMES[i % 3]
        label = Label(
            sentiment=sentiment,
            intensity=(-1, 0, 1)[i % 3] if full else None,
            emotions=(("anger",), (), ("joy",))[i % 3] if full else None,
            aspects={ASPECTS[(i // 3) % 6]: sentiment} if full else None,
            phenomena=("negation",) if i % 4 == 0 else (),
        )
        rows.append(LabelledReview(review=Review(review_id=f"r{i}", text="글" * 30), label=label))
    return rows


def answering(rows: Sequence[LabelledReview], wrong: Sequence[int] = ()) -> Contestant:
    """Right everywhere but on the rows given."""
    count = len(rows)
    said = np.asarray([NAMES.index(row.label.sentiment) for row in rows])
    said[list(wrong)] = (said[list(wrong)] + 1) % 3
    intensity = np.eye(5)[said + 1]
    aspects = np.zeros((count, 6, 5))
    aspects[:, :, 0] = 1.0
    for i, row in enumerate(rows):
        for name in row.label.aspects or {}:
            aspects[i, ASPECTS.index(name)] = np.eye(5)[said[i] + 1]
    emotions = np.full((count, 8), 0.1)
    emotions[said == 0, 6] = 0.9
    emotions[said == 2, 0] = 0.9
    arrays = ProbabilityArrays(
        sentiment=np.eye(3)[said] * 0.9 + 0.1 / 3,
        intensity=intensity,
        emotions=emotions,
        aspects=aspects,
    )
    return Contestant(predict=lambda _: arrays)


def some(share: float, *, seed: int = 0, count: int = COUNT) -> list[int]:
    generator = np.random.default_rng(seed)
    return generator.permutation(count)[: round(share * count)].tolist()


def evaluated(folder: Path, rows: list[LabelledReview], **wrong: Sequence[int]) -> Path:
    baselines: dict[str, Sequence[int]] = {
        "majority": [i for i in range(len(rows)) if i % 3],
        "lexicon": some(0.5, seed=7, count=len(rows)),
        "tfidf": some(0.3, seed=8, count=len(rows)),
    }
    contestants = {name: answering(rows, bad) for name, bad in (baselines | wrong).items()}
    evaluate_contestants(rows, contestants, folder, facts={}, resamples=100)
    return folder


def judge(evaluation: Path, out: Path, **options: object) -> dict:
    options = {"policy": POLICY, "candidate": "int8", "parent": "fp32"} | options
    manifest = gate(evaluation, out, **options)
    result = json.loads((out / "gate.json").read_text(encoding="utf-8"))
    assert manifest.facts["verdict"] == result["verdict"]
    assert read_manifest(out, "gate").digest == manifest.digest
    return result


def test_a_faithful_first_model_passes(tmp_path: Path) -> None:
    bad = some(0.1)
    evaluation = evaluated(tmp_path / "e", reviews(), fp32=bad, int8=[*bad[:-1], bad[-1]])
    result = judge(evaluation, tmp_path / "g")
    assert result["verdict"] == "pass"
    kinds = {check["kind"]: check for check in result["checks"]}
    assert kinds["parent"]["difference"] == 0.0
    assert kinds["parent"]["low"] < 0 < kinds["parent"]["high"]
    assert kinds["parent"]["margin"] == 0.02
    assert kinds["majority"]["verdict"] == kinds["lexicon"]["verdict"] == "pass"
    assert "is better than TF-IDF" in result["tfidf"]
    text = (tmp_path / "g" / "gate.md").read_text(encoding="utf-8")
    assert text.startswith("# Gate: pass")
    assert result["tfidf"] in text


def test_a_quantised_model_that_lost_quality_fails(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", reviews(), fp32=some(0.1), int8=some(0.25))
    result = judge(evaluation, tmp_path / "g")
    assert result["verdict"] == "fail"
    parent = result["checks"][0]
    assert parent["high"] < -0.02
    assert "int8 against fp32" in result["reason"]


def test_a_loss_near_the_margin_is_inconclusive(tmp_path: Path) -> None:
    bad = some(0.1)
    more = [i for i in some(0.3, seed=1) if i not in bad][:12]
    result = judge(evaluated(tmp_path / "e", reviews(), fp32=bad, int8=bad + more), tmp_path / "g")
    parent = result["checks"][0]
    assert parent["low"] < -0.02 < parent["high"]
    assert result["verdict"] == "inconclusive"
    assert "not enough evidence" in result["reason"]


def test_a_better_point_estimate_does_not_round_up_on_few_rows(tmp_path: Path) -> None:
    rows = reviews(60)
    bad = some(0.1, count=60)
    evaluation = evaluated(tmp_path / "e", rows, fp32=bad, int8=bad[1:])
    result = judge(evaluation, tmp_path / "g")
    assert result["checks"][0]["difference"] > 0
    assert result["checks"][0]["verdict"] == "inconclusive"
    assert result["verdict"] == "inconclusive"


def test_equal_answers_on_few_rows_prove_nothing(tmp_path: Path) -> None:
    rows = reviews(60)
    evaluation = evaluated(tmp_path / "e", rows, fp32=[], int8=[])
    result = judge(evaluation, tmp_path / "g")
    assert result["checks"][0]["difference"] == 0.0
    assert result["checks"][0]["low"] < -0.02
    assert result["verdict"] == "inconclusive"


def test_a_slice_proved_worse_fails_though_the_average_passes(tmp_path: Path) -> None:
    rows = reviews()
    negation = [i for i, row in enumerate(rows) if row.label.phenomena]
    others = [i for i in range(COUNT) if i not in set(negation)]
    evaluation = evaluated(
        tmp_path / "e", rows, champion=others[:90], int8=negation[:60], fp32=negation[:60]
    )
    result = judge(evaluation, tmp_path / "g", champion="champion")
    overall = next(check for check in result["checks"] if check["kind"] == "champion")
    assert overall["verdict"] == "pass"
    slice_ = next(
        part
        for part in result["slices"]
        if (part["name"], part["kind"]) == ("negation", "champion")
    )
    assert slice_["verdict"] == "fail"
    assert slice_["difference"] == pytest.approx(-0.4)
    assert slice_["p_holm"] >= slice_["p"]
    assert result["verdict"] == "fail"
    assert "negation" in result["reason"]


def test_swapped_labels_fail(tmp_path: Path) -> None:
    rows = reviews()
    right = answering(rows)
    chances = right.predict([]).sentiment[:, ::-1]
    swapped = Contestant(
        predict=lambda _: ProbabilityArrays(
            sentiment=chances,
            intensity=right.predict([]).intensity,
            emotions=right.predict([]).emotions,
            aspects=right.predict([]).aspects,
        )
    )
    contestants = {
        "fp32": right,
        "int8": swapped,
        "majority": answering(rows, some(0.6)),
        "lexicon": answering(rows, some(0.5)),
        "tfidf": answering(rows, some(0.3)),
    }
    evaluate_contestants(rows, contestants, tmp_path / "e", facts={}, resamples=100)
    assert judge(tmp_path / "e", tmp_path / "g")["verdict"] == "fail"


def test_slices_with_few_rows_are_listed_and_not_judged(tmp_path: Path) -> None:
    result = judge(evaluated(tmp_path / "e", reviews(), fp32=[], int8=[]), tmp_path / "g")
    parts = {part["name"]: part for part in result["slices"]}
    assert parts["sarcasm"]["verdict"] == "too_few"
    assert parts["sarcasm"]["n"] == 0
    assert parts["negation"]["verdict"] == "pass"
    assert parts["aspect_food"]["n"] == 102


def test_unlabelled_tasks_are_listed_and_do_not_block(tmp_path: Path) -> None:
    rows = reviews(full=False)
    result = judge(evaluated(tmp_path / "e", rows, fp32=[], int8=[]), tmp_path / "g")
    parts = {part["name"]: part for part in result["slices"]}
    assert parts["aspect_macro_f1"]["verdict"] == "too_few"
    assert result["verdict"] == "pass"


def test_the_first_model_must_beat_the_lexicon(tmp_path: Path) -> None:
    bad = some(0.5, seed=3)
    result = judge(evaluated(tmp_path / "e", reviews(), fp32=bad, int8=bad), tmp_path / "g")
    assert result["verdict"] in {"fail", "inconclusive"}
    assert next(c for c in result["checks"] if c["kind"] == "lexicon")["verdict"] != "pass"
    assert "TF-IDF with logistic regression is better than int8" in result["tfidf"]


def test_losing_to_tfidf_blocks_only_pretrained_models(tmp_path: Path) -> None:
    bad = some(0.4)
    evaluation = evaluated(tmp_path / "e", reviews(), fp32=bad, int8=bad)
    assert judge(evaluation, tmp_path / "a")["verdict"] == "pass"
    assert judge(evaluation, tmp_path / "b", pretrained=True)["verdict"] == "fail"


def test_tfidf_may_be_level(tmp_path: Path) -> None:
    bad = some(0.3, seed=5)
    result = judge(evaluated(tmp_path / "e", reviews(), fp32=bad, int8=bad), tmp_path / "g")
    assert "cannot be told apart" in result["tfidf"]


def test_a_figure_that_cannot_be_computed_fails(tmp_path: Path) -> None:
    rows = [
        LabelledReview(
            review=Review(review_id=f"r{i}", text="글"), label=Label(sentiment="neutral")
        )
        for i in range(60)
    ]
    result = judge(evaluated(tmp_path / "e", rows, fp32=[], int8=[]), tmp_path / "g")
    assert result["verdict"] == "fail"
    assert result["checks"][0]["difference"] is None
    assert "missing figure" in result["checks"][0]["reason"]


def test_missing_models_slices_and_figures_are_errors(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", reviews(60), fp32=[], int8=[])
    for options in (
        {"candidate": "int4"},
        {"parent": "bf16"},
        {"champion": "v3"},
        {"parent": "int8"},
        {"policy": GatePolicy(figure="bleu")},
        {"policy": GatePolicy(slices=("night_time",))},
        {"policy": GatePolicy(secondary=("rouge",))},
    ):
        with pytest.raises(GateError):
            judge(evaluation, tmp_path / "g", **options)
    assert not (tmp_path / "g" / "gate.json").exists()


def test_an_evaluation_without_its_slices_or_altered_is_refused(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", reviews(60), fp32=[], int8=[])
    metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    del metrics["slices"]["negation"]
    write_json(evaluation / "metrics.json", metrics)
    with pytest.raises(ArtifactError, match="altered"):
        judge(evaluation, tmp_path / "g")
    write_manifest(evaluation, "evaluation", {})
    with pytest.raises(GateError, match="negation"):
        judge(evaluation, tmp_path / "g")
    del metrics["metrics"]["fp32"]["three_class_macro_f1"]
    write_json(evaluation / "metrics.json", metrics)
    write_manifest(evaluation, "evaluation", {})
    with pytest.raises(GateError, match="three_class_macro_f1"):
        judge(evaluation, tmp_path / "g")


def test_the_policy_refuses_unknown_and_impossible_values() -> None:
    with pytest.raises(ValueError, match="parent_margin"):
        GatePolicy(parent_margin=0)
    with pytest.raises(ValueError, match="extra"):
        GatePolicy(marign=0.1)  # type: ignore[call-arg]

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data.contract import ASPECTS
from data.errors import ArtifactError, GateError
from data.manifest import read_manifest, write_json, write_manifest
from training.evaluation.language.baselines import NULLS
from training.language_gate import LanguageGatePolicy, language_gate

COUNT = 480
POLICY = LanguageGatePolicy(
    resamples=400,
    limits={"parsed": 1.0, "obeyed": 1.0, "drift": 0.05},
    secondary=("category_macro_f1", "clause_accuracy", "sentence_chrf"),
)
ANSWERED = ["examples", "labels", "aspect"]


def some(share: float, *, seed: int = 0, count: int = COUNT) -> set[int]:
    return set(np.random.default_rng(seed).permutation(count)[: round(share * count)].tolist())


def parts_of(number: int, *, right: bool) -> dict[str, list[float]]:
    """A review of one clause; every fourth item is an aspect's summary instead."""
    good = float(right)
    form = {"parsed": [1.0, 1.0], "obeyed": [1.0, 1.0], "drift": [0.0, 20.0], "score": [good, 1.0]}
    if number % 4 == 3:
        return form | {"sentence_chrf": [0.2 + 0.7 * good, 1.0]}
    aspect, other = ASPECTS[number % 6], ASPECTS[(number + 1) % 6]
    pairs: dict[str, list[float]] = {f"category:{aspect}": [good, 0.0, 1.0 - good]}
    if not right:
        pairs[f"category:{other}"] = [0.0, 1.0, 0.0]
    return form | pairs | {"clause": [good, 1.0]}


def evaluated(
    folder: Path, *, count: int = COUNT, towns: int = 30, change: Any = None, **wrong: set[int]
) -> Path:
    """An evaluation's folder in which each contestant is wrong on the items given."""
    folder.mkdir()
    everyone = {null: some(0.8, seed=index, count=count) for index, null in enumerate(NULLS)}
    rows = []
    for model, bad in (wrong | everyone).items():
        for number in range(count):
            parts = parts_of(number, right=number not in bad)
            if change is not None:
                parts = change(model, number, parts)
            row = {"model": model, "repeat": 0, "about": f"r{number}", "aspect": None}
            row |= {
                "kind": "aspect" if number % 4 == 3 else "labels",
                "restaurant": f"s{number % towns}",
            }
            rows.append(json.dumps(row | {"parts": parts}))
    (folder / "predictions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    answered = {name: {"answered": ANSWERED} for name in (*wrong, *NULLS)}
    write_json(folder / "metrics.json", {"models": answered})
    write_manifest(folder, "language_evaluation", {"models": list(wrong)})
    return folder


def judge(evaluation: Path, out: Path, **options: Any) -> dict[str, Any]:
    options = {"policy": POLICY, "candidate": "int8", "parent": "merged"} | options
    manifest = language_gate(evaluation, out, **options)
    result: dict[str, Any] = json.loads((out / "gate.json").read_text(encoding="utf-8"))
    assert manifest.facts["verdict"] == result["verdict"]
    assert read_manifest(out, "gate").digest == manifest.digest
    return result


def row(result: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in result["checks"] if each["kind"] == kind)
    return found


def test_a_candidate_like_its_parent_passes(tmp_path: Path) -> None:
    bad = some(0.1, seed=9)
    evaluation = evaluated(tmp_path / "e", int8=bad, merged=bad)
    result = judge(evaluation, tmp_path / "g")
    assert result["verdict"] == "pass"
    assert result["recovery"]["value"] == 1.0
    # Equal answers still leave room for what was not seen.
    assert 0.98 < result["recovery"]["low"] < 1.0 < result["recovery"]["high"] < 1.02
    assert result["evaluation"] == read_manifest(evaluation).digest


def test_recovery_is_candidate_over_parent_and_never_rounded(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", int8=some(0.1, seed=9), merged=some(0.05, seed=8))
    result = judge(evaluation, tmp_path / "g")
    assert result["recovery"]["value"] == pytest.approx(432 / 456, abs=1e-12)
    text = (tmp_path / "g" / "gate.md").read_text(encoding="utf-8")
    assert repr(result["recovery"]["value"]) in text
    assert repr(result["recovery"]["low"]) in text
    assert repr(result["recovery"]["high"]) in text
    assert read_manifest(tmp_path / "g").facts["recovery"] == result["recovery"]


def test_a_candidate_far_below_its_parent_fails(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", int8=some(0.3, seed=9), merged=some(0.05, seed=8))
    result = judge(evaluation, tmp_path / "g")
    assert result["verdict"] == "fail"
    assert row(result, "parent")["high"] < -POLICY.parent_margin
    assert "task_score: int8 against merged" in result["reason"]


def test_in_between_is_inconclusive(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", int8=some(0.12, seed=9), merged=some(0.1, seed=8))
    result = judge(evaluation, tmp_path / "g")
    assert result["verdict"] == "inconclusive"
    assert row(result, "parent")["low"] < -POLICY.parent_margin < row(result, "parent")["high"]


def test_few_equal_answers_do_not_prove_it(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", count=60, int8=set(), merged=set())
    result = judge(evaluation, tmp_path / "g")
    assert row(result, "parent")["difference"] == 0.0
    assert row(result, "parent")["low"] < -POLICY.parent_margin
    assert result["verdict"] == "inconclusive"
    generous = POLICY.model_copy(update={"parent_margin": 0.2, "least_items": 61})
    result = judge(evaluation, tmp_path / "h", policy=generous)
    assert row(result, "parent")["reason"] == "60 items, the policy asks for 61"
    assert row(result, "parent")["verdict"] == "inconclusive"


def test_a_parent_that_learnt_nothing_leaves_nothing_to_recover(tmp_path: Path) -> None:
    lost = some(0.8, seed=0)
    result = judge(evaluated(tmp_path / "e", int8=lost, merged=lost), tmp_path / "g")
    assert row(result, "parent")["verdict"] == "pass"
    assert row(result, "parent over null")["verdict"] != "pass"
    assert result["verdict"] != "pass"


def test_a_parent_without_a_score_is_named(tmp_path: Path) -> None:
    everything = set(range(COUNT))
    result = judge(evaluated(tmp_path / "e", int8=everything, merged=everything), tmp_path / "g")
    assert result["verdict"] == "fail"
    assert result["recovery"] is None
    assert "recover is 0.0" in row(result, "parent")["reason"]


def test_a_first_model_must_beat_every_null_and_a_later_one_the_champion(tmp_path: Path) -> None:
    evaluation = evaluated(
        tmp_path / "e", int8=some(0.5, seed=9), merged=some(0.5, seed=9), now=some(0.05, seed=7)
    )
    first = judge(evaluation, tmp_path / "first")
    assert first["verdict"] == "pass"
    assert {each["name"] for each in first["checks"] if each["kind"] == "null"} == {
        f"category_macro_f1: int8 against {null}" for null in NULLS
    }
    later = judge(evaluation, tmp_path / "later", champion="now")
    assert later["verdict"] == "fail"
    assert row(later, "champion")["verdict"] == "fail"
    assert later["margin"] == POLICY.champion_margin
    assert not row(later, "null")["required"]


def test_a_form_that_is_not_always_obeyed_fails(tmp_path: Path) -> None:
    def once(model: str, number: int, parts: dict[str, Any]) -> dict[str, Any]:
        return parts | {"obeyed": [0.0, 1.0]} if (model, number) == ("int8", 7) else parts

    evaluation = evaluated(tmp_path / "e", change=once, int8=set(), merged=set())
    result = judge(evaluation, tmp_path / "g")
    assert result["verdict"] == "fail"
    assert result["reason"] == "failed: limit of obeyed"


def test_drift_beyond_its_limit_fails(tmp_path: Path) -> None:
    def foreign(model: str, number: int, parts: dict[str, Any]) -> dict[str, Any]:
        return parts | {"drift": [2.0, 20.0]} if model == "int8" else parts

    evaluation = evaluated(tmp_path / "e", change=foreign, int8=set(), merged=set())
    assert judge(evaluation, tmp_path / "g")["reason"] == "failed: limit of drift"


def test_a_second_figure_proved_worse_fails(tmp_path: Path) -> None:
    def mute(model: str, number: int, parts: dict[str, Any]) -> dict[str, Any]:
        silent = model == "int8" and "sentence_chrf" in parts
        return parts | {"sentence_chrf": [0.1, 1.0]} if silent else parts

    # As few restaurants and as many second figures as the gold corpus and the policy have.
    evaluation = evaluated(tmp_path / "e", change=mute, towns=13, int8=set(), merged=set())
    policy = LanguageGatePolicy(
        limits={"parsed": 1.0},
        secondary=(
            *("category_macro_f1", "clause_accuracy", "sentence_chrf"),
            *(f"category_f1_{aspect}" for aspect in ("food", "price", "access")),
        ),
    )
    assert len(policy.secondary) == len(LanguageGatePolicy().secondary)
    result = judge(evaluation, tmp_path / "g", policy=policy)
    assert result["reason"] == "failed: sentence_chrf (against parent)"
    second = {each["name"]: each for each in result["secondary"]}
    assert second["sentence_chrf"]["p_holm"] < POLICY.alpha / 2
    assert second["sentence_chrf"]["recovery"]["value"] == pytest.approx(0.1 / 0.9)
    assert second["clause_accuracy"]["verdict"] == "pass"


def test_a_figure_that_only_the_parent_has_fails_and_one_that_neither_has_is_not_judged(
    tmp_path: Path,
) -> None:
    evaluation = evaluated(tmp_path / "e", int8=set(), merged=set())
    metrics = json.loads((evaluation / "metrics.json").read_text(encoding="utf-8"))
    metrics["models"]["int8"]["answered"] = ["examples", "labels"]
    write_json(evaluation / "metrics.json", metrics)
    write_manifest(evaluation, "language_evaluation", {})
    policy = POLICY.model_copy(update={"secondary": ("sentence_chrf", "summary_overall_chrf")})
    result = judge(evaluation, tmp_path / "g", policy=policy)
    assert [each["verdict"] for each in result["secondary"]] == ["fail", "too_few"]
    assert result["reason"] == "failed: sentence_chrf (against parent)"


def test_a_limit_on_a_figure_that_was_not_asked_fails(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", int8=set(), merged=set())
    policy = POLICY.model_copy(update={"limits": {"summary_evidence_verbatim": 1.0}})
    result = judge(evaluation, tmp_path / "g", policy=policy)
    assert result["verdict"] == "fail"
    assert "not asked" in result["limits"][0]["reason"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"candidate": "absent"}, r"lacks \['absent'\]"),
        ({"parent": "int8"}, "with itself"),
        ({"candidate": "majority"}, "null baseline"),
        ({"policy": LanguageGatePolicy(figure="bleu")}, r"\['bleu'\]"),
    ],
)
def test_what_cannot_be_judged_is_refused(
    options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    evaluation = evaluated(tmp_path / "e", count=12, int8=set(), merged=set())
    with pytest.raises(GateError, match=match):
        judge(evaluation, tmp_path / "g", **options)
    assert not (tmp_path / "g").exists()


def test_an_evaluation_that_was_altered_is_refused(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", count=12, int8=set(), merged=set())
    with (evaluation / "predictions.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(ArtifactError):
        judge(evaluation, tmp_path / "g")


@pytest.mark.parametrize("margin", [0.0, 1.0, -0.1])
def test_a_margin_is_between_nothing_and_all(margin: float) -> None:
    with pytest.raises(ValueError, match="parent_margin"):
        LanguageGatePolicy(parent_margin=margin)


def names(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in rows]


def test_the_report_names_every_comparison(tmp_path: Path) -> None:
    evaluation = evaluated(tmp_path / "e", int8=some(0.1), merged=some(0.1), now=some(0.1))
    result = judge(evaluation, tmp_path / "g", champion="now")
    text = (tmp_path / "g" / "gate.md").read_text(encoding="utf-8")
    for each in names(result["checks"]) + names(result["limits"]) + names(result["secondary"]):
        assert f"| {each} |" in text

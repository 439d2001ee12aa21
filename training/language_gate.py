"""The language gate: may this language model go on? Paired on the same items, never rounded up.

In: a language evaluation's folder. Out: a folder of kind "gate" with gate.json and gate.md.

    against its parent      quantisation may cost at most the margin (non-inferiority)
    the parent itself       must beat every null baseline, or there is nothing to recover
    against the champion    a candidate may be worse by at most the margin (non-inferiority)
    without a champion      it must beat every null baseline (superiority)
    limits                  decoding under the schema obeys it always; the words stay Korean
    second figures          none may be proved worse beyond its margin (Holm's correction)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from data.errors import GateError
from data.manifest import (
    Manifest,
    read_manifest,
    start_artifact,
    write_json,
    write_manifest,
    write_text_atomically,
)
from training.evaluation.comparisons import Verdict, corrected
from training.evaluation.intervals import draw_resamples
from training.evaluation.language.baselines import NULLS
from training.evaluation.language.comparisons import (
    Evidence,
    Kind,
    LanguageGatePolicy,
    check,
    limit_check,
    secondary_check,
)
from training.evaluation.language.evaluation import LANGUAGE_EVALUATION_KIND, METRICS_NAME
from training.evaluation.language.figures import all_figures
from training.evaluation.language.gate_report import render_gate
from training.evaluation.language.predictions import read_predictions
from training.evaluation.predictions import PREDICTIONS_NAME
from training.gate import GATE_KIND

__all__ = ["LanguageGatePolicy", "language_gate"]


def language_gate(
    evaluation: Path,
    out: Path,
    *,
    policy: LanguageGatePolicy,
    candidate: str,
    parent: str | None = None,
    champion: str | None = None,
) -> Manifest:
    """Judge a candidate from an evaluation, and write gate.json and gate.md.

    Args:
        evaluation: folder of kind "language_evaluation" that holds every model named here.
        out: folder to write, of kind "gate".
        policy: margins, limits and error rates.
        candidate: the model that wants to serve.
        parent: the model it was quantised from; None for one that has none.
        champion: the model that serves now; None for the first model.

    Raises:
        GateError: a model is missing from the evaluation, a name is used twice, or the policy
            names a figure that there is not.
        ArtifactError: the evaluation is missing or altered.
    """
    others = _others(policy, candidate, parent, champion)
    names = [candidate, *(name for _, name, _ in others)]
    evidence, manifest, unit = _read(evaluation, policy, names)
    checks = [
        check(evidence, policy.figure, kind, candidate, name, margin) | {"required": True}
        for kind, name, margin in others
    ]
    recovered = checks[0]["recovery"] if parent is not None else None
    checks += _null_checks(evidence, candidate, parent, champion)
    second: list[dict[str, Any]] = []
    for kind, name, _ in others:
        rows = [secondary_check(evidence, f, kind, candidate, name) for f in policy.secondary]
        second += corrected(rows, policy.alpha)
    limits = [limit_check(evidence, *each, candidate) for each in policy.limits.items()]
    verdict = _verdict(checks, limits, second)
    result = {
        "verdict": verdict,
        "reason": _reason(verdict, checks, limits, second),
        "margin": policy.parent_margin if champion is None else policy.champion_margin,
        "candidate": candidate,
        "parent": parent,
        "champion": champion,
        "recovery": recovered,
        "checks": checks,
        "limits": limits,
        "secondary": second,
        "policy": policy.model_dump(mode="json"),
        "evaluation": manifest.digest,
        "unit": unit,
    }
    return _write(out, result)


def _others(
    policy: LanguageGatePolicy, candidate: str, parent: str | None, champion: str | None
) -> list[tuple[Kind, str, float]]:
    """Whom the candidate is held against, the parent first, each with its margin."""
    others: list[tuple[Kind, str, float]] = []
    if parent is not None:
        others.append(("parent", parent, policy.parent_margin))
    if champion is not None:
        others.append(("champion", champion, policy.champion_margin))
    if candidate in [name for _, name, _ in others] or candidate in NULLS:
        raise GateError(
            f"{candidate!r} cannot be compared with itself, nor stand for a null baseline; name "
            "the candidate, its parent and the champion apart"
        )
    return others


def _write(out: Path, result: Mapping[str, Any]) -> Manifest:
    start_artifact(out)
    write_json(out / "gate.json", result)
    write_text_atomically(out / "gate.md", render_gate(result))
    told = ("verdict", "reason", "margin", "candidate", "evaluation", "recovery")
    return write_manifest(out, GATE_KIND, {key: result[key] for key in told})


def _read(
    evaluation: Path, policy: LanguageGatePolicy, needed: Sequence[str]
) -> tuple[Evidence, Manifest, str]:
    manifest = read_manifest(evaluation, LANGUAGE_EVALUATION_KIND)
    metrics = orjson.loads((evaluation / METRICS_NAME).read_bytes())
    models = metrics["models"]
    missing = sorted(set(needed) - set(models))
    if missing:
        raise GateError(
            f"the evaluation {str(evaluation)!r} lacks {missing!r}, it holds {sorted(models)!r}; "
            "evaluate them on the same part first"
        )
    named = {policy.figure, policy.null_figure, *policy.secondary, *policy.limits}
    unknown = sorted(named - set(all_figures()))
    if unknown:
        raise GateError(
            f"the policy names {unknown!r}, which no evaluation has; correct the policy"
        )
    answered = {name: facts["answered"] for name, facts in models.items()}
    items, tallies = read_predictions(evaluation / PREDICTIONS_NAME, answered)
    drawn = draw_resamples(
        [item.restaurant for item in items], resamples=policy.resamples, seed=policy.seed
    )
    unit = "restaurant" if drawn.unit == "restaurant" else "item"
    return Evidence(tallies, drawn, policy), manifest, unit


def _null_checks(
    evidence: Evidence, candidate: str, parent: str | None, champion: str | None
) -> list[dict[str, Any]]:
    """Superiority over every null baseline that answers what the figure needs."""
    name = evidence.policy.null_figure
    needs = all_figures()[name].needs
    nulls = [null for null in NULLS if needs in evidence.tallies[null].answered]
    rows = [
        check(evidence, name, "null", candidate, null, 0.0) | {"required": champion is None}
        for null in nulls
    ]
    if parent is None:
        return rows
    return rows + [
        check(evidence, name, "parent over null", parent, null, 0.0) | {"required": True}
        for null in nulls
    ]


def _verdict(
    checks: Sequence[Mapping[str, Any]],
    limits: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
) -> Verdict:
    verdicts = [row["verdict"] for row in checks if row["required"]]
    others = [row["verdict"] for row in (*limits, *second)]
    if not verdicts or "fail" in verdicts or "fail" in others:
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts else "pass"


def _reason(
    verdict: Verdict,
    checks: Sequence[Mapping[str, Any]],
    limits: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
) -> str:
    if verdict == "pass":
        return "every required check passed, and no second figure is proved worse beyond its margin"
    found = [row["name"] for row in checks if row["required"] and row["verdict"] == verdict]
    if verdict == "inconclusive":
        return "not enough evidence to say pass or fail: " + "; ".join(found)
    found += [f"limit of {row['name']}" for row in limits if row["verdict"] == "fail"]
    found += [
        f"{row['name']} (against {row['kind']})" for row in second if row["verdict"] == "fail"
    ]
    return "failed: " + ("; ".join(found) or "nothing was compared")

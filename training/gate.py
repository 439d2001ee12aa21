"""The gate: may this model go on? Paired comparisons on the same reviews, never rounded up.

In: an evaluation folder. Out: a folder of kind "gate" with gate.json and gate.md.

    against its parent      quantisation may cost at most the margin (non-inferiority)
    against the champion    a candidate may be worse by at most the margin (non-inferiority)
    without a champion      it must beat majority and lexicon (superiority)
    TF-IDF                  stands beside it; with pretrained weights it must beat that too
    slices, second figures  none may be proved worse beyond its margin (Holm's correction)

An interval of paired resamples says pass, fail or inconclusive. Where two models hardly disagree
the bootstrap has nothing to vary, so the interval is never narrower than Agresti and Min's for
paired proportions (Statistics in Medicine 24, 2005): 40 equal answers do not prove that fewer than
2% differ.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from data.errors import GateError
from data.manifest import (
    MANIFEST_NAME,
    Manifest,
    read_manifest,
    write_json,
    write_manifest,
    write_text_atomically,
)
from training.evaluation.comparisons import (
    Evidence,
    GatePolicy,
    Kind,
    Verdict,
    check,
    corrected,
    secondary_check,
    slice_check,
)
from training.evaluation.evaluation import EVALUATION_KIND, METRICS_NAME
from training.evaluation.figures import all_figures
from training.evaluation.gate_report import render_gate
from training.evaluation.intervals import draw_resamples
from training.evaluation.predictions import PREDICTIONS_NAME, read_predictions
from training.evaluation.slices import slices_of

__all__ = ["GATE_KIND", "GatePolicy", "Verdict", "gate"]

GATE_KIND: Final = "gate"


def _read(evaluation: Path, policy: GatePolicy, needed: Sequence[str]) -> tuple[Evidence, Manifest]:
    manifest = read_manifest(evaluation, EVALUATION_KIND)
    metrics = orjson.loads((evaluation / METRICS_NAME).read_bytes())
    gold, answers = read_predictions(evaluation / PREDICTIONS_NAME, metrics["models"])
    missing = sorted(set(needed) - set(answers))
    if missing:
        raise GateError(
            f"the evaluation {str(evaluation)!r} lacks {missing!r}, it holds {sorted(answers)!r}; "
            "evaluate them on the same part first"
        )
    figures = {policy.figure, *policy.secondary}
    held = [set(metrics["metrics"].get(model, ())) for model in needed]
    unknown = sorted(figures - set(all_figures()).intersection(*held))
    unknown += sorted(set(policy.slices) - set(metrics["slices"]))
    if unknown:
        raise GateError(
            f"the policy names {unknown!r}, which no evaluation has; correct the policy"
        )
    resamples = draw_resamples(gold.restaurants, resamples=policy.resamples, seed=policy.seed)
    return Evidence(
        gold=gold,
        answers=answers,
        values=metrics["metrics"],
        resamples=resamples,
        policy=policy,
    ), manifest


def _verdict(checks: Sequence[Mapping[str, Any]], parts: Sequence[Mapping[str, Any]]) -> Verdict:
    verdicts = [row["verdict"] for row in checks if row["required"]]
    if not verdicts or "fail" in verdicts or any(part["verdict"] == "fail" for part in parts):
        return "fail"
    return "inconclusive" if "inconclusive" in verdicts else "pass"


def _tfidf_sentence(row: Mapping[str, Any], candidate: str) -> str:
    if row["low"] is None:
        return f"{candidate} and TF-IDF cannot be compared: {row.get('reason', 'no figure')}."
    span = f"difference {row['difference']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    if row["low"] > 0:
        return f"{candidate} is better than TF-IDF with logistic regression ({span})."
    if row["high"] < 0:
        return f"TF-IDF with logistic regression is better than {candidate} ({span})."
    return f"{candidate} and TF-IDF with logistic regression cannot be told apart ({span})."


def _reason(verdict: Verdict, checks: Sequence[Mapping[str, Any]], parts: Any) -> str:
    wanted = "fail" if verdict == "fail" else "inconclusive"
    found = [row["name"] for row in checks if row["required"] and row["verdict"] == wanted]
    if verdict == "pass":
        return "every required check passed, and no slice is proved worse beyond its margin"
    if verdict == "fail":
        found += [f"{p['name']} (against {p['kind']})" for p in parts if p["verdict"] == "fail"]
        return "failed: " + "; ".join(found)
    return "not enough evidence to say pass or fail: " + "; ".join(found)


def gate(
    evaluation: Path,
    out: Path,
    *,
    policy: GatePolicy,
    candidate: str,
    parent: str | None = None,
    champion: str | None = None,
    pretrained: bool = False,
) -> Manifest:
    """Judge a candidate from an evaluation, and write gate.json and gate.md.

    Args:
        evaluation: folder of kind "evaluation" that holds every model named here.
        out: folder to write, of kind "gate".
        policy: margins and error rates.
        candidate: the model that wants to serve.
        parent: the model it was quantised or exported from; None for one that has none.
        champion: the model that serves now; None for the first model.
        pretrained: whether real pretrained weights stand behind it; it must then beat TF-IDF.

    Raises:
        GateError: a model or slice is missing from the evaluation, or a name is used twice.
        ArtifactError: the evaluation is missing or altered.
    """
    others: list[tuple[Kind, str, float, bool]] = []
    if parent is not None:
        others.append(("parent", parent, policy.parent_margin, True))
    if champion is not None:
        others.append(("champion", champion, policy.champion_margin, True))
    others += [
        ("majority", "majority", 0.0, champion is None),
        ("lexicon", "lexicon", 0.0, champion is None),
        ("tfidf", "tfidf", 0.0, pretrained),
    ]
    if candidate in [name for _, name, _, _ in others]:
        raise GateError(f"{candidate!r} cannot be compared with itself; name another parent")
    evidence, manifest = _read(evaluation, policy, [candidate, *(name for _, name, _, _ in others)])
    checks = [
        check(evidence, kind, candidate, name, margin) | {"required": required}
        for kind, name, margin, required in others
    ]
    wanted = [part for part in slices_of(evidence.gold) if part.name in policy.slices]
    parts: list[dict[str, Any]] = []
    for kind, name, _, _ in others[: (parent is not None) + (champion is not None)]:
        rows = [slice_check(evidence, part, kind, candidate, name) for part in wanted]
        rows += [secondary_check(evidence, f, kind, candidate, name) for f in policy.secondary]
        parts += corrected(rows, policy.alpha)
    verdict = _verdict(checks, parts)
    result = {
        "verdict": verdict,
        "reason": _reason(verdict, checks, parts),
        "margin": policy.parent_margin if champion is None else policy.champion_margin,
        "candidate": candidate,
        "parent": parent,
        "champion": champion,
        "pretrained": pretrained,
        "tfidf": _tfidf_sentence(checks[-1], candidate),
        "checks": checks,
        "slices": parts,
        "policy": policy.model_dump(mode="json"),
        "evaluation": manifest.digest,
        "unit": evidence.resamples.unit,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    write_json(out / "gate.json", result)
    write_text_atomically(out / "gate.md", render_gate(result))
    facts = {key: result[key] for key in ("verdict", "reason", "margin", "candidate", "evaluation")}
    return write_manifest(out, GATE_KIND, facts)

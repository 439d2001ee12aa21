"""The A/B comparison as a step: what was served and fed back, to a verdict with its evidence.

In: a deployment, the store of exposures and outcomes, a rule that was agreed before. Out: a folder
of kind "comparison" with verdict.json and report.html.
"""

import time
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from data.manifest import Manifest, write_manifest, write_text_atomically
from data.settings import parse_settings
from serving.deployment import Deployment, read_deployment
from serving.experiments.decision_rule import METRIC_WORDS, DecisionRule
from serving.experiments.store import ExperimentStore
from serving.experiments.verdict import Verdict, decide
from training.evaluation.plots import sequence_svg

COMPARISON_KIND: Final = "comparison"

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Champion and challenger: {{ v.decision }}</title>
<style>
body{font:16px/1.5 system-ui,sans-serif;color:#1f2933;max-width:52rem;margin:2rem auto;
padding:0 1rem}table{border-collapse:collapse;width:100%}
td,th{padding:.35rem .6rem;border-bottom:1px solid #d9e2ec;text-align:right}
td:first-child,th:first-child{text-align:left}.verdict{padding:1rem;border-radius:8px;
background:{{ colour }}}svg{max-width:100%;height:auto}p.note{color:#52606d}
</style></head><body>
<h1>Champion and challenger</h1>
<div class="verdict"><strong>{{ v.decision.replace("_", " ") }}</strong>: {{ v.reason }}</div>
<p class="note">Where the answers went: {{ traffic }}. Metric: {{ metric }}; a loss of up to
{{ v.margin }} is accepted. The interval holds at every moment, so it may be looked at as often as
one likes (asymptotic confidence sequence, arXiv 2103.06476).</p>
{{ plot }}
<table><tr><th>arm</th><th>version</th><th>share</th><th>exposures</th><th>outcomes</th>
<th>{{ metric }}</th></tr>
{% for arm in arms %}<tr><td>{{ arm.name }}</td><td>{{ arm.model_name }} v{{ arm.version }}</td>
<td>{{ arm.share }}</td><td>{{ v.exposures.get(arm.name, 0) }}</td>
<td>{{ v.outcomes.get(arm.name, 0) }}</td>
<td>{% set m = v.means.get(arm.name) %}{{ "–" if m is none else "%.4f"|format(m) }}</td></tr>
{% endfor %}</table>
<p>Difference {{ number(v.difference) }}, interval {{ number(v.low) }} to {{ number(v.high) }};
sample-ratio p = {{ number(v.srm_p) }}.</p>
</body></html>
"""
_COLOURS: Final = {"promote": "#e3f9e5", "roll_back": "#ffe3e3", "invalid": "#ffe3e3"}


def _report(verdict: Verdict, deployment: Deployment, traffic: str) -> str:
    points = [(point.n, point.estimate, point.low, point.high) for point in verdict.sequence]

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:+.4f}"

    return (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            v=verdict,
            arms=deployment.arms,
            traffic=traffic,
            metric=METRIC_WORDS[verdict.rule.metric],
            colour=_COLOURS.get(verdict.decision, "#f0f4f8"),
            # Our own SVG: numbers and fixed words, no text from users.
            plot=Markup(sequence_svg(points, margin=verdict.margin) if points else ""),  # noqa: S704
            number=number,
        )
    )


def compare_arms(
    deployment: Path, *, store_url: str, rule: str, traffic: str, out: Path
) -> Manifest:
    """Judge a deployment by what its store holds, and write the verdict with its report.

    Args:
        deployment: folder of kind "deployment".
        store_url: the store that the gateway wrote to.
        rule: YAML text of a ``DecisionRule``.
        traffic: where the traffic came from, in words that the report repeats.
        out: folder for the comparison.

    Raises:
        ArtifactError: the deployment is missing or altered.
        ExperimentError: the store cannot be read.
        SettingsError: the rule is wrong.
    """
    deployed = read_deployment(deployment / "deployment.json")
    agreed = parse_settings(DecisionRule, rule, where="the decision rule")
    store = ExperimentStore(store_url)
    try:
        data = store.exposures_with_outcomes(
            deployed.experiment_id,
            deployed.deployment_id,
            window_days=agreed.attribution_days,
            settling_days=agreed.settling_days,
            closed_by_us=time.time_ns() // 1_000 if agreed.closed_windows_only else None,
        )
    finally:
        store.close()
    verdict = decide(data, deployed, agreed)
    out.mkdir(parents=True, exist_ok=True)
    write_text_atomically(out / "verdict.json", verdict.model_dump_json(indent=2) + "\n")
    write_text_atomically(out / "report.html", _report(verdict, deployed, traffic))
    return write_manifest(out, COMPARISON_KIND, comparison_facts(verdict, traffic))


def comparison_facts(verdict: Verdict, traffic: str) -> dict[str, Any]:
    """What the manifest and the summary say of a verdict."""
    return {
        "decision": verdict.decision,
        "reason": verdict.reason,
        "deployment_id": verdict.deployment_id,
        "exposures": verdict.exposures,
        "outcomes": verdict.outcomes,
        "srm_p": verdict.srm_p,
        "difference": verdict.difference,
        "low": verdict.low,
        "high": verdict.high,
        "margin": verdict.margin,
        "traffic": traffic,
    }

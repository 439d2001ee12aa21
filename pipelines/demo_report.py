"""The demonstration's report: one HTML file with plots, that opens anywhere."""

import json
from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from data.manifest import read_manifest
from pipelines.language_report import render_language
from pipelines.local import RunRecord
from training.evaluation.plots import confusion_svg, curve_svg, forest_svg, sequence_svg
from training.evaluation.report_template import STYLE

_FIGURES: Final = {
    "three_class_macro_f1": "sentiment, macro-F1 ↑",
    "two_class_accuracy": "negative against positive, accuracy ↑",
    "sentiment_ece": "sentiment, calibration error ↓",
    "intensity_mae": "intensity, mean absolute error ↓",
    "emotions_auroc": "emotions, AUROC ↑",
    "emotions_macro_f1": "emotions, macro-F1 ↑",
    "aspect_macro_f1": "aspects mentioned, macro-F1 ↑",
}

_ORDER: Final = ("candidate", "parent", "champion", "tfidf", "lexicon", "majority")

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>matjip: from labels to a verdict</title><style>{{ style }}
.verdict{padding:.8rem 1rem;border-radius:10px;background:#f0f4f8;margin:.6rem 0}
.promote,.pass{background:#e3f9e5}.roll_back,.fail,.invalid{background:#ffe3e3}
</style></head><body>
<h1>matjip: from labels to a verdict</h1>
<p class="note">Run {{ s.run_id }} · evidence {{ s.evidence_id[:12] }} · {{ s.wall_s }} s ·
labels {{ s.snapshot.id[:12] }}</p>
<div class="verdict {{ s.verdict.decision }}"><strong>Verdict:
{{ s.verdict.decision.replace("_", " ") }}.</strong> {{ s.verdict.reason }}</div>
<div class="verdict {{ s.gate.verdict }}"><strong>Gate: {{ s.gate.verdict }}.</strong>
{{ s.gate.reason }}. {{ s.gate.tfidf }}</div>
<h2>Labels</h2>
<p>{{ s.snapshot.rows_in }} rows in = {{ s.snapshot.accepted }} accepted +
{{ s.snapshot.quarantined }} quarantined, of {{ s.snapshot.restaurants }} restaurants. Agreement of
two annotators (Krippendorff's alpha):
{% for task, alpha in s.snapshot.agreement.items() %}{{ task }}
{{ "–" if alpha is none else "%.3f"|format(alpha) }}{{ ", " if not loop.last }}{% endfor %}.</p>
<p class="note">The gold corpus was composed for this project with the help of a language model;
its texts are not diners' reviews, its restaurants do not exist.</p>
<h2>Models, beside the baselines, on held-out restaurants</h2>
<div class="scroll"><table><thead><tr><th>figure</th>{% for m in names %}<th>{{ m }}</th>
{% endfor %}</tr></thead><tbody>
{% for key, title in figures.items() %}<tr><td>{{ title }}</td>{% for m in names %}
<td class="figure">{% set f = metrics[m][key] %}{% if f.value is none %}–{% else %}
{{ "%.3f"|format(f.value) }}<span class="interval">{{ "%.3f"|format(f.low) }} …
{{ "%.3f"|format(f.high) }}</span>{% endif %}</td>{% endfor %}</tr>{% endfor %}
</tbody></table></div>
<p class="note">{{ n }} reviews; intervals: 95%, bootstrap over {{ unit }}s, the same draws for
all.</p>
<h2>What quantisation cost and gained</h2>
<div class="scroll"><table><thead><tr><th>version</th><th>alias</th><th>format</th>
<th>size</th><th>speed</th><th>largest difference</th><th>labels flipped</th><th>cosine</th>
<th>cosine p1</th></tr>
</thead><tbody>{% for m in s.models %}<tr><td>{{ m.name }} v{{ m.version }}</td>
<td>{{ m.alias or "–" }}</td><td>{{ m.format }}</td><td>{{ "%.2f"|format(m.bytes / 1e6) }} MB</td>
<td>{{ "–" if m.speed_ratio is none else "%.2f×"|format(m.speed_ratio) }}</td>
<td>{{ "%.2g"|format(m.parity.max_abs_diff) }}</td><td>{{ m.parity.label_flips }}</td>
<td>{{ "%.6f"|format(m.parity.cos_mean) }}</td><td>{{ "%.6f"|format(m.parity.cos_p1) }}</td></tr>
{% endfor %}</tbody></table></div>
<p class="note">Each against its own source: fp32 against torch, INT8 against fp32. Speed: process
CPU time on the same texts, interleaved, fp32 is 1.</p>
<div class="plots">
<figure><figcaption>Sentiment, INT8 candidate: gold in rows</figcaption>{{ confusion }}</figure>
<figure><figcaption>Sentiment macro-F1 with intervals</figcaption>{{ forest }}</figure>
</div>
<figure><figcaption>Training loss</figcaption>{{ curves }}</figure>
{% if sequence %}<h2>Champion and challenger</h2>
<p>{{ s.verdict.exposures.champion }} answers by the champion,
{{ s.verdict.exposures.challenger }} by the challenger; difference
{{ "%+.4f"|format(s.verdict.difference) }}, anytime-valid interval
{{ "%+.4f"|format(s.verdict.low) }} to {{ "%+.4f"|format(s.verdict.high) }}; a loss of
{{ s.verdict.margin }} is accepted; sample-ratio p = {{ "%.3f"|format(s.verdict.srm_p) }}.</p>
<p class="note">This was {{ s.verdict.traffic }}.</p>
<figure>{{ sequence }}</figure>{% endif %}
{{ language }}
<h2>Steps</h2>
<div class="scroll"><table><thead><tr><th>step</th><th>status</th><th>seconds</th></tr></thead>
<tbody>
{% for step in s.steps %}<tr><td>{{ step.name }}</td>
<td>{{ "from the cache" if step.cached else step.status }}</td><td class="figure">{{ step.seconds }}
</td></tr>{% endfor %}</tbody></table></div>
</body></html>
"""


def render_report(summary: dict[str, Any], trained: RunRecord, compared: RunRecord | None) -> str:
    """The page, self-contained."""
    measured = json.loads(
        (trained.artifact("evaluate-sentiment", "evaluation") / "metrics.json").read_bytes()
    )
    names = [name for name in _ORDER if name in measured["metrics"]]
    facts = read_manifest(trained.artifact("train-sentiment", "model")).facts
    encoder = read_manifest(trained.artifact("pretrain-encoder", "encoder")).facts
    counts = measured["confusion"]["candidate"]["sentiment"]
    overall = {name: measured["metrics"][name]["three_class_macro_f1"] for name in names}
    rows = [
        (name, f["value"], f["low"], f["high"])
        for name, f in overall.items()
        if f["value"] is not None
    ]
    sequence = ""
    if compared is not None:
        path = compared.artifact("compare-arms", "comparison") / "verdict.json"
        points = json.loads(path.read_bytes())["sequence"]
        if points:
            drawn = [(p["n"], p["estimate"], p["low"], p["high"]) for p in points]
            sequence = sequence_svg(drawn, margin=summary["verdict"]["margin"])
    curves = encoder["curves"] | {"fine-tuning": facts["curve"]}

    def drawn_here(svg: str) -> Markup:
        return Markup(svg)  # noqa: S704  # our own SVG: numbers and the contract's words

    return (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            s=summary,
            style=drawn_here(STYLE),
            names=names,
            metrics=measured["metrics"],
            figures=_FIGURES,
            n=measured["n"],
            unit=measured["bootstrap"]["unit"],
            confusion=drawn_here(confusion_svg(counts["labels"], counts["matrix"], "")),
            forest=drawn_here(forest_svg(rows, "macro-F1")),
            curves=drawn_here(curve_svg(curves)),
            sequence=drawn_here(sequence),
            language=render_language(summary["language"]) if summary["language"] else "",
        )
    )

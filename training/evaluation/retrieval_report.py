"""The report of an embedding model: one HTML file and a short Markdown one."""

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from training.evaluation.report_template import STYLE

TITLES: Final = {
    "retyped_recall_1": "A review typed anew finds itself first",
    "retyped_mrr": "The same, mean reciprocal rank",
    "clause_recall_1": "A clause finds its review first",
    "clause_mrr": "The same, mean reciprocal rank",
    "korsts_spearman": "KorSTS, Spearman",
}
MADE_AS_TRAINED: Final = (
    "Reviews typed anew and clauses are made as the pairs were that this model learnt from: the "
    "same slips, left out words and cuts, of other reviews. Where it leads TF-IDF on them, it does "
    "so on noise that it was trained on; nothing follows for other noise or other questions."
)
MADE_HERE: Final = (
    "Reviews typed anew and clauses are made by matjip's own rules, which this published model was "
    "not trained on; people may err otherwise."
)
_PAGE: Final = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of an embedding model</title><style>"""
    + STYLE
    + """</style></head><body>
<h1>Evaluation of an embedding model: {{ result.model.recipe }}</h1>
<p class="note">{{ result.n.reviews }} reviews of part “{{ result.n.part }}”; 95% intervals from
{{ result.resamples }} resamples, the same for all. TF-IDF weighs character n-grams by how rare they
are in the very texts that are compared.</p>
<p><strong>{{ result.verdict }}</strong>: {{ result.reason }}. {{ served }}</p>
<div class="scroll"><table><thead><tr><th>figure</th><th>n</th>
{% for name in result.metrics %}<th>{{ result.engines.get(name, name) }}<br>{{ name }}</th>
{% endfor %}</tr></thead><tbody>
{% for figure, title in titles.items() if figure in result.metrics.candidate %}
<tr><td>{{ title }}</td><td class="figure">{{ result.metrics.candidate[figure].n }}</td>
{% for name, figures in result.metrics.items() %}{% set f = figures[figure] %}
<td class="figure">{{ "%.3f"|format(f.value) }}<span class="interval">{{ "%.3f"|format(f.low) }} …
{{ "%.3f"|format(f.high) }}</span></td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">{{ result.queries }}</p>
{% for name, why in result.not_measured.items() %}
<p class="note">{{ name }} was not measured: {{ why }}</p>{% endfor %}
<h2>Exports against their source</h2>
<div class="scroll"><table><thead><tr><th>graph</th><th>MB</th><th>cos mean</th><th>p1</th>
<th>min</th><th>top-10 overlap</th><th>scheme</th></tr></thead><tbody>
{% for name, f in (result.model.formats or {}).items() %}<tr><td>{{ name }}</td>
<td class="figure">{{ "%.1f"|format(f.bytes / 1e6) }}</td>
{% for key in ("cos_mean", "cos_p1", "cos_min", "top10_overlap") %}
<td class="figure">{{ "%.5f"|format(f.parity[key]) }}</td>{% endfor %}
<td>{{ f.get("scheme", "") }}</td></tr>
{% endfor %}</tbody></table></div>
{% for name, why in (result.model.left_out or {}).items() %}
<p class="note">{{ name }} was left out: {{ why }}</p>{% endfor %}
</body></html>
"""
)


def _served(result: Mapping[str, Any]) -> str:
    return (
        f"Judged was {result['judged']}; {result['served_untuned']} serves until make tune-engine "
        "chooses another."
    )


def render_retrieval_html(result: Mapping[str, Any]) -> str:
    """A self-contained page of what metrics.json holds; it shows no review."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(_PAGE).render(
        result=result, titles=TITLES, served=_served(result)
    )


def render_retrieval_markdown(result: Mapping[str, Any]) -> str:
    """A table of the figures."""
    names = list(result["metrics"])
    lines = [
        "# Evaluation of an embedding model",
        "",
        f"{result['n']['reviews']} reviews; {result['verdict']}: {result['reason']}.",
        _served(result),
        "",
        "| figure | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    for figure, title in TITLES.items():
        if figure in result["metrics"][names[0]]:
            cells = [result["metrics"][name][figure] for name in names]
            shown = [f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells]
            lines.append(f"| {title} | " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", result["queries"]]) + "\n"

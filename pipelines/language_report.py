"""The language model's part of the demonstration's report."""

from typing import Any, Final

from jinja2 import Environment
from markupsafe import Markup

from data.contract import KOREAN
from pipelines.language_summary import SHOWN

_PART: Final = """<h2>Language model, beside null baselines, on held-out restaurants</h2>
<div class="verdict {{ l.gate.verdict }}"><strong>Gate: {{ l.gate.verdict }}.</strong>
{{ l.gate.reason }}.{% if l.gate.recovery %} INT8 recovers {{ l.gate.recovery.value }}
[{{ l.gate.recovery.low }}, {{ l.gate.recovery.high }}] of its parent's score.{% endif %}
{{ l.registration }}</div>
<div class="scroll"><table><thead><tr><th>figure</th>{% for m in l.models %}<th>{{ m.format }}
v{{ m.version }} {{ m.alias or "" }}<br>{{ "%.1f"|format(m.bytes / 1e6) }} MB</th>{% endfor %}
{% for name in l.nulls %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for key, title in shown.items() %}<tr><td>{{ title }}</td>
{% for figures in columns %}<td class="figure">{% set f = figures.get(key) %}
{% if not f or f.value is none %}–{% else %}{{ "%.3f"|format(f.value) }}
{% if f.low is not none %}<span class="interval">{{ "%.3f"|format(f.low) }} …
{{ "%.3f"|format(f.high) }}</span>{% endif %}{% endif %}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
<p class="note">vLLM's kernel: {{ l.models[0].kernel or l.models[0].kernel_reason }}.
The baselines read nothing: an empty answer, another restaurant's gold, the first clauses, the
commonest label, every category.</p>
{% if sample %}<h3>One summary, as the gateway answered</h3>
<p class="note">{{ sample.restaurant_id }} · {{ sample.arm }} ·
{{ sample.model.name }} v{{ sample.model.version }} · {{ sample.status }}
{{ sample.reasons|join(", ") }}</p>
{% if sample.summary %}<p>{{ sample.summary.overall }}</p>
<div class="scroll"><table><thead><tr><th>aspect</th><th>says</th><th>evidence</th></tr></thead>
<tbody>{% for aspect, part in sample.summary.aspects.items() %}{% for bullet in part.bullets %}
<tr><td>{{ korean[aspect] }}</td><td>{{ korean[bullet.polarity] }}: {{ bullet.text }}</td>
<td>{% for cited in bullet.evidence %}“{{ cited.span }}” {% endfor %}</td></tr>
{% endfor %}{% endfor %}</tbody></table></div>{% endif %}
{% if sample.strengths and sample.strengths.representative %}
<div class="scroll"><table><thead><tr><th>strength of</th><th>claims</th><th>evidence</th></tr>
</thead><tbody>{% for strength in sample.strengths.representative %}
<tr><td>{{ korean[strength.aspect] }}</td><td>{{ strength.claim }}</td>
<td>{% for cited in strength.evidence %}“{{ cited.span }}” {% endfor %}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}
<p class="note">The evidence is the reviews' own words. Which clause speaks of what is what a model
of a few million weights can learn; it says so in fixed words.</p>
{% endif %}
"""


def render_language(summary: dict[str, Any]) -> Markup:
    """HTML of what ``language_summary`` says, with its sample."""
    columns = [model["metrics"] for model in summary["models"]] + list(summary["nulls"].values())
    page = (
        Environment(autoescape=True)
        .from_string(_PART)
        .render(l=summary, shown=SHOWN, columns=columns, sample=summary["sample"], korean=KOREAN)
    )
    return Markup(page)  # noqa: S704  # escaped by the template

"""The page of a language model's report.html (jinja2, autoescaped by report.py)."""

from typing import Final

from training.evaluation.report_template import STYLE

_MACROS: Final = """
{% macro cell(entry, lead, first) %}
<td class="figure{{ ' first' if first }}">
{% if entry.value is none %}<span title="{{ entry.get('reason', '') }}">–</span>
{% else %}{{ '%.3f' % entry.value }}
{% if entry.low is not none %}<span class="interval">{{ '%.3f' % entry.low }} …
{{ '%.3f' % entry.high }}</span>{% endif %}
{% if entry.spread and entry.spread[0] != entry.spread[1] %}
<span class="interval">repeats {{ '%.3f' % entry.spread[0] }} – {{ '%.3f' % entry.spread[1] }}
</span>{% endif %}
{% if lead and lead.low is not none %}<span class="interval">{{ '%+.3f' % lead.difference }}
[{{ '%+.3f' % lead.low }}, {{ '%+.3f' % lead.high }}] over {{ lead.null }}</span>{% endif %}
{% endif %}</td>
{% endmacro %}
{% macro figures(names) %}
<div class="scroll"><table><thead><tr><th>figure</th><th>n</th>
{% for name in contestants %}<th>{{ name }}</th>{% endfor %}</tr></thead><tbody>
{% for figure in names %}
<tr><td>{{ result.figures[figure].title }}
{{ '↑' if result.figures[figure].better == 'higher' else '↓' }}</td>
<td class="figure">{{ result.metrics[contestants[0]][figure].n or '–' }}</td>
{% for name in contestants %}
{{ cell(result.metrics[name][figure], result.over_nulls.get(name, {}).get(figure), loop.first) }}
{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
"""

PAGE: Final = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation of language models</title><style>"""
    + STYLE
    + "td:first-child { min-width:11rem; }"
    + "</style></head><body>"
    + _MACROS
    + """
<h1>Evaluation of language models</h1>
<p class="note">{{ result.n.examples }} examples and {{ result.n.restaurants }} restaurants of part
“{{ result.facts.part }}”, asked {{ result.facts.repeats }} time(s) at temperature 0, each time in
another order. Small print: the 95% interval from {{ result.bootstrap.resamples }} resamples of
{{ result.bootstrap.units }} {{ result.bootstrap.unit }}s, {{ result.bootstrap.method }}, the same
resamples for all; the least and the greatest value of a repeat, where they differ; the lead over
the best null baseline, paired. A dash is a figure that was not asked or is undefined; the reasons
stand at the end.</p>
<p class="note">Null baselines, which understand nothing:
{% for name, words in nulls.items() %}<b>{{ name }}</b> {{ words }}
{{ '; ' if not loop.last else '.' }}{% endfor %}</p>
<p class="note">Judge: {{ judge }}.</p>
<div class="plots">
{% for caption, svg in plots.items() %}
<figure><figcaption>{{ caption }}</figcaption>{{ svg }}</figure>
{% endfor %}
</div>
{% for section, names in sections.items() %}
<h2>{{ section }}</h2>
{{ figures(names) }}
{% endfor %}
{% if written %}
<h2>What {{ contestants[0] }} writes</h2>
<div class="scroll"><table><thead><tr><th>restaurant</th><th>written by people</th>
<th>{{ contestants[0] }}</th><th>status</th></tr></thead><tbody>
{% for row in written %}
<tr><td>{{ row.restaurant }}</td><td class="text">{{ row.gold }}</td>
<td class="text">{{ row.said }}</td><td>{{ row.status }}
<span class="interval">{{ row.reasons }}</span></td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
<h2>All other figures</h2>
<details><summary>{{ others | length }} figures</summary>{{ figures(others) }}</details>
{% if reasons %}
<h2>Not computed</h2>
<details><summary>{{ reasons | length }} figures and why</summary>
<div class="scroll"><table><tbody>
{% for figure, name, reason in reasons %}
<tr><td>{{ figure }}</td><td>{{ name }}</td><td class="note">{{ reason }}</td></tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}
</body></html>
"""
)

"""The page of report.html (jinja2, autoescaped by report.py)."""

from typing import Final

STYLE: Final = """
:root { --ink:#1f2933; --soft:#52606d; --line:#e4e7eb; --mark:#eef4ff; }
* { box-sizing:border-box; }
body { margin:0 auto; max-width:1080px; padding:1.2rem; color:var(--ink); background:#fff;
  font:16px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans KR","Noto Sans CJK KR",sans-serif; }
h1 { font-size:1.6rem; margin:.2rem 0; } h2 { font-size:1.15rem; margin:2rem 0 .5rem; }
p.note, td.note { color:var(--soft); font-size:.9rem; }
.scroll { overflow-x:auto; -webkit-overflow-scrolling:touch; }
table { border-collapse:collapse; width:100%; font-size:.88rem; }
th, td { padding:.4rem .6rem; border-bottom:1px solid var(--line); text-align:left;
  vertical-align:top; }
th { font-weight:600; background:#f8fafc; white-space:nowrap; }
td.figure { font-variant-numeric:tabular-nums; white-space:nowrap; }
td.first { background:var(--mark); }
.interval { color:var(--soft); font-size:.8rem; display:block; }
.plots { display:grid; grid-template-columns:repeat(auto-fit,minmax(300px,1fr)); gap:1rem; }
figure { margin:0; padding:.8rem; border:1px solid var(--line); border-radius:10px; }
figcaption { font-weight:600; font-size:.92rem; margin-bottom:.4rem; }
figure svg { width:100%; height:auto; max-height:420px; }
details { margin:.6rem 0; } summary { cursor:pointer; color:#1d4ed8; }
td.text { min-width:14rem; overflow-wrap:anywhere; }
"""

_TABLE: Final = """
{% macro cell(entry, key, first) %}
<td class="figure{{ ' first' if first }}">
{% if entry[key] is none %}<span title="{{ entry.get('reason', '') }}">–</span>
{% else %}{{ '%.3f' % entry[key] }}
{% if entry.low is not none %}<span class="interval">{{ '%.3f' % entry.low }} …
{{ '%.3f' % entry.high }}</span>{% endif %}
{% endif %}</td>
{% endmacro %}
{% macro figures(names) %}
<div class="scroll"><table><thead><tr><th>figure</th><th>n</th>
{% for model in models %}<th>{{ model }}</th>{% endfor %}</tr></thead><tbody>
{% for name in names %}
<tr><td>{{ title(name) }} {{ '↑' if result.figures[name].better == 'higher' else '↓' }}</td>
<td class="figure">{{ result.metrics[models[0]][name].n }}</td>
{% for model in models %}{{ cell(result.metrics[model][name], 'value', loop.first) }}{% endfor %}
</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
"""

PAGE: Final = (
    """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Evaluation</title><style>"""
    + STYLE
    + "</style></head><body>"
    + _TABLE
    + """
<h1>Evaluation</h1>
<p class="note">{{ result.n }} reviews{% if result.facts.part is defined %}, part
“{{ result.facts.part }}”{% endif %}. Small print under a figure is its 95% interval:
{{ result.bootstrap.resamples }} resamples of {{ result.bootstrap.units }}
{{ result.bootstrap.unit }}s, {{ result.bootstrap.method }}, the same resamples for every model.
A dash is a figure that cannot be computed; the reasons stand at the end.</p>
<h2>Models beside the baselines</h2>
{{ figures(headlines) }}
<h2>How {{ models[0] }} answers</h2>
<div class="plots">
{% for caption, svg in plots.items() %}
<figure><figcaption>{{ caption }}</figcaption>{{ svg }}</figure>
{% endfor %}
</div>
<h2>Slices: share correct</h2>
<p class="note">Sentiment on the text slices; on an aspect's slice, the aspect's state among the
reviews that speak of it. Slices under their least n are not judged.</p>
<div class="scroll"><table><thead><tr><th>slice</th><th>n</th>
{% for model in models %}<th>{{ model }}</th>{% endfor %}</tr></thead><tbody>
{% for name, part in result.slices.items() %}
<tr><td>{{ name.replace('_', ' ') }}</td><td class="figure">{{ part.n }}</td>
{% if part.n < part.least_n %}<td class="note" colspan="{{ models | length }}">too few
(least {{ part.least_n }})</td>
{% else %}{% for model in models %}{{ cell(part.models[model], 'accuracy', loop.first) }}
{% endfor %}{% endif %}</tr>
{% endfor %}
</tbody></table></div>
{% if result.speed.models is defined %}
<h2>Speed</h2>
<p class="note">Times faster than {{ result.speed.reference }}: {{ result.speed.conditions.clock }},
{{ result.speed.conditions.rounds }} rounds on {{ result.speed.conditions.texts }} texts,
{{ result.speed.conditions.threads }} thread(s), {{ result.speed.conditions.order }}.</p>
<div class="scroll"><table><thead><tr><th>model</th><th>times faster</th><th>CPU ms per review</th>
</tr></thead><tbody>
{% for name, entry in result.speed.models.items() %}
<tr><td>{{ name }}</td>{{ cell(entry, 'ratio', false) }}
<td class="figure">{{ '%.3f' % entry.cpu_ms_per_text }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
{% if wrong %}
<h2>Most confident mistakes of {{ models[0] }}</h2>
<div class="scroll"><table><thead><tr><th>review</th><th>gold</th><th>predicted</th><th>p</th></tr>
</thead><tbody>
{% for row in wrong %}
<tr><td class="text">{{ row.text }}</td><td>{{ row.gold }}</td><td>{{ row.predicted }}</td>
<td class="figure">{{ '%.2f' % row.probability }}</td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
<h2>All other figures</h2>
<details><summary>{{ others | length }} figures</summary>{{ figures(others) }}</details>
{% if reasons %}
<h2>Not computed</h2>
<details><summary>{{ reasons | length }} figures and why</summary>
<div class="scroll"><table><tbody>
{% for name, model, reason in reasons %}
<tr><td>{{ name }}</td><td>{{ model }}</td><td class="note">{{ reason }}</td></tr>
{% endfor %}
</tbody></table></div></details>
{% endif %}
</body></html>
"""
)

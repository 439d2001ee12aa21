"""The page of a report (jinja2, autoescaped by report_page.py)."""

from typing import Final

STYLE: Final = """
:root{--ink:#1f2933;--soft:#52606d;--line:#d9e2ec;--paper:#fff;--tint:#f5f7fa;--blue:#1d4ed8;
--good:#047857;--bad:#be123c;--warn:#b45309;--good-tint:#e3f9e5;--bad-tint:#ffe3e3;
--warn-tint:#fff3c4;color-scheme:light dark}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7eb;--soft:#9aa5b1;--line:#3e4c59;
--paper:#12181f;--tint:#1c242d;--blue:#7aa2ff;--good:#5fd6a4;--bad:#ff8fa3;--warn:#f0b429;
--good-tint:#0f3026;--bad-tint:#3d1620;--warn-tint:#3a2c08}}
*{box-sizing:border-box}
body{font:15px/1.55 system-ui,"Noto Sans KR","Noto Sans CJK KR",sans-serif;color:var(--ink);
background:var(--paper);max-width:76rem;margin:0 auto;padding:1.5rem 1rem 3rem;word-break:keep-all}
h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.15rem;margin:2.2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.4rem 0}.note{color:var(--soft);font-size:.9rem}
.facts{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;color:var(--soft);font-size:.9rem}
.facts b{color:var(--ink);font-weight:600}
.verdict{border-left:6px solid var(--soft);background:var(--tint);border-radius:6px;
padding:.9rem 1.1rem;margin:1.1rem 0}
.verdict strong{display:block;font-size:1.3rem}
.verdict.promote{border-color:var(--good);background:var(--good-tint)}
.verdict.roll_back{border-color:var(--bad);background:var(--bad-tint)}
.verdict.invalid{border-color:var(--warn);background:var(--warn-tint)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
td,th{padding:.35rem .45rem;border-bottom:1px solid var(--line);text-align:right;
white-space:nowrap;font-variant-numeric:tabular-nums}
th{font-weight:600;color:var(--soft);border-bottom-width:2px}
td:first-child,th:first-child,.left{text-align:left!important}
td.why{white-space:normal;min-width:12rem;text-align:left;color:var(--soft);font-size:.85rem}
.tag{border-radius:999px;padding:.05rem .55rem;font-size:.82rem;background:var(--tint)}
.tag.better,.tag.not_worse,.tag.ok{background:var(--good-tint);color:var(--good)}
.tag.worse,.tag.alarm{background:var(--bad-tint);color:var(--bad)}
svg{display:block;max-width:100%;height:auto}svg.row{width:180px;height:22px}
svg .band{fill:var(--blue);opacity:.16}svg .line{fill:none;stroke:var(--blue);stroke-width:2}
svg .grid{stroke:var(--line);stroke-width:1}svg .zero{stroke:var(--ink);stroke-width:1}
svg .margin{stroke:var(--warn);stroke-width:1.5;stroke-dasharray:4 3}
svg .tick{fill:var(--soft);font-size:11px}
svg .reach{stroke:var(--blue);stroke-width:3;stroke-linecap:round}svg .dot{fill:var(--blue)}
svg .reach.better,svg .reach.not_worse{stroke:var(--good)}svg .dot.better,svg .dot.not_worse{fill:
var(--good)}svg .reach.worse{stroke:var(--bad)}svg .dot.worse{fill:var(--bad)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(22rem,100%),1fr));gap:1rem}
.plots figure{margin:0;max-width:44rem}figcaption{font-weight:600;font-size:.95rem}
.matrix{width:auto}.matrix td{min-width:5.5rem;text-align:center}
.sides{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(25rem,100%),1fr));gap:.6rem;
margin:.6rem 0}
.pair{border:1px solid var(--line);border-radius:6px;padding:.5rem .7rem}
.pair code{font-size:.8rem;color:var(--soft);overflow-wrap:anywhere;word-break:break-all}
.bar{display:grid;grid-template-columns:4rem 1fr 3.2rem;gap:.4rem;align-items:center;
font-size:.82rem;line-height:1.4}
.bar i{display:block;height:.55rem;background:var(--blue);border-radius:3px}
.bar span:last-child{text-align:right}
@media(max-width:40rem){.sides{grid-template-columns:1fr}}
"""

PAGE: Final = """<!doctype html>
<html lang="{{ lang }}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{ w("title") }}: {{ r.experiment }} – {{ w(r.decision) }}</title>
<style>{{ style }}</style></head><body>
{% macro metric_table(rows) %}<div class="scroll"><table>
<tr><th>{{ w("metric") }}</th><th class="left">{{ w("arm") }}</th><th>{{ w("control") }}</th>
<th>{{ w("value") }}</th><th>{{ w("difference") }}</th><th>{{ w("relative") }}</th>
<th>{{ w("interval") }}</th><th class="left">{{ w("worse_better") }}</th><th>{{ w("reading") }}</th>
<th>{{ w("adjusted_p") }}</th><th>{{ w("variance_cut") }}</th></tr>
{% for m in rows %}<tr><td>{{ name(m) }}</td><td class="left">{{ m.arm }}</td>
<td>{{ figure(m.metric, m.control_value) }}</td><td>{{ figure(m.metric, m.value) }}</td>
<td>{{ figure(m.metric, m.difference, signed=True) }}</td><td>{{ percent(m.relative) }}</td>
<td>{{ interval(m) }}</td><td>{{ drawn(m) }}</td>
<td><span class="tag {{ m.reading }}">{{ w(m.reading) }}</span></td>
<td>{{ p(m.adjusted_p if m.adjusted_p is not none else m.p) }}</td>
<td>{{ percent(m.variance_cut) if m.variance_cut is not none else "–" }}</td></tr>
{% if m.note %}<tr><td class="why" colspan="11">
{{ m.arm }}: {{ m.note.ko if lang == "ko" else m.note.en }}</td></tr>{% endif %}
{% endfor %}</table></div>{% endmacro %}
<header><p class="note">{{ w("title") }}</p><h1>{{ r.experiment }}</h1><p>{{ r.hypothesis }}</p>
<p class="facts"><span>{{ w("phase") }} <b>{{ r.phase.number }} · {{ phase }}</b></span>
<span><b>{{ "%.1f"|format(r.phase.days) }}</b> {{ w("of") }} {{ "%g"|format(r.phase.max_days) }}
{{ w("days") }}</span><span>{{ w("counted_by") }} <b>{{ w(r.unit) }}</b></span>
<span>{{ w("owner") }} <b>{{ r.owner }}</b></span>
<span>{{ w("version") }} <b>{{ r.version }}</b></span>
<span>{{ w("deployment") }} <b>{{ r.deployment_id[:12] }}</b></span></p></header>
<div class="verdict {{ r.decision }}"><strong>{{ w(r.decision) }}{% if r.arm %}: {{ r.arm }}
{% endif %}</strong>{{ reason }}{% if r.advance is not none %}
<br>{{ w("advance_yes") if r.advance else w("advance_no") }}{% endif %}</div>
{% if traffic %}<p class="note">{{ w("made") }}: {{ traffic }}</p>{% endif %}
{% if plots %}<h2>{{ w("timeline") }}</h2><p class="note">{{ w("timeline_note") }}</p>
<div class="plots">{% for arm, plot in plots %}<figure><figcaption>{{ arm }} – {{ w("control") }},
{{ primary }}</figcaption>{{ plot }}</figure>{% endfor %}</div>{% endif %}
<h2>{{ w("arms") }}</h2><div class="scroll"><table><tr><th>{{ w("arm") }}</th>
<th class="left">{{ w("model") }}</th><th>{{ w("share") }}</th><th>{{ w("units") }}</th>
<th>{{ w("asks") }}</th><th>{{ w("answers") }}</th><th>{{ w("failures") }}</th>
<th>{{ w("outcomes") }}</th></tr>
{% for a in r.arms %}<tr><td>{{ a.name }}{% if loop.first %}
<span class="tag">{{ w("control") }}</span>{% endif %}</td>
<td class="left">{{ a.model }}</td><td>{{ "%.4g"|format(100 * a.share) }}%</td>
<td>{{ "{:,}".format(a.units) }}</td><td>{{ "{:,}".format(a.asks) }}</td>
<td>{{ "{:,}".format(a.answers) }}</td><td>{{ "{:,}".format(a.failures) }}</td>
<td>{{ "{:,}".format(a.outcomes) }}</td></tr>{% endfor %}</table></div>
{% for role, rows in roles %}<h2>{{ w(role) }}</h2>{{ metric_table(rows) }}{% endfor %}
{% if r.segments %}<h2>{{ w("segments") }}</h2><p class="note">{{ w("segments_note") }}</p>
<div class="scroll"><table><tr><th>{{ w("segment") }}</th><th class="left">{{ w("arm") }}</th>
<th>{{ w("units") }}</th><th>{{ w("control") }}</th><th>{{ w("value") }}</th>
<th>{{ w("difference") }}</th><th class="left">{{ w("worse_better") }}</th>
<th>{{ w("adjusted_p") }}</th></tr>
{% for s in r.segments %}<tr><td>{{ w(s.dimension) }}: {{ w(s.segment) }}
{%- if s.after_the_fact %} *{% endif %}</td><td class="left">{{ s.arm }}</td>
<td>{{ "{:,}".format(s.units[0]) }} / {{ "{:,}".format(s.units[1]) }}</td>
<td>{{ figure(primary_name, s.control_value) }}</td><td>{{ figure(primary_name, s.value) }}</td>
<td>{{ figure(primary_name, s.difference, signed=True) }}</td><td>{{ segment(s) }}</td>
<td>{{ p(s.adjusted_p) }}</td></tr>{% endfor %}</table></div>{% endif %}
<h2>{{ w("sample_ratio") }}</h2>{% if not r.sample_ratio %}<p>{{ w("none_dealt") }}</p>
{% else %}{{ ratio(r.sample_ratio[:1]) }}{% if r.sample_ratio[1:] %}<details>
<summary>{{ w("ratio_by_segment") }}</summary>{{ ratio(r.sample_ratio[1:]) }}</details>{% endif %}
{% endif %}
{% if r.disagreements %}<h2>{{ w("disagreements") }}</h2>
<p class="note">{{ w("disagreements_note") }}</p>
{% for d in r.disagreements %}<h3>{{ r.arms[0].name }} – {{ d.arm }}: {{ w("agreed") }}
{{ "{:,}".format(d.agreed) }} / {{ "{:,}".format(d.pairs) }}
{%- if d.pairs %} ({{ "%.1f"|format(100 * d.agreed / d.pairs) }}%){% endif %}</h3>
{% if d.pairs %}<div class="scroll"><table class="matrix">
<tr><th>{{ r.arms[0].name }} ↓ {{ d.arm }} →</th>
{% for s in sentiments %}<th>{{ w(s) }}</th>{% endfor %}</tr>
{% for one in sentiments %}<tr><th>{{ w(one) }}</th>{% for other in sentiments %}
<td style="background:color-mix(in srgb,var(--{{ "blue" if one == other else "bad" }}) {{
shade(d, one, other) }}%,transparent)">{{ "{:,}".format(d.confusion.get(one, {}).get(other, 0)) }}
</td>{% endfor %}</tr>{% endfor %}</table></div>{% endif %}
{% if d.examples %}<div class="pairs">{% for e in d.examples %}
<div class="pair"><code>{{ e.request_id }} · {{ w("item") }} {{ e.item }}
</code><div class="sides">{% for side, label, chances in [(r.arms[0].name, e.control_label,
e.control), (d.arm, e.other_label, e.other)] %}<div><b>{{ side }}: {{ w(label) }}</b>
{% for s in sentiments if s in chances %}<div class="bar"><span>{{ w(s) }}</span>
<i style="width:{{ "%.1f"|format(100 * chances[s]) }}%"></i>
<span>{{ "%.1f"|format(100 * chances[s]) }}%</span></div>{% endfor %}</div>{% endfor %}</div></div>
{% endfor %}</div>{% endif %}{% endfor %}{% endif %}
</body></html>
"""

RATIO: Final = """<div class="scroll"><table><tr><th></th>{% for a in arms %}<th>{{ a }}</th>
{% endfor %}<th>p</th><th>{{ w("reading") }}</th></tr>
{% for each in rows %}<tr><td>{{ title(each.name) }}</td>{% for a in arms %}
<td>{{ "{:,}".format(each.counts[a]) }}</td>{% endfor %}<td>{{ p(each.adjusted_p) }}</td>
<td><span class="tag {{ each.reading }}">{{ w(each.reading) }}</span></td></tr>{% endfor %}
</table></div>"""

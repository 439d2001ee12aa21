"""The report of a validation: one HTML page that needs nothing beside itself.

Comes in: the facts of the manifest and what was found. Goes out: HTML with its style and bars
inside, every value escaped, so that a review's text stays text. It is shown in the Kubeflow UI.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import jinja2
import numpy as np

from data.contract import KOREAN
from data.quarantine import QuarantinedRow

SHOWN_EXAMPLES: Final = 3
SHOWN_ISSUES: Final = 25
SHOWN_GROUPS: Final = 10
SHOWN_TEXT: Final = 160
LENGTH_STEPS: Final = (0, 10, 20, 40, 80, 160, 320, 640, 10_001)

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5d6b7a; --line: #d9e0e7; --bar: #3b6fb6;
  --good: #2e8b57; --bad: #b8433f; --page: #fff; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9aa7b4; --line: #303a45;
  --page: #10161d; --card: #19212b; --bar: #6d9fe0; } }
body { font: 15px/1.5 system-ui, "Noto Sans KR", "Noto Sans CJK KR", sans-serif; color: var(--ink);
  background: var(--page); max-width: 66rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
p.soft, td.soft, .soft { color: var(--soft) }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .8rem }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .7rem .9rem } .card b { display: block; font-size: 1.5rem }
.card.good b { color: var(--good) } .card.bad b { color: var(--bad) }
table { border-collapse: collapse; width: 100% } th { text-align: left; color: var(--soft);
  font-weight: 600 } th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere } td.n { text-align: right;
  font-variant-numeric: tabular-nums; white-space: nowrap } td.name { white-space: nowrap }
svg { display: block; width: 100%; height: .8rem } rect { fill: var(--bar) }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 0 2rem }
"""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Validation report</title><style>{{ style }}</style></head><body>
{% macro bars(rows) %}<table>{% for name, count, share in rows %}<tr>
<td class="name">{{ name }}</td>
<td style="width:60%"><svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img"
aria-label="{{ count }}"><rect width="{{ '%.2f'|format(share * 100) }}" height="8"/></svg></td>
<td class="n">{{ '{:,}'.format(count) }}</td></tr>{% endfor %}</table>{% endmacro %}
<h1>Are these labels fit to train on?</h1>
<p class="soft">Snapshot {{ facts.snapshot_id[:16] }} · {{ facts.source }} ·
guideline {{ facts.guideline_version }}</p>
<div class="cards">
<div class="card"><b>{{ '{:,}'.format(facts.rows_in) }}</b>rows in</div>
<div class="card good"><b>{{ '{:,}'.format(facts.accepted) }}</b>accepted</div>
<div class="card bad"><b>{{ '{:,}'.format(facts.quarantined) }}</b>quarantined</div>
<div class="card"><b>{{ '{:,}'.format(facts.restaurants) }}</b>restaurants</div>
<div class="card"><b>{{ '{:.2%}'.format(facts.near_duplicate_rate) }}</b>near-duplicates</div>
</div>
{% if not facts.accepted %}<p><strong>No row was accepted: nothing can be trained.</strong></p>
{% endif %}
<h2>Quarantined, by reason</h2>
{% if reasons %}{{ bars(reasons) }}
<table><tr><th>reason</th><th>row</th><th>review</th><th>what is wrong, and the mend</th></tr>
{% for row in examples %}<tr><td class="name">{{ row.reason }}</td><td class="n">{{ row.row }}</td>
<td>{{ row.review_id or "–" }}</td><td>{{ row.detail|shorten }}</td></tr>{% endfor %}</table>
<p class="soft">At most {{ shown_examples }} examples a reason; every row is in quarantine.jsonl,
and quarantine.json goes back to Label Studio.</p>
{% else %}<p>None.</p>{% endif %}
<h2>Classes of the accepted rows</h2>
<div class="two">{% for task, rows in balance %}<div><h3>{{ task }}
<span class="soft">({{ '{:,}'.format(facts.labelled[task]) }} labelled)</span></h3>
{{ bars(rows) }}</div>{% endfor %}</div>
<h2>Length in characters</h2>
{{ bars(lengths) }}
<p class="soft">{% for name, value in facts.characters.items() %}{{ name }} {{ value }}
{% endfor %}</p>
<h2>Agreement of two annotators (Krippendorff's alpha, before adjudication)</h2>
<table>{% for task, alpha in facts.agreement.items() %}<tr><td class="name">{{ task }}</td>
<td class="n">{% if alpha is none %}<span class="soft">nobody labelled twice, or no variance</span>
{% else %}{{ '%.3f'|format(alpha) }}{% endif %}</td></tr>{% endfor %}</table>
<h2>Label issues</h2>
{% if facts.label_errors_not_sought %}<p>Likely label errors were not sought:
{{ facts.label_errors_not_sought }}.</p>{% endif %}
{% if issues %}<table><tr><th>#</th><th>review</th><th>issue</th><th>text</th></tr>
{% for issue in issues %}<tr><td class="n">{{ issue.rank }}</td><td>{{ issue.review_id }}</td>
<td>{{ issue.detail }}</td><td>{{ issue.text|shorten }}</td></tr>{% endfor %}</table>
<p class="soft">Guesses, most doubtful first, {{ issues|length }} of {{ issue_count }}; nothing was
changed. All are in label_issues.jsonl.</p>{% else %}<p>None found.</p>{% endif %}
<h2>Near-duplicates</h2>
{% if groups %}<p>{{ facts.near_duplicate_groups }} groups, kept on one side by the split.</p>
<table>{% for texts in groups %}<tr><td>{% for text in texts %}{{ text|shorten }}
{% if not loop.last %}<br>{% endif %}{% endfor %}</td></tr>{% endfor %}</table>
{% else %}<p>None.</p>{% endif %}
<div class="two"><div><h2>Personal data masked</h2>
{% if masked %}{{ bars(masked) }}{% else %}<p>None found.</p>{% endif %}</div>
<div><h2>Remarks on texts</h2>
{% if flags %}{{ bars(flags) }}{% else %}<p>None.</p>{% endif %}</div></div>
</body></html>
"""


def _shorten(text: str) -> str:
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}…"


def _bars(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    most = max(counts.values(), default=0)
    return [
        (f"{name} {KOREAN[name]}" if name in KOREAN else name, count, count / most if most else 0.0)
        for name, count in counts.items()
    ]


def _lengths(texts: Sequence[str]) -> dict[str, int]:
    counts, _ = np.histogram([len(text) for text in texts], bins=LENGTH_STEPS)
    names = [f"{low}–{high - 1}" for low, high in pairwise(LENGTH_STEPS)]
    return {name: int(count) for name, count in zip(names, counts, strict=True)}


def _examples(quarantine: Sequence[QuarantinedRow], reasons: Sequence[str]) -> list[QuarantinedRow]:
    return [
        row
        for reason in reasons
        for row in [each for each in quarantine if each.reason == reason][:SHOWN_EXAMPLES]
    ]


def render_report(
    facts: Mapping[str, Any],
    *,
    quarantine: Sequence[QuarantinedRow],
    issues: Sequence[Mapping[str, Any]],
    texts: Sequence[str],
    groups: Sequence[Sequence[int]],
) -> str:
    """The report as HTML.

    Args:
        facts: of the validated artifact's manifest.
        issues: label issues, ranked.
        texts: of the accepted reviews, masked.
        groups: near-duplicates, as positions in ``texts``.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["shorten"] = _shorten
    return environment.from_string(_PAGE).render(
        style=_STYLE,
        facts=facts,
        reasons=_bars(facts["reasons"]),
        examples=_examples(quarantine, list(facts["reasons"])),
        shown_examples=SHOWN_EXAMPLES,
        balance=[(task, _bars(counts)) for task, counts in facts["class_balance"].items()],
        lengths=_bars(_lengths(texts)),
        issues=issues[:SHOWN_ISSUES],
        issue_count=len(issues),
        groups=[[texts[at] for at in group[:SHOWN_EXAMPLES]] for group in groups[:SHOWN_GROUPS]],
        masked=_bars(facts["masked"]),
        flags=_bars(facts["text_flags"]),
    )

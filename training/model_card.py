"""The model card of a registered version: Markdown that people read beside it in the registry."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from data.contract import CONTRACT_VERSION
from data.manifest import Manifest

_BASELINES: Final = ("majority", "lexicon", "tfidf")
_UNKNOWN: Final = (
    "recipe",
    "source",
    "snapshot_id",
    "restaurants",
    "accepted",
    "rows_in",
    "quarantined",
    "bytes",
)

_CARD: Final = """\
# {{ name }} · {{ model.format }}

Reads one Korean restaurant review and answers with sentiment, intensity (-2 to 2), emotions and
aspects: contract {{ contract_version }}. Recipe {{ model.recipe }};
{% if model.pretrained -%}
it starts from {{ model.pretrained }}.
{%- else -%}
made on the spot, without pretrained weights from elsewhere.
{%- endif %}

## Data

Snapshot `{{ snapshot.snapshot_id }}` from {{ snapshot.source }}.
Rows: {{ snapshot.rows_in }},
accepted {{ snapshot.accepted }}, quarantined {{ snapshot.quarantined }}.
Restaurants: {{ snapshot.restaurants }}.

The gold corpus that comes with matjip was composed for it with the help of a language model: its
texts are not diners' reviews and its restaurants do not exist. Figures on it say how well a model
reads such texts, not how well it reads those of real diners.

## Figures and their 95% intervals, baselines beside

{% if figures -%}
| figure | value | low | high |
|---|---|---|---|
{% for path, figure in figures -%}
| {{ path }} | {{ figure.value|shown }} | {{ figure.low|shown }} | {{ figure.high|shown }} |
{% endfor %}
Slices and plots are in the evaluation's report.
{%- else -%}
The evaluation holds none.
{% endif %}
## Gate

Verdict: **{{ verdict }}**.

## What quantisation cost

{% if model.format == "onnx-int8" -%}
{{ model.bytes }} bytes, {{ parent.bytes }} before. Against its fp32 parent:
{% for what, value in model.parity|dictsort %}{{ what }} {{ value }}{{ ", " if not loop.last }}
{%- endfor %}.
{%- else -%}
Nothing: this version is not quantised.
{%- endif %}

## Limits

Sarcasm, slang that is newer than the data, other languages and texts that command a model are read
as if they were plain reviews. Long reviews are read in windows, whose answers are merged. Emotions
and aspects are only as good as their few labels. Restaurants of the training data do not appear in
the test data; another city, cuisine or year may differ.
"""


def figures_in(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every ``{"value": …, "low": …, "high": …}`` below a JSON value, with its dotted path."""
    if not isinstance(value, Mapping):
        return
    if isinstance(value.get("value"), int | float):
        yield ".".join(path), value
        return
    for name, inner in value.items():
        yield from figures_in(inner, (*path, str(name)))


def model_card(
    name: str,
    *,
    model: Manifest,
    parent: Manifest,
    snapshot: Manifest,
    verdict: str,
    metrics: Mapping[str, Any],
    measured_as: str | None,
) -> str:
    """Write the card.

    Args:
        name: the registered model.
        model: the version's manifest.
        parent: the fp32 export's; the same manifest when the version is that export.
        snapshot: what it was trained on.
        verdict: what the gate said.
        metrics: the evaluation's metrics.json.
        measured_as: the version's name in it, if it was measured.
    """
    shown = (measured_as, *_BASELINES)
    figures = [
        (f"{who}.{path}", figure)
        for who in shown
        for path, figure in figures_in(metrics["metrics"].get(who, {}))
    ]
    # Markdown, not HTML: whoever shows it escapes it.
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701  # Markdown
    environment.filters["shown"] = _shown
    return environment.from_string(_CARD).render(
        name=name,
        model=_facts(model),
        parent=_facts(parent),
        snapshot=_facts(snapshot),
        verdict=verdict,
        figures=figures,
        contract_version=CONTRACT_VERSION,
    )


def _facts(manifest: Manifest) -> dict[str, Any]:
    known: dict[str, Any] = dict.fromkeys(_UNKNOWN, "unknown")
    return known | {"pretrained": None, "parity": {}} | manifest.facts


def _shown(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""

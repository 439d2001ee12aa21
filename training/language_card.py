"""The model card of a registered language model: Markdown that people read beside it."""

from collections.abc import Mapping
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from data.contract import CONTRACT_VERSION
from data.manifest import Manifest
from data.prompts import TASKS, prompt_version
from training.evaluation.language.baselines import NULLS
from training.evaluation.language.figures import all_figures
from training.evaluation.language.report import PLOTTED
from training.language_recipe import LanguageRecipe
from training.registered_pair import Pair

_SHOWN: Final = ("obeyed", "cited", "drift", "sentiment_macro_f1", *PLOTTED)
_CARD: Final = """\
# {{ name }} · {{ format }}

Reads Korean restaurant reviews and answers in JSON: a review's labels with their evidence, a
restaurant's summary by aspect, its strengths. Contract {{ contract_version }}.
Recipe {{ recipe.name }}; it starts from
{{ recipe.base.pretrained or "a base made on the spot, too small for production" }}.

## Prompts

{% for task, version in prompts.items() %}- {{ task }}: `{{ version }}`
{% endfor %}
## Data

Snapshot `{{ snapshot.snapshot_id }}`, {{ snapshot.accepted }} labelled reviews,
{{ snapshot.quarantined }} quarantined.

The gold corpus that comes with matjip was composed for it with the help of a language model: its
texts are not diners' reviews and its restaurants do not exist. Figures on it say how well a model
reads such texts, not how well it reads those of real diners.

## Figures and their 95% intervals, null baselines beside

| figure | {{ shown|join(" | ") }} |
|---|{{ "---|" * shown|length }}
{% for title, cells in figures -%}
| {{ title }} | {{ cells|join(" | ") }} |
{% endfor %}
What the baselines are, and the rest, stands in the evaluation's report.

## Gate

Verdict: **{{ verdict }}**.

## What quantisation cost

{% if bytes -%}
{{ bytes.before }} bytes of weights before, {{ bytes.after }} after, as stored: {{ stored }}.
{%- else -%}
Nothing: this version is not quantised.
{%- endif %}

## Limits

Decoding must be constrained by the task's schema; without it a model of this size seldom keeps the
form. What it writes in its own words is only as good as its few written summaries. Texts that
command a model are read as reviews.
"""


def language_card(name: str, pair: Pair, model: Manifest, recipe: LanguageRecipe) -> str:
    """Write the card.

    Args:
        name: the registered model.
        pair: the two models and their evidence.
        model: the version's manifest.
        recipe: what it was trained by.
    """
    mine = pair.measured_as(model)
    metrics: Mapping[str, Mapping[str, Any]] = pair.metrics["metrics"]
    shown = [who for who in (mine, *NULLS) if who is not None and who in metrics]
    named = all_figures()
    figures = [
        (named[figure].title, [_cell(metrics[who].get(figure)) for who in shown])
        for figure in _SHOWN
    ]
    facts: Mapping[str, Any] = model.facts
    # Markdown, not HTML: whoever shows it escapes it.
    environment = Environment(undefined=StrictUndefined, autoescape=False)  # noqa: S701  # Markdown
    return environment.from_string(_CARD).render(
        name=name,
        format=facts["format"],
        contract_version=CONTRACT_VERSION,
        recipe=recipe,
        prompts={task: prompt_version(task) for task in TASKS},
        snapshot={
            key: pair.snapshot.facts.get(key, "unknown")
            for key in ("snapshot_id", "accepted", "quarantined")
        },
        shown=shown,
        figures=figures,
        verdict=pair.verdict,
        bytes=facts["bytes"] if facts.get("role") == "quantized" else None,
        stored=facts.get("stored"),
    )


def _cell(figure: Mapping[str, Any] | None) -> str:
    if not figure or figure.get("value") is None:
        return "–"
    if figure.get("low") is None:
        return f"{figure['value']:.4f}"
    return f"{figure['value']:.4f} [{figure['low']:.4f}, {figure['high']:.4f}]"

"""The report of language models: one HTML file with its plots inside, and a short Markdown one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from data.contract import ASPECTS
from training.evaluation.language.baselines import NULL_WORDS
from training.evaluation.language.gold import Gold
from training.evaluation.language.report_template import PAGE
from training.evaluation.language.tally import Said
from training.evaluation.plots import forest_svg

SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Task score": (
        "task_score",
        *(f"task_score_{task}" for task in ("labels", "aspect", "overall", "strengths")),
    ),
    "Form: under the schema, and free": (
        *("parsed", "obeyed", "cited", "raw_parsed", "raw_obeyed", "raw_cited", "raw_saved"),
        *("raw_score", "repaired_score", "drift", "raw_drift", "varied"),
    ),
    "Labels: category assignment and the rest": (
        *("category_macro_f1", "clause_accuracy", "aspect_precision", "aspect_recall", "aspect_f1"),
        *("state_f1", "sentiment_accuracy", "sentiment_macro_f1", "intensity_mae", "emotions_f1"),
        "hallucinated",
    ),
    "Summaries of given evidence": (
        *("sentence_rouge_1", "sentence_rouge_2", "sentence_rouge_l", "sentence_chrf"),
        *("bullets_rouge_l", "bullets_chrf", "evidence_f1", "overall_rouge_l", "overall_chrf"),
        *("strength_precision", "strength_recall", "strength_f1", "claims_chrf"),
        *("perplexity", "perplexity_other"),
    ),
    "Restaurants, from reviews to summary": (
        *("summary_answered", "summary_category_macro_f1", "summary_clause_accuracy"),
        *("summary_aspect_f1", "summary_polarity", "summary_hallucinated"),
        *("summary_evidence_verbatim", "summary_evidence_supported", "summary_overall_rouge_l"),
        *("summary_overall_chrf", "summary_sentence_chrf", "summary_bullets_chrf"),
        *("summary_strength_precision", "summary_strength_recall", "summary_strength_f1"),
        *("summary_drift", "judged"),
    ),
    "Category summaries by aspect": tuple(
        f"{name}_{aspect}"
        for name in ("category_f1", "sentence_chrf", "bullets_chrf", "summary_sentence_chrf")
        for aspect in ASPECTS
    ),
}
PLOTTED: Final = ("summary_category_macro_f1", "category_macro_f1", "task_score", "sentence_chrf")
_RESTAURANTS_SHOWN: Final = 6


def shown(cell: Mapping[str, Any]) -> str:
    """A figure with its interval, or a dash."""
    if cell["value"] is None:
        return "–"
    if cell["low"] is None:
        return f"{cell['value']:.3f}"
    return f"{cell['value']:.3f} [{cell['low']:.3f}, {cell['high']:.3f}]"


def render_html(result: Mapping[str, Any], gold: Gold, models: Mapping[str, Said]) -> str:
    """A self-contained page; every text that is not ours is escaped.

    Args:
        result: what metrics.json holds.
        gold: what was asked.
        models: what the models said; the first is looked at closely.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    named = {name for names in SECTIONS.values() for name in names}
    contestants = list(result["metrics"])
    return environment.from_string(PAGE).render(
        result=result,
        contestants=contestants,
        nulls=NULL_WORDS,
        judge=_judge_sentence(result["judge"]),
        sections=SECTIONS,
        others=[name for name in result["figures"] if name not in named],
        plots=_plots(result),
        written=_written(gold, models[contestants[0]]),
        reasons=_reasons(result),
    )


def render_markdown(result: Mapping[str, Any]) -> str:
    """Tables of the main figures; no text of a review or an answer."""
    contestants = list(result["metrics"])
    boot, facts = result["bootstrap"], result["facts"]
    lines = [
        "# Evaluation of language models",
        "",
        (
            f"{result['n']['examples']} examples and {result['n']['restaurants']} restaurants, "
            f"asked {facts['repeats']} time(s); 95% intervals from {boot['resamples']} resamples "
            f"of {boot['units']} {boot['unit']}s, the same for all."
        ),
        "",
        f"Judge: {_judge_sentence(result['judge'])}.",
    ]
    for section, names in SECTIONS.items():
        lines += ["", f"## {section}", "", _row(["figure", "n", *contestants])]
        lines.append(_row(["---"] * (len(contestants) + 2)))
        for name in names:
            cells = [result["metrics"][each][name] for each in contestants]
            title = result["figures"][name]["title"]
            lines.append(_row([title, cells[0]["n"] or "–", *map(shown, cells)]))
    lines += ["", "A dash is a figure that was not asked or is undefined; metrics.json says why."]
    return "\n".join(lines) + "\n"


def _judge_sentence(judge: Mapping[str, Any]) -> str:
    if not judge["asked"]:
        return str(judge["reason"])
    agreed = judge["agreement"]
    kappa = shown({**agreed, "value": agreed["kappa"]})
    return f"{judge['model']}, agreement with what is true: kappa {kappa} on {agreed['n']} controls"


def _plots(result: Mapping[str, Any]) -> dict[str, Markup]:
    plots = {}
    for figure in PLOTTED:
        rows = [
            (name, cell["value"], cell["low"], cell["high"])
            for name, cells in result["metrics"].items()
            if (cell := cells[figure])["low"] is not None
        ]
        if rows:
            title = result["figures"][figure]["title"]
            # The plots are ours; they hold no text of a review.
            plots[title] = Markup(forest_svg(rows, title))  # noqa: S704  # drawn by matplotlib
    return plots


def _written(gold: Gold, said: Said) -> list[dict[str, str]]:
    answers = said.restaurants[0] if said.restaurants else []
    return [
        {
            "restaurant": restaurant.written.restaurant_id,
            "gold": restaurant.written.summary.overall,
            "said": answer.summary.overall if answer.summary else "–",
            "status": answer.status,
            "reasons": "; ".join(answer.reasons)[:300],
        }
        for restaurant, answer in zip(gold.restaurants, answers, strict=False)
    ][:_RESTAURANTS_SHOWN]


def _reasons(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (result["figures"][figure]["title"], name, cell["reason"])
        for name, cells in result["metrics"].items()
        for figure, cell in cells.items()
        if cell.get("reason")
    ]


def _row(cells: Sequence[object]) -> str:
    escaped = [
        str(cell).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells
    ]
    return "| " + " | ".join(escaped) + " |"

"""The table of a language model's figures: what each is called, summed from, and compared by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from data.contract import ASPECTS, EMOTIONS, KOREAN, SENTIMENTS
from data.prompts import TASKS
from training.evaluation.intervals import Values
from training.evaluation.language.scores import SCORES

Sums = Sequence[NDArray[np.float64]]
"""(resamples, parts) of each measure, summed over the items drawn."""
Reduce = Callable[[Sums], Values]
"""Sums to one value a resample; NaN where it is undefined."""
Better = Literal["higher", "lower"]
SHARE_PARTS: Final = 2
OVERLAP_PARTS: Final = 3
SCORE_NAMES: Final = {"rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "rouge_l": "ROUGE-L"} | {
    "chrf": "chrF"
}
OTHER_NEEDS: Final = {
    "examples": "not every task was answered",
    "free": "not asked: no free pass",
    "repeats": "not asked: the examples were asked once",
    "summary": "not asked: no restaurant was summarised",
    "routing": "not asked: no restaurant's reviews were sorted",
    "perplexity": "not asked: no model folder was given",
    "judge": "not asked: no judge was given",
}
"""What a figure may need beside a task, and why it is missing where that was not answered."""


@dataclass(frozen=True)
class Figure:
    """One number that a report gives of a language model.

    Attributes:
        title: for people.
        needs: what must have been answered a task, or one of ``OTHER_NEEDS``.
        measures: whose parts it is made of.
        parts: how many each measure has.
    """

    title: str
    needs: str
    measures: tuple[str, ...]
    reduce: Reduce
    better: Better = "higher"
    parts: int = SHARE_PARTS


def _divided(above: Values, below: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(below > 0, above / below, np.nan))


def share(sums: Sums) -> Values:
    """Hits over all, measures pooled."""
    hits, of = np.sum(sums, axis=0).T
    return _divided(hits, of)


def precision(sums: Sums) -> Values:
    """Of what was said, the share that is right."""
    right, extra, _ = np.sum(sums, axis=0).T
    return _divided(right, right + extra)


def recall(sums: Sums) -> Values:
    """Of what is true, the share that was said."""
    right, _, missed = np.sum(sums, axis=0).T
    return _divided(right, right + missed)


def f1(sums: Sums) -> Values:
    """Harmonic mean of the two, measures pooled."""
    right, extra, missed = np.sum(sums, axis=0).T
    return _divided(2 * right, 2 * right + extra + missed)


def macro_f1(sums: Sums) -> Values:
    """Plain mean of each measure's F1, over those that have something to find."""
    scores = np.stack([f1([each]) for each in sums])
    there = np.stack([each[:, 0] + each[:, 2] > 0 for each in sums])
    return _divided(np.where(there, scores, 0.0).sum(axis=0), there.sum(axis=0))


def perplexity(sums: Sums) -> Values:
    """Exponential of the mean loss of a token, in nats."""
    return np.asarray(np.exp(share(sums)))


def _shares(needs: str, titles: dict[str, str], better: Better = "higher") -> dict[str, Figure]:
    return {name: Figure(title, needs, (name,), share, better) for name, title in titles.items()}


def _overlap(name: str, title: str, needs: str, measure: str) -> dict[str, Figure]:
    kinds: dict[str, Reduce] = {"precision": precision, "recall": recall, "f1": f1}
    words = {"precision": "precision", "recall": "recall", "f1": "F1"}
    return {
        f"{name}_{kind}": Figure(
            f"{title}, {words[kind]}", needs, (measure,), reduce, parts=OVERLAP_PARTS
        )
        for kind, reduce in kinds.items()
    }


def _macro(title: str, needs: str, measures: Sequence[str]) -> Figure:
    return Figure(title, needs, tuple(measures), macro_f1, parts=OVERLAP_PARTS)


def _texts(needs: str, titles: dict[str, str]) -> dict[str, Figure]:
    return {
        f"{name}_{score}": Figure(
            f"{title}, {SCORE_NAMES[score]}", needs, (f"{name}_{score}",), share
        )
        for name, title in titles.items()
        for score in SCORES
    }


def _form() -> dict[str, Figure]:
    good = {
        "parsed": "Parses as JSON",
        "obeyed": "Obeys the schema",
        "cited": "Cites only what exists",
    }
    raw = {f"raw_{name}": f"{title}, free and as it stood" for name, title in good.items()}
    saved = {"saved": "Can be read, mended where needed"}
    bad = {"cut": "Cut at the token limit", "failed": "Not answered"}
    drift = {"drift": "Letters that are not Hangul", "latin": "Latin product words, in letters"}
    figures = _shares("examples", good | saved)
    figures |= _shares("examples", bad | drift, "lower")
    figures |= _shares("free", raw | {"raw_saved": "Can be read, free and mended"})
    figures |= _shares("free", {"raw_cut": "Cut at the token limit, free"}, "lower")
    figures |= _shares("free", {"raw_drift": "Letters that are not Hangul, free"}, "lower")
    varied = {"varied": "Answers that differ between repeats at temperature 0"}
    figures |= _shares("repeats", varied, "lower")
    return figures | _shares(
        "free",
        {
            "raw_score": "Task score, free and as it stood",
            "repaired_score": "Task score, free and mended",
        },
    )


def _labels() -> dict[str, Figure]:
    figures = _categories("", "labels") | _overlap("aspect", "Aspects found", "labels", "presence")
    figures |= _overlap("state", "Aspects with their polarity", "labels", "state")
    figures |= {
        "sentiment_accuracy": Figure("Sentiment accuracy", "labels", ("sentiment",), share),
        "sentiment_macro_f1": _macro(
            "Sentiment macro-F1", "labels", [f"sentiment:{name}" for name in SENTIMENTS]
        ),
        "emotions_f1": _overlap("e", "Emotions", "labels", "emotion")["e_f1"],
        "emotions_macro_f1": _macro(
            "Emotions macro-F1", "labels", [f"emotion:{name}" for name in EMOTIONS]
        ),
    }
    figures |= _shares(
        "labels",
        {"intensity_exact": "Intensity exact", "intensity_within_one": "Intensity within one step"},
    )
    bad = {"intensity_mae": "Intensity error (MAE, steps)"}
    bad |= {"hallucinated": "Aspects said that are not there"}
    bad |= {"uncited": "Aspects said without a clause"}
    return figures | _shares("labels", bad, "lower")


def _categories(prefix: str, needs: str) -> dict[str, Figure]:
    """Category assignment: the pairs (review, aspect), and the gold clauses."""
    said = "Category assignment" if not prefix else "Category assignment in summaries"
    measures = [f"{prefix}category:{aspect}" for aspect in ASPECTS]
    figures = {
        f"{prefix}category_macro_f1": _macro(f"{said}, macro-F1", needs, measures),
        f"{prefix}clause_accuracy": Figure(
            f"{said}, clauses right", needs, (f"{prefix}clause",), share
        ),
    }
    return figures | {
        f"{prefix}category_f1_{aspect}": Figure(
            f"{said}, F1 {KOREAN[aspect]}", needs, (measure,), f1, parts=OVERLAP_PARTS
        )
        for aspect, measure in zip(ASPECTS, measures, strict=True)
    }


def _per_aspect(prefix: str, needs: str) -> dict[str, Figure]:
    titles = {"sentence": "Sentence", "bullets": "Bullets"}
    return {
        f"{prefix}{name}_chrf_{aspect}": Figure(
            f"{title} {KOREAN[aspect]}, chrF", needs, (f"{prefix}{name}_chrf:{aspect}",), share
        )
        for name, title in titles.items()
        for aspect in ASPECTS
    }


def _summary() -> dict[str, Figure]:
    words = {"overall": "Overall", "sentence": "Sentence", "bullets": "Bullets", "claims": "Claims"}
    titles = {f"summary_{name}": f"Restaurant: {title.lower()}" for name, title in words.items()}
    figures = _categories("summary_", "routing") | _texts("summary", titles)
    figures |= _overlap("summary_aspect", "Restaurant: aspects", "summary", "summary_aspect")
    figures |= _overlap("summary_strength", "Restaurant: strengths", "summary", "summary_strength")
    good = {
        "summary_answered": "Restaurant: answered in full",
        "summary_score": "Restaurant: texts, mean chrF",
        "summary_polarity": "Restaurant: polarity of aspects",
        "summary_evidence_verbatim": "Restaurant: citations that are verbatim",
        "summary_evidence_supported": "Restaurant: citations that the labels bear out",
    }
    bad = {
        "summary_hallucinated": "Restaurant: aspects nobody spoke of",
        "summary_drift": "Restaurant: letters that are not Hangul",
        "summary_latin": "Restaurant: Latin product words, in letters",
    }
    figures |= _shares("summary", good) | _shares("summary", bad, "lower")
    judged = {"judged": "Restaurant: bullets that the judge finds supported"}
    return figures | _per_aspect("summary_", "summary") | _shares("judge", judged)


def all_figures() -> dict[str, Figure]:
    """Every figure by name, in the order of the report."""
    titles = {"sentence": "Sentence", "bullets": "Bullets"}
    figures = {"task_score": Figure("Task score", "examples", ("score",), share)}
    names = {"labels": "labels", "aspect": "aspect summaries", "overall": "overall summaries"}
    names |= {"strengths": "strengths"}
    figures |= {
        f"task_score_{task}": Figure(f"Task score, {names[task]}", task, (f"score:{task}",), share)
        for task in TASKS
    }
    figures |= _form() | _labels() | _texts("aspect", titles)
    figures |= _overlap("evidence", "Bullets' citations", "aspect", "bullet_evidence")
    figures |= _per_aspect("", "aspect") | _texts("overall", {"overall": "Overall"})
    figures |= _overlap("strength", "Strengths found", "strengths", "strength")
    figures |= _overlap("strength_aspect", "Strengths' aspects", "strengths", "strength_aspect")
    figures |= _texts("strengths", {"claims": "Claims"}) | _summary()
    losses = {"nll": "Perplexity of the gold answer"}
    losses |= {"nll_other": "Perplexity of another restaurant's answer"}
    figures |= {
        name.replace("nll", "perplexity"): Figure(title, "perplexity", (name,), perplexity, "lower")
        for name, title in losses.items()
    }
    return figures

"""What makes a labelled review doubtful: labels that contradict, likely label errors, odd text.

A contradiction is certain: two labels of one review cannot both follow the guideline. A likely
label error is a guess, ranked by cleanlab from the probabilities of a TF-IDF model that did not
see the review; it is shown to people and never acted upon. A text flag is a remark.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline

from data.contract import (
    SENTIMENTS,
    Aspect,
    AspectPolarity,
    Evidence,
    Label,
    LabelledReview,
    Polarity,
    aspect_polarity,
)

Contradiction = Literal[
    "sentiment_against_intensity",
    "mixed_without_both",
    "evidence_against_aspect",
    "evidence_without_aspect",
    "aspect_without_evidence",
]
TextFlag = Literal["no_letters", "little_korean", "repeated", "very_long", "control_characters"]

FOLDS: Final = 3
LEAST_PER_CLASS: Final = 2 * FOLDS
_SIGNS: Final = {-1: "negative", 0: "neutral", 1: "positive"}
_HANGUL: Final = re.compile(r"[가-힣ㄱ-ㅎㅏ-ㅣ]")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
_REPEATED: Final = re.compile(r"(.{1,8}?)\1{9,}", re.DOTALL)
_LONG_CHARACTERS: Final = 1000
_LEAST_KOREAN: Final = 0.3


@dataclass(frozen=True)
class Contradicting:
    """Labels of one review that cannot all be right; the detail says how to mend them."""

    code: Contradiction
    detail: str


def contradictions(label: Label) -> list[Contradicting]:
    """Every contradiction within a label; tasks that were not labelled contradict nothing."""
    found: list[Contradicting] = []
    if label.sentiment is not None and label.intensity is not None:
        expected = _SIGNS[int(np.sign(label.intensity))]
        if label.sentiment != expected:
            detail = (
                f"sentiment is {label.sentiment!r} but intensity is {label.intensity:+d}; "
                f"sentiment follows its sign: make it {expected!r}, or change the intensity"
            )
            found.append(Contradicting("sentiment_against_intensity", detail))
    if label.evidence and label.aspects is not None:
        found.extend(_against_evidence(label.evidence, label.aspects))
    return found


def _against_evidence(
    evidence: Sequence[Evidence], aspects: Mapping[Aspect, AspectPolarity]
) -> Iterator[Contradicting]:
    spans: dict[Aspect, set[Polarity]] = {}
    for each in evidence:
        spans.setdefault(each.aspect, set()).add(each.polarity)
    for aspect, polarity in aspects.items():
        if aspect not in spans:
            yield Contradicting(
                "aspect_without_evidence",
                f"{aspect} is {polarity!r} without a span; mark one, or clear the aspect",
            )
            continue
        expected = aspect_polarity(spans[aspect])
        if polarity != expected:
            yield Contradicting(
                "mixed_without_both" if polarity == "mixed" else "evidence_against_aspect",
                f"{aspect} is {polarity!r} but its spans are {', '.join(sorted(spans[aspect]))}, "
                f"which makes {expected!r}; change the aspect or the spans",
            )
    for aspect in sorted(spans.keys() - aspects.keys()):
        yield Contradicting(
            "evidence_without_aspect",
            f"a span speaks of {aspect}, which is not labelled; label it, or remove the span",
        )


@dataclass(frozen=True)
class LikelyError:
    """A sentiment that a model which did not see the review would not give.

    Attributes:
        position: of the review, from 0.
        score: probability of the given label; the lower, the more doubtful.
    """

    position: int
    given: str
    suggested: str
    score: float


def likely_label_errors(
    rows: Sequence[LabelledReview], *, seed: int, most_rows: int
) -> tuple[list[LikelyError], str | None]:
    """Likely errors of sentiment, most doubtful first; or none and the reason they were not sought.

    Args:
        rows: reviews; those without a sentiment are passed over.
        seed: of the folds.
        most_rows: above it the search is skipped, because it costs minutes.
    """
    positions = [at for at, row in enumerate(rows) if row.label.sentiment is not None]
    if len(positions) > most_rows:
        return [], f"{len(positions):,} rows, more than label_error_rows ({most_rows:,})"
    names = [str(rows[at].label.sentiment) for at in positions]
    classes: list[str] = [name for name in SENTIMENTS if name in names]
    fewest = min((names.count(name) for name in classes), default=0)
    if len(classes) < 2 or fewest < LEAST_PER_CLASS:  # noqa: PLR2004  # one class has no errors
        return [], f"fewer than {LEAST_PER_CLASS} reviews in a class, or only one class"
    given = np.asarray([classes.index(name) for name in names])
    texts = [rows[at].review.text for at in positions]
    probabilities = _held_out_probabilities(texts, given, seed)
    if probabilities is None:
        return [], "the texts share no character n-grams to learn from"
    issues = find_label_issues(
        given, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    scores = get_label_quality_scores(given, probabilities)
    return [
        LikelyError(
            position=positions[at],
            given=names[at],
            suggested=classes[int(probabilities[at].argmax())],
            score=round(float(scores[at]), 4),
        )
        for at in issues
    ], None


def _held_out_probabilities(
    texts: list[str], given: NDArray[np.int64], seed: int
) -> NDArray[np.float64] | None:
    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=1, sublinear_tf=True),
        LogisticRegression(C=4.0, max_iter=300, class_weight="balanced"),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    try:
        found = cross_val_predict(model, texts, given, cv=folds, method="predict_proba", n_jobs=1)
    except ValueError as error:
        if "empty vocabulary" in str(error):
            return None
        raise
    return np.asarray(found)


def text_flags(text: str) -> list[TextFlag]:
    """Remarks on a text that may still be a good review."""
    flags: list[TextFlag] = []
    letters = sum(map(str.isalpha, text))
    if not letters:
        flags.append("no_letters")
    elif len(_HANGUL.findall(text)) < _LEAST_KOREAN * letters:
        flags.append("little_korean")
    if _REPEATED.search(text):
        flags.append("repeated")
    if len(text) > _LONG_CHARACTERS:
        flags.append("very_long")
    if _CONTROL.search(text):
        flags.append("control_characters")
    return flags

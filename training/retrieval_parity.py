"""Does an exported embedding graph find what its source finds? Every format must pass here.

Cosines say how far a vector moved, the overlap of nearest neighbours whether it matters to a
search: both are read, and the tail with them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from data.clauses import split_clauses
from data.errors import ExportError
from data.manifest import read_labelled_reviews
from serving.engines.protocol import Floats
from serving.likeness import cosines, neighbour_overlap

LEAST_TEXTS: Final = 50
MOST_TEXTS: Final = 800


class RetrievalLimits(BaseModel):
    """How far an export may be from its source; what is left out is not asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cos_mean: float = -1.0
    cos_p1: float = -1.0
    cos_min: float = -1.0
    top10_overlap: float = 0.0


LIMITS: Final[Mapping[str, RetrievalLimits]] = {
    "fp32": RetrievalLimits(cos_min=0.99999, top10_overlap=0.99),
    "fp16": RetrievalLimits(cos_min=0.9999, top10_overlap=0.98),
    "int8": RetrievalLimits(cos_mean=0.995, cos_p1=0.98, top10_overlap=0.94),
}
"""By precision."""


class RetrievalParity(BaseModel):
    """How far an export is from its source.

    Attributes:
        texts: texts compared.
        cos_mean: mean cosine between a text's two vectors.
        cos_p1: its first percentile.
        cos_min: the lowest.
        top10_overlap: mean share of a text's ten nearest that both find, itself left out.
    """

    model_config = ConfigDict(frozen=True)

    texts: int
    cos_mean: float
    cos_p1: float
    cos_min: float
    top10_overlap: float


def parity_texts(part: Path, max_tokens: int) -> list[str]:
    """Reviews of one part, their clauses, and the extremes of length; no text twice.

    Args:
        part: a .jsonl of labelled reviews.
        max_tokens: of a window; the longest text fills several.
    """
    reviews = [row.review.text for row in read_labelled_reviews(part)]
    clauses = [clause.text for text in reviews for clause in split_clauses(text)]
    extremes = ["굿", "😋", "ㅋ" * 50, "맛있어요 " * max_tokens, "JMT!!! 완전 개꿀맛ㅠㅠ"]
    return list(dict.fromkeys([*extremes, *reviews, *clauses]))[:MOST_TEXTS]


def measure_retrieval(source: Floats, export: Floats) -> RetrievalParity:
    """Compare the vectors of the same texts.

    Args:
        source: (texts, dimensions) of the source model.
        export: the same of the export.

    Raises:
        ExportError: there are too few texts, or the shapes differ.
    """
    if source.shape != export.shape or len(source) < LEAST_TEXTS:
        raise ExportError(
            f"vectors of shape {source.shape!r} and {export.shape!r} cannot be compared; embed "
            f"the same {LEAST_TEXTS} texts or more with both"
        )
    alike = cosines(source, export)
    return RetrievalParity(
        texts=len(alike),
        cos_mean=float(alike.mean()),
        cos_p1=float(np.percentile(alike, 1)),
        cos_min=float(alike.min()),
        top10_overlap=neighbour_overlap(source, export),
    )


def broken_retrieval(parity: RetrievalParity, limits: RetrievalLimits) -> list[str]:
    """What is wrong, a phrase each; empty when the export may be used."""
    return [
        f"{name}={getattr(parity, name):.6f} < {least!r}"
        for name, least in limits.model_dump().items()
        if getattr(parity, name) < least
    ]

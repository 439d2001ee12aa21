"""Does an exported graph answer like its source model? Every export must pass here.

Compared on real windows: alone and in batches, padded and not, the shortest and the longest.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict

from data.errors import ExportError
from data.manifest import read_labelled_reviews
from serving.analyzer import Analyzer
from serving.likeness import cosines
from serving.logits import Logits
from serving.windows import Windows, merge_windows

LEAST_TEXTS: Final = 200


class ParityLimits(BaseModel):
    """How far an export may be from its source; the defaults suit an fp32 graph."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_diff: float = 1e-3
    label_flip_share: float = 0.0
    cos_mean: float = 0.99999
    cos_p1: float = 0.9999


INT8_LIMITS: Final = ParityLimits(
    max_abs_diff=3.0, label_flip_share=0.03, cos_mean=0.995, cos_p1=0.95
)
"""Cosines of whole logit vectors; shared figures: ORT dynamic per-channel reaches 0.9915 on
sentence embeddings, FFN-down in float lifts a static graph to 0.98-0.99."""


class Parity(BaseModel):
    """How far an export is from its source.

    Attributes:
        texts: texts compared.
        max_abs_diff: largest difference of any logit.
        label_flips: texts whose likeliest sentiment changed.
        cos_mean: mean cosine between the logit vectors (33 values) of a text.
        cos_p1: its first percentile, where the bad tail shows.
        batch_abs_diff: largest difference of the export's own logits, one text at a time against
            batches; what an answer depends on its batch-mates.
    """

    model_config = ConfigDict(frozen=True)

    texts: int
    max_abs_diff: float
    label_flips: int
    cos_mean: float
    cos_p1: float
    batch_abs_diff: float


def probe_texts(part: Path, max_tokens: int) -> list[str]:
    """Texts for the comparison: reviews of one part, and the extremes of length.

    ``max_tokens`` decides how long the longest is: one that fills several windows.
    """
    reviews = [row.review.text for row in read_labelled_reviews(part)][:1000]
    extremes = [
        "굿",
        "😋",
        "ㅋ" * 50,
        "맛있어요 " * max_tokens,
        "별로 " * (2 * max_tokens),
        "JMT!!! 완전 개꿀맛ㅠㅠ",
    ]
    texts = [*reviews, *extremes]
    # A small validation part is read again in halves, so that the tail has enough texts.
    halves = [text[: len(text) // 2] for text in reviews if len(text) > 1]
    return texts if len(texts) >= LEAST_TEXTS else texts + halves


def _one_by_one(analyzer: Analyzer, windows: Windows) -> Logits:
    return merge_windows(analyzer.logits(windows, token_budget=1), windows)


def measure_parity(source: Analyzer, export: Analyzer, texts: Sequence[str]) -> Parity:
    """Compare an export with its source on the same windows.

    Raises:
        ExportError: the two do not read the texts into the same windows.
    """
    windows, own = source.windows(texts), export.windows(texts)
    if windows.ids != own.ids:
        raise ExportError(
            "the export's tokenizer or window sizes differ from its source's; export again with "
            "the source's tokenizer.json and model_spec.json"
        )
    expected = merge_windows(source.logits(windows), windows)
    batched = merge_windows(export.logits(windows), windows)
    alone = _one_by_one(export, windows)
    alike = np.minimum(
        cosines(expected.flat(), batched.flat()), cosines(expected.flat(), alone.flat())
    )
    labels = expected.sentiment.argmax(1)
    flips = (labels != batched.sentiment.argmax(1)) | (labels != alone.sentiment.argmax(1))
    return Parity(
        texts=len(texts),
        max_abs_diff=float(
            max(
                np.abs(expected.flat() - batched.flat()).max(),
                np.abs(expected.flat() - alone.flat()).max(),
            )
        ),
        label_flips=int(flips.sum()),
        cos_mean=float(alike.mean()),
        cos_p1=float(np.percentile(alike, 1)),
        batch_abs_diff=float(np.abs(batched.flat() - alone.flat()).max()),
    )


def broken_limits(parity: Parity, limits: ParityLimits) -> list[str]:
    """What is wrong, a phrase each; empty when the export may be used."""
    share = parity.label_flips / parity.texts
    checks = {
        f"max_abs_diff={parity.max_abs_diff!r} > {limits.max_abs_diff!r}": (
            parity.max_abs_diff <= limits.max_abs_diff
        ),
        f"label flips {parity.label_flips} of {parity.texts} > {limits.label_flip_share!r}": (
            share <= limits.label_flip_share
        ),
        f"cos_mean={parity.cos_mean!r} < {limits.cos_mean!r}": parity.cos_mean >= limits.cos_mean,
        f"cos_p1={parity.cos_p1!r} < {limits.cos_p1!r}": parity.cos_p1 >= limits.cos_p1,
    }
    return [problem for problem, fine in checks.items() if not fine]


def check_parity(parity: Parity, limits: ParityLimits, *, what: str) -> None:
    """Refuse an export that does not answer like its source.

    Raises:
        ExportError: names every limit that is broken.
    """
    if problems := broken_limits(parity, limits):
        raise ExportError(
            f"{what} does not answer like its source: {'; '.join(problems)}; "
            "serve the source's format, or leave more of the graph in float"
        )

"""What an embedding model finds, beside TF-IDF on the same texts: retrieval and KorSTS.

Queries are made of held-out reviews: one typed anew by another thumb, or one clause of it; the
review itself is to be found among all of them. KorSTS says whether closeness is what people call
alike; it is reported where its file is given, and nothing is trained or chosen on it.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from data.clauses import split_clauses
from data.errors import MetricError
from data.manifest import (
    Manifest,
    read_labelled_reviews,
    read_manifest,
    start_artifact,
    write_json,
    write_manifest,
    write_text_atomically,
)
from data.sources.synthetic_lexicon import lexicon
from serving.embedding_folder import EMBEDDING_KIND
from serving.engines.choice import load_embedder
from training.embedding_pairs import retyped, scored_pairs
from training.evaluation.retrieval_report import render_retrieval_html, render_retrieval_markdown
from training.evaluation.retrieval_settings import RetrievalSettings
from training.retrieval_parity import unit

EVALUATION_KIND: Final = "embedding_evaluation"
CANDIDATE: Final = "candidate"
PARENT: Final = "parent"
TFIDF: Final = "tfidf"
LEAST_REVIEWS: Final = 10
Ranks = NDArray[np.int64]
Similarity = Callable[[Sequence[str], Sequence[str]], Any]
"""Two lists of texts to unit rows of each, dense or sparse."""


def evaluate_embedding(
    split: Path, model: Path, out: Path, *, settings: RetrievalSettings
) -> Manifest:
    """Measure the format that will serve, its fp32 parent and TF-IDF on the test part.

    Args:
        split: folder of kind "split".
        model: an exported embedding folder, quantised or not.
        out: empty folder: metrics.json, report.html, report.md.
        settings: how.

    Returns:
        The manifest, whose facts hold ``verdict`` and ``reason``.

    Raises:
        MetricError: the test part holds too few reviews.
        SettingsError: the KorSTS file is not one.
        ArtifactError: an input is missing or altered.
    """
    folder = read_manifest(model, EMBEDDING_KIND)
    parent = read_manifest(split, "split")
    engines = {CANDIDATE: "onnxruntime-fp32", PARENT: "onnxruntime-fp32"}
    if (model / "int8.onnx").is_file():
        engines[CANDIDATE] = "onnxruntime-int8"
    contestants: dict[str, Similarity] = {
        name: _embedded(load_embedder(model, engine=engine, threads=settings.threads).embed)
        for name, engine in engines.items()
    }
    contestants[TFIDF] = _tfidf
    reviews = list(
        dict.fromkeys(row.review.text for row in read_labelled_reviews(split / "test.jsonl"))
    )
    if len(reviews) < LEAST_REVIEWS:
        raise MetricError(
            f"the test part of {str(split)!r} holds {len(reviews)} reviews; retrieval asks for "
            f"{LEAST_REVIEWS} or more: label more, or raise test_share"
        )
    metrics = {name: _figures(how, reviews, settings) for name, how in contestants.items()}
    lost = _lost(metrics, settings.margin)
    result = {
        "metrics": metrics,
        "engines": engines,
        "model": {"digest": folder.digest, **_said(folder.facts)},
        "n": {"reviews": len(reviews), "part": "test"},
        "resamples": settings.resamples,
        "margin": settings.margin,
        "verdict": "fail" if lost else "pass",
        "reason": "; ".join(lost)
        or f"no figure of {engines[CANDIDATE]} lies more than {settings.margin} below fp32",
    }
    start_artifact(out)
    write_json(out / "metrics.json", result)
    write_text_atomically(out / "report.html", render_retrieval_html(result))
    write_text_atomically(out / "report.md", render_retrieval_markdown(result))
    facts = {key: result[key] for key in ("verdict", "reason", "margin")}
    return write_manifest(
        out, EVALUATION_KIND, facts | {"model": folder.digest, "split": parent.digest}
    )


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts.get(key) for key in ("recipe", "pretrained", "formats", "left_out")}


def _embedded(embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> Similarity:
    return lambda first, second: (unit(embed(first)), unit(embed(second)))


def _tfidf(first: Sequence[str], second: Sequence[str]) -> tuple[Any, Any]:
    """Character n-grams weighed by how rare they are in these very texts."""
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    vectorizer.fit([*first, *second])
    return vectorizer.transform(first), vectorizer.transform(second)


def _figures(
    how: Similarity, reviews: Sequence[str], settings: RetrievalSettings
) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, (queries, wanted) in _queries(reviews, settings.seed).items():
        ranks = _ranks(how, queries, reviews, wanted)
        found[f"{name}_recall_1"] = _mean(ranks == 1, settings)
        found[f"{name}_mrr"] = _mean(1.0 / ranks, settings)
    if settings.korsts:
        pairs = list(scored_pairs(Path(settings.korsts)))
        first, second = how([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        product = first.multiply(second) if sparse.issparse(first) else first * second
        closeness = np.asarray(product.sum(axis=1)).ravel()
        scores = np.array([pair[2] for pair in pairs])
        found["korsts_spearman"] = _interval(
            len(scores), lambda rows: float(spearmanr(closeness[rows], scores[rows])[0]), settings
        )
    return found


def _queries(reviews: Sequence[str], seed: int) -> dict[str, tuple[list[str], Ranks]]:
    """Queries by kind, and the review that each is to find."""
    rng, words = Random(seed), lexicon()  # noqa: S311  # queries guard no secret
    anew = [retyped(text, words, rng, word_dropout=0.1) for text in reviews]
    clauses = [
        (clause.text, number)
        for number, text in enumerate(reviews)
        if len(found := split_clauses(text)) > 1
        for clause in [found[int(rng.random() * len(found))]]
    ]
    kinds: dict[str, tuple[list[str], Ranks]] = {"retyped": (anew, np.arange(len(reviews)))}
    if len(clauses) >= LEAST_REVIEWS:
        wanted = np.array([number for _, number in clauses])
        kinds["clause"] = ([text for text, _ in clauses], wanted)
    return kinds


def _ranks(how: Similarity, queries: Sequence[str], reviews: Sequence[str], wanted: Ranks) -> Ranks:
    """(queries,): where the wanted review stands; ties count against it."""
    asked, corpus = how(queries, reviews)
    product = asked @ corpus.T
    scores = product.toarray() if sparse.issparse(product) else np.asarray(product)
    own = scores[np.arange(len(wanted)), wanted]
    return np.asarray((scores >= own[:, None]).sum(axis=1), dtype=np.int64)


def _mean(values: NDArray[Any], settings: RetrievalSettings) -> dict[str, Any]:
    wide = values.astype(np.float64)
    return _interval(len(wide), lambda rows: float(wide[rows].mean()), settings)


def _interval(
    count: int, statistic: Callable[[Ranks], float], settings: RetrievalSettings
) -> dict[str, Any]:
    """The statistic, and its 95% interval over resamples that are the same for all contestants."""
    rng = np.random.default_rng(settings.seed)
    drawn = [statistic(rng.integers(count, size=count)) for _ in range(settings.resamples)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "value": statistic(np.arange(count)),
        "low": float(low),
        "high": float(high),
        "n": count,
    }


def _lost(metrics: Mapping[str, Mapping[str, Any]], margin: float) -> list[str]:
    return [
        f"{name} of the served format is {figure['value']:.4f}, of fp32 "
        f"{metrics[PARENT][name]['value']:.4f}: more than {margin!r} lost"
        for name, figure in metrics[CANDIDATE].items()
        # KorSTS is reported; nothing is chosen on it.
        if not name.startswith("korsts")
        and figure["value"] < metrics[PARENT][name]["value"] - margin
    ]

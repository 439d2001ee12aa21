"""What an embedding model finds, beside TF-IDF on the same texts: retrieval and KorSTS.

Queries are made of held-out reviews: one typed anew by another thumb, or one clause of it; the
review itself is to be found among all of them. A model made on the spot learnt from pairs made the
same way (training/embedding_pairs.py), so for it these queries are in distribution: its lead over
TF-IDF is one on this noise, not in general, and every report says so. KorSTS says whether closeness
is what people call alike; it is reported where its file is given, and nothing is trained or chosen
on it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import TfidfVectorizer

from data.clauses import split_clauses
from data.errors import EngineError, MetricError
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
from serving.engines.choice import engines_of, load_embedder, plain_engine
from serving.likeness import unit
from training.embedding_pairs import retyped, scored_pairs
from training.evaluation.retrieval_report import (
    MADE_AS_TRAINED,
    MADE_HERE,
    render_retrieval_html,
    render_retrieval_markdown,
)
from training.evaluation.retrieval_settings import RetrievalSettings

EVALUATION_KIND: Final = "embedding_evaluation"
CANDIDATE: Final = "candidate"
PARENT: Final = "parent"
TFIDF: Final = "tfidf"
JUDGED: Final = {"onnx-int8": "onnxruntime-int8"}
"""Format that a folder's manifest names → the engine that is judged; the plain one for others."""
ALSO: Final = ("openvino-int8", "torch-int8")
"""Reported where the folder can run them here: what tuning may choose on a CPU."""
LEAST_REVIEWS: Final = 10
Ranks = NDArray[np.int64]
Figures = dict[str, dict[str, Any]]
"""Figure → its value, interval and count."""
Similarity = Callable[[Sequence[str], Sequence[str]], Any]
"""Two lists of texts to unit rows of each, dense or sparse."""


def evaluate_embedding(
    split: Path, model: Path, out: Path, *, settings: RetrievalSettings
) -> Manifest:
    """Measure a folder's engines and TF-IDF on the test part; its INT8 is judged against fp32.

    What serves is the plain engine until `make tune-engine` chooses another, so the INT8 that the
    folder is named for is judged, and the others of a CPU are reported.

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
        EngineError: fp32 or the judged engine cannot load the folder.
        ArtifactError: an input is missing or altered.
    """
    folder = read_manifest(model, EMBEDDING_KIND)
    parent = read_manifest(split, "split")
    plain = plain_engine(model)
    engines = _contestants(model, str(folder.facts.get("format")), plain)
    reviews = list(
        dict.fromkeys(row.review.text for row in read_labelled_reviews(split / "test.jsonl"))
    )
    if len(reviews) < LEAST_REVIEWS:
        raise MetricError(
            f"the test part of {str(split)!r} holds {len(reviews)} reviews; retrieval asks for "
            f"{LEAST_REVIEWS} or more: label more, or raise test_share"
        )
    by_engine, not_measured = _measured(model, engines.values(), reviews, settings)
    engines = {name: engine for name, engine in engines.items() if engine in by_engine}
    metrics = {name: by_engine[engine] for name, engine in engines.items()}
    metrics[TFIDF] = _figures(_tfidf, reviews, settings)
    judged = engines[CANDIDATE]
    lost = _lost(metrics, settings.margin, judged)
    result = {
        "metrics": metrics,
        "engines": engines,
        "judged": judged,
        "served_untuned": plain,
        "not_measured": not_measured,
        "model": {"digest": folder.digest, **_said(folder.facts)},
        "queries": MADE_AS_TRAINED if folder.facts.get("pretrained") is None else MADE_HERE,
        "n": {"reviews": len(reviews), "part": "test"},
        "resamples": settings.resamples,
        "margin": settings.margin,
        "verdict": "fail" if lost else "pass",
        "reason": "; ".join(lost)
        or f"no figure of {judged} lies more than {settings.margin} below fp32",
    }
    start_artifact(out)
    write_json(out / "metrics.json", result)
    write_text_atomically(out / "report.html", render_retrieval_html(result))
    write_text_atomically(out / "report.md", render_retrieval_markdown(result))
    facts = {key: result[key] for key in ("verdict", "reason", "margin", "judged")}
    return write_manifest(
        out, EVALUATION_KIND, facts | {"model": folder.digest, "split": parent.digest}
    )


def _contestants(model: Path, named: str, plain: str) -> dict[str, str]:
    """Who is compared → the engine that answers for it; the judged one first.

    Args:
        model: the folder.
        named: the format that its manifest names.
        plain: the engine that serves it untuned.
    """
    engines = {CANDIDATE: JUDGED.get(named, plain), PARENT: "onnxruntime-fp32"}
    runnable = engines_of(model)
    for name in (plain, *ALSO):
        if name in runnable and name not in engines.values():
            engines[name] = name
    return engines


def _measured(
    model: Path, engines: Iterable[str], reviews: Sequence[str], settings: RetrievalSettings
) -> tuple[dict[str, Figures], dict[str, str]]:
    """Figures by engine, and of those in ``ALSO`` that cannot load the folder, why."""
    by_engine: dict[str, Figures] = {}
    not_measured: dict[str, str] = {}
    for engine in dict.fromkeys(engines):
        try:
            embedder = load_embedder(model, engine=engine, threads=settings.threads)
        except EngineError as error:  # widths that it does not take
            if engine not in ALSO:
                raise
            not_measured[engine] = str(error)
            continue
        by_engine[engine] = _figures(_embedded(embedder.embed), reviews, settings)
    return by_engine, not_measured


def _said(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: facts.get(key) for key in ("recipe", "pretrained", "formats", "left_out")}


def _embedded(embed: Callable[[Sequence[str]], NDArray[np.float32]]) -> Similarity:
    return lambda first, second: (unit(embed(first)), unit(embed(second)))


def _tfidf(first: Sequence[str], second: Sequence[str]) -> tuple[Any, Any]:
    """Character n-grams weighed by how rare they are in these very texts."""
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True)
    vectorizer.fit([*first, *second])
    return vectorizer.transform(first), vectorizer.transform(second)


def _figures(how: Similarity, reviews: Sequence[str], settings: RetrievalSettings) -> Figures:
    found: Figures = {}
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


def _lost(metrics: Mapping[str, Mapping[str, Any]], margin: float, judged: str) -> list[str]:
    return [
        f"{name} of {judged} is {figure['value']:.4f}, of fp32 "
        f"{metrics[PARENT][name]['value']:.4f}: more than {margin!r} lost"
        for name, figure in metrics[CANDIDATE].items()
        # KorSTS is reported; nothing is chosen on it.
        if not name.startswith("korsts")
        and figure["value"] < metrics[PARENT][name]["value"] - margin
    ]

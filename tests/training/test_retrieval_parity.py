import numpy as np
import pytest

from data.contract import Label, LabelledReview, Review
from data.errors import ExportError
from data.manifest import write_labelled_reviews
from training.retrieval_parity import (
    LIMITS,
    RetrievalLimits,
    broken_retrieval,
    measure_retrieval,
    parity_texts,
)

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(80, 16)).astype(np.float32)


def test_the_same_vectors_at_another_length_are_the_same():
    parity = measure_retrieval(VECTORS, VECTORS * 3)
    assert parity.cos_min == pytest.approx(1.0)
    assert parity.top10_overlap == 1.0
    assert not [name for name in LIMITS if broken_retrieval(parity, LIMITS[name])]


def test_one_vector_turned_round_shows_in_the_tail_only():
    turned = VECTORS.copy()
    turned[3] *= -1
    parity = measure_retrieval(VECTORS, turned)
    assert parity.cos_min == pytest.approx(-1.0)
    assert parity.cos_mean > 0.9
    assert broken_retrieval(parity, RetrievalLimits(cos_min=0.0)) == ["cos_min=-1.000000 < 0.0"]


def test_other_vectors_find_other_neighbours():
    parity = measure_retrieval(VECTORS, RNG.normal(size=(80, 16)).astype(np.float32))
    assert parity.top10_overlap < 0.4
    assert len(broken_retrieval(parity, LIMITS["int8"])) == 3


@pytest.mark.parametrize("export", [VECTORS[:79], VECTORS[:, :8]])
def test_vectors_of_other_shapes_are_not_compared(export):
    with pytest.raises(ExportError, match="cannot be compared"):
        measure_retrieval(VECTORS, export)
    with pytest.raises(ExportError, match="50 texts"):
        measure_retrieval(VECTORS[:10], VECTORS[:10])


def test_texts_are_reviews_their_clauses_and_the_extremes_of_length(tmp_path):
    text = "국물이 정말 맛있어요. 직원이 불친절해요"
    row = LabelledReview(review=Review(review_id="a", text=text), label=Label(intensity=0))
    write_labelled_reviews(tmp_path / "part.jsonl", [row, row])
    texts = parity_texts(tmp_path / "part.jsonl", 32)
    assert len(texts) == len(set(texts))
    assert {text, "국물이 정말 맛있어요.", "굿"} <= set(texts)
    assert max(map(len, texts)) > 100

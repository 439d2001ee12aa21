import gzip
from random import Random

import pytest

from data.errors import SettingsError
from data.sources.synthetic import generate
from data.sources.synthetic_lexicon import lexicon
from training.embedding_pairs import alike_pairs, retyped, review_pairs, scored_pairs

REVIEWS = list(generate(200, seed=3))


def test_every_review_gives_one_pair_and_a_seed_gives_the_same():
    def pairs(seed: int) -> list[tuple[str, str]]:
        return review_pairs(REVIEWS, clause_share=0.5, word_dropout=0.1, seed=seed)

    assert len(pairs(1)) == len(REVIEWS)
    assert pairs(1) == pairs(1) != pairs(2)


def test_an_anchor_is_the_review_or_a_clause_of_it():
    pairs = review_pairs(REVIEWS, clause_share=0.5, word_dropout=0.0, seed=1)
    texts = [row.review.text for row in REVIEWS]
    assert all(anchor in text for (anchor, _), text in zip(pairs, texts, strict=True))
    whole = sum(anchor == text for (anchor, _), text in zip(pairs, texts, strict=True))
    assert len(texts) / 3 < whole < len(texts)


def test_a_retyped_text_is_never_blank_and_often_another():
    rng, words = Random(0), lexicon()  # noqa: S311  # a test guards no secret
    texts = ["굿", "국물이 정말 맛있어요. 그런데 직원이 불친절해서 다시는 안 갈 것 같아요"]
    seen = [retyped(text, words, rng, word_dropout=0.9) for text in texts for _ in range(50)]
    assert all(text.strip() for text in seen)
    assert len(set(seen)) > 20


def test_only_pairs_that_people_scored_alike_are_learnt(tmp_path):
    path = tmp_path / "korsts.tsv.gz"
    rows = "genre\tscore\tsentence1\tsentence2\nn\t4.0\t하나\t한\nn\t3.9\t둘\t셋\n"
    path.write_bytes(gzip.compress(rows.encode()))
    assert alike_pairs(path) == [("하나", "한")]
    assert [score for *_, score in scored_pairs(path)] == [4.0, 3.9]


@pytest.mark.parametrize(
    "text", ["score\tsentence1\nx\ty\n", "score\tsentence1\tsentence2\nhigh\ta\tb\n"]
)
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "pairs.tsv"
    path.write_text(text)
    with pytest.raises(SettingsError, match="score, sentence1 and sentence2"):
        list(scored_pairs(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SettingsError, match=r"none\.tsv"):
        list(scored_pairs(tmp_path / "none.tsv"))

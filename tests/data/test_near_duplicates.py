import random

import pytest

from data.near_duplicates import Unions, groups_of, near_duplicate_pairs
from data.text import grams, jaccard, normalised

LONG = "국물이 진하고 고기가 부드러워서 부모님 모시고 다시 오고 싶은 집이에요"


def test_width_case_and_spaces_do_not_make_another_text() -> None:
    assert normalised("ＪＭＴ  맛집\n") == normalised("jmt 맛집")
    assert grams("맛 있어 요") == grams("맛있어요")
    assert grams("굿") == {"굿"}
    assert jaccard(grams("가나다라"), grams("가나다마")) == pytest.approx(1 / 3)


def test_pairs_are_those_of_the_exact_jaccard() -> None:
    chance = random.Random(3)  # noqa: S311  # texts, not secrets
    texts = [LONG]
    for _ in range(60):
        letters = list(chance.choice(texts))
        letters[chance.randrange(len(letters))] = chance.choice("가나다라마바사")
        texts.append("".join(letters))
    found = {(pair.first, pair.second) for pair in near_duplicate_pairs(texts, 0.85)}
    sets = [grams(text) for text in texts]
    exact = {
        (one, other)
        for other in range(len(texts))
        for one in range(other)
        if jaccard(sets[one], sets[other]) >= 0.85
    }
    assert exact
    assert groups_of(near_duplicate_pairs(texts, 0.85), len(texts))
    assert found <= exact
    assert len(found) > 0.95 * len(exact)


def test_equal_texts_are_tied_to_the_first() -> None:
    pairs = near_duplicate_pairs(["굿", LONG, "굿", "굿"], 0.8)
    assert [(pair.first, pair.second, pair.similarity) for pair in pairs] == [
        (0, 2, 1.0),
        (0, 3, 1.0),
    ]
    assert groups_of(pairs, 4) == [[0, 2, 3]]


def test_short_texts_that_differ_are_not_one() -> None:
    assert near_duplicate_pairs(["맛있어요", "맛없어요", "맛있네요"], 0.8) == []


def test_a_threshold_that_would_miss_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.3"):
        near_duplicate_pairs([LONG], 0.3)


def test_unions_are_named_by_their_earliest() -> None:
    unions = Unions(5)
    unions.union(4, 3)
    unions.union(3, 1)
    assert [unions.find(member) for member in range(5)] == [0, 1, 2, 1, 1]

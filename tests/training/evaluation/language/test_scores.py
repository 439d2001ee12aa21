import sys

import pytest

from data.errors import MetricError
from training.evaluation.language import scores
from training.evaluation.language.scores import SCORES, chrf, matched, morphemes, rouge, rouge_l

SENTENCE = "국물이 진하고 옛 맛을 그대로 지킨다"
OTHER = "주차할 곳이 없어 한참 돌았다"
SKELETON = '{"bullets":[{"evidence":["#1"],"polarity":"positive","text":""}],"sentence":""}'


@pytest.mark.parametrize("name", SCORES)
def test_identical_korean_sentences_score_one(name: str) -> None:
    assert SCORES[name](SENTENCE, SENTENCE) == pytest.approx(1.0)


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("said", ["", "   ", SKELETON, "[]", '["국물이 진하고"]'])
def test_nothing_and_json_score_zero(name: str, said: str) -> None:
    assert SCORES[name](SENTENCE, said) == 0.0


@pytest.mark.parametrize("name", SCORES)
def test_another_sentence_scores_clearly_lower(name: str) -> None:
    assert SCORES[name](SENTENCE, OTHER) < 0.2
    assert SCORES[name](SENTENCE, "국물이 진하고 맛을 지킨다") > 0.35


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("reference", ["", "  ", SKELETON])
def test_a_reference_that_is_empty_or_json_is_refused(name: str, reference: str) -> None:
    with pytest.raises(MetricError):
        SCORES[name](reference, SENTENCE)


def test_a_text_that_only_begins_like_json_is_a_text() -> None:
    assert chrf("{국물} 맛이 진하다", "{국물} 맛이 진하다") == pytest.approx(1.0)


def test_morphemes_meet_where_words_do_not() -> None:
    assert morphemes("국물이 짰어요!")[:2] == ("국물", "이")
    # No word of one stands in the other.
    assert rouge("국물이 진하다", "국물은 진했다", 1) > 0.5


def test_rouge_counts_grams_and_order() -> None:
    # 국물 이 진하 다 | 진하 다 국물 이: all four morphemes, two of three pairs, two in order.
    first, second = "국물이 진하다", "진하다 국물이"
    assert morphemes(first) == ("국물", "이", "진하", "다")
    assert sorted(morphemes(second)) == sorted(morphemes(first))
    assert rouge(first, second, 1) == 1.0
    assert rouge(first, second, 2) == pytest.approx(2 / 3)
    assert rouge_l(first, second) == pytest.approx(0.5)


def test_a_gram_said_thrice_counts_once() -> None:
    assert rouge("국물", "국물 국물 국물", 1) == pytest.approx(2 / 4)
    assert rouge("국물", "국물", 2) == 1.0
    assert rouge("국물", "고기", 2) == 0.0


def test_lists_are_matched_whatever_their_order_and_extras_cost() -> None:
    assert matched(chrf, [SENTENCE, OTHER], [OTHER, SENTENCE]) == pytest.approx(1.0)
    assert matched(chrf, [SENTENCE], [SENTENCE, SENTENCE]) == pytest.approx(2 / 3)
    assert matched(chrf, [SENTENCE, OTHER], []) == 0.0
    with pytest.raises(MetricError):
        matched(chrf, [], [SENTENCE])


@pytest.mark.parametrize(
    ("package", "cached", "score"),
    [("kiwipiepy", "_analyser", "rouge_1"), ("sacrebleu.metrics.chrf", "_chrf", "chrf")],
)
def test_a_missing_package_is_an_error_never_zero(
    package: str, cached: str, score: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    getattr(scores, cached).cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MetricError, match="pip install"):
        SCORES[score]("아직 아무도 묻지 않은 문장", "다른 문장도 처음이다")

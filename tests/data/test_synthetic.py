import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from data.contract import (
    ASPECTS,
    EMOTIONS,
    INTENSITIES,
    PHENOMENA,
    SENTIMENTS,
    LabelledReview,
    aspect_polarity,
)
from data.sources.korean import ENDINGS, Ending, conjugate, copula, particle
from data.sources.synthetic import generate
from data.sources.synthetic_lexicon import lexicon
from data.sources.synthetic_score import intensity_of
from data.sources.synthetic_sheet import Sheet, read_sheet

FORMS: list[tuple[str, Ending, bool, str]] = [
    ("맵다", "어요", True, "매워요"), ("맵다", "는데", True, "매운데"),
    ("맵다", "습니다", True, "맵습니다"), ("맵다", "음", True, "매움"),
    ("싱겁다", "었어요", True, "싱거웠어요"), ("아쉽다", "네요", True, "아쉽네요"),
    ("좁다", "어요", True, "좁아요"), ("좁다", "는데", True, "좁은데"),
    ("굽다", "어요", False, "구워요"), ("굽다", "다", False, "굽는다"),
    ("짜다", "어요", True, "짜요"), ("짜다", "는데", True, "짠데"), ("짜다", "음", True, "짬"),
    ("크다", "어요", True, "커요"), ("크다", "었음", True, "컸음"),
    ("바쁘다", "어요", True, "바빠요"), ("예쁘다", "었어요", True, "예뻤어요"),
    ("느리다", "어요", True, "느려요"), ("느리다", "습니다", True, "느립니다"),
    ("빠르다", "어요", True, "빨라요"), ("들르다", "었어요", False, "들렀어요"),
    ("낫다", "어요", True, "나아요"), ("낫다", "는데", True, "나은데"),
    ("친절하다", "어요", True, "친절해요"), ("친절하다", "었는데", True, "친절했는데"),
    ("친절하시다", "어요", True, "친절하세요"), ("친절하시다", "었어요", True, "친절하셨어요"),
    ("달다", "어요", True, "달아요"), ("달다", "네요", True, "다네요"),
    ("달다", "는데", True, "단데"), ("달다", "습니다", True, "답니다"),
    ("힘들다", "음", True, "힘듦"), ("맛있다", "는데", True, "맛있는데"),
    ("맛있다", "다", True, "맛있다"), ("없다", "더라고요", True, "없더라고요"),
    ("괜찮다", "는데", True, "괜찮은데"), ("않다", "어요", True, "않아요"),
    ("많다", "지만", True, "많지만"), ("그렇다", "어요", True, "그래요"),
    ("나오다", "다", False, "나온다"), ("나오다", "었고", False, "나왔고"),
    ("나오다", "는데", False, "나오는데"), ("먹다", "다", False, "먹는다"),
    ("붇다", "었어요", False, "불었어요"), ("되다", "어요", False, "돼요"),
    ("녹다", "어요", False, "녹아요"), ("주다", "었어요", False, "줬어요"),
    ("보이다", "어요", False, "보여요"), ("아니다", "어요", True, "아니에요"),
    ("아니다", "는데", True, "아닌데"), ("별로이다", "어요", True, "별로예요"),
    ("별로이다", "음", True, "별로임"), ("엉망이다", "었어요", True, "엉망이었어요"),
    ("모르겠다", "는데", False, "모르겠는데"), ("간이 딱 맞다", "다", False, "간이 딱 맞는다"),
    ("불친절하지 않다", "어요", True, "불친절하지 않아요"),
    ("비리지도 않다", "고", True, "비리지도 않고"),
]  # fmt: skip

WANTED = {
    ("food", "positive"): 120, ("food", "negative"): 120, ("food", "neutral"): 40,
    ("service", "positive"): 60, ("service", "negative"): 60, ("service", "neutral"): 10,
    ("atmosphere", "positive"): 50, ("atmosphere", "negative"): 50, ("atmosphere", "neutral"): 10,
    ("price", "positive"): 40, ("price", "negative"): 40, ("price", "neutral"): 10,
    ("hygiene", "positive"): 40, ("hygiene", "negative"): 40, ("hygiene", "neutral"): 10,
    ("access", "positive"): 50, ("access", "negative"): 50, ("access", "neutral"): 10,
}  # fmt: skip


@cache
def reviews() -> tuple[LabelledReview, ...]:
    return tuple(generate(10_000, seed=7))


@pytest.mark.parametrize(("word", "ending", "adjective", "form"), FORMS)
def test_conjugates_as_a_speaker_would(
    word: str, ending: Ending, adjective: bool, form: str
) -> None:
    assert conjugate(word, ending, adjective=adjective) == form


@pytest.mark.parametrize(
    ("noun", "ending", "form"),
    [
        ("최고", "어요", "최고예요"), ("존맛", "어요", "존맛이에요"),
        ("최고", "습니다", "최고입니다"),
        ("존맛", "었어요", "존맛이었어요"), ("최고", "고", "최고고"), ("JMT", "음", "JMT임"),
        ("<원>", "어요", "<원>이에요"), ("레전드", "지만", "레전드지만"),
    ],
)  # fmt: skip
def test_the_copula_asks_for_the_final_consonant(noun: str, ending: Ending, form: str) -> None:
    assert copula(noun, ending) == form


@pytest.mark.parametrize(
    ("noun", "pair", "form"),
    [
        ("국물", "이/가", "국물이"), ("고기", "이/가", "고기가"), ("면", "은/는", "면은"),
        ("커피", "은/는", "커피는"), ("밥", "을/를", "밥을"), ("피자", "과/와", "피자와"),
    ],
)  # fmt: skip
def test_particles_ask_for_the_final_consonant(noun: str, pair: str, form: str) -> None:
    assert particle(noun, pair) == form


def test_no_form_in_the_lexicon_is_broken() -> None:
    """Every final of a declined word is whole syllables, and none keeps its dictionary ending."""
    for phrases in lexicon().clauses.values():
        for phrase in phrases:
            if not phrase.ands:
                continue
            for form in phrase.finals["yo"]:
                assert form.endswith(("요", "네요")), (phrase.word, form)
            for form in phrase.finals["formal"]:
                assert form.endswith("니다"), (phrase.word, form)
            assert all(form.endswith("고") for form in phrase.ands), phrase.word
    assert len(ENDINGS) == len(set(ENDINGS))


def test_one_seed_gives_one_sequence() -> None:
    assert list(generate(300, seed=3)) == list(generate(300, seed=3))
    assert list(generate(300, seed=3))[:100] == list(generate(100, seed=3))
    first, second = (
        [one.review.text for one in generate(100, seed=3)],
        [one.review.text for one in generate(100, seed=4)],
    )
    assert first != second


def test_the_sequence_does_not_hang_on_the_hash_seed() -> None:
    code = (
        "import hashlib; from data.sources.synthetic import generate;"
        "print(hashlib.sha256(''.join(r.model_dump_json() for r in generate(400, seed=5))"
        ".encode()).hexdigest())"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": str(hash_seed), "PYTHONUTF8": "1"},
            capture_output=True, text=True, check=True,
        ).stdout
        for hash_seed in (1, 2)
    }  # fmt: skip
    assert len(answers) == 1


def test_ids_name_seed_and_number() -> None:
    ids = [one.review.review_id for one in generate(3, seed=12)]
    assert ids == ["synthetic-12-0", "synthetic-12-1", "synthetic-12-2"]


def test_none_and_fewer_than_none() -> None:
    assert list(generate(0, seed=1)) == []
    with pytest.raises(ValueError, match="-1"):
        next(generate(-1, seed=1))


def test_labels_survive_the_contract() -> None:
    for one in reviews()[:2000]:
        assert LabelledReview.model_validate_json(one.model_dump_json()) == one


def test_sentiment_is_the_sign_of_intensity() -> None:
    for one in reviews():
        intensity = one.label.intensity
        assert intensity is not None
        expected = "positive" if intensity > 0 else "negative" if intensity < 0 else "neutral"
        assert one.label.sentiment == expected


def test_evidence_is_verbatim_after_noise() -> None:
    for one in reviews():
        last = 0
        for span in one.label.evidence:
            assert one.review.text[span.start : span.end] == span.text
            assert span.start >= last
            last = span.end
            assert "<" not in span.text


def test_aspects_are_what_their_evidence_says() -> None:
    for one in reviews():
        spans = one.label.evidence
        expected = {
            aspect: aspect_polarity({span.polarity for span in spans if span.aspect == aspect})
            for aspect in {span.aspect for span in spans}
        }
        assert one.label.aspects == expected


def test_only_food_is_praised_and_blamed_at_once() -> None:
    mixed = Counter(
        aspect
        for one in reviews()
        for aspect, polarity in (one.label.aspects or {}).items()
        if polarity == "mixed"
    )
    assert set(mixed) == {"food"}


def test_every_class_has_its_share() -> None:
    """Stated bounds: sentiments 15-50 %, intensities 10-30 %, emotions 1.5-12 %, aspects 5-75 %."""
    rows = reviews()
    total = len(rows)
    sentiments = Counter(one.label.sentiment for one in rows)
    intensities = Counter(one.label.intensity for one in rows)
    emotions = Counter(emotion for one in rows for emotion in one.label.emotions or ())
    aspects = Counter(aspect for one in rows for aspect in one.label.aspects or {})
    phenomena = Counter(phenomenon for one in rows for phenomenon in one.label.phenomena)
    assert all(0.15 <= sentiments[one] / total <= 0.50 for one in SENTIMENTS), sentiments
    assert all(0.10 <= intensities[one] / total <= 0.30 for one in INTENSITIES), intensities
    assert all(0.015 <= emotions[one] / total <= 0.12 for one in EMOTIONS), emotions
    assert all(0.05 <= aspects[one] / total <= 0.75 for one in ASPECTS), aspects
    assert all(0.03 <= phenomena[one] / total <= 0.45 for one in PHENOMENA), phenomena
    assert 0.03 <= phenomena["sarcasm"] / total <= 0.07


def test_texts_are_distinct_and_as_long_as_reviews_are() -> None:
    lengths = sorted(len(one.review.text) for one in reviews())
    assert len({one.review.text for one in reviews()}) >= 0.95 * len(lengths)
    assert 33 <= lengths[len(lengths) // 2] <= 47
    assert 70 <= lengths[len(lengths) * 95 // 100] <= 160
    long = sum(len(one.label.evidence) >= 6 for one in reviews())
    assert 0.005 <= long / len(lengths) <= 0.03


def test_sarcasm_is_never_positive_and_facts_are_neutral() -> None:
    seen = Counter[str]()
    for one in reviews():
        for phenomenon in ("sarcasm", "factual"):
            if phenomenon in one.label.phenomena:
                seen[phenomenon] += 1
                assert (
                    one.label.sentiment == {"sarcasm": "negative", "factual": "neutral"}[phenomenon]
                ), one.review.text
    assert min(seen["sarcasm"], seen["factual"]) > 100


def test_what_is_denied_turns() -> None:
    """ "짜지 않다" praises, "친절하지 않다" blames."""
    clauses = lexicon().clauses
    praise = {phrase.word for phrase in clauses[False, "food", "positive", "denied"]}
    blame = {phrase.word for phrase in clauses[False, "service", "negative", "denied"]}
    assert {"짜지 않다", "안 짜다", "비리지도 않다"} <= praise
    assert {"친절하지는 않다", "친절하지 않다"} <= blame
    assert "친절하지 않다" not in {
        phrase.word for phrase in clauses[False, "service", "positive", "denied"]
    }
    for (_, _, polarity, bucket), phrases in clauses.items():
        for phrase in phrases:
            assert phrase.polarity == polarity
            assert (bucket == "denied") <= ("negation" in phrase.phenomena)


@pytest.mark.parametrize(
    ("points", "overall", "intensity"),
    [
        ([], 0, 0), ([0.0], None, 0), ([0.5], None, 0), ([1.0], None, 1), ([2.0], None, 2),
        ([1.0, 1.0], None, 1), ([-1.0], None, -1), ([-2.0], None, -1), ([-2.0, -2.0], None, -2),
        ([-3.0], None, -2), ([1.0, -1.0], None, 0), ([2.0, -1.0], None, 1),
        ([3.0, 2.0, -1.0], None, 2),
        ([1.0, -2.0], None, -1), ([1.0, -3.0], None, -2), ([2.0, -2.0], 0, 0), ([1.0, 1.0], 1, 1),
        ([-1.0, 1.0], 1, 1), ([-2.0, -2.0, -1.0], -1, -1), ([-1.0, -3.0], -2, -2),
    ],
)  # fmt: skip
def test_the_stronger_side_decides(
    points: list[float], overall: int | None, intensity: int
) -> None:
    assert intensity_of(points, overall) == intensity  # type: ignore[arg-type]  # plain ints here


def test_the_vocabulary_is_wide() -> None:
    sheet = read_sheet()
    dishes = {noun for name in sheet.unions["dish"] for noun in sheet.subjects[name]}
    assert len(dishes) >= 250
    words: dict[tuple[str, str], set[str]] = {}
    for group in sheet.groups:
        assert group.aspect
        assert group.polarity
        words.setdefault((group.aspect, group.polarity), set()).update(group.words)
    for key, wanted in WANTED.items():
        assert len(words[key]) >= wanted, key
    for intensity in INTENSITIES:
        assert sum(len(g.words) for g in sheet.overall if g.intensity == intensity) >= 40
    for emotion in EMOTIONS:
        assert sum(len(g.words) for g in sheet.emotions if g.emotion == emotion) >= 30


def test_the_word_material_refuses_unknown_keys() -> None:
    sheet = read_sheet().model_dump()
    sheet["groups"][0]["polarty"] = "positive"
    with pytest.raises(ValueError, match="polarty"):
        Sheet.model_validate(sheet)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.clauses import (
    LEAST_CHARACTERS,
    LONGEST_CHARACTERS,
    Clause,
    overlapping,
    split_clauses,
)

PIECES = (
    *(
        "맛있는데 ",
        "비싸고 ",
        "친절하지만, ",
        "존맛ㅋㅋㅋ ",
        "별로예요ㅠㅠ ",
        "다시 갈게요. ",
        "헐!? ",
    ),
    *(
        "\n",
        "\n\n ",
        "  ",
        "\t",
        "\u3000",
        "\u2028",
        "가",
        "맛",
        "👨‍👩‍👧",
        "😋😋 ",
        "^^ ",
        "…",
        "가나다라" * 40,
    ),
)
REVIEWS = st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=40).map("".join)


def texts(text: str) -> list[str]:
    return [clause.text for clause in split_clauses(text)]


def assert_nothing_is_lost(text: str, clauses: list[Clause]) -> None:
    at = 0
    for clause in clauses:
        assert clause.text == text[clause.start : clause.end] == clause.text.strip()
        assert 0 < len(clause.text) <= LONGEST_CHARACTERS
        assert clause.start >= at
        assert not text[at : clause.start].strip()
        at = clause.end
    assert not text[at:].strip()


@given(REVIEWS)
def test_clauses_joined_are_the_text(text: str) -> None:
    clauses = split_clauses(text)
    assert_nothing_is_lost(text, clauses)
    assert bool(clauses) == bool(text.strip())


@pytest.mark.parametrize(
    "text",
    [
        "가" * 10_000,
        "😋" * 10_000,
        "ㅋ " * 5_000,
        "ㅋ\n" * 5_000,
        "맛있고 " * 2_500,
        "가" + " " * 9_998 + "나",
        "👨‍👩‍👧" * 2_000,
        "." * 10_000,
        ". " * 5_000,
    ],
    ids=lambda text: repr(text[:4]),
)
def test_the_longest_reviews_are_cut_and_nothing_is_lost(text: str) -> None:
    assert_nothing_is_lost(text, split_clauses(text))


def test_a_text_without_a_blank_is_cut_into_parts_of_like_size() -> None:
    sizes = {len(clause.text) for clause in split_clauses("가" * 10_000)}
    assert max(sizes) <= LONGEST_CHARACTERS
    assert max(sizes) - min(sizes) <= 1
    assert [len(each) for each in texts("가" * (LONGEST_CHARACTERS + 1))] == [61, 60]


def test_a_long_clause_is_cut_at_a_space_and_leaves_no_crumb() -> None:
    words = " ".join(["가나다라"] * 40)
    assert " ".join(texts(words)) == words
    assert set(" ".join(texts(words)).split()) == {"가나다라"}
    beginning = texts("가 " + "나" * 300)
    assert all(len(each) >= LEAST_CHARACTERS for each in beginning)


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\u3000\t "])
def test_a_blank_text_has_no_clause(text: str) -> None:
    assert split_clauses(text) == []


@pytest.mark.parametrize("text", ["굿", "😋", " 굿 ", "\n굿"])
def test_one_letter_is_one_clause(text: str) -> None:
    assert split_clauses(text) == [
        Clause(text.index(text.strip()), len(text.rstrip()), text.strip())
    ]


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("국물은 진한데 김치가 너무 시다", ["국물은 진한데", "김치가 너무 시다"]),
        ("직원이 친절하고 매장이 깨끗해요", ["직원이 친절하고", "매장이 깨끗해요"]),
        ("정말 맛있어요! 다음에 또 갈게요", ["정말 맛있어요!", "다음에 또 갈게요"]),
        ("굿! 다음에 또 갈게요", ["굿! 다음에 또 갈게요"]),
        ("고기가 질겨요ㅠㅠ 다시는 안 갑니다", ["고기가 질겨요ㅠㅠ", "다시는 안 갑니다"]),
        ("메뉴판은 영어\n한국어는 없어요", ["메뉴판은 영어", "한국어는 없어요"]),
        ("부산에서 제일 맛있는 최고 맛집", ["부산에서 제일 맛있는 최고 맛집"]),
        ("배고픈데 맛은 그냥 그래요", ["배고픈데 맛은 그냥 그래요"]),
        ("국물은 진한데 굿", ["국물은 진한데 굿"]),
    ],
)
def test_where_a_review_is_cut(text: str, clauses: list[str]) -> None:
    assert texts(text) == clauses


def test_a_span_belongs_to_the_clauses_that_it_covers_by_half() -> None:
    clauses = [Clause(0, 10, "가" * 10), Clause(11, 21, "나" * 10), Clause(22, 32, "다" * 10)]
    assert overlapping(clauses, 0, 10) == [0]
    assert overlapping(clauses, 4, 17) == [0, 1]
    assert overlapping(clauses, 7, 32) == [1, 2]
    assert overlapping(clauses, 0, 32) == [0, 1, 2]


def test_a_short_span_belongs_to_the_clause_that_holds_most_of_it() -> None:
    clauses = [Clause(0, 10, "가" * 10), Clause(11, 21, "나" * 10)]
    assert overlapping(clauses, 2, 4) == [0]
    assert overlapping(clauses, 9, 14) == [1]
    assert overlapping(clauses, 10, 11) == [0]


@given(REVIEWS.filter(str.strip), st.data())
def test_every_span_belongs_to_some_clause(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    clauses = split_clauses(text)
    held = overlapping(clauses, start, end)
    assert held == sorted(set(held))
    assert held
    if text[start:end].strip():
        assert any(clauses[index].start < end and start < clauses[index].end for index in held)

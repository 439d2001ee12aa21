import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from training.tokenizer import EMOJI, SPECIAL_TOKENS, segment, train_tokenizer

TEXTS = ["국물이 정말 맛있어요", "직원이 불친절해요 ㅋㅋㅋㅋ", "존맛탱! 또 올게요"] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, vocabulary=6000)


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return [str(tokenizer.id_to_token(i)) for i in segment(tokenizer, [text])[0]]


def test_the_special_tokens_come_first(tokenizer):
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.encode("국물").tokens[:: len(tokenizer.encode("국물").tokens) - 1] == [
        "[CLS]",
        "[SEP]",
    ]


def test_words_of_the_corpus_are_one_token(tokenizer):
    assert tokens(tokenizer, "국물이 정말") == ["국물이", "정말"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ㅋㅋㅋㅋㅋㅋㅋㅋ", "ㅋㅋ"),
        ("JMT", "jmt"),
        ("맛있어요!!!!!", "맛있어요!!"),
        ("ＡＢＣ１２３", "abc123"),
        (unicodedata.normalize("NFD", "맛있어요"), "맛있어요"),
    ],
)
def test_spellings_that_mean_the_same_are_one(tokenizer, one, other):
    assert one != other
    assert segment(tokenizer, [one]) == segment(tokenizer, [other])


def test_two_of_a_kind_are_not_one(tokenizer):
    assert segment(tokenizer, ["ㅋㅋ"]) != segment(tokenizer, ["ㅋ"])


def test_no_common_syllable_is_unknown_at_the_start_or_inside_a_word(tokenizer):
    # All are among the 2,350 of KS X 1001 or on a keyboard, and the corpus has none of them.
    for letter in ("가", "뷰", "썅", "힝", "ㅠ", "0", "a", "Z", "~", *EMOJI):
        for text in (letter, f"국{letter}물"):
            assert "[UNK]" not in tokens(tokenizer, text), text
    assert "[UNK]" in tokens(tokenizer, "漢")


def test_an_empty_text_has_no_tokens(tokenizer):
    assert segment(tokenizer, ["", " \n"]) == [[], []]
    assert segment(tokenizer, []) == []


def test_special_tokens_that_a_diner_types_are_only_text(tokenizer):
    typed = segment(tokenizer, ["맛 [SEP] [MASK] [PAD] [CLS]"])[0]
    assert set(typed).isdisjoint({0, 2, 3, 4})
    assert len(typed) > 5


def test_dropout_cuts_words_anew_and_leaves_no_trace(tokenizer):
    plain = segment(tokenizer, TEXTS)
    dropped = segment(tokenizer, TEXTS, dropout=0.5)
    assert dropped != plain
    assert sum(map(len, dropped)) > sum(map(len, plain))
    assert segment(tokenizer, TEXTS) == plain
    for cut, whole in zip(dropped, plain, strict=True):
        assert tokenizer.decode(cut).replace(" ", "") == tokenizer.decode(whole).replace(" ", "")


def test_it_is_the_same_after_saving(tokenizer, tmp_path: Path):
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert segment(again, TEXTS) == segment(tokenizer, TEXTS)


def test_the_same_corpus_gives_the_same_tokenizer(tokenizer):
    assert train_tokenizer(TEXTS, vocabulary=6000).to_str() == tokenizer.to_str()

"""The tokenizer of an encoder made on the spot: byte-pair merges over normalised Korean text."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPECIAL_TOKENS: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


EMOJI: Final = (
    "😀😁😂🤣😊😋😍🥰😘😅😆😎🙂😐😑🙄😒😞😢😭😤😡🤬🤢🤮😱🥲🤔👍👎👏🙏💕❤💯🔥✨🎉⭐🍜🍚🍖🍗🍺☕🍰"
)


def _alphabet() -> list[str]:
    # The 2,350 syllables of KS X 1001 are nearly all that people type; EUC-KR lists exactly them.
    # Without them a syllable that the corpus lacks would hide its whole word.
    syllables = [
        bytes((lead, trail)).decode("euc-kr")
        for lead in range(0xB0, 0xC9)
        for trail in range(0xA1, 0xFF)
    ]
    jamo = [chr(code) for code in range(0x3131, 0x3164)]
    letters = [*syllables, *jamo, *map(chr, range(0x21, 0x7F)), *EMOJI]
    # Each letter must be seen both at the start of a word and inside one.
    return [*letters, "".join(letters)] * 2


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """Learn a subword vocabulary from texts.

    Runs of one character keep two of them (ㅋㅋㅋㅋ becomes ㅋㅋ), case and width are folded.

    Args:
        texts: the corpus.
        vocabulary: size wanted; the alphabet alone takes about 5,000.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[1], continuing_subword_prefix="##"))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"(.)(?=\1\1)"), ""),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        itertools.chain(texts, _alphabet()),
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=3,
            special_tokens=list(SPECIAL_TOKENS),
            limit_alphabet=3500,
            continuing_subword_prefix="##",
            show_progress=False,
        ),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[
            ("[CLS]", SPECIAL_TOKENS.index("[CLS]")),
            ("[SEP]", SPECIAL_TOKENS.index("[SEP]")),
        ],
    )
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def segment(tokenizer: Tokenizer, texts: Sequence[str], *, dropout: float = 0.0) -> list[list[int]]:
    """Token ids of each text without special tokens.

    Args:
        tokenizer: any tokenizer; ``dropout`` changes only byte-pair ones.
        texts: what to tokenise.
        dropout: share of merges skipped at random, so that a model sees a word cut in several ways
            (BPE-dropout, arXiv 1910.13267).
    """
    droppable = dropout > 0 and isinstance(tokenizer.model, models.BPE)
    if droppable:
        tokenizer.model.dropout = dropout
    try:
        return [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    finally:
        if droppable:
            tokenizer.model.dropout = None

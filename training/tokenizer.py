"""The tokenizer of an encoder made on the spot: byte-pair merges over normalised Korean text."""

import json
from collections import Counter
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
MOST_LETTERS: Final = 3500
EMOJI: Final = (
    "😀😁😂🤣😊😋😍🥰😘😅😆😎🙂😐😑🙄😒😞😢😭😤😡🤬🤢🤮😱🥲🤔👍👎👏🙏💕❤💯🔥✨🎉⭐🍜🍚🍖🍗🍺☕🍰"
)


def _letters() -> str:
    # The 2,350 syllables of KS X 1001 are nearly all that people type; EUC-KR lists exactly them.
    # Without them a syllable that the corpus lacks would hide its whole word.
    syllables = [
        bytes((lead, trail)).decode("euc-kr")
        for lead in range(0xB0, 0xC9)
        for trail in range(0xA1, 0xFF)
    ]
    jamo = [chr(code) for code in range(0x3131, 0x3164)]
    return "".join([*syllables, *jamo, *map(chr, range(0x21, 0x7F)), *EMOJI])


def _alphabet(texts: Sequence[str], normalizer: normalizers.Normalizer) -> list[str]:
    counts = Counter(normalizer.normalize_str(_letters()))
    known = set(counts)
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    ranked = sorted(counts, key=lambda letter: (letter not in known, -counts[letter], letter))
    return sorted(letter for letter in ranked[:MOST_LETTERS] if not letter.isspace())


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """Learn a subword vocabulary from texts; the same texts give the same ids.

    Runs of one character keep two of them (ㅋㅋㅋㅋ becomes ㅋㅋ), case and width are folded.

    Args:
        texts: the corpus.
        vocabulary: size wanted; the alphabet alone takes about 5,000.
    """
    texts = list(texts)
    normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"(.)(?=\1\1)"), ""),
        ]
    )
    alphabet = _alphabet(texts, normalizer)
    learner = Tokenizer(models.BPE(continuing_subword_prefix="##"))
    learner.normalizer = normalizer
    learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=3,
            # Letters inside a word get their ids from a hash table, another in each run, unless
            # they stand in the vocabulary already; a resumed run would mix up its tokens.
            special_tokens=[*SPECIAL_TOKENS, *(f"##{letter}" for letter in alphabet)],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            continuing_subword_prefix="##",
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab=learned["vocab"],
            merges=[(left, right) for left, right in learned["merges"]],
            unk_token=SPECIAL_TOKENS[1],
            continuing_subword_prefix="##",
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
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
    tokenizer.encode_special_tokens = True  # as serving does: what was typed is only text
    droppable = dropout > 0 and isinstance(tokenizer.model, models.BPE)
    if droppable:
        tokenizer.model.dropout = dropout
    try:
        return [e.ids for e in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    finally:
        if droppable:
            tokenizer.model.dropout = None

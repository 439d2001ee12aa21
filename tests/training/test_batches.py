import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from data.contract import ASPECTS, EMOTIONS, INTENSITIES, SENTIMENTS, Label
from data.errors import EngineError
from serving.windows import lay_windows
from training.batches import Collator, ReviewTokens, TokenBudgetSampler, targets_of
from training.tokenizer import train_tokenizer

CLS, SEP, MASK = 2, 3, 4


def a_tokenizer() -> Tokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(50))]
    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def tokens_of(*lengths: int) -> ReviewTokens:
    texts = [" ".join(f"w{(row + i) % 50}" for i in range(n)) for row, n in enumerate(lengths)]
    return ReviewTokens(a_tokenizer(), texts)


def collator(tokens: ReviewTokens, *, share: float = 0.0, masked_targets: bool = False) -> Collator:
    targets = targets_of([Label(sentiment=SENTIMENTS[row % 3]) for row in range(len(tokens))])
    return Collator(tokens, targets, a_tokenizer(), 12, 3, share, masked_targets=masked_targets)


def test_targets_of_a_full_label():
    label = Label(
        sentiment="positive",
        intensity=-1,
        emotions=("anger", "joy"),
        aspects={"food": "mixed", "price": "negative", "access": "neutral", "service": "positive"},
    )
    targets = targets_of([label])
    assert targets.sentiment.tolist() == [SENTIMENTS.index("positive")]
    assert targets.intensity.tolist() == [INTENSITIES.index(-1)]
    assert [e for e, on in zip(EMOTIONS, targets.emotions[0], strict=True) if on] == [
        "joy",
        "anger",
    ]
    assert dict(zip(ASPECTS, targets.aspects[0].tolist(), strict=True)) == {
        "food": [1, 1, 1],
        "service": [1, 1, 0],
        "atmosphere": [0, 0, 0],
        "price": [1, 0, 1],
        "hygiene": [0, 0, 0],
        "access": [1, 0, 0],
    }
    for task in ("sentiment", "intensity", "emotions", "aspects"):
        assert getattr(targets, f"{task}_mask").tolist() == [1.0]


def test_an_unlabelled_task_is_masked_and_an_empty_one_is_not():
    targets = targets_of(
        [Label(sentiment="neutral"), Label(intensity=0), Label(emotions=()), Label(aspects={})]
    )
    masks = {
        task: getattr(targets, f"{task}_mask").tolist()
        for task in ("sentiment", "intensity", "emotions", "aspects")
    }
    assert masks == {
        "sentiment": [1, 0, 0, 0],
        "intensity": [0, 1, 0, 0],
        "emotions": [0, 0, 1, 0],
        "aspects": [0, 0, 0, 1],
    }
    assert not targets.emotions.any()
    assert not targets.aspects.any()


def test_rows_are_taken_in_the_order_asked_for():
    targets = targets_of([Label(intensity=step) for step in INTENSITIES])
    batch = targets.rows(np.asarray([3, 0]))
    assert batch["intensity"].tolist() == [3, 0]
    assert batch["aspects"].shape == (2, 6, 3)


@given(
    lengths=st.lists(st.integers(0, 90), min_size=1, max_size=50),
    budget=st.integers(64, 300),
    overlap=st.integers(0, 9),
)
def test_padded_batches_stay_within_the_budget(lengths, budget, overlap):
    tokens = tokens_of(*lengths)
    sampler = TokenBudgetSampler(tokens, budget=budget, longest=12, overlap=overlap, seed=1)
    batches = list(sampler)
    assert sorted(itertools.chain.from_iterable(batches)) == list(range(len(lengths)))
    assert len(batches) == len(sampler)
    for rows in batches:
        windows = lay_windows(
            [tokens.ids[row] for row in rows],
            cls=CLS,
            sep=SEP,
            max_tokens=12,
            overlap_tokens=overlap,
        )
        padded = len(windows.ids) * max(map(len, windows.ids))
        assert padded <= budget or len(rows) == 1


def plans(tokens: ReviewTokens, seed: int, epochs: int = 3) -> list[list[list[int]]]:
    sampler = TokenBudgetSampler(tokens, budget=100, longest=12, overlap=3, seed=seed)
    return [list(sampler) for _ in range(epochs)]


def test_seed_and_epoch_decide_the_batches():
    tokens = tokens_of(*(3 + i % 8 for i in range(60)))
    first = plans(tokens, seed=1)
    assert plans(tokens, seed=1) == first
    assert plans(tokens, seed=2) != first
    assert first[0] != first[1] != first[2]
    resumed = TokenBudgetSampler(tokens, budget=100, longest=12, overlap=3, seed=1)
    resumed.set_epoch(2)
    assert list(resumed) == first[2]


def test_segmentation_dropout_keeps_the_number_of_batches():
    texts = ["국물이 정말 맛있어요 또 올게요", "직원이 불친절해요", "존맛탱"] * 12
    tokens = ReviewTokens(train_tokenizer(texts, vocabulary=6000), texts, dropout=0.5)
    plain = list(tokens.ids)
    sampler = TokenBudgetSampler(tokens, budget=100, longest=24, overlap=6, seed=1)
    for _ in range(4):
        assert len(list(sampler)) == len(sampler)
    assert tokens.ids != plain


def test_a_batch_has_windows_targets_and_weights():
    tokens = tokens_of(4, 30, 0)
    batch = collator(tokens)([2, 1, 0])
    windows = lay_windows(
        [tokens.ids[row] for row in (2, 1, 0)], cls=CLS, sep=SEP, max_tokens=12, overlap_tokens=3
    )
    assert len(windows.ids) == 6
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (6, 12)
    assert batch["text_index"].tolist() == [0, 1, 1, 1, 1, 2]
    for row, window in enumerate(windows.ids):
        assert batch["input_ids"][row, : len(window)].tolist() == window
        assert batch["attention_mask"][row].sum() == len(window)
    for text in range(3):
        share = batch["window_weights"][batch["text_index"] == text].sum()
        assert share.item() == pytest.approx(1.0)
    assert batch["sentiment"].tolist() == [2, 1, 0]
    assert "masked_ids" not in batch


def test_without_targets_there_are_none():
    tokens = tokens_of(4)
    batch = Collator(tokens, None, a_tokenizer(), 12, 3, 0.5, masked_targets=True)([0])
    assert set(batch) == {
        "input_ids",
        "attention_mask",
        "text_index",
        "window_weights",
        "masked_positions",
        "masked_ids",
    }


def test_the_share_asked_for_is_hidden_and_only_ordinary_tokens_are():
    torch.manual_seed(0)
    tokens = tokens_of(*([10] * 400))
    plain = collator(tokens)(range(400))
    batch = collator(tokens, share=0.2, masked_targets=True)(range(400))
    hidden = batch["input_ids"] == MASK
    assert hidden.float().sum().item() / 4000 == pytest.approx(0.2, abs=0.03)
    special = (plain["input_ids"] == CLS) | (plain["input_ids"] == SEP)
    assert not (hidden & (special | (plain["attention_mask"] == 0))).any()
    assert torch.equal(batch["input_ids"][~hidden], plain["input_ids"][~hidden])
    assert torch.equal(batch["masked_ids"], plain["input_ids"][hidden])
    flat = plain["input_ids"].flatten()
    assert torch.equal(flat[batch["masked_positions"]], batch["masked_ids"])


def test_a_tokenizer_without_mask_token_is_refused():
    made = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, "[UNK]"))
    with pytest.raises(EngineError, match=r"\[MASK\]"):
        Collator(tokens_of(3), None, made, 12, 3, 0.1)

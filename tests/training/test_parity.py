import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from data.errors import ExportError
from data.manifest import Manifest, read_labelled_reviews
from serving.analyzer import Analyzer, load_analyzer
from serving.engines.protocol import Outputs, TokenIds
from serving.logits import Logits
from serving.model_folder import ModelSpec
from training.parity import (
    LEAST_TEXTS,
    Parity,
    ParityLimits,
    broken_limits,
    check_parity,
    measure_parity,
    probe_texts,
)

FINE = Parity(
    texts=200, max_abs_diff=0.0, label_flips=0, cos_mean=1.0, cos_p1=1.0, batch_abs_diff=0.0
)
SPEC = ModelSpec(
    contract_version="1.0",
    format="torch-fp32",
    architecture="none",
    max_tokens=16,
    overlap_tokens=4,
)
SENTIMENTS_OF = {"가": [3.0, 0.0, 4.0], "나": [1.0, 2.0, 2.5], "다": [0.0, 5.0, 0.0]}


class Table:
    """An engine that knows three letters: each has its sentiment logits, and zeros elsewhere."""

    name = "table"
    batch_invariant = True
    computes_padding = True

    def __init__(self, letters: dict[int, list[float]], *, per_batch_mate: float = 0.0):
        self._letters = letters
        self._per_batch_mate = per_batch_mate

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        rows = len(input_ids)
        sentiment = np.asarray([self._letters[int(ids[1])] for ids in input_ids], np.float32)
        sentiment[:, 0] += self._per_batch_mate * (rows - 1)
        return Logits(
            sentiment=sentiment,
            intensity=np.zeros((rows, 4), np.float32),
            emotions=np.zeros((rows, 8), np.float32),
            aspects=np.zeros((rows, 6, 3), np.float32),
        ).named()


def a_tokenizer(order: str = "가나다") -> Tokenizer:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *order]
    made = Tokenizer(models.WordLevel({t: i for i, t in enumerate(names)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def table(
    changes: dict[str, list[float]] | None = None, *, order: str = "가나다", **settings: float
) -> Analyzer:
    answers = SENTIMENTS_OF | (changes or {})
    letters = {4 + order.index(letter): values for letter, values in answers.items()}
    manifest = Manifest(
        kind="sentiment_model", contract_version="1.0", digest="", files={}, facts={}
    )
    return Analyzer(a_tokenizer(order), Table(letters, **settings), SPEC, manifest)


TEXTS = ["가", "나", "다"]


def test_a_model_is_like_itself():
    parity = measure_parity(table(), table(), TEXTS)
    assert parity.model_dump() == pytest.approx(FINE.model_dump() | {"texts": 3})
    check_parity(parity, ParityLimits(), what="a copy")


def test_differences_by_hand():
    other = table({"가": [4.0, 0.0, 3.0], "나": [1.0, 2.0, 2.6]})
    parity = measure_parity(table(), other, TEXTS)
    cosines = [
        24 / 25,
        (1 + 4 + 6.5) / np.sqrt((1 + 4 + 6.25) * (1 + 4 + 6.76)),
        1.0,
    ]
    assert parity.label_flips == 1
    assert parity.max_abs_diff == pytest.approx(1.0)
    assert parity.cos_mean == pytest.approx(float(np.mean(cosines)), abs=1e-6)
    assert parity.cos_p1 == pytest.approx(float(np.percentile(cosines, 1)), abs=1e-6)
    assert parity.batch_abs_diff == 0.0


def test_what_batch_mates_change_is_seen():
    parity = measure_parity(table(), table(per_batch_mate=0.7), TEXTS)
    assert parity.batch_abs_diff == pytest.approx(1.4)
    assert parity.max_abs_diff == pytest.approx(1.4)
    assert parity.label_flips == 1  # 가: 3.0 + 1.4 is more than 4.0


def test_another_tokenizer_is_refused():
    with pytest.raises(ExportError, match="tokenizer or window sizes differ"):
        measure_parity(table(), table(order="나가다"), TEXTS)


def test_other_windows_are_refused():
    other = table()
    other.spec = SPEC.model_copy(update={"max_tokens": 8})
    with pytest.raises(ExportError, match="tokenizer or window sizes differ"):
        measure_parity(table(), other, ["가 " * 20])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_abs_diff": 0.002}, "max_abs_diff=0.002 > 0.001"),
        ({"label_flips": 1}, "label flips 1 of 200 > 0.0"),
        ({"cos_mean": 0.9998}, "cos_mean=0.9998 < 0.99999"),
        ({"cos_p1": 0.99}, "cos_p1=0.99 < 0.9999"),
        ({"max_abs_diff": float("nan")}, "max_abs_diff=nan > 0.001"),
    ],
)
def test_each_broken_limit_is_named(changes, said):
    parity = FINE.model_copy(update=changes)
    assert broken_limits(parity, ParityLimits()) == [said]
    with pytest.raises(ExportError, match="an export does not answer like its source") as refused:
        check_parity(parity, ParityLimits(), what="an export")
    assert said in str(refused.value)


def test_all_broken_limits_are_named_at_once():
    parity = FINE.model_copy(update={"max_abs_diff": 9.0, "label_flips": 7, "cos_p1": 0.1})
    assert len(broken_limits(parity, ParityLimits())) == 3


def test_a_share_of_flips_may_be_allowed():
    parity = FINE.model_copy(update={"label_flips": 6})
    assert broken_limits(parity, ParityLimits(label_flip_share=0.03)) == []
    assert broken_limits(parity, ParityLimits(label_flip_share=0.029)) != []


def test_probes_hold_the_reviews_and_both_extremes_of_length(toy_split: Path, tiny_model: Path):
    part = toy_split / "validation.jsonl"
    texts = probe_texts(part, 24)
    reviews = [row.review.text for row in read_labelled_reviews(part)]
    assert len(reviews) < LEAST_TEXTS
    assert set(reviews) <= set(texts)
    assert len(texts) > 1.9 * len(reviews)  # read again in halves
    windows = load_analyzer(tiny_model).windows(texts).per_text
    assert windows.min() == 1
    assert windows.max() > 2


def test_probes_of_an_empty_part_are_the_extremes(tmp_path: Path):
    (tmp_path / "validation.jsonl").write_text("")
    assert len(probe_texts(tmp_path / "validation.jsonl", 24)) == 6


def test_a_model_is_like_its_copy(tiny_model: Path, toy_split: Path, tmp_path: Path):
    copy = Path(shutil.copytree(tiny_model, tmp_path / "copy"))
    texts = probe_texts(toy_split / "validation.jsonl", 24)
    parity = measure_parity(load_analyzer(tiny_model), load_analyzer(copy), texts)
    check_parity(parity, ParityLimits(max_abs_diff=1e-5), what="a copy")
    assert parity.texts == len(texts)

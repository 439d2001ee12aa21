"""Examples as token rows: only answers are learnt, lengths are told, nothing is cut."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from data.errors import DataUnfitError
from data.targets import Example, read_examples
from training.language_examples import IGNORED, columns, tokenise

LIMIT = 1024


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base, local_files_only=True)


@pytest.fixture(scope="module")
def examples(language_targets: Path) -> list[Example]:
    return read_examples(language_targets / "train.jsonl")[:12]


def test_the_answer_and_its_end_are_learnt_and_nothing_else(tokenizer, examples):
    rows = tokenise(tokenizer, examples, max_tokens=LIMIT)
    for example, row in zip(examples, rows.fit, strict=True):
        learnt = [
            token for token, said in zip(row.input_ids, row.assistant_masks, strict=True) if said
        ]
        assert tokenizer.decode(learnt) == example.answer + "<|im_end|>"
    table = columns(rows.fit)
    for row, ids, labels in zip(rows.fit, table["input_ids"], table["labels"], strict=True):
        assert ids == row.input_ids
        assert [label != IGNORED for label in labels] == [
            bool(said) for said in row.assistant_masks
        ]


def test_the_prompt_is_what_serving_asks(tokenizer, examples):
    rows = tokenise(tokenizer, examples, max_tokens=LIMIT)
    asked = tokenizer.apply_chat_template(
        [dict(message) for message in examples[0].messages],
        add_generation_prompt=True,
        return_dict=True,
    )["input_ids"]
    first = rows.fit[0]
    assert first.input_ids[: len(asked)] == asked
    assert first.assistant_masks.index(1) == len(asked)


def test_what_is_too_long_is_quarantined_with_its_length(tokenizer, examples):
    whole = tokenise(tokenizer, examples, max_tokens=LIMIT)
    limit = sorted(len(row.input_ids) for row in whole.fit)[6]
    rows = tokenise(tokenizer, examples, max_tokens=limit)
    assert len(rows.fit) + len(rows.too_long) == len(examples)
    assert rows.too_long
    assert rows.report["all"]["longer_than_limit"] == len(rows.too_long)
    assert all(len(row.input_ids) <= limit for row in rows.fit)
    assert f"the limit is {limit}" in rows.too_long[0].detail
    assert rows.too_long[0].reason == "target_too_long"


def test_lengths_are_reported_by_task(tokenizer, examples):
    report = tokenise(tokenizer, examples, max_tokens=LIMIT).report
    assert set(report) == {"all", "labels"}
    assert report["all"]["examples"] == len(examples)
    assert report["all"]["p50"] <= report["all"]["p95"] <= report["all"]["longest"] <= LIMIT
    assert 0 < report["all"]["padding_share"] < 1


def test_no_example_that_fits_is_an_error(tokenizer, examples):
    with pytest.raises(DataUnfitError, match=r"none of 12 examples fits in 64 tokens"):
        tokenise(tokenizer, examples, max_tokens=64)


def test_a_template_without_a_mark_is_an_error(tiny_base, examples):
    plain = AutoTokenizer.from_pretrained(tiny_base, local_files_only=True)
    plain.chat_template = plain.chat_template.replace("{%- generation -%}", "").replace(
        "{%- endgeneration -%}", ""
    )
    with pytest.raises(DataUnfitError, match="marks no answer in 12 of 12"):
        tokenise(plain, examples, max_tokens=LIMIT)

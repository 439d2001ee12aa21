"""Pretraining on a CPU: the loss counts what is learnt, batches repeat, a killed run goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from training.language_examples import Row
from training.language_pretraining import (
    Lesson,
    PretrainingStage,
    lesson_loss,
    lesson_of_row,
    lesson_of_text,
    plan,
    pretrain,
)

STAGE = PretrainingStage(
    name="rows",
    epochs=2,
    batch_tokens=120,
    learning_rate=3e-3,
    warmup_steps=2,
    save_every_steps=3,
    seed=5,
)


def _rows(count: int = 24) -> list[Lesson]:
    made = []
    for number in range(count):
        ids = [3 + (number * 7 + at) % 200 for at in range(6 + number % 9)]
        made.append(lesson_of_row(Row(ids, [0, 0, 0] + [1] * (len(ids) - 3))))
    return made


def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)


def test_the_loss_is_that_of_the_learnt_tokens_whatever_the_padding(tiny_base):
    model, rows = _model(tiny_base), _rows(2)
    with torch.no_grad():
        together = lesson_loss(model, rows)
        wanted = []
        for row in rows:
            with torch.autocast("cpu", torch.bfloat16):
                scores = model(input_ids=torch.tensor([row.input_ids])).logits[0, :-1].float()
            each = functional.cross_entropy(
                scores, torch.tensor(row.input_ids[1:]), reduction="none"
            )
            wanted += each[2:].tolist()
    assert float(together) == pytest.approx(sum(wanted) / len(wanted), rel=0.01)


def test_lessons_ask_for_the_assistants_words_or_for_every_word_of_a_text():
    assert lesson_of_row(Row([7, 8, 9, 4], [0, 0, 1, 1])).asked == [(1, 9), (2, 4)]
    assert lesson_of_text([7, 8, 9]).asked == [(0, 8), (1, 9)]


def test_batches_keep_their_budget_hold_every_row_and_repeat():
    rows = _rows()
    batches = plan(rows, STAGE)
    assert sorted(at for batch in batches for at in batch) == sorted([*range(24), *range(24)])
    for batch in batches:
        assert len(batch) * max(len(rows[at].input_ids) for at in batch) <= STAGE.batch_tokens
    assert plan(rows, STAGE) == batches


def test_it_learns(tiny_base, tmp_path):
    found = pretrain(_model(tiny_base), _rows(), STAGE, work_dir=tmp_path)
    assert found.curve[-1][1] < 0.8 * found.curve[0][1]
    assert found.curve[-1][0] == len(plan(_rows(), STAGE))
    assert found.tokens_per_s > 0


def test_a_killed_run_ends_as_one_that_was_not(tiny_base, tmp_path, monkeypatch):
    torch.manual_seed(0)
    whole = _model(tiny_base)
    pretrain(whole, _rows(), STAGE, work_dir=tmp_path / "whole")
    cut = _model(tiny_base)
    real, seen = lesson_loss, []

    def killed(model: Any, batch: Any) -> Any:
        seen.append(batch)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return real(model, batch)

    monkeypatch.setattr("training.language_pretraining.lesson_loss", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(cut, _rows(), STAGE, work_dir=tmp_path / "cut")
    resumed = _model(tiny_base)
    monkeypatch.setattr("training.language_pretraining.lesson_loss", real)
    pretrain(resumed, _rows(), STAGE, work_dir=tmp_path / "cut")
    for (name, first), second in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-5), name

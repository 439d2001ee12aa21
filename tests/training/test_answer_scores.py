"""Scores of given answers: rendered as training does, taken where the answer's tokens stand."""

import math
import shutil
from pathlib import Path

import pytest
import torch

from data.errors import ArtifactError, DataUnfitError
from data.examples import read_examples
from data.manifest import MANIFEST_NAME
from training.answer_scores import (
    Comparison,
    answer_logits,
    load_scored_model,
    load_tokenizer,
    pick_examples,
    prompt_ids,
    render_examples,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_base):
    return load_tokenizer(tiny_base)


@pytest.fixture(scope="module")
def examples(language_targets):
    return read_examples(language_targets / "validation.jsonl")


@pytest.fixture(scope="module")
def rendered(tokenizer, examples):
    return render_examples(tokenizer, examples, count=4, max_tokens=1024).rendered


def test_the_answer_is_where_the_answer_is(tokenizer, rendered):
    for each in rendered:
        said = tokenizer.decode([each.ids[at] for at in each.answer])
        assert said == each.example.answer + "<|im_end|>"
        assert each.answer.start == each.prompt_tokens
        assert each.ids[: each.prompt_tokens] == prompt_ids(tokenizer, each.example)
        assert tokenizer.decode(each.ids) == each.text


def test_logits_predict_the_answers_own_tokens(tiny_base, rendered):
    model = load_scored_model(tiny_base)
    each = rendered[0]
    found = answer_logits(model, each)
    gold = torch.tensor([each.ids[at] for at in each.answer])
    labels = torch.full((1, len(each.ids)), -100)
    labels[0, each.answer.start : each.answer.stop] = gold
    with torch.inference_mode():
        wanted = float(model(torch.tensor([each.ids]), labels=labels).loss)
    assert found.shape == (len(gold), model.config.vocab_size)
    assert float(torch.nn.functional.cross_entropy(found, gold)) == pytest.approx(wanted, rel=1e-4)


def test_a_model_agrees_with_itself(tiny_base, rendered):
    model, comparison = load_scored_model(tiny_base), Comparison()
    for each in rendered:
        logits = answer_logits(model, each)
        comparison.add(each, logits, logits.clone())
    found = comparison.agreement()
    assert (found.max_abs_diff, found.top1_agreement) == (0.0, 1.0)
    assert found.kl_mean == pytest.approx(0, abs=1e-6)
    assert found.perplexity_before == found.perplexity_after
    assert found.answer_tokens == sum(len(each.answer) for each in rendered)


def test_figures_are_what_they_are_called(rendered):
    each = rendered[0]
    tokens = len(each.answer)
    even, sure = torch.zeros(tokens, 600), torch.zeros(tokens, 600)
    for row, at in enumerate(each.answer):
        sure[row, each.ids[at]] = 5.0
    comparison = Comparison()
    comparison.add(each, even, sure)
    found = comparison.agreement()
    likely = math.exp(5) / (math.exp(5) + 599)
    divergence = -math.log(600) - (math.log(likely) + 599 * math.log((1 - likely) / 599)) / 600
    assert found.max_abs_diff == 5.0
    assert found.perplexity_before == pytest.approx(600, rel=1e-4)
    assert found.perplexity_after == pytest.approx(1 / likely, rel=1e-4)
    assert found.kl_mean == pytest.approx(divergence, rel=1e-4)
    assert found.top1_agreement < 0.1


def test_comparing_nothing_is_an_error():
    with pytest.raises(ArtifactError, match="no example to compare on"):
        Comparison().agreement()


def test_tasks_come_in_turn(examples):
    rare = [each.model_copy(update={"task": "strengths"}) for each in examples[:2]]
    drawn = pick_examples([*examples, *rare], 3)
    assert [each.task for each in drawn[:5]] == ["labels", "strengths"] * 2 + ["labels"]
    assert len(drawn) == len(examples) + 2
    assert drawn == pick_examples([*examples, *rare], 3)
    assert drawn != pick_examples([*examples, *rare], 4)


def test_nothing_is_cut(tokenizer, examples):
    lengths = [
        len(each.ids)
        for each in render_examples(tokenizer, examples, count=99, max_tokens=1024).rendered
    ]
    picked = render_examples(tokenizer, examples, count=99, max_tokens=min(lengths))
    assert {len(each.ids) for each in picked.rendered} == {min(lengths)}
    assert len(picked.too_long) + len(picked.rendered) == len(examples)
    with pytest.raises(DataUnfitError, match=f"context of {min(lengths) - 1} tokens"):
        render_examples(tokenizer, examples, count=99, max_tokens=min(lengths) - 1)


def test_a_template_without_the_mark_is_refused(tiny_base, tmp_path):
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    with pytest.raises(ArtifactError, match="generation"):
        load_tokenizer(folder)


def test_a_template_that_asks_otherwise_than_it_teaches_is_refused(tiny_base, tmp_path, examples):
    # Such templates exist: some put an empty thought before an answer, only when generating.
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    template = folder / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    changed = text.replace(
        "'<|im_start|>assistant\\n' -}}{%- endif", "'<|im_start|>assistant\\n ' -}}{%- endif"
    )
    assert changed != text
    template.write_text(changed, encoding="utf-8")
    with pytest.raises(ArtifactError, match="otherwise before an answer than for generation"):
        render_examples(load_tokenizer(folder), examples, count=1, max_tokens=1024)


def test_an_unsealed_folder_is_refused(tiny_base, tmp_path):
    folder = Path(shutil.copytree(tiny_base, tmp_path / "base"))
    (folder / MANIFEST_NAME).unlink()
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        load_scored_model(folder)

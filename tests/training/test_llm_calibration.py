"""Calibration texts: of the training part alone, checked against what is held out."""

import json
import shutil
from pathlib import Path

import pytest

from data.errors import ArtifactError, DataUnfitError, LeakageError
from data.examples import Example, read_examples, write_examples
from data.manifest import (
    read_labelled_reviews,
    read_manifest,
    write_labelled_reviews,
    write_manifest,
)
from training.llm_calibration import calibration_set, check_prompts_apart, material


def draw(model, targets, split=None, *, samples=20, seed=0, max_tokens=1024):
    return calibration_set(model, targets, split, samples=samples, seed=seed, max_tokens=max_tokens)


def resealed(folder, **facts):
    old = read_manifest_facts(folder)
    return write_manifest(folder, "targets", old | facts)


def read_manifest_facts(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["facts"]


@pytest.fixture
def targets(language_targets, tmp_path):
    return Path(shutil.copytree(language_targets, tmp_path / "targets"))


def test_only_the_training_part_is_drawn_from(tiny_base, language_targets, language_split):
    found = draw(tiny_base, language_targets, language_split)
    train = {each.about for each in read_examples(language_targets / "train.jsonl")}
    assert len(found.rendered) == 20
    assert {each.example.about for each in found.rendered} <= train
    assert found.facts["reviews_compared"] is True
    assert found.facts["tokens"] == sum(len(each.ids) for each in found.rendered)


def test_the_digest_is_of_the_texts(tiny_base, language_targets):
    one, again, other = (draw(tiny_base, language_targets, seed=seed) for seed in (0, 0, 1))
    assert one.facts == again.facts
    assert one.facts["digest"] != other.facts["digest"]


def test_rare_tasks_are_not_drowned(tiny_base, targets):
    labels = read_examples(targets / "train.jsonl")
    rare = [
        each.model_copy(update={"task": "overall", "about": f"s{number}"})
        for number, each in enumerate(labels[:5])
    ]
    write_examples(targets / "train.jsonl", [*labels, *rare])
    resealed(targets)
    tasks = [each.example.task for each in draw(tiny_base, targets, samples=10).rendered]
    assert tasks.count("overall") == tasks.count("labels") == 5


def test_what_is_too_long_is_left_out_whole_and_counted(tiny_base, language_targets):
    lengths = [len(each.ids) for each in draw(tiny_base, language_targets, samples=90).rendered]
    middle = sorted(lengths)[len(lengths) // 2]
    found = draw(tiny_base, language_targets, samples=90, max_tokens=middle)
    kept = [length for length in lengths if length <= middle]
    assert [len(each.ids) for each in found.rendered] == kept
    assert found.facts["left_out_too_long"] == len(lengths) - len(kept) > 0


def test_nothing_that_fits_is_an_error(tiny_base, language_targets):
    with pytest.raises(DataUnfitError, match="fits a context of 16 tokens"):
        draw(tiny_base, language_targets, max_tokens=16)


def test_no_example_is_an_error(tiny_base, targets):
    write_examples(targets / "train.jsonl", [])
    resealed(targets)
    with pytest.raises(DataUnfitError, match="none of 0 examples"):
        draw(tiny_base, targets)


@pytest.mark.parametrize("part", ["test", "validation"])
def test_a_prompt_of_a_held_out_part_is_refused(tiny_base, targets, part):
    stolen = read_examples(targets / f"{part}.jsonl")[3]
    renamed = stolen.model_copy(update={"about": "r-new"})
    write_examples(targets / "train.jsonl", [*read_examples(targets / "train.jsonl"), renamed])
    resealed(targets)
    with pytest.raises(LeakageError, match=rf"'r-new'.*{part} part.*{stolen.about!r}"):
        draw(tiny_base, targets, samples=1000)


def test_spacing_case_and_numbers_hide_no_prompt(language_targets):
    held_out = read_examples(language_targets / "test.jsonl")
    message = held_out[0].messages[-1]
    disguised = held_out[0].model_copy(
        update={
            "about": "r-new",
            "messages": [
                held_out[0].messages[0],
                {"role": "user", "content": message["content"].replace(" #1", "  #7 ")},
            ],
        }
    )
    assert disguised.messages != held_out[0].messages
    assert material(disguised) == material(held_out[0])
    with pytest.raises(LeakageError, match="'r-new'"):
        check_prompts_apart([disguised], held_out, "test")


def test_a_restaurant_of_a_held_out_part_is_refused(language_targets):
    held_out = read_examples(language_targets / "test.jsonl")
    example = Example(
        task="labels",
        about=held_out[0].about,
        numbered=1,
        messages=[{"role": "user", "content": "아무 말 #1"}],
        answer="{}",
    )
    with pytest.raises(LeakageError, match=f"{held_out[0].about!r}"):
        check_prompts_apart([example], held_out, "test")


def test_parts_that_share_nothing_pass(language_targets):
    train, held_out = (
        read_examples(language_targets / f"{part}.jsonl") for part in ("train", "test")
    )
    check_prompts_apart(train, held_out, "test")
    assert not {material(each) for each in train} & {material(each) for each in held_out}


def test_another_split_is_refused(tiny_base, language_targets, toy_split):
    with pytest.raises(ArtifactError, match="pass their own split"):
        draw(tiny_base, language_targets, toy_split)


def test_a_near_duplicate_review_is_found_through_the_split(
    tiny_base, targets, language_split, tmp_path
):
    # The prompts differ by a word, so only the reviews themselves tell.
    split = Path(shutil.copytree(language_split, tmp_path / "split"))
    rows = list(read_labelled_reviews(split / "train.jsonl"))
    longest = max(rows, key=lambda row: len(row.review.text))
    copy = longest.review.model_copy(
        update={
            "review_id": "r-copy",
            "restaurant_id": "s-copy",
            "text": longest.review.text + "요",
        }
    )
    test = [
        *read_labelled_reviews(split / "test.jsonl"),
        longest.model_copy(update={"review": copy}),
    ]
    write_labelled_reviews(split / "test.jsonl", test)
    digest = write_manifest(split, "split", {"seed": 0}).digest
    resealed(targets, split_digest=digest)
    assert draw(tiny_base, targets, samples=90).facts["reviews_compared"] is False
    with pytest.raises(
        LeakageError, match=r"near-duplicates .*in calibration and 'r-copy' in test"
    ):
        draw(tiny_base, targets, split, samples=90)


def test_an_example_about_no_training_review_is_refused(tiny_base, targets, language_split):
    train = read_examples(targets / "train.jsonl")
    write_examples(targets / "train.jsonl", [train[0].model_copy(update={"about": "r-stranger"})])
    digest = read_manifest(language_split).digest
    resealed(targets, split_digest=digest)
    with pytest.raises(LeakageError, match="'r-stranger' is about nothing in the training part"):
        draw(tiny_base, targets, language_split)

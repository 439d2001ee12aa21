import shutil
from pathlib import Path

import numpy as np
import pytest

from data.errors import ArtifactError, DataUnfitError
from data.manifest import read_labelled_reviews, read_manifest, write_labelled_reviews
from serving.embedding_folder import EMBEDDING_KIND, read_embedding_spec
from serving.engines.choice import load_embedder
from serving.likeness import unit
from training.embedding import train_embedding
from training.embedding_recipe import ContrastiveSettings


def test_the_folder_is_whole_and_says_what_it_was_made_by(
    tiny_embedding, embedding_recipe, language_split
):
    manifest = read_manifest(tiny_embedding, EMBEDDING_KIND)
    assert {"source/model.safetensors", "source/config.json", "tokenizer.json"} <= set(
        manifest.files
    )
    assert manifest.facts["recipe_digest"] == embedding_recipe.digest
    assert manifest.facts["split_digest"] == read_manifest(language_split).digest
    assert manifest.facts["pairs"] == {"training part": 90, "synthetic": 150, "scored": 0}
    spec = read_embedding_spec(tiny_embedding)
    assert (spec.dimensions, spec.max_tokens, spec.normalize) == (32, 24, True)


def test_training_brings_a_review_and_its_slip_together(tiny_embedding):
    losses = [loss for _, loss in read_manifest(tiny_embedding).facts["curve"]]
    assert losses[-1] < losses[0]
    embedder = load_embedder(tiny_embedding)
    reviews = ["국물이 정말 맛있어요", "직원이 너무 불친절했어요", "주차장이 넓고 편해요"]
    slips = ["국물 이정말 맛잇어요", "직원이너무 불친절햇어요", "주차장이 넓고 편해여"]
    closeness = unit(embedder.embed(slips)) @ unit(embedder.embed(reviews)).T
    assert closeness.argmax(axis=1).tolist() == [0, 1, 2]


def test_the_same_recipe_and_split_give_the_same_model(
    tiny_embedding, embedding_recipe, language_split, tmp_path
):
    again = tmp_path / "again"
    train_embedding(embedding_recipe, language_split, again, checkpoints=tmp_path / "work")
    texts = ["맛있어요", "별로예요"]
    expected = load_embedder(tiny_embedding).embed(texts)
    assert np.abs(load_embedder(again).embed(texts) - expected).max() < 1e-4
    assert not list((tmp_path / "work").iterdir())


def test_only_the_training_part_is_read(language_split, embedding_recipe, tmp_path, monkeypatch):
    read: list[str] = []

    def noted(path: Path):
        read.append(path.name)
        return read_labelled_reviews(path)

    monkeypatch.setattr("training.embedding.read_labelled_reviews", noted)
    monkeypatch.setattr("training.pretraining.read_labelled_reviews", noted)
    small = embedding_recipe.model_copy(
        update={"contrastive": ContrastiveSettings(synthetic_reviews=0, batch_pairs=45)}
    )
    train_embedding(small, language_split, tmp_path / "out", checkpoints=tmp_path / "work")
    assert set(read) == {"train.jsonl"}


def test_too_few_pairs_and_an_altered_split_are_refused(language_split, embedding_recipe, tmp_path):
    few = embedding_recipe.model_copy(
        update={"contrastive": ContrastiveSettings(synthetic_reviews=0, batch_pairs=91)}
    )
    with pytest.raises(DataUnfitError, match="batch_pairs=91"):
        train_embedding(few, language_split, tmp_path / "out", checkpoints=tmp_path)
    altered = tmp_path / "split"
    shutil.copytree(language_split, altered)
    write_labelled_reviews(altered / "train.jsonl", [])
    with pytest.raises(ArtifactError, match="altered"):
        train_embedding(few, altered, tmp_path / "out", checkpoints=tmp_path)

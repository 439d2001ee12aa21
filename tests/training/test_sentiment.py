from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, ElectraConfig, ElectraModel, PreTrainedTokenizerFast

from data.contract import Label, LabelledReview
from data.errors import ArtifactError, DataUnfitError, SettingsError
from data.manifest import read_labelled_reviews, read_manifest
from serving.analyzer import load_analyzer
from serving.encoder import load_encoder
from serving.model_folder import MODEL_KIND, read_spec
from training.calibration import LEAST_ROWS
from training.pretraining import ENCODER_KIND, pretrain_encoder
from training.recipe import Recipe
from training.sentiment import train_sentiment
from training.tokenizer import train_tokenizer


def with_changes(recipe: Recipe, **changes: dict[str, Any]) -> Recipe:
    """The recipe with some keys of its sections changed."""
    values = recipe.model_dump()
    for section, keys in changes.items():
        values[section] |= keys
    return Recipe.model_validate(values)


@pytest.fixture(scope="session")
def quick(tiny_recipe: Recipe) -> Recipe:
    return with_changes(tiny_recipe, fine_tuning={"epochs": 0.3})


def test_the_encoder_is_a_whole_folder(tiny_encoder):
    manifest = read_manifest(tiny_encoder, ENCODER_KIND)
    assert set(manifest.files) == {"tokenizer.json", "config.json", "model.safetensors"}
    assert manifest.facts["texts"] == {"real": 0, "synthetic": 300}
    assert set(manifest.facts["curves"]) == {"masked tokens", "synthetic labels"}
    model = load_encoder(tiny_encoder)
    assert manifest.facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_checkpoints_are_gone_once_the_result_is_safe(tiny_encoder, tiny_model):
    for folder in (tiny_encoder, tiny_model):
        left = folder.parent / "checkpoints"
        assert not left.exists() or list(left.iterdir()) == []


def test_the_corpus_takes_training_texts_and_never_another_part(
    tiny_recipe, tmp_path, write_split, toy_reviews
):
    recipe = with_changes(
        tiny_recipe, pretraining={"synthetic_reviews": 0, "masked_epochs": 0, "synthetic_epochs": 0}
    )
    folders = []
    for name, marks in (("one", "쀍쀍"), ("two", "뷁뷁")):
        marked = [
            row.model_copy(
                update={"review": row.review.model_copy(update={"text": f"{marks} {row.label}"})}
            )
            if number >= 90
            else row
            for number, row in enumerate(toy_reviews)
        ]
        split = write_split(tmp_path / f"split-{name}", marked)
        folders.append(tmp_path / name)
        pretrain_encoder(recipe, folders[-1], reviews=split, checkpoints=tmp_path / "checkpoints")
    one, two = (read_manifest(folder) for folder in folders)
    assert one.facts["texts"] == {"real": 90, "synthetic": 0}
    assert one.digest == two.digest  # also: the same recipe and texts give the same bytes


def test_no_text_at_all_is_refused(tiny_recipe, tmp_path):
    recipe = with_changes(tiny_recipe, pretraining={"synthetic_reviews": 0})
    with pytest.raises(SettingsError, match="no text to learn"):
        pretrain_encoder(recipe, tmp_path / "out", reviews=None, checkpoints=tmp_path / "c")


def test_the_model_is_a_whole_folder_that_names_its_inputs(
    tiny_model, tiny_encoder, toy_split, tiny_recipe
):
    manifest = read_manifest(tiny_model, MODEL_KIND)
    assert set(manifest.files) == {
        "tokenizer.json",
        "config.json",
        "model.safetensors",
        "model_spec.json",
    }
    facts = manifest.facts
    assert facts["recipe_digest"] == tiny_recipe.digest
    assert facts["split_digest"] == read_manifest(toy_split).digest
    assert facts["encoder_digest"] == read_manifest(tiny_encoder).digest
    assert facts["snapshot_id"] == "toy"
    assert facts["rows"] == {"train": 90, "validation": 36}
    assert facts["labelled"] == {"sentiment": 90, "intensity": 90, "emotions": 72, "aspects": 72}


def test_it_beats_chance_on_toy_reviews_it_has_not_seen(tiny_model, toy_split):
    rows = list(read_labelled_reviews(toy_split / "test.jsonl"))
    answers = load_analyzer(tiny_model).analyze([row.review.text for row in rows])
    hits = [a.sentiment.label == row.label.sentiment for a, row in zip(answers, rows, strict=True)]
    assert sum(hits) / len(hits) > 0.6  # a third would be chance


def test_long_reviews_are_trained_and_answered_in_windows(tiny_model, tiny_recipe, toy_split):
    lengths = read_manifest(tiny_model).facts["lengths"]
    assert lengths["tokens_max"] > tiny_recipe.windows.max_tokens
    assert lengths["windowed_share"] == pytest.approx(0.1, abs=0.05)
    assert lengths["truncated_share"] == 0.0
    analyzer = load_analyzer(tiny_model)
    rows = list(read_labelled_reviews(toy_split / "test.jsonl"))
    windows = [answer.windows for answer in analyzer.analyze([r.review.text for r in rows])]
    assert max(windows) > 1
    assert min(windows) == 1


def test_lengths_are_those_of_the_windows_that_serving_lays(tiny_model, toy_split):
    analyzer = load_analyzer(tiny_model)
    texts = [row.review.text for row in read_labelled_reviews(toy_split / "train.jsonl")]
    windows = analyzer.windows(texts)
    lengths = read_manifest(tiny_model).facts["lengths"]
    assert lengths["windowed_share"] == pytest.approx(float((windows.per_text > 1).mean()))


def test_heads_with_enough_labels_are_calibrated_and_the_others_are_not(tiny_model, toy_split):
    rows = list(read_labelled_reviews(toy_split / "validation.jsonl"))
    assert sum(row.label.emotions is not None for row in rows) < LEAST_ROWS <= len(rows)
    temperatures = read_spec(tiny_model).temperatures
    assert temperatures.sentiment != 1.0
    assert temperatures.intensity != 1.0
    assert temperatures.emotions == temperatures.aspects == 1.0


def test_one_sentiment_alone_is_refused(tiny_encoder, quick, tmp_path, write_split, toy_reviews):
    same = [
        row.model_copy(update={"label": row.label.model_copy(update={"sentiment": "positive"})})
        for row in toy_reviews
    ]
    split = write_split(tmp_path / "split", same)
    with pytest.raises(DataUnfitError, match=r"90 reviews with sentiments \['positive'\]"):
        train_sentiment(split, tiny_encoder, quick, tmp_path / "out", checkpoints=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_training_part_is_refused(
    tiny_encoder, quick, tmp_path, write_split, toy_reviews, rows
):
    split = write_split(tmp_path / "split", toy_reviews[:rows])
    with pytest.raises(DataUnfitError, match=f"has {rows} reviews"):
        train_sentiment(split, tiny_encoder, quick, tmp_path / "out", checkpoints=tmp_path)


def test_without_validation_reviews_nothing_is_calibrated(
    tiny_encoder, quick, tmp_path, write_split, toy_reviews
):
    split = write_split(tmp_path / "split", toy_reviews[:90])
    train_sentiment(split, tiny_encoder, quick, tmp_path / "out", checkpoints=tmp_path / "c")
    spec = read_spec(tmp_path / "out")
    assert set(spec.temperatures.model_dump().values()) == {1.0}
    assert set(spec.emotion_thresholds.values()) == {0.5}


def test_labels_of_two_tasks_alone_are_enough(
    tiny_encoder, quick, tmp_path, write_split, toy_reviews
):
    stars = [
        LabelledReview(
            review=row.review,
            label=Label(sentiment=row.label.sentiment, intensity=row.label.intensity),
        )
        for row in toy_reviews
    ]
    split = write_split(tmp_path / "split", stars)
    facts = train_sentiment(
        split, tiny_encoder, quick, tmp_path / "out", checkpoints=tmp_path / "c"
    ).facts
    assert facts["labelled"] == {"sentiment": 90, "intensity": 90, "emotions": 0, "aspects": 0}
    (answer,) = load_analyzer(tmp_path / "out").analyze(["맛있어요"])
    assert len(answer.emotions.scores) == 8


def test_another_kind_of_input_is_refused(tiny_encoder, toy_split, quick, tmp_path):
    with pytest.raises(ArtifactError, match="expected 'split'"):
        train_sentiment(tiny_encoder, tiny_encoder, quick, tmp_path / "o", checkpoints=tmp_path)
    with pytest.raises(ArtifactError, match="expected 'encoder'"):
        train_sentiment(toy_split, toy_split, quick, tmp_path / "o", checkpoints=tmp_path)


TOKENIZER_TEXTS = ["국물이 정말 맛있어요", "직원이 불친절해요"] * 3


def save_tokenizer(folder: Path) -> int:
    tokenizer = train_tokenizer(TOKENIZER_TEXTS, vocabulary=6000)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the hub would give it: ELECTRA weights in safetensors, and a fast tokenizer."""
    folder = tmp_path_factory.mktemp("published") / "electra"
    vocabulary = save_tokenizer(folder)
    torch.manual_seed(0)
    config = ElectraConfig(vocab_size=vocabulary, embedding_size=8, **SIZES)
    ElectraModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adopted(published: Path, tiny_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adopted") / "encoder"
    recipe = with_changes(tiny_recipe, encoder={"pretrained": str(published)})
    pretrain_encoder(recipe, folder, reviews=None, checkpoints=folder.parent / "checkpoints")
    return folder


def test_a_pretrained_encoder_is_adopted_with_its_weights_and_tokenizer(adopted, published):
    manifest = read_manifest(adopted, ENCODER_KIND)
    assert set(manifest.files) == {"tokenizer.json", "config.json", "model.safetensors"}
    theirs, ours = load_file(published / "model.safetensors"), load_encoder(adopted).state_dict()
    for name, values in theirs.items():
        torch.testing.assert_close(ours[f"electra.{name}"], values)


def test_an_adopted_encoder_is_fine_tuned_and_answers(adopted, quick, toy_split, tmp_path):
    recipe = with_changes(quick, encoder={"pretrained": "by/name"})
    facts = train_sentiment(
        toy_split, adopted, recipe, tmp_path / "out", checkpoints=tmp_path / "c"
    ).facts
    assert facts["pretrained"] == "by/name"
    assert len(load_analyzer(tmp_path / "out").analyze(["국물이 정말 맛있어요"])) == 1


def test_windows_longer_than_the_encoders_positions_are_refused(
    adopted, quick, toy_split, tmp_path
):
    recipe = with_changes(quick, windows={"max_tokens": 64})
    with pytest.raises(ArtifactError, match=r"max_tokens=64 is more than the 32 positions"):
        train_sentiment(toy_split, adopted, recipe, tmp_path / "out", checkpoints=tmp_path)


def test_half_precision_weights_are_adopted_in_full(published, tiny_recipe, quick, tmp_path):
    half = tmp_path / "half"
    save_tokenizer(half)
    ElectraModel.from_pretrained(published).to(torch.float16).save_pretrained(half)
    recipe = with_changes(tiny_recipe, encoder={"pretrained": str(half)})
    pretrain_encoder(recipe, tmp_path / "encoder", reviews=None, checkpoints=tmp_path / "c")
    kinds = {parameter.dtype for parameter in load_encoder(tmp_path / "encoder").parameters()}
    assert kinds == {torch.float32}


def adopt(recipe: Recipe, name: str, out: Path) -> None:
    pretrain_encoder(
        with_changes(recipe, encoder={"pretrained": name}),
        out / "encoder",
        reviews=None,
        checkpoints=out / "checkpoints",
    )


def test_a_name_that_cannot_be_had_is_refused(tiny_recipe, tmp_path):
    name = str(tmp_path / "no" / "such" / "folder")
    with pytest.raises(SettingsError, match="cannot be loaded") as refused:
        adopt(tiny_recipe, name, tmp_path)
    assert repr(name) in str(refused.value)
    assert not (tmp_path / "encoder" / "manifest.json").exists()


def test_a_model_that_is_no_electra_is_refused(tiny_recipe, tmp_path):
    vocabulary = save_tokenizer(tmp_path / "bert")
    BertModel(BertConfig(vocab_size=vocabulary, **SIZES)).save_pretrained(tmp_path / "bert")
    with pytest.raises(SettingsError, match="bert"):
        adopt(tiny_recipe, str(tmp_path / "bert"), tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage" * 50])
def test_a_pretrained_folder_with_garbled_weights_is_refused(
    published, tiny_recipe, tmp_path, content
):
    folder = tmp_path / "garbled"
    folder.mkdir()
    for path in published.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(SettingsError, match="cannot be loaded"):
        adopt(tiny_recipe, str(folder), tmp_path)


def test_a_pretrained_folder_without_tokenizer_is_refused(published, tiny_recipe, tmp_path):
    folder = tmp_path / "electra"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((published / name).read_bytes())
    with pytest.raises(SettingsError, match="cannot be loaded"):
        adopt(tiny_recipe, str(folder), tmp_path)

"""Tiny models for all tests of training: each trained, exported, merged and quantised once."""

import runpy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data.contract import INTENSITIES, Label, LabelledReview, Review
from data.manifest import write_labelled_reviews, write_manifest
from data.near_duplicates import near_duplicate_pairs
from data.sources.synthetic import generate
from data.targets import build_targets
from serving.language_folder import ADAPTER_KIND
from training.embedding_recipe import EmbeddingRecipe, parse_embedding_recipe
from training.recipe import Recipe, parse_recipe

GOOD = ("정말 맛있어요", "직원이 친절해요", "국물이 최고예요", "분위기가 좋아요")
BAD = ("너무 짜고 별로예요", "직원이 불친절해요", "위생이 엉망이에요", "비싸고 맛없어요")
PLAIN = ("역에서 오 분 거리입니다", "월요일은 쉽니다", "주차장이 있어요", "포장됩니다")

TINY_LANGUAGE = Path(__file__).parents[1] / "tiny_language_model.py"
WriteSplit = Callable[[Path, Sequence[LabelledReview]], Path]


def toy_review(number: int) -> LabelledReview:
    """A review whose label follows from its words; every fifth lacks emotions and aspects."""
    kind = number % 3
    words = (BAD, PLAIN, GOOD)[kind]
    text = f"{words[number % 4]} {words[(number * 7 + 1) % 4]}"
    full = number % 5 != 4
    aspects = ({"food": "negative"}, {"access": "neutral"}, {"food": "positive"})
    return LabelledReview(
        review=Review(
            review_id=f"r{number}",
            # Every tenth is longer than a window.
            text=" ".join([text] * 6) if number % 10 == 9 else text,
            restaurant_id=f"s{number % 7}",
        ),
        label=Label.model_validate(
            {
                "sentiment": ("negative", "neutral", "positive")[kind],
                "intensity": INTENSITIES[2 * kind],
                "emotions": (("anger",), (), ("joy",))[kind] if full else None,
                "aspects": aspects[kind] if full else None,
            }
        ),
    )


@pytest.fixture(scope="session")
def toy_reviews() -> list[LabelledReview]:
    return [toy_review(number) for number in range(150)]


@pytest.fixture(scope="session")
def write_split() -> WriteSplit:
    """Seals reviews as a split: 90 for training, 36 for validation, the rest for the test."""

    def write(folder: Path, rows: Sequence[LabelledReview]) -> Path:
        folder.mkdir(parents=True)
        for part, own in (
            ("train", rows[:90]),
            ("validation", rows[90:126]),
            ("test", rows[126:]),
        ):
            write_labelled_reviews(folder / f"{part}.jsonl", own)
        write_manifest(folder, "split", {"seed": 0, "snapshot_id": "toy"})
        return folder

    return write


@pytest.fixture(scope="session")
def toy_split(
    tmp_path_factory: pytest.TempPathFactory,
    write_split: WriteSplit,
    toy_reviews: list[LabelledReview],
) -> Path:
    return write_split(tmp_path_factory.mktemp("toy") / "split", toy_reviews)


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    return parse_recipe(
        """
        name: test
        threads: 1
        encoder: {vocabulary: 600, embedding_size: 16, hidden_size: 32, layers: 1,
                  attention_heads: 2, intermediate_size: 32, dropout: 0.0}
        windows: {max_tokens: 24, overlap_tokens: 6}
        pretraining: {synthetic_reviews: 300, masked_epochs: 1, masked_learning_rate: 3.0e-3,
                      synthetic_epochs: 1, synthetic_learning_rate: 5.0e-3, batch_tokens: 1024}
        fine_tuning: {epochs: 8, batch_tokens: 512, learning_rate: 5.0e-3, masked_weight: 0.1,
                      segmentation_dropout: 0.1, average_weights_decay: 0.5}
        """
    )


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory, tiny_recipe: Recipe) -> Path:
    from training.pretraining import pretrain_encoder

    folder = tmp_path_factory.mktemp("encoder")
    pretrain_encoder(
        tiny_recipe, folder / "encoder", reviews=None, checkpoints=folder / "checkpoints"
    )
    return folder / "encoder"


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_recipe: Recipe,
    tiny_encoder: Path,
    toy_split: Path,
) -> Path:
    """The fine-tuned model, format torch-fp32."""
    from training.sentiment import train_sentiment

    folder = tmp_path_factory.mktemp("model")
    train_sentiment(
        toy_split,
        tiny_encoder,
        tiny_recipe,
        folder / "model",
        checkpoints=folder / "checkpoints",
    )
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, toy_split: Path) -> Path:
    """The export of the tiny model, format onnx-fp32."""
    from training.export import export_onnx

    folder = tmp_path_factory.mktemp("onnx") / "model"
    export_onnx(tiny_model, toy_split, folder, threads=1)
    return folder


@pytest.fixture(scope="session")
def tiny_int8(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path, toy_split: Path) -> Path:
    """The quantised export of the tiny model, format onnx-int8."""
    from training.quantize_encoder import quantize_encoder

    folder = tmp_path_factory.mktemp("int8") / "model"
    quantize_encoder(tiny_onnx, toy_split, folder, threads=1)
    return folder


@pytest.fixture(scope="session")
def tiny_language() -> Any:
    """The makers of tests/tiny_language_model.py."""
    return SimpleNamespace(**runpy.run_path(str(TINY_LANGUAGE)))


@pytest.fixture(scope="session")
def language_split(tmp_path_factory: pytest.TempPathFactory, write_split: WriteSplit) -> Path:
    """A split of 150 reviews with evidence, no two alike."""
    rows = list(generate(200, seed=5))
    pairs = near_duplicate_pairs([row.review.text for row in rows], 0.8)
    alike = {pair.second for pair in pairs}
    apart = [row for number, row in enumerate(rows) if number not in alike][:150]
    # Six reviews a restaurant, so that no restaurant stands in two parts.
    housed = [
        row.model_copy(
            update={"review": row.review.model_copy(update={"restaurant_id": f"s{number // 6}"})}
        )
        for number, row in enumerate(apart)
    ]
    return write_split(tmp_path_factory.mktemp("language") / "split", housed)


@pytest.fixture(scope="session")
def language_targets(tmp_path_factory: pytest.TempPathFactory, language_split: Path) -> Path:
    """The targets of that split: labels alone."""
    folder = tmp_path_factory.mktemp("language") / "targets"
    build_targets(language_split, None, folder)
    return folder


@pytest.fixture(scope="session")
def embedding_recipe() -> EmbeddingRecipe:
    return parse_embedding_recipe(
        """
        name: test
        threads: 1
        encoder: {vocabulary: 600, embedding_size: 16, hidden_size: 32, layers: 2,
                  attention_heads: 2, intermediate_size: 48, dropout: 0.0}
        windows: {max_tokens: 24, overlap_tokens: 6}
        pretraining: {synthetic_reviews: 100}
        contrastive: {synthetic_reviews: 150, epochs: 3, batch_pairs: 16, learning_rate: 3.0e-3}
        demanded: [int8]
        """
    )


@pytest.fixture(scope="session")
def tiny_embedding(
    tmp_path_factory: pytest.TempPathFactory,
    embedding_recipe: EmbeddingRecipe,
    language_split: Path,
) -> Path:
    """An embedding model trained for a moment, torch alone."""
    from training.embedding import train_embedding

    folder = tmp_path_factory.mktemp("embedding")
    train_embedding(
        embedding_recipe, language_split, folder / "model", checkpoints=folder / "checkpoints"
    )
    return folder / "model"


@pytest.fixture(scope="session")
def embedding_onnx(
    tmp_path_factory: pytest.TempPathFactory, tiny_embedding: Path, language_split: Path
) -> Path:
    """Its exports."""
    from training.export_embedding import export_embedding

    folder = tmp_path_factory.mktemp("embedding") / "exported"
    export_embedding(tiny_embedding, language_split, folder, threads=1)
    return folder


@pytest.fixture(scope="session")
def embedding_int8(
    tmp_path_factory: pytest.TempPathFactory, embedding_onnx: Path, language_split: Path
) -> Path:
    """The exports with the quantised graphs."""
    from training.quantize_embedding import quantize_embedding

    folder = tmp_path_factory.mktemp("embedding") / "quantized"
    quantize_embedding(embedding_onnx, language_split, folder, demanded=("int8",), threads=1)
    return folder


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, tiny_language: Any) -> Path:
    """A random Qwen3, float32."""
    folder = tmp_path_factory.mktemp("language") / "base"
    tiny_language.write_model(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter(
    tmp_path_factory: pytest.TempPathFactory, tiny_language: Any, tiny_base: Path
) -> Path:
    """A random adapter for it, as if trained over float weights."""
    folder = tmp_path_factory.mktemp("language") / "adapter"
    facts = tiny_language.write_adapter(folder, tiny_base, quantized_base="none").facts
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy2(tiny_base / name, folder / name)
    write_manifest(folder, ADAPTER_KIND, facts)
    return folder


@pytest.fixture(scope="session")
def tiny_merged(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_adapter: Path
) -> Path:
    """Both merged."""
    from training.merge_llm import merge_adapter

    folder = tmp_path_factory.mktemp("language") / "merged"
    merge_adapter(tiny_adapter, tiny_base, folder)
    return folder


@pytest.fixture(scope="session")
def tiny_w8a8(
    tmp_path_factory: pytest.TempPathFactory, tiny_merged: Path, language_targets: Path
) -> Path:
    """The merged model in INT8."""
    from training.quantize_llm import quantize_language_model

    folder = tmp_path_factory.mktemp("language") / "w8a8"
    quantize_language_model(tiny_merged, language_targets, None, folder, samples=24)
    return folder

"""One tiny model for all tests of training: pretrained, fine-tuned, exported and quantised once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from data.contract import INTENSITIES, Label, LabelledReview, Review
from data.manifest import write_labelled_reviews, write_manifest
from training.recipe import Recipe, parse_recipe

GOOD = ("정말 맛있어요", "직원이 친절해요", "국물이 최고예요", "분위기가 좋아요")
BAD = ("너무 짜고 별로예요", "직원이 불친절해요", "위생이 엉망이에요", "비싸고 맛없어요")
PLAIN = ("역에서 오 분 거리입니다", "월요일은 쉽니다", "주차장이 있어요", "포장됩니다")

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

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import ElectraConfig

from data.contract import CONTRACT_VERSION, Label, LabelledReview, Review
from data.manifest import write_labelled_reviews, write_manifest
from serving.encoder import MultiTaskElectra
from serving.model_folder import MODEL_KIND, ModelSpec, write_spec

OUTPUTS = ["sentiment", "intensity", "emotions", "aspects"]
PRAISE = (
    "정말 맛있어요",
    "직원이 친절해요",
    "또 가고 싶어요",
    "국물이 최고예요",
    "분위기가 좋아요",
)
COMPLAINT = ("너무 짜고 별로예요", "직원이 불친절해요", "다시는 안 가요", "위생이 엉망", "비싸요")
FACTS = (
    "역에서 5분 거리입니다",
    "월요일은 쉽니다",
    "메뉴는 세 가지",
    "주차장이 있어요",
    "포장 가능",
)


def labelled(number: int, *, restaurants: int | None = 8) -> LabelledReview:
    """A review whose label follows from its number: negative, neutral, positive in turn."""
    kind = number % 3
    words = (COMPLAINT, FACTS, PRAISE)[kind]
    text = f"{words[number % 5]} {words[(number * 7 + 1) % 5]} {'ㅋ' * (number % 4)}"
    if number % 10 == 9:
        text += " 아주 길게 이어지는 후기라서 같은 말을 되풀이합니다." * 6
    return LabelledReview(
        review=Review(
            review_id=f"r{number}",
            text=text,
            restaurant_id=None if restaurants is None else f"s{number % restaurants}",
        ),
        label=Label(
            sentiment=("negative", "neutral", "positive")[kind],
            intensity=((-2, -1)[number % 2], 0, (1, 2)[number % 2])[kind],
            emotions=(("anger",), (), ("joy",))[kind] if number % 2 else (),
            aspects=({"food": "negative"}, {"access": "neutral"}, {"food": "positive"})[kind],
            phenomena=("slang",) if number % 4 else (),
        ),
    )


@pytest.fixture(scope="session")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("split")
    rows = [labelled(number) for number in range(150)]
    write_labelled_reviews(folder / "train.jsonl", rows[:90])
    write_labelled_reviews(folder / "validation.jsonl", rows[90:105])
    write_labelled_reviews(folder / "test.jsonl", rows[105:])
    write_manifest(folder, "split", {"seed": 0})
    return folder


def _tokenizer() -> Tokenizer:
    letters = sorted(
        {c for words in (PRAISE, COMPLAINT, FACTS) for w in words for c in w if c > " "}
    )
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    tokenizer = Tokenizer(
        models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


ModelExporter = Callable[..., Path]


@pytest.fixture(scope="session")
def export_tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelExporter:
    """Exports a random tiny model; the same seed gives the same weights."""

    def export(*, seed: int = 0, id2sentiment: Sequence[str] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("model")
        tokenizer = _tokenizer()
        torch.manual_seed(seed)
        model = MultiTaskElectra(
            ElectraConfig(
                vocab_size=tokenizer.get_vocab_size(),
                embedding_size=16,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=64,
                attn_implementation="eager",
            )
        ).eval()
        ids = torch.ones((2, 7), dtype=torch.int64)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (ids, ids),
                str(folder / "model.onnx"),
                input_names=["input_ids", "attention_mask"],
                output_names=OUTPUTS,
                dynamic_axes={
                    name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask")
                }
                | {name: {0: "batch"} for name in OUTPUTS},
                opset_version=17,
                dynamo=False,
            )
        tokenizer.save(str(folder / "tokenizer.json"))
        names = id2sentiment or ["negative", "neutral", "positive"]
        write_spec(
            folder,
            ModelSpec(
                contract_version=CONTRACT_VERSION,
                format="onnx-fp32",
                architecture="tiny",
                max_tokens=64,
                overlap_tokens=16,
                id2sentiment=dict(enumerate(names)),  # type: ignore[arg-type]
            ),
        )
        write_manifest(folder, MODEL_KIND, {"seed": seed})
        return folder

    return export

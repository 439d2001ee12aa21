"""Engines over random models: a Qwen3, tiny encoders, and an encoder wide enough for INT8."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from data.manifest import write_manifest
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, write_embedding_spec
from serving.engines.chat_transformers import TransformersChatEngine
from serving.engines.protocol import Engine, Floats
from serving.sentence_encoder import SentenceEncoder
from serving.windows import pad

MAX_TOKENS = 48
VOCABULARY = 60
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS,
}
# RoBERTa's positions begin after the padding id.
SHIFTED = SIZES | {"max_position_embeddings": MAX_TOKENS + 2, "pad_token_id": 1}
BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "electra": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=16)),
    "bert": lambda: BertModel(BertConfig(**SIZES), add_pooling_layer=False),
    "bert-relu": lambda: BertModel(BertConfig(**SIZES, hidden_act="relu")),
    "roberta": lambda: RobertaModel(RobertaConfig(**SHIFTED, hidden_act="gelu_new")),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SHIFTED)),
}


class _Greedy(nn.Module):
    """Asks torch for more memory than any machine has, when it pools more than one window."""

    def __init__(self, model: SentenceEncoder):
        super().__init__()
        self.backbone = model.backbone

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        raise AssertionError("the engine computes states itself")

    def outputs(self, states: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        size = 1 << 50 if len(states) > 1 else 4
        return {"embedding": torch.zeros(len(states), size // len(states), device=states.device)}


class TinyEncoders:
    """Random encoders of two layers, windows for them, and how alike two answers are."""

    max_tokens = MAX_TOKENS
    vocabulary = VOCABULARY
    sizes = SIZES

    def encoder(self, kind: str = "electra") -> SentenceEncoder:
        """The same weights whenever it is called."""
        torch.manual_seed(7)
        backbone = BACKBONES[kind]()
        for name, parameter in backbone.named_parameters():
            # As far from their fresh values as trained ones: a bias left out must be seen.
            if name.endswith("bias") or "LayerNorm" in name:
                nn.init.normal_(parameter, mean=float("weight" in name), std=0.3)
            elif "dense" in name or "attention" in name:
                nn.init.normal_(parameter, std=0.2)
        return SentenceEncoder(backbone).eval()

    def greedy(self, kind: str = "electra") -> nn.Module:
        """An encoder that runs out of memory where a batch holds more than one window."""
        return _Greedy(self.encoder(kind))

    def windows(self, lengths: list[int], seed: int = 0) -> list[list[int]]:
        """Random tokens, so many a window."""
        rng = np.random.default_rng(seed)
        return [rng.integers(2, VOCABULARY, size=length).tolist() for length in lengths]

    def lowest_cosine(self, one: Floats, other: Floats) -> float:
        """Of all rows, (rows, features) each."""
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return float(((one * other).sum(1) / lengths).min())

    def moved_by_mates(self, engine: Engine) -> float:
        """How far a window's vector lies from its own when random batch-mates are beside it."""
        rng = np.random.default_rng(3)
        window = self.windows([11], seed=4)[0]
        alone = engine.run(*pad([window], 0))["embedding"][0]
        farthest = 0.0
        for _ in range(12):
            lengths = rng.integers(1, MAX_TOKENS, size=rng.integers(1, 9)).tolist()
            mates = self.windows(lengths, seed=5)
            place = int(rng.integers(0, len(mates) + 1))
            mates.insert(place, window)
            among = engine.run(*pad(mates, 0))["embedding"][place]
            farthest = max(farthest, float(np.abs(among - alone).max()))
        return farthest


@pytest.fixture(scope="session")
def encoders() -> TinyEncoders:
    return TinyEncoders()


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where the GPU's engine computes: on the CPU as well, slowly."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    return str(request.param)


@pytest.fixture(scope="module")
def engine(tiny_base: Path) -> Iterator[TransformersChatEngine]:
    loaded = TransformersChatEngine.load(tiny_base, threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding folder with its weights and the dynamo exporter's graph, 128 features wide."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from serving.sentence_encoder import OUTPUT, save_sentence_encoder
    from training.export import export_dynamo

    folder = tmp_path_factory.mktemp("small")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("가"), ord("가") + 2000, 7)]
    tokens = [*special, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({t: n for n, t in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(3)
    torch.set_num_threads(1)
    config = ElectraConfig(
        vocab_size=len(tokens),
        embedding_size=128,
        hidden_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=256,
        max_position_embeddings=64,
    )
    model = SentenceEncoder(ElectraModel(config)).eval()
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "embeddings" not in name:
            torch.nn.init.normal_(weight, std=0.15)
    save_sentence_encoder(model, folder / "source")
    export_dynamo(model, folder / "graph.onnx", [OUTPUT])
    write_embedding_spec(
        folder,
        EmbeddingSpec(
            name="small", architecture="electra", dimensions=128, max_tokens=48, overlap_tokens=8
        ),
    )
    write_manifest(folder, EMBEDDING_KIND, {})
    return folder

"""Engines over random models: a Qwen3, and an encoder wide enough for INT8."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data.manifest import write_manifest
from serving.embedding_folder import EMBEDDING_KIND, EmbeddingSpec, write_embedding_spec
from serving.engines.chat_transformers import TransformersChatEngine


@pytest.fixture(scope="module")
def engine(tiny_base: Path) -> Iterator[TransformersChatEngine]:
    loaded = TransformersChatEngine.load(tiny_base, threads=1)
    yield loaded
    loaded.close()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedding folder with its weights and the dynamo exporter's graph, 128 features wide."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ElectraConfig, ElectraModel

    from serving.sentence_encoder import OUTPUT, SentenceEncoder, save_sentence_encoder
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

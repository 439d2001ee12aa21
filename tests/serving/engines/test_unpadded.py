"""Encoders computed without padding answer like the models they were packed from."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from data.errors import EngineError, EngineMemoryError
from serving.encoder import load_encoder
from serving.engines.protocol import TokenIds
from serving.engines.pytorch import PytorchEngine
from serving.engines.unpadded import Precision, UnpaddedEngine
from serving.sentence_encoder import SentenceEncoder
from serving.windows import pad

MAX_TOKENS = 48
VOCABULARY = 60
# How far the lowest cosine of a random tiny model may be from 1.
FARTHEST: dict[Precision, float] = {"fp32": 1e-6, "bf16": 1e-3, "int8": 1e-2}
PRECISIONS: list[Precision] = list(FARTHEST)
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


def _encoder(kind: str) -> SentenceEncoder:
    torch.manual_seed(7)
    backbone = BACKBONES[kind]()
    for name, parameter in backbone.named_parameters():
        # As far from their fresh values as trained ones: a bias left out must be seen.
        if name.endswith("bias") or "LayerNorm" in name:
            nn.init.normal_(parameter, mean=float("weight" in name), std=0.3)
        elif "dense" in name or "attention" in name:
            nn.init.normal_(parameter, std=0.2)
    return SentenceEncoder(backbone).eval()


def _windows(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCABULARY, size=length).tolist() for length in lengths]


def _cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(1) / lengths)


def _skip_without(precision: Precision) -> None:
    if precision != "fp32" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU computes no bfloat16")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", BACKBONES)
def test_vectors_are_the_source_models(kind: str, precision: Precision) -> None:
    _skip_without(precision)
    model = _encoder(kind)
    ids, mask = pad(_windows([1, 2, 7, 7, 7, 19, 31, 46, MAX_TOKENS]), 1)
    source = PytorchEngine(model).run(ids, mask)["embedding"]

    ours = UnpaddedEngine(model, precision=precision).run(ids, mask)["embedding"]

    assert ours.dtype == np.float32
    assert _cosines(ours, source).min() > 1 - FARTHEST[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_head_of_a_classifier_answers_alike(torch_twin: Path, precision: Precision) -> None:
    _skip_without(precision)
    model = load_encoder(torch_twin)
    rng = np.random.default_rng(1)
    ids, mask = pad([rng.integers(5, 17, size=length).tolist() for length in (3, 9, 4, 32)], 0)
    source = PytorchEngine(model).run(ids, mask)

    ours = UnpaddedEngine(model, precision=precision).run(ids, mask)

    assert list(ours) == list(source)
    near = {"fp32": 1e-5, "bf16": 0.03, "int8": 0.1}[precision]
    for name, values in source.items():
        assert np.abs(ours[name] - values).max() <= near * max(1.0, np.abs(values).max()), name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_answer_does_not_depend_on_its_batch_mates(precision: Precision) -> None:
    _skip_without(precision)
    engine = UnpaddedEngine(_encoder("electra"), precision=precision)
    assert engine.batch_invariant
    rng = np.random.default_rng(3)
    window = _windows([11], seed=4)[0]
    alone = engine.run(*pad([window], 0))["embedding"][0]

    for _ in range(12):
        mates = _windows(rng.integers(1, MAX_TOKENS, size=rng.integers(1, 9)).tolist(), seed=5)
        place = int(rng.integers(0, len(mates) + 1))
        mates.insert(place, window)
        among = engine.run(*pad(mates, 0))["embedding"][place]
        # Beyond the last bits of the type that it computes with.
        assert np.abs(among - alone).max() < {"fp32": 1e-6, "bf16": 4e-3, "int8": 1e-2}[precision]


def test_many_windows_of_one_length_are_read_in_parts() -> None:
    model = _encoder("bert")
    ids, mask = pad(_windows([40] * 200), 0)

    ours = UnpaddedEngine(model, precision="fp32").run(ids, mask)["embedding"]

    np.testing.assert_allclose(ours, PytorchEngine(model).run(ids, mask)["embedding"], atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_disturb_each_other(precision: Precision) -> None:
    _skip_without(precision)
    engine = UnpaddedEngine(_encoder("bert"), precision=precision)
    batches = [pad(_windows([5, 9, 30], seed=seed), 0) for seed in range(16)]
    alone = [engine.run(*batch)["embedding"] for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.run(*batch)["embedding"], batches * 2))

    for one, other in zip(together, alone * 2, strict=True):
        assert np.array_equal(one, other)


def test_the_model_is_left_as_it_was() -> None:
    model = _encoder("electra")
    before = copy.deepcopy(model.state_dict())

    UnpaddedEngine(model, precision="bf16" if _has_bfloat16() else "fp32")

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class _Greedy(nn.Module):
    """Asks torch for more memory than any machine has, when it pools."""

    def __init__(self, model: SentenceEncoder):
        super().__init__()
        self.backbone = model.backbone

    def states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        raise AssertionError("the unpadded engine computes states itself")

    def outputs(self, states: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        return {"embedding": torch.empty(1 << 50)}


def test_running_out_of_memory_has_its_own_error() -> None:
    engine = UnpaddedEngine(_Greedy(_encoder("bert")), precision="fp32")

    with pytest.raises(EngineMemoryError, match=r"shape \(1, 4\)"):
        engine.run(*pad(_windows([4]), 0))


def test_bad_batches_are_refused_by_name() -> None:
    engine = UnpaddedEngine(_encoder("roberta"), precision="fp32")
    ids, mask = pad(_windows([4, 3]), 1)

    with pytest.raises(EngineError, match="row 1 of the batch"):
        engine.run(ids, mask * np.array([[1], [0]]))
    with pytest.raises(EngineError, match=f"{MAX_TOKENS + 1} tokens.*lower max_tokens"):
        engine.run(*pad(_windows([MAX_TOKENS + 1]), 1))
    with pytest.raises(EngineError, match="torch failed") as caught:
        engine.run(_with(ids, VOCABULARY), mask)
    assert not isinstance(caught.value, EngineMemoryError)


def _with(ids: TokenIds, token: int) -> TokenIds:
    changed = ids.copy()
    changed[0, 0] = token
    return changed


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        (
            lambda: DistilBertModel(DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32)),
            "not model type 'distilbert'.*torch-fp32",
        ),
        (lambda: BertModel(BertConfig(**SIZES, hidden_act="silu")), "hidden_act='silu'"),
        (lambda: BertModel(BertConfig(**SIZES, is_decoder=True)), "is_decoder=True"),
    ],
)
def test_other_architectures_are_refused(backbone: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(EngineError, match=words):
        UnpaddedEngine(SentenceEncoder(backbone()), precision="fp32")


def test_a_plain_bfloat16_engine_serves_any_architecture() -> None:
    torch.manual_seed(0)
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=VOCABULARY)
    model = SentenceEncoder(DistilBertModel(config)).eval()
    batch = pad(_windows([3, 8]), 0)
    source = PytorchEngine(model).run(*batch)["embedding"]

    ours = PytorchEngine(model, precision="bf16").run(*batch)["embedding"]

    assert _cosines(ours, source).min() > 0.999
    assert next(model.backbone.parameters()).dtype == torch.float32

"""Encoders computed without padding answer like the models they were packed from."""

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from data.errors import EngineError, EngineMemoryError
from serving.encoder import load_encoder
from serving.engines import unpadded
from serving.engines.protocol import TokenIds
from serving.engines.pytorch import PytorchEngine
from serving.engines.token_layout import Group
from serving.engines.unpadded import Precision, UnpaddedEngine
from serving.sentence_encoder import SentenceEncoder
from serving.windows import pad

# How far the lowest cosine of a random tiny model may be from 1.
FARTHEST: dict[Precision, float] = {"fp32": 1e-6, "bf16": 1e-3, "int8": 1e-2}
PRECISIONS: list[Precision] = list(FARTHEST)
KINDS = ["electra", "bert", "bert-relu", "roberta", "xlm-roberta"]


def _skip_without(precision: Precision) -> None:
    if precision != "fp32" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU computes no bfloat16")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_the_source_models(encoders: Any, kind: str, precision: Precision) -> None:
    _skip_without(precision)
    model = encoders.encoder(kind)
    ids, mask = pad(encoders.windows([1, 2, 7, 7, 7, 19, 31, 46, encoders.max_tokens]), 1)
    source = PytorchEngine(model).run(ids, mask)["embedding"]

    ours = UnpaddedEngine(model, precision=precision).run(ids, mask)["embedding"]

    assert ours.dtype == np.float32
    assert encoders.lowest_cosine(ours, source) > 1 - FARTHEST[precision]


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
def test_an_answer_does_not_depend_on_its_batch_mates(encoders: Any, precision: Precision) -> None:
    _skip_without(precision)
    engine = UnpaddedEngine(encoders.encoder("electra"), precision=precision)
    assert engine.batch_invariant
    # Beyond the last bits of the type that it computes with.
    assert encoders.moved_by_mates(engine) < {"fp32": 1e-6, "bf16": 4e-3, "int8": 1e-2}[precision]


def test_many_windows_of_one_length_are_read_in_parts(encoders: Any) -> None:
    model = encoders.encoder("bert")
    ids, mask = pad(encoders.windows([40] * 200), 0)

    ours = UnpaddedEngine(model, precision="fp32").run(ids, mask)["embedding"]

    np.testing.assert_allclose(ours, PytorchEngine(model).run(ids, mask)["embedding"], atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_few_numbers_of_rows_reach_the_products(
    encoders: Any, precision: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    # oneDNN keeps code for each number: 64 batches of other sizes may not leave 64 kinds of it.
    _skip_without(precision)
    engine = UnpaddedEngine(encoders.encoder("bert"), precision=precision)
    seen: set[int] = set()

    def attend(qkv: torch.Tensor, groups: tuple[Group, ...], heads: int) -> torch.Tensor:
        context = unpadded_attention(qkv, groups, heads)
        tokens = sum(group.windows * group.length for group in groups)
        assert not context[tokens:].any()
        seen.add(len(qkv))
        return context

    unpadded_attention = unpadded.attend
    monkeypatch.setattr(unpadded, "attend", attend)
    for length in range(1, 33):
        for windows in (1, 2):
            vectors = engine.run(*pad(encoders.windows([length] * windows), 0))["embedding"]
            assert np.isfinite(vectors).all()

    assert seen == {8, 16, 24, 32, 40, 48, 56, 64}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_threads_do_not_disturb_each_other(encoders: Any, precision: Precision) -> None:
    _skip_without(precision)
    engine = UnpaddedEngine(encoders.encoder("bert"), precision=precision)
    batches = [pad(encoders.windows([5, 9, 30], seed=seed), 0) for seed in range(16)]
    alone = [engine.run(*batch)["embedding"] for batch in batches]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: engine.run(*batch)["embedding"], batches * 2))

    for one, other in zip(together, alone * 2, strict=True):
        assert np.array_equal(one, other)


def test_the_model_is_left_as_it_was(encoders: Any) -> None:
    model = encoders.encoder("electra")
    before = copy.deepcopy(model.state_dict())

    UnpaddedEngine(model, precision="bf16" if _has_bfloat16() else "fp32")

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def test_running_out_of_memory_has_its_own_error(encoders: Any) -> None:
    engine = UnpaddedEngine(encoders.greedy("bert"), precision="fp32")

    with pytest.raises(EngineMemoryError, match=r"shape \(2, 4\)"):
        engine.run(*pad(encoders.windows([4, 3]), 0))


def test_bad_batches_are_refused_by_name(encoders: Any) -> None:
    engine = UnpaddedEngine(encoders.encoder("roberta"), precision="fp32")
    ids, mask = pad(encoders.windows([4, 3]), 1)

    with pytest.raises(EngineError, match="row 1 of the batch"):
        engine.run(ids, mask * np.array([[1], [0]]))
    with pytest.raises(EngineError, match=f"{encoders.max_tokens + 1} tokens.*lower max_tokens"):
        engine.run(*pad(encoders.windows([encoders.max_tokens + 1]), 1))
    with pytest.raises(EngineError, match="torch failed") as caught:
        engine.run(_with(ids, encoders.vocabulary), mask)
    assert not isinstance(caught.value, EngineMemoryError)


def _with(ids: TokenIds, token: int) -> TokenIds:
    changed = ids.copy()
    changed[0, 0] = token
    return changed


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"hidden_act": "silu"}, "hidden_act='silu'"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"num_hidden_layers": 0}, "num_hidden_layers=0"),
    ],
)
def test_other_kinds_of_bert_are_refused(
    encoders: Any, changed: dict[str, Any], words: str
) -> None:
    model = SentenceEncoder(BertModel(BertConfig(**{**encoders.sizes, **changed})))
    with pytest.raises(EngineError, match=words):
        UnpaddedEngine(model, precision="fp32")


def test_other_architectures_are_refused() -> None:
    config = DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=32)
    with pytest.raises(EngineError, match=r"not model type 'distilbert'.*torch-fp32-padded"):
        UnpaddedEngine(SentenceEncoder(DistilBertModel(config)), precision="fp32")


def test_a_plain_bfloat16_engine_serves_any_architecture(encoders: Any) -> None:
    torch.manual_seed(0)
    config = DistilBertConfig(
        dim=32, n_layers=1, n_heads=2, hidden_dim=64, vocab_size=encoders.vocabulary
    )
    model = SentenceEncoder(DistilBertModel(config)).eval()
    batch = pad(encoders.windows([3, 8]), 0)
    source = PytorchEngine(model).run(*batch)["embedding"]

    ours = PytorchEngine(model, precision="bf16").run(*batch)["embedding"]

    assert encoders.lowest_cosine(ours, source) > 0.999
    assert next(model.backbone.parameters()).dtype == torch.float32

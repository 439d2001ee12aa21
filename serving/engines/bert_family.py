"""Weights of a BERT-like encoder, read out of transformers' modules in the order they are used.

BERT, ELECTRA, RoBERTa and XLM-RoBERTa are one architecture: post-LayerNorm layers over learnt
positions. Their differences are where positions begin and whether embeddings are projected.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig

from data.errors import EngineError

Activation = Literal["gelu", "gelu_tanh", "relu"]

# Model type → whether positions begin after the padding id (they begin at 0 where not).
_FAMILY: Final = {
    "bert": False,
    "electra": False,
    "camembert": True,
    "roberta": True,
    "xlm-roberta": True,
}
_ACTIVATIONS: Final[dict[str, Activation]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True)
class Affine:
    """A linear layer: weight (out, in) and bias (out,), float32."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Norm:
    """A LayerNorm: weight and bias, both (size,), float32."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, states: Tensor) -> Tensor:
        """(tokens, size), in the states' type."""
        size = (self.weight.shape[0],)
        return nn.functional.layer_norm(states, size, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Layer:
    """One layer. Queries are scaled already: no attention score needs a factor."""

    qkv: Affine
    attention_output: Affine
    attention_norm: Norm
    up: Affine
    down: Affine
    output_norm: Norm


@dataclass(frozen=True)
class BertWeights:
    """All of an encoder.

    Attributes:
        words: (vocabulary, embedding).
        positions: (max_tokens, embedding): the position's and the first token type's embedding.
        project: from the embedding's size to the hidden one, where they differ.
    """

    words: Tensor
    positions: Tensor
    embedding_norm: Norm
    project: Affine | None
    layers: tuple[Layer, ...]
    heads: int
    activation: Activation


def read_bert_family(backbone: nn.Module) -> BertWeights:
    """Read an encoder's weights as float32, without copying those that are.

    Raises:
        EngineError: the backbone is of another architecture, or uses it in a way of its own.
    """
    config = cast("Any", backbone.config)
    _refuse_strangers(config)
    # transformers' modules are looked up by name: they share no typed interface.
    parts = cast("Any", backbone)
    embeddings = parts.embeddings
    first = config.pad_token_id + 1 if _FAMILY[config.model_type] else 0
    positions = embeddings.position_embeddings.weight[first:]
    project = getattr(backbone, "embeddings_project", None)
    return BertWeights(
        words=_float(embeddings.word_embeddings.weight),
        positions=_float(positions) + _float(embeddings.token_type_embeddings.weight[0]),
        embedding_norm=_norm(embeddings.LayerNorm),
        project=_affine(project) if project is not None else None,
        layers=tuple(_layer(layer) for layer in parts.encoder.layer),
        heads=config.num_attention_heads,
        activation=_ACTIVATIONS[config.hidden_act],
    )


def unlike_bert(source: Path) -> str | None:
    """Why the torch model in a folder is not of this family; None where it is."""
    try:
        _refuse_strangers(AutoConfig.from_pretrained(str(source), trust_remote_code=False))
    except (OSError, ValueError, EngineError) as error:
        return str(error)
    return None


def _refuse_strangers(config: Any) -> None:
    kind = getattr(config, "model_type", None)
    mend = "serve it with the engine 'torch-fp32-padded' or an exported graph"
    if kind not in _FAMILY:
        raise EngineError(
            f"the unpadded engine computes {sorted(_FAMILY)}, not model type {kind!r}; {mend}"
        )
    if config.hidden_act not in _ACTIVATIONS:
        raise EngineError(
            f"the unpadded engine knows the activations {sorted(_ACTIVATIONS)}, not "
            f"hidden_act={config.hidden_act!r} of this {kind!r}; {mend}"
        )
    if config.num_hidden_layers < 1:
        raise EngineError(
            f"this {kind!r} has num_hidden_layers={config.num_hidden_layers!r}, and an encoder has "
            f"at least one; {mend}"
        )
    if config.is_decoder or config.add_cross_attention:
        raise EngineError(
            f"this {kind!r} is a decoder (is_decoder={config.is_decoder!r}, "
            f"add_cross_attention={config.add_cross_attention!r}), not an encoder; {mend}"
        )


def _layer(module: Any) -> Layer:
    attention = module.attention
    head_size = attention.self.attention_head_size
    query, key, value = (
        _affine(part) for part in (attention.self.query, attention.self.key, attention.self.value)
    )
    scale = head_size**-0.5
    return Layer(
        qkv=Affine(
            weight=torch.cat([query.weight * scale, key.weight, value.weight]),
            bias=torch.cat([query.bias * scale, key.bias, value.bias]),
        ),
        attention_output=_affine(attention.output.dense),
        attention_norm=_norm(attention.output.LayerNorm),
        up=_affine(module.intermediate.dense),
        down=_affine(module.output.dense),
        output_norm=_norm(module.output.LayerNorm),
    )


def _affine(module: Any) -> Affine:
    return Affine(weight=_float(module.weight), bias=_float(module.bias))


def _norm(module: Any) -> Norm:
    return Norm(weight=_float(module.weight), bias=_float(module.bias), eps=module.eps)


def _float(parameter: Tensor) -> Tensor:
    return parameter.detach().to(device="cpu", dtype=torch.float32)

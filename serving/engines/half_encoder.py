"""A BERT-like encoder in float16 or bfloat16 on any device, computed on its real tokens alone."""

import copy
from collections.abc import Callable
from typing import Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from serving.engines.bert_family import Activation, Affine, BertWeights, Norm, read_bert_family
from serving.engines.packed_batch import BatchShape, PackedBatch, gather, spread, unpack
from serving.text_encoder import TextEncoder

HalfPrecision = Literal["fp16", "bf16"]
DTYPES: Final[dict[HalfPrecision, torch.dtype]] = {"fp16": torch.float16, "bf16": torch.bfloat16}
AttentionKind = Literal["varlen", "masked"]
Attend = Callable[[Tensor, PackedBatch], Tensor]
"""(tokens, heads, head) from (tokens, 3, heads, head) and the batch."""
_ACTIVATIONS: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda inner: functional.gelu(inner, approximate="tanh"),
    "relu": functional.relu,
}


class HalfEncoder:
    """An encoder, and what its model makes of the states, both on one device.

    Attributes:
        attention: how windows are kept apart: by torch's variable-length kernel where it runs,
            else padded, under a mask.
        vocabulary: token ids are below it.
        most_tokens: of one window.
    """

    def __init__(
        self,
        model: TextEncoder,
        *,
        precision: HalfPrecision,
        device: torch.device,
        attention: AttentionKind | None = None,
    ):
        """Copy a model's weights.

        Args:
            model: in eval mode.
            precision: of the encoder's layers; pooling and heads stay in float32.
            device: where it is to compute.
            attention: None takes the faster one of those that run.

        Raises:
            EngineError: the model is no BERT-like encoder.
        """
        weights = read_bert_family(model.backbone)
        dtype = DTYPES[precision]
        size = weights.layers[0].qkv.weight.shape[1] // weights.heads
        if attention is None:
            attention = "varlen" if varlen_works(dtype, device, size) else "masked"
        self.attention: AttentionKind = attention
        self.vocabulary, self.most_tokens = len(weights.words), len(weights.positions)
        self._attend = _ATTENTION[attention]
        self._weights = _placed(weights, dtype, device, size)
        # The backbone stays behind: its weights are here already, in half of the bytes.
        rest = copy.deepcopy(model, {id(model.backbone): nn.Identity()})
        self._rest = cast("TextEncoder", cast("nn.Module", rest).to(device))

    def __call__(self, packed: Tensor, shape: BatchShape) -> dict[str, Tensor]:
        """Outputs by name, (windows, …) in float32; rows of empty windows have any value.

        Args:
            packed: of ``pack``, on the encoder's device.
            shape: that it was packed into.
        """
        batch = unpack(packed, shape)
        states = spread(self.states(batch), batch, torch.float32)
        return self._rest.outputs(states, batch.mask.long())

    def states(self, batch: PackedBatch) -> Tensor:
        """(tokens, hidden)."""
        weights = self._weights
        states = functional.embedding(batch.ids, weights.words)
        states = states + functional.embedding(batch.positions, weights.positions)
        states = weights.embedding_norm(states)
        if weights.project is not None:
            states = _linear(states, weights.project)
        activated = _ACTIVATIONS[weights.activation]
        for layer in weights.layers:
            qkv = _linear(states, layer.qkv).view(len(states), 3, weights.heads, -1)
            context = self._attend(qkv, batch).reshape(states.shape)
            states = layer.attention_norm(states + _linear(context, layer.attention_output))
            inner = activated(_linear(states, layer.up))
            states = layer.output_norm(states + _linear(inner, layer.down))
        return states


def varlen_works(dtype: torch.dtype, device: torch.device, head_size: int) -> bool:
    """Whether torch's variable-length attention runs here and tells windows apart.

    It is a FlashAttention kernel: NVIDIA GPUs from compute capability 8.0 on.
    """
    starts = torch.tensor([0, 3, 8, 8], dtype=torch.int32, device=device)
    values = torch.linspace(-1, 1, 8 * 3 * 2 * head_size, device=device)
    qkv = values.view(8, 3, 2, head_size).sin().to(dtype)
    mask = torch.arange(5, device=device) < starts.diff().unsqueeze(1)
    places = torch.tensor([0, 1, 2, 5, 6, 7, 8, 9], device=device)
    batch = PackedBatch(places, places, places, starts, mask)
    try:
        found = _varlen(qkv, batch)
    except (ImportError, RuntimeError, ValueError):  # each is how some torch or GPU says no
        return False
    return bool(torch.allclose(found.float(), _masked(qkv, batch).float(), atol=2e-2))


def _varlen(qkv: Tensor, batch: PackedBatch) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = qkv.unbind(1)
    longest = batch.mask.shape[1]
    found = varlen_attn(query, key, value, batch.starts, batch.starts, longest, longest)
    return cast("Tensor", found)


def _masked(qkv: Tensor, batch: PackedBatch) -> Tensor:
    tokens, _, heads, size = qkv.shape
    windows, longest = batch.mask.shape
    padded = spread(qkv.reshape(tokens, -1), batch, qkv.dtype)
    query, key, value = padded.view(windows, longest, 3, heads, size).permute(2, 0, 3, 1, 4)
    read = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=batch.mask[:, None, None, :]
    )
    return gather(read.transpose(1, 2), batch).view(tokens, heads, size)


_ATTENTION: Final[dict[AttentionKind, Attend]] = {"varlen": _varlen, "masked": _masked}


def _linear(states: Tensor, layer: Affine) -> Tensor:
    return functional.linear(states, layer.weight, layer.bias)


def _placed(
    weights: BertWeights, dtype: torch.dtype, device: torch.device, head_size: int
) -> BertWeights:
    """The weights in another type on another device."""

    def put(values: Tensor) -> Tensor:
        return values.to(device=device, dtype=dtype)

    def affine(layer: Affine) -> Affine:
        return Affine(put(layer.weight), put(layer.bias))

    def norm(layer: Norm) -> Norm:
        return Norm(put(layer.weight), put(layer.bias), layer.eps)

    def unscaled(layer: Affine) -> Affine:
        # Attention kernels scale scores themselves, in float32.
        hidden = layer.weight.shape[1]
        factors = torch.ones(3 * hidden)
        factors[:hidden] = head_size**0.5
        return Affine(put(layer.weight * factors[:, None]), put(layer.bias * factors))

    return BertWeights(
        words=put(weights.words),
        positions=put(weights.positions),
        embedding_norm=norm(weights.embedding_norm),
        project=affine(weights.project) if weights.project else None,
        layers=tuple(
            type(layer)(
                qkv=unscaled(layer.qkv),
                attention_output=affine(layer.attention_output),
                attention_norm=norm(layer.attention_norm),
                up=affine(layer.up),
                down=affine(layer.down),
                output_norm=norm(layer.output_norm),
            )
            for layer in weights.layers
        ),
        heads=weights.heads,
        activation=weights.activation,
    )

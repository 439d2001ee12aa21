"""A BERT-like layer in INT8: weights scaled by output, activations by token, no calibration."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from serving.engines.bert_family import Affine, BertWeights, Layer
from serving.engines.int8_epilogues import ZERO_POINT, Codes, Epilogues, Product, make_epilogues

_ROWS_HINT: Final = 1024


class QuantisedLinear:
    """A linear layer whose weight has 8 bits and a scale per output."""

    def __init__(self, affine: Affine):
        """Quantise and pack a layer's weight."""
        weight = affine.weight
        scales = (weight.abs().amax(1) / 127.0).clamp(min=1e-12)
        codes = (weight / scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(codes, [_ROWS_HINT, weight.shape[1]])
        self._scales = scales
        self._zeros = torch.zeros(weight.shape[0], dtype=torch.int64)
        self._sums = codes.sum(1) * scales
        self._bias = affine.bias
        self._linear = torch.ops.onednn.qlinear_pointwise

    def __call__(self, rows: Codes) -> Product:
        """The product of (rows, in) with the weight, its own scale not yet applied."""
        product = self._linear(
            rows.codes,
            1.0,
            ZERO_POINT,
            self._weight,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.bfloat16,
            "none",
            [],
            "",
        )
        return Product(product, rows.scale, rows.centre, self._sums, self._bias)


class Int8Layer:
    """One layer's linear parts; attention, in bfloat16, stands between ``qkv`` and ``mix``."""

    def __init__(self, layer: Layer, epilogues: Epilogues):
        """Quantise the layer's weights."""
        self._qkv = QuantisedLinear(layer.qkv)
        self._output = QuantisedLinear(layer.attention_output)
        self._up = QuantisedLinear(layer.up)
        self._down = QuantisedLinear(layer.down)
        self._attention_norm = layer.attention_norm
        self._output_norm = layer.output_norm
        self._epilogues = epilogues

    def qkv(self, codes: Codes) -> Tensor:
        """(tokens, 3 · hidden) bfloat16: queries, scaled already, keys and values."""
        return self._epilogues.decode(*self._qkv(codes).parts)

    def mix(self, context: Tensor, states: Tensor) -> tuple[Tensor, Codes]:
        """(tokens, hidden) bfloat16, from what attention read and the layer's input; its codes."""
        # In one piece: parts of 256 tokens that stay in the second-level cache were 5% slower.
        do = self._epilogues
        mixed = self._output(Codes(*do.encode(context)))
        norm = self._attention_norm
        middle, *codes = do.normalise(*mixed.parts, states, norm.weight, norm.bias)
        inner = self._up(Codes(*codes))
        outer = self._down(Codes(*do.activate(*inner.parts, do.peak(*inner.parts))))
        norm = self._output_norm
        states, *codes = do.normalise(*outer.parts, middle, norm.weight, norm.bias)
        return states, Codes(*codes)


class Int8Layers:
    """An encoder's layers, each given the codes that the one before made of its output.

    The scales come from the weights and from each token itself, so nothing has to be calibrated.
    """

    def __init__(self, weights: BertWeights, *, threads: int):
        """Quantise the layers' weights.

        Args:
            weights: with at least one layer.
            threads: that torch computes with now.
        """
        first = weights.layers[0]
        self._epilogues = make_epilogues(
            hidden=first.down.weight.shape[0],
            inner=first.up.weight.shape[0],
            activation=weights.activation,
            eps=first.attention_norm.eps,
            threads=threads,
        )
        self._layers = [Int8Layer(layer, self._epilogues) for layer in weights.layers]

    def __call__(self, states: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """See ``serving.engines.unpadded.EncoderLayers``."""
        codes = Codes(*self._epilogues.encode(states))
        for layer in self._layers:
            states, codes = layer.mix(attend(layer.qkv(codes)), states)
        return states

"""What stands between INT8 products: each row's scale, its codes, the activation, LayerNorm.

Every row (a token) has a scale and a centre of its own, so no answer depends on its batch-mates.
The functions are compiled where the machine has a C++ compiler: each then passes over its rows
once or twice, where eager torch passes six to ten times. They compute the same either way.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from serving.engines.bert_family import Activation

LOG = logging.getLogger(__name__)

ZERO_POINT: Final = 128
"""The code that products take for 0; oneDNN is fast for unsigned codes with one zero point."""

# Activation → its lowest value, a little below: a row's range is then known before it is computed.
_LOWEST: Final[dict[Activation, float]] = {"gelu": -0.1705, "gelu_tanh": -0.1705, "relu": 0.0}
# P of ``_polynomial_gelu``, least-squares fits whose worst error was weighted down until all were
# alike: 1.9·10⁻⁴ and 2.2·10⁻⁴ in float32.
_GELU: Final = (
    0.39787027,
    -0.064554413,
    0.0087636914,
    -0.00081218754,
    4.7763893e-05,
    -1.5888274e-06,
    2.2588213e-08,
)
_GELU_TANH: Final = (
    0.39771352,
    -0.064596693,
    0.0088187089,
    -0.00082447439,
    4.8934508e-05,
    -1.6407227e-06,
    2.3468836e-08,
)
_GELU_ENDS: Final = 4.0
_SMALLEST_SCALE: Final = 1e-12
# at::vec multiplies and adds apart; the C++ compiler may make one instruction of the two.
_FUSED_MULTIPLY_ADD: Final[dict[str, str | int | bool | Callable[..., Any]]] = {
    "cpp.enable_floating_point_contract_flag": "fast"
}
# Rows of the example that the functions are compiled with; they take any number but 1.
_EXAMPLE_ROWS: Final = 16


@dataclass(frozen=True)
class Codes:
    """Rows in 8 bits: value = scale · (code − 128) + centre.

    Attributes:
        codes: (rows, in), uint8.
        scale: (rows, 1), float32.
        centre: (rows, 1), float32.
    """

    codes: Tensor
    scale: Tensor
    centre: Tensor


@dataclass(frozen=True)
class Product:
    """What a linear layer made of ``Codes``: value = scale · product + centre · sums + bias.

    Attributes:
        product: (rows, out), bfloat16, the weights' scales applied.
        scale: (rows, 1), of the codes.
        centre: (rows, 1), of the codes.
        sums: (out,), each output's sum of weights.
        bias: (out,).
    """

    product: Tensor
    scale: Tensor
    centre: Tensor
    sums: Tensor
    bias: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All of it, in order."""
        return self.product, self.scale, self.centre, self.sums, self.bias


@dataclass(frozen=True)
class Epilogues:
    """The functions of one engine, compiled or not; each takes tensors and answers tensors.

    Attributes:
        encode: (rows, in) → codes, scale, centre.
        decode: a product's parts → (rows, out) bfloat16.
        peak: a product's parts → (rows, 1), each row's highest value.
        activate: a product's parts and their peak → codes, scale, centre of the activation.
        normalise: a product's parts, the residual (rows, out), LayerNorm's weight and bias →
            (rows, out) bfloat16, and its codes, scale and centre.
    """

    encode: Callable[..., tuple[Tensor, Tensor, Tensor]]
    decode: Callable[..., Tensor]
    peak: Callable[..., Tensor]
    activate: Callable[..., tuple[Tensor, Tensor, Tensor]]
    normalise: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def _between(values: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scale = ((high - low) / 255.0).clamp(min=_SMALLEST_SCALE)
    # Up to 255 and a rounding error: no code wraps around.
    codes = ((values - low) * (1.0 / scale)).round().to(torch.uint8)
    return codes, scale, low + ZERO_POINT * scale


def _encode(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    values = values.float()
    return _between(values, values.amin(-1, keepdim=True), values.amax(-1, keepdim=True))


def _value(product: Tensor, scale: Tensor, centre: Tensor, sums: Tensor, bias: Tensor) -> Tensor:
    return product.float() * scale + centre * sums + bias


def _decode(product: Tensor, scale: Tensor, centre: Tensor, sums: Tensor, bias: Tensor) -> Tensor:
    return _value(product, scale, centre, sums, bias).to(torch.bfloat16)


def _peak(product: Tensor, scale: Tensor, centre: Tensor, sums: Tensor, bias: Tensor) -> Tensor:
    return _value(product, scale, centre, sums, bias).amax(-1, keepdim=True)


def _polynomial_gelu(values: Tensor, odd: tuple[float, ...]) -> Tensor:
    # x · (½ + x · P(x²)) with x held within ±4 inside the brackets, which are 0 and 1 there: far
    # less off than a code's step, and a logistic function took twice the time.
    near = values.clamp(-_GELU_ENDS, _GELU_ENDS)
    square = near * near
    inner = torch.full_like(square, odd[-1])
    for factor in odd[-2::-1]:
        inner = inner * square + factor
    return values * (near * inner + 0.5)


_ACTIVATE: Final[dict[Activation, Callable[[Tensor], Tensor]]] = {
    "gelu": functools.partial(_polynomial_gelu, odd=_GELU),
    "gelu_tanh": functools.partial(_polynomial_gelu, odd=_GELU_TANH),
    "relu": functional.relu,
}


def _activate_as(activation: Activation) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    activate = _ACTIVATE[activation]
    lowest = _LOWEST[activation]

    def encoded(
        product: Tensor, scale: Tensor, centre: Tensor, sums: Tensor, bias: Tensor, peak: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # The activations rise above 0 and never fall under their lowest value, so the range comes
        # from the row's highest input: no second computation of the activation. That input is
        # found by a function of its own; in this one, all values would go to memory in between.
        high = activate(peak.clamp(min=0.0))
        values = activate(_value(product, scale, centre, sums, bias))
        return _between(values, torch.full_like(high, lowest), high)

    return encoded


def _normalise_with(eps: float) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    def normalised(
        product: Tensor,
        scale: Tensor,
        centre: Tensor,
        sums: Tensor,
        bias: Tensor,
        residual: Tensor,
        weight: Tensor,
        shift: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = _value(product, scale, centre, sums, bias) + residual.float()
        values = functional.layer_norm(values, (values.shape[-1],), weight, shift, eps)
        return (values.to(torch.bfloat16), *_encode(values))

    return normalised


@functools.cache
def make_epilogues(
    *, hidden: int, inner: int, activation: Activation, eps: float, threads: int
) -> Epilogues:
    """The functions for models of one shape, compiled if that can be done here.

    Compiling takes about five seconds of one core, once a process and shape.

    Args:
        hidden: the models' width.
        inner: the feed-forward width.
        activation: between the feed-forward's two layers.
        eps: of the LayerNorms.
        threads: that torch computes with now; the compiled loops keep to it.
    """
    eager = Epilogues(_encode, _decode, _peak, _activate_as(activation), _normalise_with(eps))
    normalised = (*_example(hidden), _rows(hidden), torch.ones(hidden), torch.zeros(hidden))
    activated = (*_example(inner), torch.ones(_EXAMPLE_ROWS, 1))
    try:
        return Epilogues(
            encode=_compiled(eager.encode, (_rows(hidden),)),
            decode=_compiled(eager.decode, _example(3 * hidden)),
            peak=_compiled(eager.peak, _example(inner)),
            activate=_compiled(eager.activate, activated),
            normalise=_compiled(eager.normalise, normalised),
        )
    except Exception as error:  # noqa: BLE001  # inductor's and the compiler's errors share no base
        LOG.warning(
            "INT8 of width %s runs uncompiled, at half its speed and slower than bf16: %s; "
            "install a C++ compiler (g++) or serve bf16",
            hidden,
            str(error).partition("\n")[0],
        )
        return eager


def _rows(size: int) -> Tensor:
    return torch.zeros(_EXAMPLE_ROWS, size, dtype=torch.bfloat16)


def _example(out: int) -> tuple[Tensor, ...]:
    column = torch.ones(_EXAMPLE_ROWS, 1)
    return _rows(out), column, column.clone(), torch.zeros(out), torch.zeros(out)


def _compiled(function: Callable[..., Any], example: tuple[Tensor, ...]) -> Callable[..., Any]:
    # Compiled ahead for any number of rows: torch.compile would compile again at a new length,
    # thread count or model, in the middle of a request.
    for tensor in example:
        if tensor.dim() == 2:  # noqa: PLR2004  # (rows, …)
            torch._dynamo.mark_dynamic(tensor, 0)  # noqa: SLF001  # the documented name
    lazy: Any = torch.compile(function, fullgraph=True, options=_FUSED_MULTIPLY_ADD)
    ahead = lazy.aot_compile((example, {}))
    # Guards ask whether a tensor was made in inference mode and how many threads torch has now;
    # shapes and types, which matter, are this module's own.
    ahead.disable_guard_check()

    def run(*arguments: Tensor) -> Any:
        return (function if arguments[0].shape[0] == 1 else ahead)(*arguments)

    return run

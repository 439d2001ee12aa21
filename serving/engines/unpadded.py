"""PyTorch on a CPU without padding: BERT-like encoders computed on their real tokens alone.

All real tokens of a batch go through the linear layers as one matrix; only attention looks at
windows, those of equal length together. What the layers compute with is their own affair:
float32, bfloat16 (serving/engines/float_layers.py) or INT8 (serving/engines/int8_layers.py).
"""

from collections.abc import Callable
from typing import Final, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from data.errors import EngineError
from serving.engines.bert_family import read_bert_family
from serving.engines.float_layers import FloatLayers, PackedLinear
from serving.engines.int8_layers import Int8Layers
from serving.engines.protocol import Outputs, TokenIds
from serving.engines.pytorch import run_torch
from serving.engines.token_layout import Group, TokenLayout, lay_tokens
from serving.text_encoder import TextEncoder

Precision = Literal["fp32", "bf16", "int8"]

# Scores and tokens that attention reads at once: they stay in a core's second-level cache, and
# windows of one length take no more memory than as many of mixed ones.
_SCORES_AT_ONCE: Final = 256 * 1024
_TOKENS_AT_ONCE: Final = 128
# oneDNN compiles code for every number of rows, and keeps it: about 2 MiB a number. Rows of zeros
# up to the next multiple leave an eighth of the numbers, and cost under 2% of a batch's time.
_ROWS_MULTIPLE: Final = 8


class EncoderLayers(Protocol):
    """All layers of an encoder, but for attention, which is the same in every precision."""

    def __call__(self, states: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """The last layer's states, (rows, hidden), from the embeddings.

        Args:
            states: (rows, hidden).
            attend: (rows, hidden) from queries, scaled already, keys and values (rows, 3 · hidden).
        """
        ...


class UnpaddedEngine:
    """Serves BERT, ELECTRA, RoBERTa and XLM-RoBERTa encoders, whatever is made of their states.

    The pooling and heads stay the model's own, in float32. The model's float32 weights stay in
    memory beside the packed ones.
    """

    batch_invariant = True
    computes_padding = False
    length_buckets: tuple[int, ...] = ()
    max_rows: int | None = None

    def __init__(self, model: TextEncoder, *, precision: Precision, threads: int = 1):
        """Pack a model's weights.

        Args:
            model: in eval mode.
            precision: of the encoder's layers.
            threads: compute threads of each call; torch has one number for the whole process,
                so the engine made last decides for all.

        Raises:
            EngineError: the model is no BERT-like encoder, or this CPU lacks the precision.
        """
        _check_precision(precision)
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        weights = read_bert_family(model.backbone)
        torch.set_num_threads(threads)
        with torch.inference_mode():
            self._layers: EncoderLayers = (
                Int8Layers(weights, threads=threads)
                if precision == "int8"
                else FloatLayers(weights, dtype)
            )
            self._project = PackedLinear(weights.project, dtype) if weights.project else None
        self._model = model
        self._weights = weights
        self._dtype = dtype
        self.name = f"torch-{torch.__version__}-unpadded-{precision}"

    def run(self, input_ids: TokenIds, attention_mask: TokenIds) -> Outputs:
        """See ``Engine.run``."""
        longest = self._weights.positions.shape[0]
        if input_ids.shape[1] > longest:
            raise EngineError(
                f"windows of {input_ids.shape[1]!r} tokens, and the model has {longest!r} "
                "positions; lower max_tokens"
            )
        layout = lay_tokens(input_ids, attention_mask)
        return run_torch(
            lambda mask: layout.padded(self._states(layout).float(), *mask.shape),
            self._model,
            attention_mask,
        )

    def _states(self, layout: TokenLayout) -> Tensor:
        weights = self._weights
        states = functional.embedding(layout.ids, weights.words)
        states = states + functional.embedding(layout.positions, weights.positions)
        states = weights.embedding_norm(states).to(self._dtype)
        if self._project is not None:
            states = self._project(states)
        tokens = len(states)
        states = functional.pad(states, (0, 0, 0, -tokens % _ROWS_MULTIPLE))
        states = self._layers(states, lambda qkv: attend(qkv, layout.groups, weights.heads))
        return states[:tokens]


def attend(qkv: Tensor, groups: tuple[Group, ...], heads: int) -> Tensor:
    """(rows, hidden): each window's tokens read each other; rows of no window are 0.

    Args:
        qkv: (rows, 3 · hidden), queries scaled already.
        groups: windows of equal length.
        heads: attention heads.
    """
    hidden = qkv.shape[1] // 3
    context = qkv.new_empty(qkv.shape[0], hidden)
    context[sum(group.windows * group.length for group in groups) :] = 0
    read = _read_in_bfloat16 if qkv.dtype == torch.bfloat16 else _read
    for group in groups:
        scores = heads * group.length**2
        at_once = max(1, min(_SCORES_AT_ONCE // scores, _TOKENS_AT_ONCE // group.length))
        for first in range(0, group.windows, at_once):
            windows = min(at_once, group.windows - first)
            start = group.start + first * group.length
            rows = slice(start, start + windows * group.length)
            shape = (windows, group.length, 3, heads, hidden // heads)
            found = read(qkv[rows].view(shape).permute(2, 0, 3, 1, 4))
            context[rows].view(windows, group.length, heads, -1).copy_(found.transpose(1, 2))
    return context


def _read(parts: Tensor) -> Tensor:
    """(windows, heads, length, size) from (3, windows, heads, length, size)."""
    query, key, value = parts
    return functional.scaled_dot_product_attention(query, key, value, scale=1.0)


def _read_in_bfloat16(parts: Tensor) -> Tensor:
    # Two batched products take three quarters of torch's flash kernel's time at the lengths of
    # reviews. In float32, since MKL's take any shape: oneDNN's in bfloat16 are no faster, and for
    # each new number of windows and length they compile code first, and keep it.
    _, windows, heads, length, size = parts.shape
    query, key, value = parts.float().contiguous().view(3, windows * heads, length, size)
    shares = torch.softmax(torch.bmm(query, key.transpose(1, 2)), dim=-1)
    return torch.bmm(shares, value).view(windows, heads, length, size)


def _check_precision(precision: Precision) -> None:
    mend = "use precision='fp32'"
    if precision not in ("fp32", "bf16", "int8"):
        raise EngineError(f"precision={precision!r} is none of 'fp32', 'bf16' and 'int8'; {mend}")
    if precision != "fp32" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001  # has no public name
        raise EngineError(f"precision={precision!r} needs a CPU with AVX-512; {mend}")
    if precision == "int8" and not torch.cpu._is_vnni_supported():  # noqa: SLF001  # has no public name
        raise EngineError(f"precision={precision!r} needs a CPU with AVX512-VNNI; {mend}")

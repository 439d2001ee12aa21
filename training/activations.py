"""What the tensors of a graph look like on real windows: the calibration of a static INT8 graph."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from data.errors import ExportError
from serving.engines.protocol import Floats, TokenIds

Batch = tuple[TokenIds, TokenIds]
"""Token ids and attention mask, (batch, tokens) each."""

SAMPLED_TOKENS: Final = 768
"""Tokens whose whole state is kept, to measure what a choice of scales costs."""


@dataclass(frozen=True)
class Activations:
    """One tensor's values over all real tokens of the calibration.

    Attributes:
        channel_max: (channels,), the largest magnitude of each.
        sample: (up to ``SAMPLED_TOKENS``, channels), tokens drawn evenly.
    """

    channel_max: Floats
    sample: Floats


def observe(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[Batch], *, threads: int = 1
) -> dict[str, Activations]:
    """Run a graph and look at some of its tensors; padding is not looked at.

    Args:
        model: takes ``input_ids`` and ``attention_mask``.
        tensors: names, each (batch, tokens, channels).
        batches: padded windows.
        threads: compute threads.

    Raises:
        ExportError: there is nothing to run, or a value is not finite.
    """
    tokens = sum(int(mask.sum()) for _, mask in batches)
    if not tokens:
        raise ExportError(
            "no calibration batches were given; pass real windows of the training part"
        )
    rng = np.random.default_rng(0)
    share = min(1.0, SAMPLED_TOKENS / tokens)
    highest: dict[str, Floats] = {}
    samples: dict[str, list[Floats]] = {name: [] for name in tensors}
    for mask, values in _values(model, tensors, batches, threads):
        real = mask.astype(bool)
        drawn = rng.random(int(real.sum())) < share
        for name, value in zip(tensors, values, strict=True):
            rows = value[real].astype(np.float32)
            largest = np.abs(rows).max(axis=0)
            if not np.isfinite(largest).all():
                raise ExportError(
                    f"tensor {name!r} is not finite on the calibration's windows; the graph's "
                    "precision overflows: export it in fp32"
                )
            highest[name] = np.maximum(highest.get(name, largest), largest)
            samples[name].append(rows[drawn])
    return {name: Activations(highest[name], np.concatenate(samples[name])) for name in tensors}


def _values(
    model: onnx.ModelProto, tensors: Sequence[str], batches: Sequence[Batch], threads: int
) -> Iterator[tuple[TokenIds, list[NDArray[np.floating]]]]:
    """Mask and the tensors' values, batch by batch."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(
        shown.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for ids, mask in batches:
        feed: Mapping[str, TokenIds] = {"input_ids": ids, "attention_mask": mask}
        yield mask, session.run(list(tensors), dict(feed))

"""The model that the GPU suite measures, and batches of lognormal lengths; no file is read.

ELECTRA-base's shape with random weights, or a toy of it: what weights say changes nothing about
the time. A real model's folder takes its place with ``--folder``, for quality that means something.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import ElectraConfig, ElectraModel

from bench.corpus import SEED, draw_lengths
from bench.source_models import SHAPE, TOY
from serving.engines.bert_family import read_bert_family
from serving.engines.model_files import read_model_files
from serving.engines.protocol import Engine, Outputs, TokenIds
from serving.sentence_encoder import SentenceEncoder
from serving.text_encoder import TextEncoder
from serving.windows import Windows

Batch = tuple[TokenIds, TokenIds]


class Sizes(NamedTuple):
    """What operations and bytes are counted from."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int


def make_model(*, toy: bool, folder: Path | None = None) -> TextEncoder:
    """A model in torch, in eval mode, on the CPU."""
    if folder is not None:
        return read_model_files(folder).load_torch()
    torch.manual_seed(SEED)
    config = ElectraConfig(**(TOY if toy else SHAPE), attn_implementation="sdpa")
    return SentenceEncoder(ElectraModel(config)).eval()


def sizes_of(model: TextEncoder) -> Sizes:
    """Read from the weights."""
    weights = read_bert_family(model.backbone)
    up = weights.layers[0].up.weight
    return Sizes(len(weights.layers), up.shape[1], up.shape[0], len(weights.words))


class LengthModel:
    """A ``TextModel`` whose texts say how many tokens they have, for the runner's tests."""

    pad_id = 0

    def __init__(self, engine: Engine, vocabulary: int) -> None:
        self.engine = engine
        self._vocabulary = vocabulary

    def windows(self, texts: Sequence[str]) -> Windows:
        """Token ids that follow from the text alone."""
        count = len(texts)
        return Windows(
            ids=[self.ids(text) for text in texts],
            text_index=np.arange(count, dtype=np.int64),
            weights=np.ones(count, dtype=np.float32),
            texts=count,
        )

    def ids(self, text: str) -> list[int]:
        """The one window of a text such as ``39`` or ``39 7``: tokens, and a seed."""
        length, _, seed = text.partition(" ")
        random = np.random.default_rng(int(seed or 0))
        return [int(token) for token in random.integers(5, self._vocabulary, size=int(length))]

    def answers(self, outputs: Outputs, windows: Windows) -> list[Any]:
        """A row each."""
        return list(next(iter(outputs.values())))


def draw_texts(count: int, *, seed: int) -> list[str]:
    """Texts for a ``LengthModel``."""
    return [f"{length} {seed + at}" for at, length in enumerate(draw_lengths(count, seed=seed))]

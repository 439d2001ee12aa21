"""Vectors to an answer's bytes, without a Python list or float in between.

orjson writes float32 straight from numpy, in the fewest digits that read back as the same float32;
base64 is of the array's own bytes. ``bench/embedding_answers.py`` measures both.
"""

import base64
from collections.abc import Sequence
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from serving.gateway.embedding_schemas import EncodingFormat

Vectors = NDArray[np.float32]
_LITTLE_ENDIAN: Final = np.dtype("<f4")


def cut(vectors: Vectors, dimensions: int, *, normalize: bool) -> Vectors:
    """The first dimensions of each vector, made as long again as the model's own are.

    Args:
        vectors: (texts, model's dimensions).
        dimensions: how many stay; the model's own leave the vectors as they are.
        normalize: whether the model's vectors have length 1.
    """
    if dimensions == vectors.shape[1]:
        return vectors
    shorter = np.ascontiguousarray(vectors[:, :dimensions])
    if not normalize:
        return shorter
    lengths = np.linalg.norm(shorter, axis=1, keepdims=True)
    return np.asarray(shorter / np.maximum(lengths, np.finfo(np.float32).tiny))


def embeddings_body(
    vectors: Sequence[Vectors] | Vectors,
    *,
    model: str,
    tokens: int,
    encoding_format: EncodingFormat = "float",
) -> bytes:
    """The JSON of an answer.

    Args:
        vectors: one per text, in the input's order.
        model: what answered.
        tokens: that were read.
        encoding_format: as the caller asked.
    """
    encode = _base64 if encoding_format == "base64" else _numbers
    # Row by row, so that another thread may run between two: orjson never lets go of the GIL.
    rows = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, encode(vector))
        for index, vector in enumerate(vectors)
    )
    tail = orjson.dumps(
        {"model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    )
    return b'{"object":"list","data":[' + rows + b"]," + tail[1:]


def _numbers(vector: NDArray[np.float32]) -> bytes:
    return orjson.dumps(np.ascontiguousarray(vector), option=orjson.OPT_SERIALIZE_NUMPY)


def _base64(vector: NDArray[np.float32]) -> bytes:
    return b'"' + base64.b64encode(vector.astype(_LITTLE_ENDIAN, copy=False).tobytes()) + b'"'

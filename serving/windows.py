"""Texts to windows of tokens, and windows' logits back to one row per text.

A long review is never an error and never cut: it is read in windows that overlap, and its logits
are the mean of its windows' logits weighted by their tokens. Training uses the same windows and
the same mean, so a long review means the same thing in both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data.errors import EngineError
from serving.engines.protocol import Outputs, TokenIds
from serving.logits import Logits


@dataclass(frozen=True)
class Windows:
    """Windows of several texts, in the texts' order.

    Attributes:
        ids: token ids of each window, [CLS] and [SEP] included.
        text_index: for each window, the text it belongs to.
        weights: for each window, its share of the text's tokens; they add up to 1 per text.
    """

    ids: list[list[int]]
    text_index: NDArray[np.int64]
    weights: NDArray[np.float32]
    texts: int

    @property
    def per_text(self) -> NDArray[np.int64]:
        """How many windows each text has."""
        return np.bincount(self.text_index, minlength=self.texts)


def special_token_id(tokenizer: Tokenizer, token: str) -> int:
    """Id of a special token.

    Raises:
        EngineError: the tokenizer has no such token.
    """
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise EngineError(
            f"the tokenizer has no {token!r} token; use the one the model was trained with"
        )
    return int(token_id)


def lay_windows(
    token_ids: Sequence[Sequence[int]], *, cls: int, sep: int, max_tokens: int, overlap_tokens: int
) -> Windows:
    """Lay windows over texts that are token ids already (without special tokens).

    Raises:
        EngineError: the overlap leaves no step.
    """
    room = max_tokens - 2
    step = room - overlap_tokens
    if step < 1:
        raise EngineError(
            f"overlap_tokens={overlap_tokens!r} leaves no step in max_tokens={max_tokens!r}; "
            "lower it"
        )
    ids: list[list[int]] = []
    owners: list[int] = []
    for index, tokens in enumerate(token_ids):
        last_start = max(len(tokens) - room, 0)
        # The last window ends with the text, so that no window is a stump of a few tokens.
        for start in [*range(0, last_start, step), last_start]:
            ids.append([cls, *tokens[start : start + room], sep])
            owners.append(index)
    text_index = np.asarray(owners, dtype=np.int64)
    size = np.asarray([len(window) for window in ids], dtype=np.float64)
    totals = np.bincount(text_index, weights=size, minlength=len(token_ids))
    weights = (size / totals[text_index]).astype(np.float32)
    return Windows(ids=ids, text_index=text_index, weights=weights, texts=len(token_ids))


def split_into_windows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    max_tokens: int,
    overlap_tokens: int,
    opening: str = "[CLS]",
    closing: str = "[SEP]",
) -> Windows:
    """Tokenise texts and lay windows over the long ones."""
    encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return lay_windows(
        [encoding.ids for encoding in encodings],
        cls=special_token_id(tokenizer, opening),
        sep=special_token_id(tokenizer, closing),
        max_tokens=max_tokens,
        overlap_tokens=overlap_tokens,
    )


def pad(
    windows: Sequence[Sequence[int]], pad_id: int, longest: int | None = None
) -> tuple[TokenIds, TokenIds]:
    """Stack windows into ids and mask, (batch, longest), padded on the right.

    Args:
        windows: token ids of each.
        pad_id: id of the padding token.
        longest: tokens of a row, where more are wanted than the longest window has.
    """
    if longest is None:
        longest = max(len(window) for window in windows)
    input_ids = np.full((len(windows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(windows), longest), dtype=np.int64)
    for row, window in enumerate(windows):
        input_ids[row, : len(window)] = window
        mask[row, : len(window)] = 1
    return input_ids, mask


def merge_outputs(outputs: Outputs, windows: Windows) -> Outputs:
    """One row per text from one row per window: the mean, weighted by the windows' tokens."""
    if len(windows.ids) == windows.texts:
        return outputs

    def merged(values: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.zeros((windows.texts, *values.shape[1:]), dtype=np.float32)
        weights = windows.weights.reshape(-1, *([1] * (values.ndim - 1)))
        np.add.at(out, windows.text_index, values * weights)
        return out

    return {name: merged(values) for name, values in outputs.items()}


def merge_windows(logits: Logits, windows: Windows) -> Logits:
    """One row of logits per text from one row per window."""
    return Logits(**merge_outputs(logits.named(), windows))

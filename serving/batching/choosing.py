"""What waits, and which of it makes the next batch."""

import time
from collections.abc import Sequence
from typing import Final, Generic

from serving.batching.admission import Admission
from serving.batching.costs import CostModel
from serving.batching.lengths import ArrivalRate, LengthEstimate
from serving.batching.planner import Limits, first_rows, flat_tokens, nearest_rows, worth_waiting
from serving.batching.requests import Answer, Row
from serving.batching.settings import BatchSettings
from serving.batching.shapes import Shape, shape_of
from serving.batching.waiting import WaitingRows
from serving.engines.protocol import Engine

_LIKE: Final = 6
"""Where a sixth of the budget waits, a batch more costs what mixing lengths does: a fifth."""
_DEEP: Final = 4
"""Batches' worth of windows that wait, from which on their order is the length's."""


class Choice(Generic[Answer]):
    """Chooses by turn, length and cost; used from one thread.

    Attributes:
        waiting: windows that no batch has yet.
    """

    def __init__(
        self, engine: Engine, *, admission: Admission, costs: CostModel, settings: BatchSettings
    ):
        """Start with nothing that waits."""
        self.waiting: WaitingRows[Answer] = WaitingRows()
        self._lengths = LengthEstimate()
        self._arrivals = ArrivalRate()
        self._buckets = engine.length_buckets
        self._max_rows = engine.max_rows or settings.max_batch_rows
        self._admission = admission
        self._costs = costs
        self._settings = settings

    def add(self, rows: Sequence[Row[Answer]]) -> None:
        """Let windows wait for a batch."""
        self.waiting.add(rows)
        self._lengths.add([len(row.ids) for row in rows])
        self._arrivals.add(time.monotonic(), len(rows))

    @property
    def budget(self) -> int:
        """Tokens of a batch from which larger ones are hardly faster."""
        return flat_tokens(
            self._costs,
            self._lengths.mean,
            least=self._settings.min_batch_tokens,
            most=self._settings.max_batch_tokens,
        )

    @property
    def loaded(self) -> bool:
        """Whether a whole batch waits."""
        return self.waiting.tokens >= self.budget

    def shape(self, windows: Sequence[Sequence[int]]) -> Shape:
        """Of a batch of windows, as the engine pads them."""
        return shape_of([len(window) for window in windows], self._buckets)

    def usual_shape(self, rows: int = 1) -> Shape:
        """Of so many windows of the length that is usual of late."""
        return shape_of([self._length] * rows, self._buckets)

    def predicted_s(self, tokens: float) -> float:
        """Seconds that so many real tokens take in full batches."""
        computed = self.usual_shape().longest
        fixed, per_row = self._costs.row_seconds(float(computed))
        rows = max(1.0, self.budget / computed)
        return tokens * (fixed / rows + per_row) / self._length / self._settings.workers

    def oldest(self) -> Row[Answer] | None:
        """The window whose turn it is."""
        self.waiting.refill(self.budget * self._settings.window_batches)
        return self.waiting.oldest()

    def company_s(self, oldest: Row[Answer]) -> float:
        """Seconds after which others may have come that are worth waiting for; 0 if none are."""
        now = time.monotonic()
        left_s = oldest.arrived + self._settings.max_wait_ms / 1e3 - now
        gap_s = self._arrivals.gap_s(now)
        worth = worth_waiting(self._costs, self._lengths.mean, gap_s=gap_s, left_s=left_s)
        return max(gap_s, 2e-4) if worth else 0.0

    def take(self, oldest: Row[Answer]) -> list[Row[Answer]]:
        """The next batch, that window among it; what nobody can wait for any more is left out."""
        limits = self._limits()
        if self._costs.computes_padding:
            most = min(limits.rows, limits.tokens // len(oldest.ids) + 1)
            near, anchor = self.waiting.around(oldest, most)
            lengths = [len(row.ids) for row in near]
            low, high = nearest_rows(lengths, anchor, self._costs, limits, buckets=self._buckets)
            rows = near[low:high]
        else:
            first = self._first(oldest)
            rows = first[: first_rows([len(row.ids) for row in first], self._costs, limits)]
        self.waiting.take(rows)
        ready_at = time.monotonic() + self._costs.seconds(self.shape([row.ids for row in rows]))
        return [row for row in rows if not row.dropped and row.text.request.deadline > ready_at]

    def _first(self, oldest: Row[Answer]) -> list[Row[Answer]]:
        """Where padding is left out: by turn, or by length when so much waits that it is quicker.

        Attention reads windows of equal length at once; with mixed ones it makes many more calls.
        """
        if self.waiting.tokens < _DEEP * self.budget:
            return self.waiting.by_turn(self._max_rows)
        near, _ = self.waiting.around(oldest, self._max_rows)
        length = len(oldest.ids)
        return sorted(near, key=lambda row: (row is not oldest, abs(len(row.ids) - length)))

    def _limits(self) -> Limits:
        like_waits = _LIKE * self.waiting.tokens >= self.budget
        efficient = self._costs.bytes_needed(self.usual_shape(max(1, self.budget // self._length)))
        room = self._admission.share_bytes(self._settings.workers, efficient=efficient)
        cap = self._costs.cap_bytes
        return Limits(
            tokens=self.budget,
            rows=self._max_rows,
            bytes=room if cap is None else min(room, cap),
            seconds=self._settings.max_batch_ms / 1e3,
            padding=self._settings.max_padding if like_waits else float("inf"),
        )

    @property
    def _length(self) -> int:
        """Tokens of a usual row."""
        return max(1, round(self._lengths.mean))

"""What a runner tells those who count: Prometheus in the gateway, lists in tests."""

from dataclasses import dataclass
from typing import Literal, Protocol

RejectReason = Literal["queue_full", "too_late", "draining", "deadline", "cancelled"]
RetryReason = Literal["error", "memory", "not_finite", "worker_died"]


@dataclass(frozen=True)
class AdmissionState:
    """What admission holds to right now.

    Attributes:
        in_flight: batches admitted and not yet done.
        in_flight_bytes: predicted, of them together.
        waiting: batches that wait to be admitted.
        limit_batches: the latency-gradient limit.
        limit_bytes: of predicted memory that may be in flight: free - reserve, own use put back.
        free_bytes: as read last, without the reserve taken off.
    """

    in_flight: int
    in_flight_bytes: int
    waiting: int
    limit_batches: float
    limit_bytes: int
    free_bytes: int


class BatchObserver(Protocol):
    """Called in the event loop's thread, so it must be quick; `model` is the runner's name."""

    def batch_done(
        self,
        *,
        model: str,
        rows: int,
        tokens: int,
        padded_tokens: int,
        wait_s: float,
        seconds: float,
    ) -> None:
        """A batch was answered.

        Args:
            model: the runner's name.
            rows: windows.
            tokens: real ones.
            padded_tokens: rows x longest; equals ``tokens`` where an engine leaves padding out.
            wait_s: of the window that waited longest before the batch was sent.
            seconds: in the engine.
        """

    def rejected(self, *, model: str, reason: RejectReason) -> None:
        """A request was turned away or given up."""

    def out_of_memory(self, *, model: str, rows: int, tokens: int) -> None:
        """A batch of rows x tokens (the longest) did not fit."""

    def retried(self, *, model: str, rows: int, reason: RetryReason) -> None:
        """Windows go in again."""

    def worker_died(self, *, model: str) -> None:
        """A compute thread is gone; another takes its place."""

    def queue(self, *, model: str, texts: int, rows: int, tokens: int) -> None:
        """Texts of open requests, and windows and tokens that wait to be batched."""

    def admission(self, *, state: AdmissionState) -> None:
        """After every batch that was admitted or done."""


class SilentObserver:
    """Nobody counts."""

    def batch_done(
        self,
        *,
        model: str,
        rows: int,
        tokens: int,
        padded_tokens: int,
        wait_s: float,
        seconds: float,
    ) -> None:
        """See ``BatchObserver``."""

    def rejected(self, *, model: str, reason: RejectReason) -> None:
        """See ``BatchObserver``."""

    def out_of_memory(self, *, model: str, rows: int, tokens: int) -> None:
        """See ``BatchObserver``."""

    def retried(self, *, model: str, rows: int, reason: RetryReason) -> None:
        """See ``BatchObserver``."""

    def worker_died(self, *, model: str) -> None:
        """See ``BatchObserver``."""

    def queue(self, *, model: str, texts: int, rows: int, tokens: int) -> None:
        """See ``BatchObserver``."""

    def admission(self, *, state: AdmissionState) -> None:
        """See ``BatchObserver``."""

"""What batching and admission allow themselves; frozen, validated once at the edge."""

from pydantic import BaseModel, ConfigDict, Field


class BatchSettings(BaseModel):
    """How one model's texts become batches."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=2, ge=1, le=64, description="Threads that run the engine at once.")
    prefetch: int = Field(
        default=1, ge=0, le=8, description="Batches laid ready under load, so no worker waits."
    )
    max_batch_tokens: int = Field(default=4_096, ge=8, description="Padded tokens of one batch.")
    min_batch_tokens: int = Field(
        default=256, ge=1, description="What a batch may hold however flat the cost model is."
    )
    max_batch_rows: int = Field(default=256, ge=1, le=4_096, description="Windows of one batch.")
    max_batch_ms: float = Field(
        default=250.0, gt=0, description="Predicted time of one batch; a single window may exceed."
    )
    max_wait_ms: float = Field(
        default=5.0,
        ge=0,
        le=1_000,
        description="How long a window may wait for company while a worker rests.",
    )
    max_padding: float = Field(
        default=1.04, ge=1.0, description="Padded over real tokens of one batch under load."
    )
    window_batches: int = Field(
        default=16, ge=1, description="Batches' worth of windows that are ordered by length."
    )
    max_queue_texts: int = Field(default=4_096, ge=1, description="Texts that may wait at once.")
    max_queue_s: float = Field(
        default=10.0, gt=0, description="Seconds of work that may wait; more is refused at once."
    )
    tokenize_texts: int = Field(
        default=32, ge=1, description="Texts of one request tokenised before another has its turn."
    )
    tokenize_chars: int = Field(default=20_000, ge=1, description="The same, in characters.")
    watch_interval_s: float = Field(
        default=0.2, gt=0, le=1.0, description="How often workers and health are looked at."
    )
    probe_interval_s: float = Field(
        default=0.5, gt=0, le=2.0, description="How often an engine that fails is tried again."
    )
    stuck_s: float = Field(
        default=60.0, gt=0, description="After this long in one batch a worker counts as lost."
    )


class AdmissionSettings(BaseModel):
    """How much may be in flight in one process."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reserve_bytes: int = Field(
        default=256 * 2**20, ge=0, description="Memory that batches leave alone."
    )
    read_interval_s: float = Field(
        default=0.25, gt=0, le=0.5, description="How old a reading of the memory may be."
    )
    max_batches: int = Field(default=16, ge=1, le=1_024, description="Batches in flight at most.")
    first_batches: int = Field(default=2, ge=1, description="Batches in flight to begin with.")
    min_batches: int = Field(default=1, ge=1, description="However slow they become.")
    tolerance: float = Field(
        default=1.5, ge=1.0, description="Slow-down that is not yet taken for a queue."
    )
    patience_s: float = Field(
        default=5.0, gt=0, description="How long a batch waits for memory before it is refused."
    )
    stalled_s: float = Field(
        default=10.0, gt=0, description="How long none may begin or end while another waits."
    )

"""How an embedding model's evaluation is run; apart, so that a pipeline reads it without torch."""

from pydantic import BaseModel, ConfigDict, Field


class RetrievalSettings(BaseModel):
    """How an evaluation is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    korsts: str = Field(default="", description="KorSTS pairs that nothing was trained on.")
    seed: int = 0
    resamples: int = Field(default=500, ge=100)
    threads: int = Field(default=1, ge=1)
    margin: float = Field(
        default=0.02, ge=0, description="What INT8 may lose against fp32 in a figure."
    )

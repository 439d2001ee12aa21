"""What validation asks of rows: a frozen policy, from a YAML file or as it stands."""

from datetime import date
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.contract import MAX_REVIEW_CHARACTERS
from data.near_duplicates import LOWEST_THRESHOLD
from data.quality import Contradiction


class ValidationPolicy(BaseModel):
    """What is asked of rows. Every key has a default; an unknown one is refused.

    Attributes:
        exact_duplicates: what becomes of a text that stands a second time.
        near_duplicate_threshold: Jaccard of character 3-grams from which two texts are one.
        quarantine_contradictions: those that quarantine a row; the others are listed as issues.
        label_error_rows: above so many rows the search for label errors is skipped.
        require_restaurant: whether a review needs a restaurant that the snapshot describes.
        mask_personal_data: off only where the source is masked already.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    exact_duplicates: Literal["quarantine", "keep"] = "quarantine"
    near_duplicate_threshold: float = Field(default=0.8, ge=LOWEST_THRESHOLD, le=1.0)
    quarantine_contradictions: tuple[Contradiction, ...] = get_args(Contradiction)
    min_characters: int = Field(default=1, ge=1)
    max_characters: int = Field(default=MAX_REVIEW_CHARACTERS, ge=1, le=MAX_REVIEW_CHARACTERS)
    earliest: date | None = None
    latest: date | None = None
    require_restaurant: bool = False
    mask_personal_data: bool = True
    label_errors: bool = True
    label_error_rows: int = Field(default=20_000, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _limits_leave_room(self) -> "ValidationPolicy":
        if self.min_characters > self.max_characters:
            raise ValueError("min_characters is above max_characters; no text would be accepted")
        if self.earliest and self.latest and self.earliest > self.latest:
            raise ValueError("earliest is after latest; no date would be accepted")
        return self

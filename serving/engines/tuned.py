"""The engine that was chosen by measuring, kept by model and machine: ``var/engines/*.json``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.manifest import canonical_digest, write_text_atomically
from serving.engines.hardware import Hardware, this_hardware

HOME_VARIABLE: Final = "MATJIP_VAR"
_COSTS: Final = ".costs.json"


class QualityBudget(BaseModel):
    """How far an engine's answers may be from those of the folder's most exact engine."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cos_mean: float = Field(default=0.995, ge=-1, le=1)
    cos_p1: float = Field(default=0.98, ge=-1, le=1, description="First percentile of the texts.")
    top10_overlap: float = Field(default=0.94, ge=0, le=1, description="Of nearest neighbours.")
    label_agreement: float = Field(
        default=0.99, ge=0, le=1, description="Share of equal labels, of each classifier's head."
    )
    probability_shift: float = Field(
        default=0.01, ge=0, le=1, description="Mean absolute difference, of each head, at most."
    )
    batch_invariant: bool = Field(
        default=False, description="Whether no answer may depend on its batch-mates."
    )


class MeasuredEngine(BaseModel):
    """One engine as it was measured beside the others.

    Attributes:
        engine: its name in ``ENGINES``.
        name: library, version and precision.
        tokens_per_s: real tokens a second of the whole machine: of the GPU, or of all cores, each
            as fast as the one that was measured.
        latency_ms: median wall time of one window alone.
        peak_mib: most memory that it took to load and to answer, weights included.
        cos_mean: cosine of a window's outputs with the reference's, mean of all windows.
        cos_p1: their first percentile.
        cos_min: the lowest.
        top10_overlap: share of ten nearest windows that are the reference's too.
        label_agreement: share of labels that are the reference's, of the worst of a classifier's
            heads; None of an embedding model.
        probability_shift: mean absolute difference of probabilities, likewise.
        alone_cos_min: the lowest cosine of a window alone with itself among others.
        batch_invariant: what the engine claims.
        error: why it could not be measured; the other figures are None then.
        verdict: why it was picked, or not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    engine: str
    name: str = ""
    tokens_per_s: float | None = None
    latency_ms: float | None = None
    peak_mib: float | None = None
    cos_mean: float | None = None
    cos_p1: float | None = None
    cos_min: float | None = None
    top10_overlap: float | None = None
    label_agreement: float | None = None
    probability_shift: float | None = None
    alone_cos_min: float | None = None
    batch_invariant: bool = False
    error: str | None = None
    verdict: str = ""


class EngineChoice(BaseModel):
    """What was chosen, for which model, on which machine, and on what evidence.

    Attributes:
        candidates: engines that could run, each with the SHA-256 of its file where the model's
            digest does not cover it, else an empty text.
        measured: the candidates, and engines that cannot run here.
        seal: digest of the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_digest: str
    hardware: Hardware
    budget: QualityBudget
    reference: str
    engine: str
    windows: int
    tokens: int
    sample_digest: str
    threads: int
    candidates: dict[str, str]
    measured: tuple[MeasuredEngine, ...]
    seal: str = ""

    @model_validator(mode="after")
    def _is_as_it_was_written(self) -> Self:
        if self.seal and self.seal != self.content_digest:
            raise ValueError(f"seal={self.seal!r} is not that of what stands here")
        return self

    @property
    def content_digest(self) -> str:
        """Of all but the seal."""
        return canonical_digest(self.model_dump(mode="json", exclude={"seal"}))


def outdated(kept: EngineChoice, candidates: Mapping[str, str]) -> str | None:
    """Why the engines that can run now ask for another choice; None where it holds.

    Args:
        kept: made before.
        candidates: now, as ``EngineChoice`` has them.
    """
    fresh = [name for name, file in candidates.items() if kept.candidates.get(name) != file]
    if fresh:
        return f"{fresh!r} can run here, and were built or installed after the last choice"
    if kept.engine not in candidates:
        return f"{kept.engine!r}, which was chosen, cannot run here any more"
    return None


def engines_home() -> Path:
    """``engines`` below ``MATJIP_VAR``, else below ``var`` in the working folder."""
    return Path(os.environ.get(HOME_VARIABLE, "var")) / "engines"


def choice_path(home: Path, model_digest: str, hardware: Hardware) -> Path:
    """Where a choice is kept."""
    return home / f"{model_digest[:16]}-{hardware.key}.json"


def costs_path(choice: Path) -> Path:
    """Where the cost model of the chosen engine is kept, beside the choice."""
    return choice.with_suffix(_COSTS)


def write_choice(path: Path, choice: EngineChoice) -> None:
    """Keep a choice; the costs of the one before it are gone when it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    costs_path(path).unlink(missing_ok=True)
    sealed = choice.model_copy(update={"seal": choice.content_digest})
    write_text_atomically(path, sealed.model_dump_json(indent=2) + "\n")


def read_choice(path: Path, model_digest: str, hardware: Hardware) -> EngineChoice | None:
    """A choice that was kept; None where there is none, or it was altered or made elsewhere."""
    try:
        choice = EngineChoice.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    if not choice.seal or (choice.model_digest, choice.hardware) != (model_digest, hardware):
        return None
    return choice


@dataclass(frozen=True)
class Chosen:
    """The engine that a folder is served by.

    Attributes:
        engine: its name in ``ENGINES``.
        threads: compute threads.
        costs: the cost model that was fitted with it on this machine, if one was.
        warning: why what was tuned is not what is served; None where it is, or nothing was.
    """

    engine: str
    threads: int
    costs: Path | None = None
    warning: str | None = None


def tuned_engine(model_digest: str) -> tuple[str | None, str | None]:
    """(the engine chosen for a model on this machine, why a choice that was made does not hold).

    Both are None where nothing was tuned.
    """
    home, hardware = engines_home(), this_hardware()
    path = choice_path(home, model_digest, hardware)
    choice = read_choice(path, model_digest, hardware)
    if choice is not None:
        return choice.engine, None
    if path.is_file():
        return None, f"{str(path)!r} was altered, or is of another version"
    others = home.glob(f"{model_digest[:16]}-*.json")
    if any(not other.name.endswith(_COSTS) for other in others):
        return None, "it was tuned on other hardware, or with other versions of the libraries"
    return None, None


def tuned_costs(model_digest: str, engine: str, threads: int) -> Path | None:
    """The cost model fitted for a model, engine and number of threads on this machine, if any."""
    hardware = this_hardware()
    path = choice_path(engines_home(), model_digest, hardware)
    choice = read_choice(path, model_digest, hardware)
    if choice is None or (choice.engine, choice.threads) != (engine, threads):
        return None
    return costs_path(path) if costs_path(path).is_file() else None

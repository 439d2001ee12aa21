"""The gateway's settings, from environment variables ``MATJIP_<FIELD>``; read only when called.

Those of batching are fields of ``BatchSettings``, by the same prefix: ``MATJIP_MAX_BATCH_TOKENS``.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data.errors import SettingsError
from serving.batching.settings import AdmissionSettings, BatchSettings
from serving.experiments.database import DEFAULT_URL
from serving.experiments.notices import LEAST_SECRET

PREFIX: Final = "MATJIP_"
AUTO: Final = "auto"
_TYPO_LIKENESS: Final = 0.88


class ServingSettings(BaseModel):
    """What the gateway allows itself and its callers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8080, ge=0, le=65_535, description="0 takes any free port.")
    store_url: str = Field(
        default=DEFAULT_URL,
        pattern=r"^(sqlite|postgresql(\+psycopg)?)://",
        repr=False,
        description="sqlite:///path/to/file.db, or postgresql://user:password@host/database.",
    )
    max_body_bytes: int = Field(default=1_048_576, ge=1_024)
    max_reviews: int = Field(default=64, ge=1, le=1_000, description="Reviews of one request.")
    verify_key: Path | None = Field(
        default=None,
        description="Public key of whoever registers models: every model must be signed with its "
        "private half. Without one, signatures are checked with the deployment's own.",
    )
    batching: BatchSettings = Field(
        default=BatchSettings(), description="How each model's texts become batches."
    )
    engine_threads: int = Field(default=1, ge=1, le=256, description="Threads inside one engine.")
    engine: str = Field(
        default=AUTO,
        min_length=1,
        description="Of the classifiers: a name of serving/engines/choice.py, plain for the one of "
        "the folder's format, or auto for what was tuned on this machine, else the plain one.",
    )
    embedding_engine: str = Field(
        default=AUTO, min_length=1, description="Of the embedding model, likewise."
    )
    device: Literal["cpu", "gpu"] = Field(
        default="cpu",
        description="Whose free memory decides how much may be in flight: where engines compute.",
    )
    reserve_mib: int = Field(
        default=256, ge=0, description="Memory that batches leave free, on that device."
    )
    deadline_s: float = Field(
        default=30.0, gt=0, description="For analysing or embedding; then the request is a 503."
    )
    max_waiting: int = Field(
        default=512, ge=0, description="Requests that may wait beside the ones being worked on."
    )
    max_inputs: int = Field(default=2_048, ge=1, description="Texts of one embedding request.")
    max_input_tokens: int = Field(
        default=300_000, ge=1, description="Tokens of one embedding request, of all its texts."
    )
    reload_poll_s: float = Field(
        default=1.0,
        ge=0,
        description="How often deployment files are looked at; 0 waits for SIGHUP alone.",
    )
    route_poll_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="How often the store is asked who answers everybody: so late a rollback is.",
    )
    shadow_queue: int = Field(
        default=256,
        ge=1,
        description="Requests of a shadow that may wait to be answered by the other arms too.",
    )
    store_queue: int = Field(
        default=1_024, ge=1, description="Writes that may wait for the store's next commit."
    )
    store_ack: Literal["committed", "journaled"] = Field(
        default="committed",
        description="When an analysis is answered: committed, once the store has it on disk; "
        "journaled, once a file of this machine's has it, which outlives the process but not the "
        "power, and the store follows.",
    )
    journal_folder: Path = Field(
        default=Path("var/serving/journal"),
        description="Of that file; several gateways may share it.",
    )
    body_timeout_s: float = Field(default=10.0, gt=0, description="For a request's body to arrive.")
    shutdown_timeout_s: int = Field(default=20, ge=1, description="For open requests to finish.")
    max_summary_reviews: int = Field(
        default=300, ge=1, le=10_000, description="Reviews of one summary."
    )
    max_language_requests: int = Field(
        default=128, ge=1, description="Language requests that may be worked on or wait at once."
    )
    language_timeout_s: float = Field(
        default=120.0, gt=0, description="For a summary, or a whole answer of a language model."
    )
    upstream_idle_s: float = Field(
        default=30.0, gt=0, description="For the next part of a streamed answer to arrive."
    )
    upstream_connect_s: float = Field(
        default=3.0,
        gt=0,
        description="For a connection to a language model's server; three are tried.",
    )
    live: Path = Field(
        default=Path("var/live"),
        description="Folder whose deployment.json the phases of experiments are put to work by.",
    )
    admin_token: str | None = Field(
        default=None,
        pattern=r"^[!-~]{16,}$",
        repr=False,
        description="Whoever sends it may change experiments; without it nobody may, by the API.",
    )
    upstream_api_key: str | None = Field(
        default=None, min_length=1, repr=False, description="What those servers want, if anything."
    )

    guardrails: Literal["on", "off"] = Field(
        default="on",
        description="Whether this gateway rolls back or pauses what it serves by itself.",
    )
    guardrail_poll_s: float = Field(
        default=1.0,
        gt=0,
        le=60,
        description="How often guardrails are looked at, and notices sent.",
    )
    webhook_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/\s]+",
        repr=False,
        description="Where every change of an experiment is told (serving/experiments/notices.py).",
    )
    webhook_secret: str | None = Field(
        default=None,
        min_length=LEAST_SECRET,
        repr=False,
        description="What those notices are signed with.",
    )

    @model_validator(mode="after")
    def _signs_what_it_tells(self) -> Self:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            given, lacking = "URL", "SECRET"
            if self.webhook_url is None:
                given, lacking = lacking, given
            raise ValueError(
                f"{PREFIX}WEBHOOK_{given} is set without {PREFIX}WEBHOOK_{lacking}: every notice "
                "is signed; set both, or neither"
            )
        return self

    def admission(self) -> AdmissionSettings:
        """How much of all models may be in flight."""
        return AdmissionSettings(reserve_bytes=self.reserve_mib * 2**20)


def read_settings(environment: Mapping[str, str]) -> ServingSettings:
    """Settings from ``MATJIP_*`` variables; the caller passes ``os.environ``.

    Variables of the same prefix that belong to other parts are left alone, but one that is nearly a
    setting's name is taken for a typing error.

    Raises:
        SettingsError: every wrong variable, all in one message.
    """
    fields = [field for field in ServingSettings.model_fields if field != "batching"]
    fields += BatchSettings.model_fields
    names = {f"{PREFIX}{field.upper()}": field for field in fields}
    problems = [
        f"{name} is not a setting; did you mean {near}?"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in names
        for near in difflib.get_close_matches(name, names, n=1, cutoff=_TYPO_LIKENESS)
    ]
    given = {field: environment[name] for name, field in names.items() if name in environment}
    try:
        batching = {field: given.pop(field) for field in BatchSettings.model_fields & given.keys()}
        settings = ServingSettings.model_validate(given | {"batching": batching})
    except ValidationError as error:
        for line in error.errors():
            if not line["loc"]:  # of several together: their values are not repeated
                problems.append(line["msg"].removeprefix("Value error, "))
                continue
            field = str(line["loc"][-1])
            # What holds a password or a secret is never repeated.
            known = ServingSettings.model_fields.get(field)
            shown = repr(line["input"]) if known is None or known.repr else "its value"
            problems.append(f"{PREFIX}{field.upper()}: {shown}: {line['msg']}")
    if problems:
        raise SettingsError("wrong settings; mend or unset them: " + "; ".join(problems))
    return settings

"""On what evidence an alias may move. Rules only: nothing here reads or writes a registry."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from data.errors import MoveRefusedError
from data.manifest import canonical_digest

Alias = Literal["champion", "challenger"]
ALIASES: Final[tuple[Alias, ...]] = get_args(Alias)
ROLLED_BACK_TAG: Final = "rolled_back_by"


class Evidence(BaseModel):
    """Why an alias moves.

    ``gate`` makes a version the challenger. ``first_model`` makes the first version of all the
    champion, when it passed the gate that the first model has to. ``verdict`` is an experiment's:
    ``promote`` makes the challenger the champion, and both it and ``roll_back`` end the challenger.
    ``restore`` is a person's, and brings back a version that was champion before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["gate", "first_model", "verdict", "restore"]
    decision: Literal["pass", "promote", "roll_back", "restore"]
    evidence_id: str = Field(
        min_length=1, description="Tag evidence_id of the version it is about."
    )
    artifact_digest: str = Field(
        min_length=1, description="Manifest digest of the gate or verdict; a ticket for a person's."
    )
    reason: str = Field(min_length=1)
    deployment_id: str | None = None
    champion_version: str | None = None
    challenger_version: str | None = None
    by: str | None = Field(default=None, description="The person, where one decided.")

    @property
    def digest(self) -> str:
        """Names this evidence: the same evidence moves an alias once."""
        return canonical_digest(self.model_dump())


class LedgerEntry(BaseModel):
    """One line of the alias ledger: what was meant (moving), then what was done (moved).

    Attributes:
        at: when, ISO 8601 in UTC; never before the entry before it, whatever the clock says.
        seal: hash of this entry and of the seal before it; empty in entries older than seals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=1)
    at: str
    name: str
    alias: Alias
    phase: Literal["moving", "moved"]
    from_version: str | None
    to_version: str | None
    evidence: Evidence
    seal: str = ""

    def sealed_after(self, seal: str) -> str:
        """The seal that this entry has if it follows the one of that seal."""
        # Without what is not set, so that a field that is added later leaves old seals whole.
        said = self.model_dump(exclude={"seal"}, exclude_none=True)
        return canonical_digest([seal, said])


def last_move(entries: Sequence[LedgerEntry], alias: Alias) -> LedgerEntry | None:
    """The newest entry of an alias."""
    return next((entry for entry in reversed(entries) if entry.alias == alias), None)


def champions(entries: Sequence[LedgerEntry]) -> list[str]:
    """The champion, last, and before it those it followed.

    One that was given up for an earlier one is no longer among them.
    """
    line: list[str] = []
    for entry in entries:
        version = entry.to_version
        if entry.alias != "champion" or entry.phase != "moved" or version is None:
            continue
        if entry.evidence.kind == "restore" and version in line:
            del line[line.index(version) + 1 :]
        elif not line or line[-1] != version:
            line.append(version)
    return line


def ever_champion(entries: Sequence[LedgerEntry]) -> set[str]:
    """Every version that was champion at some time."""
    return {
        entry.to_version
        for entry in entries
        if entry.alias == "champion" and entry.phase == "moved" and entry.to_version is not None
    }


def check_evidence(
    evidence: Evidence,
    *,
    alias: Alias,
    current: str | None,
    version: str | None,
    tags: Mapping[str, str],
    entries: Sequence[LedgerEntry],
) -> None:
    """Check that the evidence allows an alias to move.

    Args:
        evidence: why.
        alias: which.
        current: the version that it names now.
        version: the version that it shall name; none takes the alias away.
        tags: tags of the version that the evidence is about: the new one, or the one it leaves.
        entries: the model's ledger so far.

    Raises:
        MoveRefusedError: it does not; the message says what is missing.
    """
    problems = []
    if evidence.evidence_id != tags.get("evidence_id"):
        problems.append(
            f"evidence_id is {evidence.evidence_id!r}, the version was registered with "
            f"{tags.get('evidence_id')!r}"
        )
    if version is not None and evidence.kind != "restore" and tags.get("gate_verdict") != "pass":
        problems.append(f"the version's gate said {tags.get('gate_verdict')!r}, not 'pass'")
    if version is not None and tags.get(ROLLED_BACK_TAG):
        problems.append(f"the version was rolled back by {tags[ROLLED_BACK_TAG]!r}")
    if version is None:
        problems += _to_nothing(evidence, alias, current)
    elif alias == "challenger":
        if (evidence.kind, evidence.decision) != ("gate", "pass"):
            problems.append("only a passing gate makes a challenger")
    else:
        problems += _to_champion(evidence, current, version, entries)
    if problems:
        raise MoveRefusedError(
            f"alias {alias!r} may not move from {current!r} to {version!r}: {'; '.join(problems)}. "
            "Run the step whose evidence is missing; an alias is never moved without it"
        )


def _to_nothing(evidence: Evidence, alias: Alias, current: str | None) -> list[str]:
    if alias == "champion":
        return ["the champion can be replaced, not taken away"]
    if evidence.kind != "verdict" or evidence.decision not in {"promote", "roll_back"}:
        return ["only a verdict to promote or roll back ends a challenger"]
    if evidence.challenger_version != current:
        return [f"the verdict is about version {evidence.challenger_version!r}"]
    return []


def _to_champion(
    evidence: Evidence, current: str | None, version: str, entries: Sequence[LedgerEntry]
) -> list[str]:
    earlier = ever_champion(entries)
    known = sorted(earlier)
    match evidence.kind, evidence.decision:
        case "first_model", "pass":
            if current is not None or earlier:
                return [f"there were champions before, {known!r}: restore one of them"]
        case "verdict", "promote":
            if not evidence.deployment_id or evidence.champion_version != current:
                compared = (evidence.champion_version, evidence.deployment_id)
                return [f"the verdict compared with champion {compared[0]!r} in {compared[1]!r}"]
            if evidence.challenger_version != version:
                return [f"the verdict is about version {evidence.challenger_version!r}"]
        case "restore", "restore":
            if version not in earlier:
                return [f"only an earlier champion comes back, one of {known!r}"]
        case kind, decision:
            return [f"{kind} {decision!r} makes no champion"]
    return []

"""What a transition means to do and which of its steps are done: a file that a kill cannot spoil.

One file per transition, in ``promotions/`` of the registry's state folder, numbered in the order
they began. Its first line is the plan, each later one a step that is done, and the last one how it
ended: finished; refused, with the reason; or superseded by a later transition.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import filelock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data.errors import RegistryError
from data.manifest import canonical_digest
from serving.registry.durable_lines import append_line, read_lines
from serving.registry.evidence import Evidence
from serving.registry.ledger import now_after

FOLDER_NAME: Final = "promotions"
Kind = Literal["promote", "roll_back", "restore"]
End = Literal["finished", "refused", "superseded"]
_LOCK_TIMEOUT_S: Final = 10.0


class Plan(BaseModel):
    """A change of who answers.

    ``promote`` makes a challenger the champion and ends the challenger; ``roll_back`` ends the
    challenger, and its version does not return; ``restore`` brings a former champion back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str = Field(min_length=1, description="The registered model.")
    version: str = Field(description="What becomes champion; of roll_back, what ends.")
    expected: str | None = Field(
        default=None,
        description="The champion when it was decided; of restore, None takes whoever it is.",
    )
    evidence: Evidence
    deployment_id: str | None = Field(
        default=None, description="Whose traffic turns; None leaves the traffic alone."
    )
    arm: str | None = Field(default=None, description="The arm that answers everybody then.")
    by: str = Field(min_length=1, description="A person, or the part that did it.")

    @property
    def digest(self) -> str:
        """Names it: the same change on the same evidence is one transition."""
        return canonical_digest([self.kind, self.name, self.version, self.evidence.model_dump()])


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: str
    plan: Plan | None = None
    step: str | None = None
    end: End | Literal["again"] | None = None
    reason: str | None = None


@dataclass
class Journal:
    """A transition, as far as it is known to have come.

    Attributes:
        path: its file.
        plan: what it means to do.
        steps: what is done, in order.
        end: how it ended, if it has.
        reason: why it was refused or superseded.
        at: of its last line.
    """

    path: Path
    plan: Plan
    steps: list[str] = field(default_factory=list)
    end: End | None = None
    reason: str = ""
    at: str = ""

    @property
    def number(self) -> int:
        """Of all transitions of this machine, from 1 on."""
        return _number(self.path)

    def note(self, step: str) -> None:
        """Write down that a step is done."""
        self._append(_Line(at=now_after(self.at), step=step))

    def close(self, end: End, reason: str = "") -> None:
        """Write down how it ended."""
        self._append(_Line(at=now_after(self.at), end=end, reason=reason or None))

    def read_again(self) -> None:
        """Take in what other processes wrote since."""
        fresh = _read(self.path)
        if fresh is not None:
            self.steps, self.end = fresh.steps, fresh.end
            self.reason, self.at = fresh.reason, fresh.at

    def begin_again(self) -> None:
        """Write down that one that was refused is tried again, from its first step."""
        self._append(_Line(at=now_after(self.at), end="again"))

    def _append(self, line: _Line) -> None:
        _append(self.path, line)
        self.take(line)

    def take(self, line: _Line) -> None:
        """Take in a line of the file."""
        self.at = line.at
        if line.step is not None:
            self.steps.append(line.step)
        if line.end == "again":
            self.steps, self.end, self.reason = [], None, ""
        elif line.end is not None:
            self.end, self.reason = line.end, line.reason or ""


def open_journal(state: Path, plan: Plan) -> Journal:
    """The journal of a transition: the one that an earlier call began, or a new one.

    Args:
        state: the registry's state folder.
        plan: what it means to do; of one that was begun, the plan it began with counts.

    Raises:
        RegistryError: a journal was edited by hand, or the folder cannot be written.
    """
    folder = state / FOLDER_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".lock", timeout=_LOCK_TIMEOUT_S):
            known = list(journals(state))
            for journal in reversed(known):
                if journal.plan.digest == plan.digest:
                    return journal
            taken = [_number(path) for path in folder.glob("*.jsonl")]  # also those cut short
            number = max(taken, default=0) + 1
            path = folder / f"{number:06d}-{plan.kind}-{plan.digest[:8]}.jsonl"
            first = _Line(at=now_after(known[-1].at if known else None), plan=plan)
            _append(path, first)
            return Journal(path, plan, at=first.at)
    except (OSError, filelock.Timeout) as error:
        raise RegistryError(
            f"cannot open a journal in {str(folder)!r}: {error}; make it writable, and see that no "
            "other process hangs. Nothing was changed"
        ) from error


def journals(state: Path, name: str | None = None) -> Iterator[Journal]:
    """All transitions of this machine, or those of one model, in the order they began.

    Raises:
        RegistryError: a journal was edited by hand.
    """
    for path in sorted((state / FOLDER_NAME).glob("*.jsonl")):
        journal = _read(path)
        if journal is not None and (name is None or journal.plan.name == name):
            yield journal


def _append(path: Path, line: _Line) -> None:
    try:
        append_line(path, line.model_dump_json(exclude_none=True))
    except OSError as error:
        raise RegistryError(
            f"cannot write the journal {str(path)!r}: {error.strerror}; free space and run the "
            "step again: it goes on where it stopped"
        ) from error


def _read(path: Path) -> Journal | None:
    """A journal; None for one whose first line was cut short, which therefore did nothing."""
    journal: Journal | None = None
    for number, text in enumerate(read_lines(path), start=1):
        try:
            line = _Line.model_validate_json(text)
        except ValidationError as error:
            raise _edited(path, number, str(error)) from error
        if journal is not None:
            journal.take(line)
        elif line.plan is not None:
            journal = Journal(path, line.plan, at=line.at)
        else:
            raise _edited(path, number, "it holds no plan")
    return journal


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _edited(path: Path, number: int, why: str) -> RegistryError:
    return RegistryError(
        f"{str(path)!r} line {number} is no line of a journal: {why}; it was edited by hand. See "
        "what the aliases and the ledger say, and move the file away"
    )

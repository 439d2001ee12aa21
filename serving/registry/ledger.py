"""The alias ledger: every move of a model's aliases, in order, and proof that nobody edited it.

An entry is a tag on the registered model, where every machine reads it, and a line of
``alias_ledger.jsonl`` in the registry's state folder, which tells without MLflow what this machine
did. Each entry's seal hashes the one before it, so that one that was changed or taken away is
noticed; it is no protection from somebody who computes the seals anew.
"""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from data.errors import RegistryError
from serving.registry.connection import Registry, reported
from serving.registry.durable_lines import append_line, read_lines
from serving.registry.evidence import LedgerEntry

LEDGER_NAME: Final = "alias_ledger.jsonl"
_LEDGER_TAG: Final = "alias_ledger."

Checkpoint = Callable[[str], None]
"""Told of every instant between two writes, by name."""


def pass_by(_instant: str) -> None:
    """The checkpoint of whoever does not look."""


def now_after(at: str | None) -> str:
    """This moment, or that one if the clock was set back since; ISO 8601 in UTC."""
    return max(at or "", datetime.now(UTC).isoformat(timespec="milliseconds"))


def read_ledger(registry: Registry, name: str) -> list[LedgerEntry]:
    """Every move of a model's aliases, oldest first; empty for a model without any.

    Raises:
        RegistryError: there is no such model, or an entry was edited or taken away by hand.
    """
    with reported(registry, f"read the alias ledger of {name!r}"):
        tags = registry.client.get_registered_model(name).tags
    entries = []
    for key, value in sorted(tags.items()):
        if not key.startswith(_LEDGER_TAG):
            continue
        try:
            entries.append(LedgerEntry.model_validate_json(value))
        except ValidationError as error:
            raise _edited(registry, name, f"tag {key!r} is no entry: {error}") from error
    _check_order(registry, name, entries)
    return entries


def read_local_ledger(state: Path, name: str) -> list[LedgerEntry]:
    """What this machine did to a model's aliases, oldest first, without asking MLflow.

    Entries of a process that was killed may stand twice, or not be in the registry.

    Raises:
        RegistryError: a line was edited by hand.
    """
    entries = []
    for number, line in enumerate(read_lines(state / LEDGER_NAME), start=1):
        try:
            entries.append(LedgerEntry.model_validate_json(line))
        except ValidationError as error:
            raise RegistryError(
                f"{str(state / LEDGER_NAME)!r} line {number} is no entry: {error}; take the line "
                "out: the registry keeps the ledger itself"
            ) from error
    return [entry for entry in entries if entry.name == name]


def record(
    registry: Registry,
    entries: Sequence[LedgerEntry],
    entry: LedgerEntry,
    phase: Literal["moving", "moved"],
    *,
    checkpoint: Checkpoint = pass_by,
) -> LedgerEntry:
    """Write an entry down, after those that there are.

    Args:
        registry: where.
        entries: the model's ledger so far.
        entry: what it says; number, time, phase and seal are given here.
        phase: what is meant, or what is done.
        checkpoint: told of the instants between the writes.
    """
    last = entries[-1] if entries else None
    written = entry.model_copy(
        update={
            "number": len(entries) + 1,
            "at": now_after(last.at if last else None),
            "phase": phase,
        }
    )
    seal = written.sealed_after(last.seal if last else "")
    written = written.model_copy(update={"seal": seal})
    line = written.model_dump_json()
    append_line(registry.state / LEDGER_NAME, line)
    checkpoint(f"{phase} noted here")
    # The random end keeps both entries when two machines write the same number at once.
    key = f"{_LEDGER_TAG}{written.number:06d}.{secrets.token_hex(4)}"
    registry.client.set_registered_model_tag(entry.name, key, line)
    checkpoint(f"{phase} on record")
    return written


def _check_order(registry: Registry, name: str, entries: Sequence[LedgerEntry]) -> None:
    for place, entry in enumerate(entries, start=1):
        before = entries[: place - 1]
        # Two machines that wrote at once have one number; the next one counts both.
        if entry.number != place and not (before and entry.number == before[-1].number):
            raise _edited(registry, name, f"entry {place} says number {entry.number!r}")
        if not entry.seal and not any(each.seal for each in before):
            continue
        seals = {each.seal for each in before if each.number < entry.number} or {""}
        if entry.seal not in {entry.sealed_after(seal) for seal in seals}:
            raise _edited(
                registry, name, f"entry {entry.number} ({entry.alias}, {entry.phase}) was changed"
            )


def _edited(registry: Registry, name: str, why: str) -> RegistryError:
    return RegistryError(
        f"the alias ledger of {name!r} in {registry.uri!r} was edited by hand: {why}; bring the "
        f"tag back from a copy of {LEDGER_NAME}"
    )

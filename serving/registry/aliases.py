"""The one way an alias moves: on evidence, from the version it is known to name, and on record.

MLflow sets an alias for anyone, whatever it named before, and keeps no history. So ``move_alias``
checks the evidence, compares with the version that the caller decided on, and writes a ledger:
first what it means to do, then that it is done. The ledger is a tag per entry on the registered
model, where every machine reads it, and a line per entry in ``alias_ledger.jsonl`` here.
"""

import os
import secrets
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import ValidationError

from data.errors import RegistryError
from serving.registry.connection import Registry, locked, reported, version_of_alias
from serving.registry.evidence import Alias, Evidence, LedgerEntry, check_evidence, last_move
from serving.registry.versions import READY, STATUS_TAG, get_version

LEDGER_NAME: Final = "alias_ledger.jsonl"
_LEDGER_TAG: Final = "alias_ledger."


def move_alias(
    registry: Registry,
    name: str,
    alias: Alias,
    version: str | None,
    *,
    evidence: Evidence,
    expected_version: str | None,
) -> LedgerEntry:
    """Move an alias, or take it away; the same evidence moves it once, however often it is called.

    A call that was killed between its first and last write is completed by the next one.

    Args:
        registry: where.
        name: the registered model.
        alias: which alias.
        version: the version it shall name; none takes it away.
        evidence: why it may.
        expected_version: the version it named when that was decided; none if it named nothing.

    Returns:
        The ledger's entry that says it moved.

    Raises:
        RegistryError: the evidence does not allow it, or the alias names another version than
            expected, also when somebody moved it by hand.
    """
    with locked(registry), reported(registry, f"move {name}@{alias}"):
        entries = read_ledger(registry, name)
        current = _version(registry, name, alias)
        last = last_move(entries, alias)
        ours = last is not None and last.evidence == evidence and last.to_version == version
        if last is not None and ours and current == version:
            if last.phase == "moved":
                return last
            return _record(registry, entries, last, "moved")
        if current != expected_version:
            raise _moved_meanwhile(name, alias, current, expected_version, last)
        subject = version if version is not None else current
        if subject is None:
            raise RegistryError(
                f"{name}@{alias} names no version, so there is nothing to take away"
            )
        _check_version(registry, name, subject, alias, current, version, evidence, entries)
        entry = LedgerEntry(
            number=len(entries) + 1,
            at="",
            name=name,
            alias=alias,
            phase="moving",
            from_version=current,
            to_version=version,
            evidence=evidence,
        )
        entry = _record(registry, entries, entry, "moving")
        if version is None:
            registry.client.delete_registered_model_alias(name, alias)
        else:
            registry.client.set_registered_model_alias(name, alias, version)
        now = _version(registry, name, alias)
        if now != version:
            raise _moved_meanwhile(name, alias, now, version, entry)
        return _record(registry, [*entries, entry], entry, "moved")


def read_ledger(registry: Registry, name: str) -> list[LedgerEntry]:
    """Every move of a model's aliases, oldest first; empty for a model without any.

    Raises:
        RegistryError: there is no such model, or an entry was edited by hand.
    """
    with reported(registry, f"read the alias ledger of {name!r}"):
        tags = registry.client.get_registered_model(name).tags
    try:
        return [
            LedgerEntry.model_validate_json(value)
            for key, value in sorted(tags.items())
            if key.startswith(_LEDGER_TAG)
        ]
    except ValidationError as error:
        raise RegistryError(
            f"the alias ledger of {name!r} in {registry.uri!r} was edited by hand: {error}; bring "
            f"the tag back from a copy of {LEDGER_NAME}"
        ) from error


def _record(
    registry: Registry,
    entries: list[LedgerEntry],
    entry: LedgerEntry,
    phase: Literal["moving", "moved"],
) -> LedgerEntry:
    written = entry.model_copy(
        update={
            "number": len(entries) + 1,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "phase": phase,
        }
    )
    line = written.model_dump_json()
    with (registry.state / LEDGER_NAME).open("a", encoding="utf-8") as ledger:
        ledger.write(line + "\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    # The random end keeps both entries when two machines write the same number at once.
    key = f"{_LEDGER_TAG}{written.number:06d}.{secrets.token_hex(4)}"
    registry.client.set_registered_model_tag(entry.name, key, line)
    return written


def _version(registry: Registry, name: str, alias: Alias) -> str | None:
    found = version_of_alias(registry, name, alias)
    return None if found is None else found.version


def _check_version(
    registry: Registry,
    name: str,
    subject: str,
    alias: Alias,
    current: str | None,
    version: str | None,
    evidence: Evidence,
    entries: list[LedgerEntry],
) -> None:
    tags = get_version(registry, name, subject).tags
    if tags.get(STATUS_TAG) != READY:
        raise RegistryError(
            f"version {subject!r} of {name!r} lacks the tag {STATUS_TAG}={READY}: matjip did not "
            "register it whole; register the model again"
        )
    check_evidence(
        evidence, alias=alias, current=current, version=version, tags=tags, entries=entries
    )


def _moved_meanwhile(
    name: str, alias: Alias, current: str | None, expected: str | None, last: LedgerEntry | None
) -> RegistryError:
    recorded = None if last is None else last.to_version
    by_hand = "" if current == recorded else f" by hand (on record is a move to {recorded!r})"
    return RegistryError(
        f"{name}@{alias} names version {current!r}, {expected!r} was expected: it was moved "
        f"meanwhile{by_hand}. Nothing was changed; see who moved it and why, then deploy and "
        "compare again from what it names now"
    )

"""The one way an alias moves: on evidence, from the version it is known to name, and on record.

MLflow sets an alias for anyone, whatever it named before, and keeps no history. So ``move_alias``
checks the evidence, compares with the version that the caller decided on, and writes the ledger
(serving/registry/ledger.py): first what it means to do, then that it is done.
"""

from dataclasses import dataclass

from data.errors import MoveRefusedError, RegistryError
from serving.registry.connection import Registry, locked, reported, version_of_alias
from serving.registry.evidence import Alias, Evidence, LedgerEntry, check_evidence, last_move
from serving.registry.ledger import LEDGER_NAME, Checkpoint, pass_by, read_ledger, record
from serving.registry.versions import READY, STATUS_TAG, get_version

__all__ = ["LEDGER_NAME", "check_move", "move_alias", "read_ledger"]


@dataclass(frozen=True)
class _Found:
    """How an alias stands before it moves.

    Attributes:
        entries: the model's ledger.
        current: the version that it names.
        begun: the entry of this very move, where an earlier call wrote one and was killed.
        done: the entry that says it was moved on this evidence, if it was.
    """

    entries: list[LedgerEntry]
    current: str | None
    begun: LedgerEntry | None
    done: LedgerEntry | None


def move_alias(
    registry: Registry,
    name: str,
    alias: Alias,
    version: str | None,
    *,
    evidence: Evidence,
    expected_version: str | None,
    checkpoint: Checkpoint = pass_by,
) -> LedgerEntry:
    """Move an alias, or take it away; the same evidence moves it once, however often it is called.

    A call that was killed between its first and last write is completed by the next one. A verdict
    moves it once for all: not again after it was moved elsewhere on other evidence.

    Args:
        registry: where.
        name: the registered model.
        alias: which alias.
        version: the version it shall name; none takes it away.
        evidence: why it may.
        expected_version: the version it named when that was decided; none if it named nothing.
        checkpoint: told of the instants between the writes.

    Returns:
        The ledger's entry that says it moved.

    Raises:
        MoveRefusedError: the evidence does not allow it, or the alias names another version than
            expected, also when somebody moved it by hand.
        RegistryError: the ledger was edited by hand, or MLflow went away.
    """
    with locked(registry), reported(registry, f"move {name}@{alias}"):
        found = _find(registry, name, alias, version, evidence, expected_version, checkpoint)
        if found.done is not None:
            return found.done
        entries, entry = found.entries, found.begun
        if entry is None:
            entry = LedgerEntry(
                number=len(entries) + 1,
                at="",
                name=name,
                alias=alias,
                phase="moving",
                from_version=found.current,
                to_version=version,
                evidence=evidence,
            )
            entry = record(registry, entries, entry, "moving", checkpoint=checkpoint)
            entries = [*entries, entry]
        if found.current != version:
            if version is None:
                registry.client.delete_registered_model_alias(name, alias)
            else:
                registry.client.set_registered_model_alias(name, alias, version)
            checkpoint(f"{alias} set")
        now = _version(registry, name, alias)
        if now != version:
            raise _moved_meanwhile(name, alias, now, version, entry)
        return record(registry, entries, entry, "moved", checkpoint=checkpoint)


def check_move(
    registry: Registry,
    name: str,
    alias: Alias,
    version: str | None,
    *,
    evidence: Evidence,
    expected_version: str | None,
) -> None:
    """Check that an alias may move, as ``move_alias`` would, and move nothing.

    Raises:
        MoveRefusedError: it may not.
        RegistryError: the ledger was edited by hand, or MLflow went away.
    """
    with locked(registry), reported(registry, f"look at {name}@{alias}"):
        _find(registry, name, alias, version, evidence, expected_version, pass_by)


def _find(
    registry: Registry,
    name: str,
    alias: Alias,
    version: str | None,
    evidence: Evidence,
    expected_version: str | None,
    checkpoint: Checkpoint,
) -> _Found:
    entries = read_ledger(registry, name)
    current = _version(registry, name, alias)
    last = last_move(entries, alias)
    ours = last is not None and last.evidence == evidence and last.to_version == version
    begun = last if ours and last is not None and last.phase == "moving" else None
    is_others = last is not None and begun is None and last.phase == "moving"
    if last is not None and is_others and current == last.to_version:
        # Another move was killed after it was done, before it was on record.
        last = record(registry, entries, last, "moved", checkpoint=checkpoint)
        entries = [*entries, last]
    done = _done(entries, alias, version, evidence)
    if begun is not None and current == version:
        return _Found(entries, current, begun, None)
    if done is not None and last is not None and current == last.to_version:
        return _Found(entries, current, None, done)
    if current != expected_version:
        raise _moved_meanwhile(name, alias, current, expected_version, last)
    subject = version if version is not None else current
    if subject is None:
        raise MoveRefusedError(f"{name}@{alias} names no version, so there is nothing to take away")
    _check_version(registry, name, subject, alias, current, version, evidence, entries)
    return _Found(entries, current, begun, None)


def _done(
    entries: list[LedgerEntry], alias: Alias, version: str | None, evidence: Evidence
) -> LedgerEntry | None:
    moved = [entry for entry in entries if entry.alias == alias and entry.phase == "moved"]
    if evidence.kind != "verdict":
        moved = moved[-1:]  # a person may bring a version back twice, for the same reason
    return next(
        (each for each in moved if each.evidence == evidence and each.to_version == version), None
    )


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
        raise MoveRefusedError(
            f"version {subject!r} of {name!r} lacks the tag {STATUS_TAG}={READY}: matjip did not "
            "register it whole; register the model again"
        )
    check_evidence(
        evidence, alias=alias, current=current, version=version, tags=tags, entries=entries
    )


def _moved_meanwhile(
    name: str, alias: Alias, current: str | None, expected: str | None, last: LedgerEntry | None
) -> RegistryError:
    by_hand = ""
    if last is None:
        by_hand = " by hand (no move is on record)" if current is not None else ""
    elif current not in {last.to_version, last.from_version if last.phase == "moving" else ""}:
        why = last.evidence
        by_hand = (
            f" by hand: the last move on record is to {last.to_version!r}, entry {last.number} of "
            f"{last.at}, by {why.by or why.kind!r} ({why.reason!r}); MLflow keeps no word of who "
            "moved it since"
        )
    return MoveRefusedError(
        f"{name}@{alias} names version {current!r}, {expected!r} was expected: it was moved "
        f"meanwhile{by_hand}. Nothing was changed; see who moved it and why, then deploy and "
        "compare again from what it names now"
    )

"""A change of who answers, in steps that a kill at any instant cannot leave half done.

    promote             resolve  fetch  warm_up  commit │ champion  traffic  challenger
    roll_back           resolve         traffic  commit │ challenger  mark
    restore    traffic  resolve  fetch  warm_up  commit │ champion  traffic_again

Up to the commit nothing is on record, and a failure ends it; from there on each step may be done
twice, and whoever comes next goes on where the journal (journal.py) stops. An alias moves by
``move_alias`` alone, from the version it is known to name, with its ledger. Where an earlier model
shall answer, the traffic turns first and the books follow.
"""

from contextlib import suppress
from pathlib import Path
from typing import Final

from data.errors import MatjipError, MoveRefusedError
from serving.registry.connection import Registry, locked
from serving.registry.evidence import last_move
from serving.registry.journal import Journal, Kind, Plan, journals, open_journal
from serving.registry.ledger import read_ledger
from serving.registry.transition_steps import Tools, Turn, Work, turn_traffic

__all__ = ["STEPS", "Tools", "Turn", "carry_out", "recover", "turn_first"]

STEPS: Final[dict[Kind, tuple[str, ...]]] = {
    "promote": ("resolve", "fetch", "warm_up", "commit", "champion", "traffic", "challenger"),
    "roll_back": ("resolve", "traffic", "commit", "challenger", "mark"),
    "restore": (
        *("traffic", "resolve", "fetch", "warm_up", "commit"),
        *("champion", "traffic_again"),
    ),
}
_PREPARING: Final = frozenset({"resolve", "fetch", "warm_up"})
"""Done again by whoever goes on before the commit: what was true then may not be true now."""


def carry_out(registry: Registry, plan: Plan, tools: Tools) -> Journal:
    """Do what a plan says, once, however often it is called and wherever it was killed before.

    Returns:
        Its journal, finished.

    Raises:
        MoveRefusedError: it may not be done, or a later transition took its place.
        RegistryError: the model cannot be fetched as it was signed, or MLflow is away; before an
            alias moved that ends it, and afterwards the next call goes on.
        MatjipError: whatever ``turn`` or ``warm_up`` say.
    """
    journal = open_journal(registry.state, plan)
    if journal.end == "superseded":
        raise _ended(journal)
    if journal.end == "refused":
        journal.begin_again()
    if journal.end is None:
        _run(registry, journal, tools)
    return journal


def turn_first(state: Path, plan: Plan, tools: Tools) -> Journal:
    """Begin to bring a former champion back: it answers, and nothing is on record yet.

    It needs no registry, so it need not wait for one; ``carry_out`` does the rest.

    Raises:
        MatjipError: the traffic cannot be turned; nothing was changed then.
    """
    journal = open_journal(state, plan)
    if journal.end == "refused":
        journal.begin_again()
    if journal.end is None:
        tools.checkpoint("before traffic")
        try:
            turn_traffic(journal.plan, tools)  # also after a kill: it may have been turned since
        except MatjipError as error:
            journal.close("refused", str(error))
            raise
        tools.checkpoint("after traffic")
        if "traffic" not in journal.steps:
            journal.note("traffic")
        tools.checkpoint("traffic noted")
    return journal


def recover(registry: Registry, tools: Tools, *, name: str | None = None) -> list[Journal]:
    """Complete what was killed, in the order it began.

    Args:
        registry: where.
        tools: as for ``carry_out``.
        name: of this model only.

    Returns:
        What was ended; its ``end`` says how.

    Raises:
        RegistryError: one of them cannot be completed now; it stays for the next call.
        MatjipError: likewise, what ``turn`` says.
    """
    done: list[Journal] = []
    for journal in list(journals(registry.state, name)):
        if journal.end is not None:
            continue
        later = _later_restore(registry, journal)
        try:
            if later is None:
                _run(registry, journal, tools)
            elif later.end is not None:
                with locked(registry):
                    _supersede(registry, later, tools)
        except MatjipError:
            if journal.end is None:
                raise
        journal.read_again()
        done += [journal] if journal.end is not None else []
    return done


def _run(registry: Registry, journal: Journal, tools: Tools) -> None:
    work = Work(registry, journal.plan, tools)
    steps = STEPS[journal.plan.kind]
    commit = steps.index("commit")
    if "commit" not in journal.steps:
        for step in steps[:commit]:
            if step in _PREPARING or step not in journal.steps:
                _do(work, journal, step)
    with locked(registry):
        journal.read_again()  # it may have been ended while this process prepared or waited
        if journal.end in {"superseded", "refused"}:
            raise _ended(journal)
        for step in steps[commit:]:
            if step == "champion" and journal.plan.kind == "restore":
                _supersede(registry, journal, tools)
            if step not in journal.steps:
                _do(work, journal, step)
        if journal.end is None:
            journal.close("finished")
    tools.checkpoint("finished")


def _do(work: Work, journal: Journal, step: str) -> None:
    is_committed = "commit" in journal.steps
    work.tools.checkpoint(f"before {step}")
    try:
        getattr(work, step)()
    except MatjipError as error:
        if not is_committed or isinstance(error, MoveRefusedError):
            journal.close("refused", str(error))
        raise
    work.tools.checkpoint(f"after {step}")
    journal.note(step)
    work.tools.checkpoint(f"{step} noted")


def _ended(journal: Journal) -> MoveRefusedError:
    plan = journal.plan
    return MoveRefusedError(
        f"{plan.kind} of {plan.name!r} version {plan.version!r} is not done any more: "
        f"{journal.reason}; deploy and compare again"
    )


def _later_restore(registry: Registry, journal: Journal) -> Journal | None:
    """The last restore after it that turned the traffic or is to be done yet, if there is one."""
    restores = [
        later
        for later in journals(registry.state, journal.plan.name)
        if later.number > journal.number and later.plan.kind == "restore"
    ]
    valid = [each for each in restores if each.end is None or "traffic" in each.steps]
    return valid[-1] if valid else None


def _supersede(registry: Registry, restore: Journal, tools: Tools) -> None:
    """End what was killed before a restore: on record as far as it came, its traffic left alone."""
    plan = restore.plan
    for journal in list(journals(registry.state, plan.name)):
        if journal.number >= restore.number or journal.end is not None:
            continue
        work = Work(registry, journal.plan, tools)
        last = last_move(read_ledger(registry, plan.name), "champion")
        is_begun = last is not None and last.evidence == journal.plan.evidence
        if journal.plan.kind != "roll_back" and is_begun:
            with suppress(MoveRefusedError):  # moved by hand since, which the restore looks at
                work.move("champion", journal.plan.version, work.expected())
        if journal.plan.kind == "roll_back" or (journal.plan.kind == "promote" and is_begun):
            work.challenger()
        if journal.plan.kind == "roll_back":
            work.mark()
        journal.close("superseded", f"version {plan.version!r} was brought back by {plan.by!r}")

"""A change of who answers, in steps that a kill at any instant cannot leave half done.

    promote             resolve  fetch  warm_up  commit │ champion  traffic  challenger
    roll_back           resolve         traffic  commit │ challenger  mark
    restore    traffic  resolve  fetch  warm_up  commit │ champion  traffic_again

Up to the commit nothing is on record, and a failure ends it; from there on each step may be done
twice, and whoever comes next goes on where the journal (journal.py) stops. An alias moves by
``move_alias`` alone, from the version it is known to name, with its ledger. Where an earlier model
shall answer, the traffic turns first and the books follow.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from data.errors import MatjipError, MoveRefusedError, RegistryError
from serving.registry.aliases import check_move, move_alias
from serving.registry.connection import Registry, locked, reported
from serving.registry.evidence import ROLLED_BACK_TAG, Alias, last_move
from serving.registry.journal import Journal, Kind, Plan, journals, open_journal
from serving.registry.ledger import Checkpoint, pass_by, read_ledger
from serving.registry.versions import download, get_version, resolve

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


class Turn(Protocol):
    """Sends everybody of a deployment to an arm; asked twice, it does so once."""

    def __call__(self, deployment_id: str, arm: str | None, *, by: str, reason: str) -> object:
        """See ``serving.experiments.routes.Routes.turn``."""


@dataclass(frozen=True)
class Tools:
    """What transitions work with.

    Attributes:
        models: folder that keeps fetched models, by their contents.
        turn: turns the traffic; needed where a plan names a deployment.
        warm_up: loads a model folder as the server does, and has it answer once.
        checkpoint: told of every instant between two writes.
    """

    models: Path
    turn: Turn | None = None
    warm_up: Callable[[Path], None] | None = None
    checkpoint: Checkpoint = pass_by


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
        raise _superseded(journal)
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
        _turn(journal.plan, tools)  # also after a kill: somebody may have turned it since
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
        What was completed; its ``end`` says whether it was refused.

    Raises:
        RegistryError: one of them cannot be completed now; it stays for the next call.
        MatjipError: likewise, what ``turn`` says.
    """
    done = []
    for journal in list(journals(registry.state, name)):
        if journal.end is not None or _is_superseded(registry, journal):
            continue
        try:
            _run(registry, journal, tools)
        except MatjipError:
            if journal.end is None:
                raise
        done.append(journal)
    return done


def _run(registry: Registry, journal: Journal, tools: Tools) -> None:
    work = _Work(registry, journal.plan, tools)
    steps = STEPS[journal.plan.kind]
    commit = steps.index("commit")
    if "commit" not in journal.steps:
        for step in steps[:commit]:
            if step in _PREPARING or step not in journal.steps:
                _do(work, journal, step)
    with locked(registry):
        journal.read_again()  # it may have been ended while this process prepared or waited
        if journal.end == "superseded":
            raise _superseded(journal)
        for step in steps[commit:]:
            if step == "champion" and journal.plan.kind == "restore":
                _supersede(registry, journal, tools)
            if step not in journal.steps:
                _do(work, journal, step)
        if journal.end is None:
            journal.close("finished")
    tools.checkpoint("finished")


def _do(work: "_Work", journal: Journal, step: str) -> None:
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


@dataclass
class _Work:
    """The steps of one transition; a method each, under the step's name."""

    registry: Registry
    plan: Plan
    tools: Tools
    folder: Path = field(default_factory=Path)

    def resolve(self) -> None:
        """Look whether it may be done, before anything is fetched."""
        if self.plan.kind == "roll_back":
            self._is_no_champion()
        else:
            now = resolve(self.registry, self.plan.name, "champion")
            if self.plan.kind == "promote" or now is None or now.version != self.plan.version:
                check_move(
                    self.registry,
                    self.plan.name,
                    "champion",
                    self.plan.version,
                    evidence=self.plan.evidence,
                    expected_version=self.expected(),
                )

    def fetch(self) -> None:
        """Pull the version, every hash and the signature checked."""
        version = get_version(self.registry, self.plan.name, self.plan.version)
        self.folder = download(self.registry, version, self.tools.models)

    def warm_up(self) -> None:
        """Have it answer once."""
        if self.tools.warm_up is not None:
            self.tools.warm_up(self.folder)

    def commit(self) -> None:
        """Decide: from here on it is completed, whoever is killed."""

    def champion(self) -> None:
        """Make it the champion, and put that on record."""
        if self.plan.kind == "restore":
            now = resolve(self.registry, self.plan.name, "champion")
            entries = read_ledger(self.registry, self.plan.name)
            last = last_move(entries, "champion")
            is_ours = last is not None and last.evidence == self.plan.evidence
            if now is not None and now.version == self.plan.version and not is_ours:
                return  # what would have replaced it was never carried out
        self.move("champion", self.plan.version, self.expected())

    def traffic(self) -> None:
        """Let it answer everybody."""
        if self.plan.kind == "promote":
            now = resolve(self.registry, self.plan.name, "champion")
            if now is None or now.version != self.plan.version:
                return  # another machine brought the former champion back in the meantime
        _turn(self.plan, self.tools)

    def traffic_again(self) -> None:
        """Turn the traffic once more: a promotion may have turned it before the alias came back."""
        _turn(self.plan, self.tools)

    def challenger(self) -> None:
        """Take the challenger's alias away, unless a newer one has it by now."""
        _end_challenger(self)

    def mark(self) -> None:
        """Mark the version as rolled back, so that no gate makes it challenger again."""
        name, version = self.plan.name, self.plan.version
        with reported(self.registry, f"mark version {version!r} as rolled back"):
            self.registry.client.set_model_version_tag(
                name, version, ROLLED_BACK_TAG, self.plan.evidence.deployment_id or self.plan.by
            )

    def expected(self) -> str | None:
        """The champion that it takes the place of."""
        if self.plan.expected is not None:
            return self.plan.expected
        now = resolve(self.registry, self.plan.name, "champion")
        return None if now is None else now.version

    def _is_no_champion(self) -> None:
        now = resolve(self.registry, self.plan.name, "champion")
        if now is not None and now.version == self.plan.version:
            raise MoveRefusedError(
                f"version {self.plan.version!r} shall be rolled back, but it is the champion: it "
                "was promoted meanwhile; bring the earlier champion back (make rollback)"
            )

    def move(self, alias: Alias, version: str | None, expected: str | None) -> None:
        """Move an alias on this transition's evidence."""
        move_alias(
            self.registry,
            self.plan.name,
            alias,
            version,
            evidence=self.plan.evidence,
            expected_version=expected,
            checkpoint=lambda instant: self.tools.checkpoint(f"{alias}: {instant}"),
        )


def _superseded(journal: Journal) -> MoveRefusedError:
    plan = journal.plan
    return MoveRefusedError(
        f"{plan.kind} of {plan.name!r} version {plan.version!r} is not done any more: "
        f"{journal.reason}; deploy and compare again"
    )


def _turn(plan: Plan, tools: Tools) -> None:
    if plan.deployment_id is None:
        return
    if tools.turn is None:
        raise RegistryError(
            f"{plan.kind} of {plan.name!r} version {plan.version!r} turns the traffic of "
            f"deployment {plan.deployment_id!r}; it needs the store of routes (MATJIP_STORE_URL)"
        )
    tools.turn(plan.deployment_id, plan.arm, by=plan.by, reason=plan.evidence.reason)


def _end_challenger(work: _Work) -> None:
    registry, plan = work.registry, work.plan
    now = resolve(registry, plan.name, "challenger")
    last = last_move(read_ledger(registry, plan.name), "challenger")
    is_ours = last is not None and last.evidence == plan.evidence and last.to_version is None
    if now is None and not (is_ours and last is not None and last.phase == "moving"):
        return
    if now is not None and now.version != plan.version:
        return
    work.move("challenger", None, plan.version)


def _is_superseded(registry: Registry, journal: Journal) -> bool:
    """Whether a later restore, which is not done yet, will put this one to its end."""
    return any(
        later.number > journal.number and later.plan.kind == "restore" and later.end is None
        for later in journals(registry.state, journal.plan.name)
    )


def _supersede(registry: Registry, restore: Journal, tools: Tools) -> None:
    """End what was killed before a restore: on record as far as it came, its traffic left alone."""
    plan = restore.plan
    for journal in list(journals(registry.state, plan.name)):
        if journal.number >= restore.number or journal.end is not None:
            continue
        work = _Work(registry, journal.plan, tools)
        last = last_move(read_ledger(registry, plan.name), "champion")
        is_begun = last is not None and last.evidence == journal.plan.evidence
        if journal.plan.kind != "roll_back" and is_begun:
            work.move("champion", journal.plan.version, work.expected())
        if journal.plan.kind == "roll_back" or (journal.plan.kind == "promote" and is_begun):
            work.challenger()
        if journal.plan.kind == "roll_back":
            work.mark()
        journal.close("superseded", f"version {plan.version!r} was brought back by {plan.by!r}")

"""The steps of a change of who answers, each of which may be done twice.

In: a plan, a registry, and what to turn the traffic and warm models up with. In which order they
are done, and what is written down between them, is transition.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from data.errors import MoveRefusedError, RegistryError
from serving.registry.aliases import check_move, move_alias
from serving.registry.connection import Registry, reported
from serving.registry.evidence import ROLLED_BACK_TAG, Alias, last_move
from serving.registry.journal import Plan
from serving.registry.ledger import Checkpoint, pass_by, read_ledger
from serving.registry.versions import download, get_version, resolve


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


@dataclass
class Work:
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
        if self.plan.kind == "restore" and self._is_champion_still():
            return
        self.move("champion", self.plan.version, self.expected())

    def traffic(self) -> None:
        """Let it answer everybody."""
        if self.plan.kind == "promote":
            now = resolve(self.registry, self.plan.name, "champion")
            if now is None or now.version != self.plan.version:
                return  # another machine brought the former champion back in the meantime
        turn_traffic(self.plan, self.tools)

    def traffic_again(self) -> None:
        """Turn the traffic once more: a promotion may have turned it before the alias came back."""
        turn_traffic(self.plan, self.tools)

    def challenger(self) -> None:
        """Take the challenger's alias away, unless a newer one has it by now."""
        now = resolve(self.registry, self.plan.name, "challenger")
        last = last_move(read_ledger(self.registry, self.plan.name), "challenger")
        is_half_done = last is not None and last.phase == "moving" and last.to_version is None
        is_ours = last is not None and last.evidence == self.plan.evidence
        if now.version == self.plan.version if now is not None else is_half_done and is_ours:
            self.move("challenger", None, self.plan.version)

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

    def _is_champion_still(self) -> bool:
        """Whether it is champion, and on record as such: what would replace it was never done."""
        now = resolve(self.registry, self.plan.name, "champion")
        last = last_move(read_ledger(self.registry, self.plan.name), "champion")
        if now is None or last is None or last.evidence == self.plan.evidence:
            return False
        on_record = last.to_version if last.phase == "moved" else last.from_version
        return now.version == self.plan.version == on_record

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


def turn_traffic(plan: Plan, tools: Tools) -> None:
    """Turn the traffic as a plan says, if it names a deployment.

    Raises:
        RegistryError: there is nothing to turn it with.
        MatjipError: what ``turn`` says.
    """
    if plan.deployment_id is None:
        return
    if tools.turn is None:
        raise RegistryError(
            f"{plan.kind} of {plan.name!r} version {plan.version!r} turns the traffic of "
            f"deployment {plan.deployment_id!r}; it needs the store of routes (MATJIP_STORE_URL)"
        )
    tools.turn(plan.deployment_id, plan.arm, by=plan.by, reason=plan.evidence.reason)

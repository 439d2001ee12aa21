"""`make rollback`: everybody back to the former champion, then the alias, in one command.

The traffic turns before MLflow is imported, which alone takes five seconds: who was champion before
is told by the deployment at work and its route, and by this machine's copy of the ledger. Then the
registry follows, with a person's evidence. Killed anywhere, the next call completes it.

    python -m serving.registry.rollback --by NAME --reason "…" [--model NAME] [--to VERSION]
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import psutil
import typer
from rich.console import Console
from rich.table import Table

from data.errors import MatjipError, RegistryError
from serving.experiments.routes import DeploymentKind, Routes
from serving.registry.connection import Registry, connect, state_folder
from serving.registry.evidence import Evidence, champions, ever_champion, last_move
from serving.registry.journal import Journal, Plan, journals
from serving.registry.ledger import Checkpoint, pass_by, read_ledger, read_local_ledger
from serving.registry.transition import Tools, carry_out, turn_first
from serving.registry.versions import get_version, resolve

KINDS: Final[tuple[DeploymentKind, ...]] = ("sentiment", "language")
_DEFAULT_MODEL: Final = "matjip-sentiment"


@dataclass(frozen=True)
class Wish:
    """What a person asks for.

    Attributes:
        model: the registered model.
        by: who asks.
        reason: why.
        to: which former champion; None for the one before.
    """

    model: str
    by: str
    reason: str
    to: str | None = None


@dataclass(frozen=True)
class AtWork:
    """The deployment at work.

    Attributes:
        deployment_id: 32 hex digits.
        arms: each arm's name and version, the control first.
        evidence: the evidence id of each version.
        everybody: the arm that answers everybody; None where units are dealt.
    """

    deployment_id: str
    arms: dict[str, str]
    evidence: dict[str, str]
    everybody: str | None

    def arm_of(self, version: str) -> str | None:
        """The arm that a version answers as."""
        return next((arm for arm, its in self.arms.items() if its == version), None)


@dataclass(frozen=True)
class RolledBack:
    """What was done.

    Attributes:
        journal: the transition, finished.
        turned_s: seconds until everybody's route was written; None where no traffic turned.
        total_s: seconds until the alias was on record.
    """

    journal: Journal
    turned_s: float | None
    total_s: float


def roll_back(
    wish: Wish,
    *,
    tracking_uri: str,
    store_url: str,
    say: Callable[[str], None],
    checkpoint: Checkpoint = pass_by,
) -> RolledBack:
    """Bring the former champion back: traffic first, then the alias.

    Args:
        wish: what is asked for.
        tracking_uri: MLflow's.
        store_url: the store that the gateway writes.
        say: is told when the traffic has turned, before the registry is asked.
        checkpoint: told of every instant between two writes.

    Raises:
        RegistryError: no earlier champion is known, it may not come back, or MLflow is away.
        ExperimentError: the store cannot be read or written.
    """
    began = time.monotonic()
    state = state_folder(tracking_uri)
    routes = _open_routes(store_url)
    try:
        tools = Tools(
            models=state / "models",
            turn=None if routes is None else routes.turn,
            checkpoint=checkpoint,
        )
        at_work = None if routes is None else _at_work(routes, wish.model)
        plan = _begun(state, wish) or _quick_plan(state, wish, at_work)
        turned_s = None
        if plan is not None and plan.deployment_id is not None:
            turn_first(state, plan, tools)
            turned_s = time.monotonic() - began
            say(f"everybody is sent to {plan.arm!r}, version {plan.version!r}; now the alias")
        registry = connect(tracking_uri)
        if plan is None:
            plan = _plan(registry, wish, at_work)
        journal = carry_out(registry, plan, tools)
        if turned_s is None and plan.deployment_id is not None:
            turned_s = time.monotonic() - began
        return RolledBack(journal, turned_s, time.monotonic() - began)
    finally:
        if routes is not None:
            routes.close()


def _open_routes(store_url: str) -> Routes | None:
    """The store's routes; None where there is no store yet, so that nobody is served from it."""
    database = Path(store_url.removeprefix("sqlite:///"))
    if store_url.startswith("sqlite:///") and not database.is_file():
        return None
    return Routes(store_url)


def _at_work(routes: Routes, model: str) -> AtWork | None:
    for kind in KINDS:
        latest = routes.latest(kind)
        if latest is None:
            continue
        arms: list[dict[str, Any]] = [
            arm for arm in latest.content["arms"] if arm["model_name"] == model
        ]
        if arms:
            route = routes.now(latest.deployment_id)
            return AtWork(
                deployment_id=latest.deployment_id,
                arms={arm["name"]: arm["version"] for arm in arms},
                evidence={arm["version"]: arm["evidence_id"] for arm in arms},
                everybody=None if route is None else route.arm,
            )
    return None


def _begun(state: Path, wish: Wish) -> Plan | None:
    """The plan of a rollback that was killed: a second call completes it, and goes no further."""
    for journal in reversed(list(journals(state, wish.model))):
        plan = journal.plan
        if plan.kind == "restore" and journal.end is None and wish.to in {None, plan.version}:
            return plan
    return None


def _quick_plan(state: Path, wish: Wish, at_work: AtWork | None) -> Plan | None:
    """A plan made without MLflow, where what is at work tells whom to bring back."""
    if at_work is None:
        return None
    control = next(iter(at_work.arms))
    winner = at_work.everybody
    now = at_work.arms.get(winner or "")
    if winner not in {None, control} and now is not None:
        known = [at_work.arms[control], now]
    else:
        known = champions(read_local_ledger(state, wish.model))
    version = wish.to or (known[-2] if len(known) > 1 else None)
    if version is None or at_work.arm_of(version) is None:
        return None
    if version not in {at_work.arms[control], *ever_champion(read_local_ledger(state, wish.model))}:
        return None  # nobody is sent to a version before it is known to have been champion
    if wish.to is None and (at_work.arm_of(known[-1]) is None or version == known[-1]):
        return None  # another machine promoted since this one wrote its copy of the ledger
    expected = None if wish.to is not None else known[-1]
    return _restore(wish, version, expected, at_work.evidence[version], at_work)


def _plan(registry: Registry, wish: Wish, at_work: AtWork | None) -> Plan:
    entries = read_ledger(registry, wish.model)
    known, now = champions(entries), resolve(registry, wish.model, "champion")
    last = last_move(entries, "champion")
    half_done = last.to_version if last is not None and last.phase == "moving" else None
    if now is not None and now.version == half_done:  # killed before it was on record
        known.append(now.version)
    if not known:
        raise RegistryError(
            f"{wish.model!r} never had a champion in {registry.uri!r}; name another --model"
        )
    version = wish.to or (known[-2] if len(known) > 1 else None)
    if version is None:
        raise RegistryError(
            f"{wish.model!r} had no champion before version {known[-1]!r}, so there is none to go "
            "back to; end a challenger with the experiment's roll_back instead"
        )
    if version not in ever_champion(entries):
        raise RegistryError(
            f"version {version!r} of {wish.model!r} was never champion; those that were are "
            f"{sorted(ever_champion(entries))!r}"
        )
    evidence_id = get_version(registry, wish.model, version).tags.get("evidence_id", "")
    expected = None if wish.to is not None else known[-1]
    return _restore(wish, version, expected, evidence_id, at_work)


def _restore(
    wish: Wish, version: str, expected: str | None, evidence_id: str, at_work: AtWork | None
) -> Plan:
    arm = None if at_work is None else at_work.arm_of(version)
    return Plan(
        kind="restore",
        name=wish.model,
        version=version,
        expected=expected,
        evidence=Evidence(
            kind="restore",
            decision="restore",
            evidence_id=evidence_id,
            artifact_digest=f"rollback-{secrets.token_hex(8)}",
            reason=wish.reason,
            by=wish.by,
        ),
        deployment_id=at_work.deployment_id if at_work is not None and arm is not None else None,
        arm=arm,
        by=wish.by,
    )


def _table(done: RolledBack, lead_s: float) -> Table:
    plan = done.journal.plan
    table = Table("what", "now", "after", title=f"{plan.name}: rolled back by {plan.by}")
    if done.turned_s is None:
        table.add_row("traffic", "not turned: no deployment at work has this version", "–")
    else:
        turned = f"{lead_s + done.turned_s:.1f} s"
        table.add_row("traffic", f"{plan.arm}, version {plan.version}", turned)
    total = f"{lead_s + done.total_s:.1f} s"
    table.add_row("champion", f"version {plan.version}, on record", total)
    table.add_row("reason", plan.evidence.reason, "")
    table.add_row("journal", str(done.journal.path), "")
    return table


def main(
    by: Annotated[str, typer.Option(help="Who asks for it; stays on record.")],
    reason: Annotated[str, typer.Option(help="Why; stays on record.")],
    model: Annotated[str, typer.Option(help="The registered model.")] = _DEFAULT_MODEL,
    to: Annotated[
        str | None, typer.Option(help="A former champion's version; the one before without.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="MLflow's address.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(envvar="MATJIP_STORE_URL", help="Address of the gateway's store.")
    ] = None,
    root: Annotated[
        Path, typer.Option("--var", envvar="MATJIP_VAR", help="Where both are without an address.")
    ] = Path("var"),
) -> None:
    """Bring the former champion back: everybody is answered by it at once, then the alias names it.

    Ends with status 0 when both are done; 1 when not, with what is missing; 3 when the alias is
    back and no deployment at work holds that version, so that it takes a new deployment.
    """
    lead_s = time.time() - psutil.Process().create_time()  # imports are part of the wait
    console = Console()
    wish = Wish(model=model.strip(), by=by.strip(), reason=reason.strip(), to=to)
    if not (wish.by and wish.reason):
        raise typer.BadParameter("--by and --reason stay on record; say who and why")
    try:
        done = roll_back(
            wish,
            tracking_uri=tracking_uri or f"sqlite:///{root.resolve() / 'mlflow' / 'mlflow.db'}",
            store_url=store or f"sqlite:///{root.resolve() / 'store.sqlite'}",
            say=lambda line: console.print(line, style="green", highlight=False),
        )
    except MatjipError as error:
        Console(stderr=True).print(f"{type(error).__name__}: {error}", style="red", markup=False)
        raise typer.Exit(1) from error
    console.print(_table(done, lead_s))
    if done.turned_s is None:
        console.print("deploy again (make deploy) and let the gateway take the new deployment")
        raise typer.Exit(3)


if __name__ == "__main__":
    typer.run(main)

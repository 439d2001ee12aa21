"""Kill drills: SIGKILL at every instant of a promotion, a rollback and a return, then recovery.

Nothing comes in; `kill_drills_failed` goes out. A process of its own carries a transition out on a
real MLflow (SQLite, files on disk) and a real store of routes, and kills itself at one of the
instants between two writes. The next one looks, and is killed while it goes on; the last one
recovers, looks, asks for the same once more, and looks again. Every instant has its turn.

Processes are forked from one that has MLflow imported, which alone takes seconds, and SQLite does
not wait for the disk: what a process wrote is with the system, which no signal takes it from.
"""

import json
import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event

from bench.ab_figures import AbFigure
from bench.ab_kill_states import (
    NAME,
    copy_state,
    deployment_in,
    do_not_wait_for_the_disk,
    look,
    prepare,
    registry_in,
    state_of,
    store_in,
    warm_up,
)
from data.errors import RegistryError
from serving.experiments.routes import Routes
from serving.registry.journal import journals
from serving.registry.promotion import Decision, Verdict, promote_model
from serving.registry.rollback import Wish, roll_back
from serving.registry.transition import Tools, recover

_TIMEOUT_S: Final = 120.0
_WORKERS: Final = 2
_KILLED: Final = "killed"
_ANSWER: Final = "answer.json"
Do = Callable[[Path, Callable[[str], None]], None]


@dataclass(frozen=True)
class Drill:
    """A transition that is killed.

    Attributes:
        name: as it is told.
        begins: the state it begins from: ``compared`` or ``promoted``.
        act: carries it out.
        then: what is called after the kill; recovery where it is None.
        champion: the version that is champion when all is done.
        everybody: the arm that answers everybody then.
    """

    name: str
    begins: str
    act: Do
    champion: str
    everybody: str
    then: Do | None = None


Task = tuple[Drill, int, list[str]]
"""A drill, the instant of the kill, and all its instants by name."""


@dataclass(frozen=True)
class Outcome:
    """What the drills found.

    Attributes:
        kills: how many processes were killed.
        failures: what was wrong, one line each.
    """

    kills: int
    failures: tuple[str, ...]


def _judge(decision: Decision) -> Do:
    def act(folder: Path, checkpoint: Callable[[str], None]) -> None:
        registry = registry_in(folder)
        deployment = deployment_in(registry)
        with closing(Routes(store_in(folder))) as routes:
            promote_model(
                registry,
                verdict=Verdict(
                    decision=decision,
                    reason="구간이 그렇다고 한다",
                    deployment_id=deployment.deployment_id,
                    artifact_digest=f"comparison-{decision}",
                ),
                deployment=deployment,
                experiment="drills",
                metrics={},
                artifacts={},
                out=folder / "promotion",
                tools=_tools(folder, routes, checkpoint),
            )

    return act


def _return(folder: Path, checkpoint: Callable[[str], None]) -> None:
    roll_back(
        Wish(model=NAME, by="drill", reason="오답이 늘었다"),
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        store_url=store_in(folder),
        say=lambda _line: None,
        checkpoint=checkpoint,
    )


def _tools(folder: Path, routes: Routes, checkpoint: Callable[[str], None]) -> Tools:
    return Tools(
        models=folder.parent / "fetched", turn=routes.turn, warm_up=warm_up, checkpoint=checkpoint
    )


def _recover(folder: Path, checkpoint: Callable[[str], None]) -> None:
    with closing(Routes(store_in(folder))) as routes:
        recover(registry_in(folder), _tools(folder, routes, checkpoint))


DRILLS: Final = (
    Drill("promote", "compared", _judge("promote"), "2", "challenger"),
    Drill("roll back the challenger", "compared", _judge("roll_back"), "1", "champion"),
    Drill("bring the champion back", "promoted", _return, "1", "champion"),
    Drill("promote, then bring back", "compared", _judge("promote"), "1", "champion", _return),
)


def start(folder: Path, work: Callable[[], Any]) -> ForkProcess:
    """Begin work in a forked process; its answer goes to a file of ``folder``, as JSON."""
    answer = folder / _ANSWER
    answer.unlink(missing_ok=True)

    def run() -> None:
        code = 1
        try:
            answer.write_text(json.dumps(work()))
            code = 0
        except Exception:  # noqa: BLE001  # whatever it is, the process ends here
            traceback.print_exc()
        finally:
            os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def result(
    folder: Path, process: ForkProcess, *, timeout_s: float | None = None
) -> tuple[int, Any]:
    """A process's exit code (negative: the signal that ended it), and its answer if it had one."""
    process.join(timeout_s)
    if process.is_alive():
        process.kill()
        process.join()
        return 1, "it hung"
    answer = folder / _ANSWER
    code = process.exitcode if process.exitcode is not None else 1
    return code, json.loads(answer.read_text()) if answer.exists() else None


def in_process(folder: Path, work: Callable[[], Any]) -> tuple[int, Any]:
    """``start`` and ``result``; one that hangs is ended."""
    return result(folder, start(folder, work), timeout_s=_TIMEOUT_S)


def _killing(at: int | None, seen: list[str]) -> Callable[[str], None]:
    def checkpoint(instant: str) -> None:
        seen.append(instant)
        if at is not None and len(seen) == at + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    return checkpoint


def _act(act: Do, folder: Path, at: int | None) -> list[str]:
    seen: list[str] = []
    act(folder, _killing(at, seen))
    return seen


def _look_and_go_on(drill: Drill, folder: Path, at: int) -> list[str]:
    """Look, then recover or do what is called after the kill, and be killed in the midst of it."""
    if wrong := look(folder, is_done=False):
        return wrong
    if drill.then is not None:
        with suppress(RegistryError):  # the promotion did not count yet: nobody to bring back
            drill.then(folder, _killing(at, []))
    else:
        _recover(folder, _killing(at, []))
    return []


def _finish(drill: Drill, folder: Path) -> list[str]:
    """Recover and look; ask once more for the same, and look again."""
    _recover(folder, _killing(None, []))
    wrong = look(folder, is_done=True)
    expected = [drill.champion, drill.everybody]
    if drill.then is not None:
        if not any(journal.plan.kind == "restore" for journal in journals(folder)):
            return wrong
    elif state_of(folder) != expected or drill.act is not _return:
        drill.act(folder, _killing(None, []))  # another return would go one champion further
        wrong += look(folder, is_done=True)
    if state_of(folder) != expected:
        wrong.append(f"champion and everybody's arm are {state_of(folder)!r}, not {expected!r}")
    return wrong


def _one(drill: Drill, state: Path, folder: Path, at: int, instants: int) -> Iterator[str]:
    """Kill at one instant; yields "killed" for each kill, and what is wrong."""
    copy_state(state, folder)
    code, _ = in_process(folder, lambda: _act(drill.act, folder, at))
    if code != -signal.SIGKILL:
        yield f"it ended with {code}, not by the signal"
        return
    yield _KILLED
    # Whoever goes on is killed too, at an instant that differs from drill to drill.
    code, wrong = in_process(
        folder, lambda: _look_and_go_on(drill, folder, (at * 7 + 3) % instants)
    )
    if code == -signal.SIGKILL:
        yield _KILLED
    elif code:
        yield "it cannot be looked at"
    yield from wrong or []
    code, wrong = in_process(folder, lambda: _finish(drill, folder))
    yield from wrong if code == 0 else ["it cannot be recovered"]


def _share(folder: Path, own: Path, tasks: Sequence[Task]) -> tuple[int, list[str]]:
    kills, failures = 0, []
    for drill, at, instants in tasks:
        for said in _one(drill, folder / drill.begins, own / "drill", at, len(instants)):
            if said == _KILLED:
                kills += 1
            else:
                failures.append(f"{drill.name}, killed at {instants[at]!r}: {said}")
    return kills, failures


def run_drills(
    folder: Path, drills: Sequence[Drill], say: Callable[[str], None], *, every: int = 1
) -> Outcome:
    """Run drills at every instant, or at every so many.

    Args:
        folder: an empty one.
        drills: which.
        say: is told what begins.
        every: of so many instants one.
    """
    event.listen(Engine, "connect", do_not_wait_for_the_disk)
    try:
        (folder / "compared").mkdir()
        # Here, so that every process that is forked has imported all of it.
        prepare(folder / "compared")
        copy_state(folder / "compared", folder / "promoted")
        _judge("promote")(folder / "promoted", _killing(None, []))
        tasks: list[Task] = []
        for number, drill in enumerate(drills):
            own = folder / f"unharmed-{number}"  # MLflow keeps a database open by its path
            copy_state(folder / drill.begins, own)
            instants: list[str] = []
            drill.act(own, _killing(None, instants))
            say(f"kill drills: {drill.name}, {len(instants)} instants")
            tasks += [(drill, at, instants) for at in range(0, len(instants), every)]
        return _shared_out(folder, tasks)
    finally:
        event.remove(Engine, "connect", do_not_wait_for_the_disk)


def _shared_out(folder: Path, tasks: Sequence[Task]) -> Outcome:
    kills, failures = 0, []
    workers = {}
    for number in range(min(_WORKERS, len(tasks))):
        own = folder / f"worker-{number}"
        own.mkdir()
        workers[own] = start(own, partial(_share, folder, own, tasks[number::_WORKERS]))
    for own, process in workers.items():
        code, said = result(own, process)
        if code:
            failures.append(f"a worker of the drills ended with {code}: {said!r}")
        else:
            kills += said[0]
            failures += said[1]
    return Outcome(kills, tuple(failures))


def measure(say: Callable[[str], None]) -> dict[str, AbFigure]:
    """The figure, in about a minute of two cores.

    Args:
        say: is told what begins.
    """
    with tempfile.TemporaryDirectory(prefix="kill-drills-") as folder:
        outcome = run_drills(Path(folder), DRILLS, say)
    for failure in outcome.failures:
        say(failure)
    return {
        "kill_drills_failed": AbFigure(
            value=float(len(outcome.failures)),
            bar="0",
            conditions=(
                f"{outcome.kills} processes killed by SIGKILL, at every instant between two writes "
                f"of: {', '.join(drill.name for drill in DRILLS)}; those that recover are killed "
                "too. MLflow and the store on SQLite. After each kill, and after recovery: one "
                "champion, registered whole, its signature valid; ledger sealed and complete, as "
                "the aliases say; no journal open; everybody sent where they belong"
            ),
            met=not outcome.failures,
        )
    }

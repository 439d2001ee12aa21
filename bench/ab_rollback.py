"""From a breach to the last answer of the challenger, under load, and what became of every request.

A gateway process of its own answers requests at a constant rate, whatever they take. Several times
everybody is turned to the control and dealt again; the slowest turn counts. Nothing may fail or be
lost, and the store must hold every answer that was given.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import sqlalchemy as sa

from bench.ab_figures import AbFigure
from bench.ab_site import CLIENT_CORE, TEXTS, serving, two_arms
from bench.load_client import ANALYZE, LoadPlan
from serving.deployment import Deployment, write_deployment
from serving.experiments.database import open_database
from serving.experiments.routes import Routes
from serving.experiments.tables import exposures

RATE: Final = 200.0
TURNS: Final = 3
DEALT_S: Final = 4.3
"""No multiple of the second by which a gateway asks, so that breaches come at different moments."""
TURNED_S: Final = 4.0
BAR_S: Final = 5.0
_PATIENCE_S: Final = 30.0
_OK: Final = 200


@dataclass(frozen=True)
class Turns:
    """What came of the load.

    Attributes:
        rollback_s: of each turn, from the breach to the last answer by the challenger.
        failed: requests without a right answer, lost ones among them.
        unstored: answers that the store has not.
        sent: requests.
        p99_ms: of their answers.
    """

    rollback_s: tuple[float, ...]
    failed: int
    unstored: int
    sent: int
    p99_ms: float


def measure(say: Callable[[str], None]) -> dict[str, AbFigure]:
    """Measure both figures."""
    folder = Path(__file__).resolve().parent.parent / "var" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ab-rollback-", dir=folder) as made:
        work = Path(made)
        say("two small models")
        deployment = two_arms(work / "models", "rollback")
        path = work / "deployment.json"
        write_deployment(path, deployment)
        url = f"sqlite:///{work / 'store.db'}"
        command = ["-m", "serving.gateway.app", "--deployment", str(path)]
        with serving(command, work, {"MATJIP_STORE_URL": url}) as running:
            say(f"{RATE:g} requests a second, {TURNS} breaches")
            breaches, said = _under_load(running.port, url, deployment, work)
        return figures_of(turns_of(breaches, said, _stored(url)))


def figures_of(turns: Turns) -> dict[str, AbFigure]:
    """The two figures of `make ab-sim`."""
    worst = max(turns.rollback_s)
    lost = turns.failed + turns.unstored
    conditions = (
        f"a gateway process under {RATE:g} requests a second, constant arrival, two tiny models "
        f"dealt half and half; {len(turns.rollback_s)} breaches, each with one route written to "
        "the store, which the gateway asks every second; {}"
    )
    return {
        "rollback_s": AbFigure(
            value=round(worst, 2),
            bar=f"<= {BAR_S:g}",
            conditions=conditions.format(
                "from the breach to the end of the last answer by the challenger, the slowest of "
                + ", ".join(f"{each:.2f}" for each in turns.rollback_s)
            ),
            met=worst <= BAR_S,
        ),
        "rollback_failed_requests": AbFigure(
            value=lost,
            bar="<= 0",
            conditions=conditions.format(
                f"of {turns.sent} requests {turns.failed} failed or were lost, and of the answers "
                f"{turns.unstored} are missing in the store; p99 {turns.p99_ms:.0f} ms"
            ),
            met=lost == 0,
        ),
    }


def turns_of(breaches: Sequence[float], said: Mapping[str, Any], stored: set[str]) -> Turns:
    """What came of the load.

    Args:
        breaches: when each was, in seconds since 1970.
        said: by the client: when it began, totals and replies.
        stored: request ids that the store holds.

    Raises:
        RuntimeError: the challenger answered nobody before a breach, so there was nothing to end.
    """
    replies = said["replies"]
    right = [reply["status"] == _OK and not reply["problem"] for reply in replies]
    ends = [
        said["began_at"] + reply["at_s"] + reply["latency_ms"] / 1e3
        for reply, fine in zip(replies, right, strict=True)
        if fine and reply["arm"] == "challenger"
    ]
    rollback_s = []
    for number, at in enumerate(breaches):
        # Then everybody is dealt again, and the challenger answers of right.
        until = at + TURNED_S
        before = breaches[number - 1] + TURNED_S if number else 0.0
        if not any(before <= end < at for end in ends):
            raise RuntimeError(
                f"the challenger answered nobody before breach {number + 1}; let units be dealt "
                f"longer than DEALT_S={DEALT_S!r}"
            )
        rollback_s.append(max((end - at for end in ends if at <= end < until), default=0.0))
    given = {f"r{number}" for number, fine in enumerate(right) if fine}
    return Turns(
        rollback_s=tuple(rollback_s),
        failed=right.count(False) + said["totals"]["duplicated"],
        unstored=len(given - stored),
        sent=len(replies),
        p99_ms=said["totals"]["p99_ms"],
    )


def _under_load(
    port: int, url: str, deployment: Deployment, work: Path
) -> tuple[list[float], dict[str, Any]]:
    """Breaches while requests come in; when they were, and what the client says."""
    plan = LoadPlan(
        port=port,
        path=ANALYZE,
        prefix="r",
        texts=list(TEXTS),
        rate=RATE,
        seconds=TURNS * (DEALT_S + TURNED_S) + 1.0,
        core=CLIENT_CORE,
    )
    plan_path, out = work / "plan.json", work / "replies.json"
    plan_path.write_text(plan.model_dump_json(), encoding="utf-8")
    routes = Routes(url)
    client = subprocess.Popen([sys.executable, "-m", "bench.load_client", str(plan_path), str(out)])
    breaches = []
    try:
        for _ in range(TURNS):
            time.sleep(DEALT_S)
            breaches.append(time.time())
            routes.turn(deployment.deployment_id, "control", by="bench", reason="a breach")
            time.sleep(TURNED_S)
            routes.turn(deployment.deployment_id, None, by="bench", reason="dealt again")
        client.wait(timeout=plan.seconds + plan.patience_s + _PATIENCE_S)
    finally:
        client.kill()
        client.wait()
        routes.close()
    return breaches, dict(orjson.loads(out.read_bytes()))


def _stored(url: str) -> set[str]:
    engine = open_database(url, must_exist=True)
    with engine.connect() as connection:
        found = set(connection.execute(sa.select(exposures.c.request_id)).scalars())
    engine.dispose()
    return found

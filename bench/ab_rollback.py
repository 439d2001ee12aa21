"""From a breach to the last answer of the challenger, under load, and what became of every request.

A gateway process of its own answers requests at a constant rate, whatever they take, while an A/B
phase is open. Then its challenger becomes slow: the guardrail on the latency must find out, roll
the experiment back, and send everybody to the control. Nothing may fail or be lost, and the store
must hold every answer that was given.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import sqlalchemy as sa

from bench.ab_figures import AbFigure
from bench.ab_site import CLIENT_CORE, TEXTS, serving, two_arms
from bench.ab_slow_gateway import SLOW_S
from bench.load_client import ANALYZE, LoadPlan
from serving.deployment import Deployment, write_deployment
from serving.experiments.catalogue import Catalogue, Served
from serving.experiments.database import open_database
from serving.experiments.lifecycle import Event
from serving.experiments.specification import specification_of
from serving.experiments.tables import exposures

RATE: Final = 200.0
BREACHES: Final = 2
DEALT_S: Final = 4.3
"""So long the challenger answers well; no multiple of the second by which a gateway looks."""
BREACHED_S: Final = 8.0
BAR_S: Final = 5.0
QUANTILE: Final = 0.9
MARGIN_MS: Final = 20.0
"""Of the 90th percentile: it tells of the first slow answers while most are still from before."""
EXPERIMENT: Final = "rollback"
_PATIENCE_S: Final = 30.0
_OK: Final = 200
_AGREED: Final[dict[str, Any]] = {
    "name": EXPERIMENT,
    "hypothesis": "a challenger that becomes slow answers nobody for long",
    "owner": "bench",
    "unit": "user",
    "arms": [
        {"name": "control", "model": "models:/bench/1"},
        {"name": "challenger", "model": "models:/bench/2"},
    ],
    "metrics": {
        "primary": {"name": "sentiment_accuracy", "direction": "increase"},
        "guardrails": [
            {
                "name": "latency_ms",
                "direction": "decrease",
                "margin": MARGIN_MS,
                "quantile": QUANTILE,
            }
        ],
    },
    "phases": [{"kind": "ab", "allocation": {"control": 0.5, "challenger": 0.5}}],
}


@dataclass(frozen=True)
class Rollback:
    """What came of one breach under load.

    Attributes:
        rollback_s: from the breach to the last answer by the challenger.
        failed: requests without a right answer, lost ones and ones answered twice among them.
        unstored: answers that the store has not.
        sent: requests.
        p99_ms: of their answers.
    """

    rollback_s: float
    failed: int
    unstored: int
    sent: int
    p99_ms: float


def measure(say: Callable[[str], None]) -> dict[str, AbFigure]:
    """Measure both figures."""
    folder = Path(__file__).resolve().parent.parent / "var" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="ab-rollback-", dir=folder) as made:
        say("two small models")
        models = two_arms(Path(made) / "models", EXPERIMENT)
        for number in range(1, BREACHES + 1):
            work = Path(made) / str(number)
            work.mkdir()
            say(f"breach {number} of {BREACHES}, {RATE:g} requests a second")
            found.append(_one_breach(models, work))
    return figures_of(found)


def figures_of(found: Sequence[Rollback]) -> dict[str, AbFigure]:
    """The two figures of `make ab-sim`."""
    worst = max(each.rollback_s for each in found)
    lost = sum(each.failed + each.unstored for each in found)
    on_what = (
        f"a gateway process under {RATE:g} requests a second, constant arrival, two tiny models "
        f"half and half in an A/B phase; after {DEALT_S:g} s the challenger takes "
        f"{SLOW_S * 1e3:.0f} ms more, where the guardrail on the {QUANTILE * 100:.0f}th percentile "
        f"allows {MARGIN_MS:g} ms; "
    )
    each_s = ", ".join(f"{each.rollback_s:.2f}" for each in found)
    sent, failed = sum(each.sent for each in found), sum(each.failed for each in found)
    return {
        "rollback_s": AbFigure(
            value=round(worst, 2),
            bar=f"<= {BAR_S:g}",
            conditions=on_what + "from then until the end of the challenger's last answer, the "
            f"slowest of {each_s}",
            met=worst <= BAR_S,
        ),
        "rollback_failed_requests": AbFigure(
            value=lost,
            bar="<= 0",
            conditions=on_what + f"of {sent} requests {failed} failed or were lost, and of the "
            f"answers {lost - failed} are missing in the store; p99 "
            f"{max(each.p99_ms for each in found):.0f} ms",
            met=lost == 0,
        ),
    }


def rollback_of(breach: float, said: Mapping[str, Any], stored: set[str]) -> Rollback:
    """What came of one breach.

    Args:
        breach: when it was, in seconds since 1970.
        said: by the client: when it began, totals and replies.
        stored: request ids that the store holds.

    Raises:
        RuntimeError: the challenger answered nobody before the breach, or to the very end: so
            there is no time of a rollback.
    """
    replies = said["replies"]
    right = [reply["status"] == _OK and not reply["problem"] for reply in replies]
    ends = [
        said["began_at"] + reply["at_s"] + reply["latency_ms"] / 1e3
        for reply, fine in zip(replies, right, strict=True)
        if fine and reply["arm"] == "challenger"
    ]
    if not any(end < breach for end in ends):
        raise RuntimeError("the challenger answered nobody before the breach; let units be dealt")
    if any(reply["arm"] == "challenger" for reply in replies[-round(RATE / 2) :]):
        raise RuntimeError(
            "the challenger answered to the very end, so it was not rolled back; see the gateway's "
            "log for what the guardrail found"
        )
    given = {f"r{number}" for number, fine in enumerate(right) if fine}
    return Rollback(
        rollback_s=max(0.0, max(ends) - breach),
        failed=right.count(False) + said["totals"]["duplicated"],
        unstored=len(given - stored),
        sent=len(replies),
        p99_ms=said["totals"]["p99_ms"],
    )


def _one_breach(models: Deployment, work: Path) -> Rollback:
    url, told, path = f"sqlite:///{work / 'store.db'}", work / "slow", work / "deployment.json"
    write_deployment(path, _started(url, models))
    command = ["-m", "bench.ab_slow_gateway", str(told), "--deployment", str(path)]
    with serving(command, work, {"MATJIP_STORE_URL": url}) as running:
        breach, said = _under_load(running.port, told, work)
    found = rollback_of(breach, said, _stored(url))
    catalogue = Catalogue(url)
    last = catalogue.get(EXPERIMENT).history[-1].event
    catalogue.close()
    if last.action != "roll_back":
        raise RuntimeError(f"the experiment was not rolled back; its last event is {last!r}")
    return found


def _started(url: str, models: Deployment) -> Deployment:
    """The deployment of an experiment's first phase, which is open."""
    catalogue = Catalogue(url)
    agreed = specification_of(_AGREED, where="bench")
    catalogue.put(agreed)
    plan = agreed.plan(agreed.phases[0], version=1, number=1)
    served = models.model_copy(update={"phase": plan})
    content = served.model_dump(mode="json")
    catalogue.record(
        EXPERIMENT,
        Event(action="start", by="bench", reason="to be rolled back"),
        serves=Served("sentiment", served.deployment_id, content),
    )
    catalogue.close()
    return served


def _under_load(port: int, told: Path, work: Path) -> tuple[float, dict[str, Any]]:
    """A breach while requests come in; when it was, and what the client says."""
    plan = LoadPlan(
        port=port,
        path=ANALYZE,
        prefix="r",
        texts=list(TEXTS),
        rate=RATE,
        seconds=DEALT_S + BREACHED_S,
        core=CLIENT_CORE,
    )
    plan_path, out = work / "plan.json", work / "replies.json"
    plan_path.write_text(plan.model_dump_json(), encoding="utf-8")
    client = subprocess.Popen([sys.executable, "-m", "bench.load_client", str(plan_path), str(out)])
    try:
        _wait_for_requests(port)
        time.sleep(DEALT_S)
        breach = time.time()
        told.touch()
        client.wait(timeout=plan.seconds + plan.patience_s + _PATIENCE_S)
    finally:
        client.kill()
        client.wait()
    return breach, dict(orjson.loads(out.read_bytes()))


def _wait_for_requests(port: int) -> None:
    """Return once the client has started, which takes seconds on a busy machine."""
    ends = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends:
        page = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5.0).text
        if f'requests_total{{route="{ANALYZE}"' in page:
            return
        time.sleep(0.05)
    raise RuntimeError(f"no request came within {_PATIENCE_S:g} s; look at the client's output")


def _stored(url: str) -> set[str]:
    engine = open_database(url, must_exist=True)
    with engine.connect() as connection:
        found = set(connection.execute(sa.select(exposures.c.request_id)).scalars())
    engine.dispose()
    return found

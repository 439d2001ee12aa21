"""The running gateway under load that does not wait for it, against the engine alone.

The gateway has one core, the client another. The rate rises step by step; goodput is the highest
rate at which every request is answered and the 99th percentile stays within 300 ms of when the
request was due. The engine alone does the same texts on the same core, tokenising included, before
and after; the better of the two counts. Then comes five times the goodput: nothing may be lost.

    python -m bench.gateway_load OUT.json ENGINE OVERLOAD_SECONDS
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from bench.engines import speed_texts
from bench.gateway_process import RunningGateway, gateway, on_core
from bench.load_client import Arrivals, LoadPlan
from bench.models import embedding_folder
from bench.progress import say
from data.manifest import write_json

LIMIT_MS: Final = 300.0
MAX_BATCH_MS: Final = 140.0
"""A text waits for the batch before its own: two of them, and the way to and fro, are 300 ms."""
TEXTS: Final = 128
STEP_S: Final = 10.0
SHARES: Final = (0.7, 0.8, 0.85, 0.9, 0.95, 1.0)
OVERLOAD: Final = 5.0
MOST_CPU_SHARE: Final = 0.7
MOST_LAG_MS: Final = 50.0
"""Beyond these the client is saturated, and its step says nothing of the gateway."""
GATEWAY_CORE: Final = 0
CLIENT_CORE: Final = 1


def engine_alone(folder: Path, engine: str, texts: Sequence[str], work: Path) -> dict[str, float]:
    """Texts a second of the engine on the gateway's core."""
    path = work / "texts.json"
    path.write_bytes(orjson.dumps(list(texts)))
    with on_core(GATEWAY_CORE):
        said = subprocess.run(
            [sys.executable, "-m", "bench.alone", str(folder), engine, str(path)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ).stdout
    return dict(json.loads(said))


def send(plan: LoadPlan, work: Path) -> dict[str, Any]:
    """Run a client process; totals and replies."""
    plan_path, out = work / "plan.json", work / "replies.json"
    plan_path.write_text(plan.model_dump_json(), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "bench.load_client", str(plan_path), str(out)], check=True
    )
    return dict(orjson.loads(out.read_bytes()))


def is_good(totals: dict[str, Any]) -> bool:
    """Whether everything was answered in time."""
    all_answered = totals["answered"] == totals["sent"] and not totals["wrong"]
    return bool(all_answered and totals["p99_ms"] <= LIMIT_MS)


def is_saturated(totals: dict[str, Any]) -> bool:
    """Whether the client was too busy to say anything of the gateway."""
    return bool(totals["client_cpu_share"] > MOST_CPU_SHARE or totals["lag_p99_ms"] > MOST_LAG_MS)


def recovery_s(replies: Sequence[dict[str, Any]]) -> float | None:
    """When the first request was due from which on all were answered in time; None: never."""
    late = [
        reply["at_s"]
        for reply in replies
        if reply["status"] != 200 or reply["latency_ms"] > LIMIT_MS  # noqa: PLR2004  # HTTP
    ]
    if late and late[-1] == replies[-1]["at_s"]:
        return None
    return float(late[-1]) if late else 0.0


class Bench:
    """The stretches of load, each in a client process of its own."""

    def __init__(self, running: RunningGateway, texts: list[str], work: Path):
        """Bind a gateway and what it is asked."""
        self._running = running
        self._texts = texts
        self._work = work

    def stretch(self, rate: float, seconds: float, arrivals: Arrivals = "constant") -> Any:
        """Totals and replies of one rate, with the gateway's processor time."""
        say(f"{rate:.1f} requests a second for {seconds:.0f} s, {arrivals}")
        before = self._running.cpu_s()
        answer = send(
            LoadPlan(
                port=self._running.port,
                texts=self._texts,
                rate=rate,
                seconds=seconds,
                arrivals=arrivals,
                core=CLIENT_CORE,
            ),
            self._work,
        )
        after = self._running.cpu_s()
        spent = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
        whole, loop = sum(spent.values()), spent.pop(self._running.loop_thread)
        totals = answer["totals"] | {"rate": rate, "arrivals": arrivals, "gateway_cpu_s": whole}
        texts = totals["answered"]
        totals["texts_per_cpu_s"] = texts / whole if whole else None
        totals["loop_ms_per_text"] = 1e3 * loop / texts if texts else None
        totals["engine_ms_per_text"] = 1e3 * max(spent.values()) / texts if texts else None
        return {"totals": totals, "replies": answer["replies"]}

    def climb(self, alone: float) -> list[dict[str, Any]]:
        """Rising rates until two in a row are not good."""
        steps: list[dict[str, Any]] = []
        for share in SHARES:
            totals = self.stretch(share * alone, STEP_S)["totals"] | {"share": share}
            steps.append(totals)
            if len(steps) > 1 and not any(is_good(step) for step in steps[-2:]):
                break
        return steps

    def overload(self, rate: float, seconds: float) -> dict[str, Any]:
        """Five times the rate, then half of it: what was lost, and how soon it recovers."""
        totals = self.stretch(OVERLOAD * rate, seconds)["totals"]
        after = self.stretch(rate / 2, STEP_S)
        return totals | {"recovery_s": recovery_s(after["replies"]), "after": after["totals"]}


def measure_gateway(engine: str, *, overload_s: float) -> dict[str, Any]:
    """Goodput against the engine alone, and what overload does."""
    folder = embedding_folder("electra-base")
    texts = speed_texts(TEXTS)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        before = engine_alone(folder, engine, texts, work)
        with gateway(folder, engine, work, core=GATEWAY_CORE, max_batch_ms=MAX_BATCH_MS) as running:
            bench = Bench(running, texts, work)
            bench.stretch(before["texts_per_s"] / 2, STEP_S / 2)
            steps = bench.climb(before["texts_per_s"])
            good = [step for step in steps if is_good(step) and not is_saturated(step)]
            goodput = max((step["rate"] for step in good), default=0.0)
            rate = goodput or before["texts_per_s"] / 2
            poisson = bench.stretch(0.7 * rate, STEP_S, "poisson")["totals"]
            overload = bench.overload(rate, overload_s) if overload_s > 0 else None
        after = engine_alone(folder, engine, texts, work)
    alone = max(before["texts_per_s"], after["texts_per_s"])
    busiest = max(steps, key=lambda step: step["texts_per_cpu_s"] or 0.0)
    return {
        "engine": engine,
        "limit_ms": LIMIT_MS,
        "alone": [before, after],
        "steps": steps,
        "saturated_steps": [step["rate"] for step in steps if is_saturated(step)],
        "goodput_texts_per_s": goodput,
        "goodput_share": goodput / alone,
        "alone_ms_per_text": 1e3 / max(before["texts_per_cpu_s"], after["texts_per_cpu_s"]),
        "gateway_ms_per_text": 1e3 / busiest["texts_per_cpu_s"],
        "loop_ms_per_text": busiest["loop_ms_per_text"],
        "engine_ms_per_text": busiest["engine_ms_per_text"],
        "poisson": poisson,
        "overload": overload,
    }


def main(out: str, engine: str, overload_s: str) -> None:
    """Measure, and write what was measured."""
    answer = measure_gateway(engine, overload_s=float(overload_s))
    write_json(Path(out), answer)


if __name__ == "__main__":
    main(*sys.argv[1:])

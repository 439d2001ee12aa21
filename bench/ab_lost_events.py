"""A world that goes through the real store, its writer killed again and again: is anything lost?

Nothing comes in; ``events_lost`` goes out. Every exposure and outcome of a small experiment is sent
to a process that writes them as the gateway does (StoreWriter on SQLite) and acknowledges what is
committed. Events come out of order, some twice, some outcomes before their exposure, some are
corrected. The process is killed with SIGKILL while it commits, another takes over, and what was not
acknowledged is sent again. In the end the store must hold each event once, and the units that a
verdict reads must be those of the traffic.

    python -m bench.ab_lost_events URL      the writer: numbers of events in, the committed ones out
"""

import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Final

import numpy as np
import orjson
import sqlalchemy as sa

from bench.ab_archive import HOME, ROOT, deployment
from bench.ab_events import CORRECTED, JITTER_DAYS, TWICE, Sent, events
from bench.ab_figures import AbFigure
from bench.ab_traffic import World, draw
from bench.ab_views import view
from data.errors import ExperimentError
from serving.experiments.database import open_database
from serving.experiments.decision_rule import DecisionRule
from serving.experiments.store import (
    ExperimentStore,
    Exposure,
    Feedback,
    FeedbackResult,
)
from serving.experiments.tables import exposures, outcomes
from serving.experiments.units import UnitOutcomes
from serving.experiments.writer import StoreWriter

WORLD: Final = World("events", units=400, days=7.0, delay_days=0.05, silent=0.02)
KILLS: Final = 5
_SEED: Final = 9
_ALL_DAYS: Final = 1_000.0
_AT_ONCE: Final = 5
_IN_FLIGHT: Final = 8
_TIMEOUT_S: Final = 60.0
_RULE: Final = DecisionRule(metric="reward")


def write(url: str, numbers: Sequence[int], committed: Callable[[list[int]], None]) -> None:
    """Write events as the gateway does, several requests at once.

    Args:
        url: of the store.
        numbers: places in ``events``, in the order in which they come.
        committed: told the places of what is on disk. An outcome before its exposure is not: it
            is sent again after all others.

    Raises:
        ExperimentError: outcomes are left whose exposure never comes, or the store refused.
    """
    stream = events(draw(WORLD, _SEED), _SEED)
    store = ExperimentStore(url)
    writer = StoreWriter(store, max_waiting=_IN_FLIGHT + 1)
    try:
        left = list(numbers)
        while left:
            early = list(_written(writer, stream, left, committed))
            if len(early) == len(left):
                raise ExperimentError(f"{len(left)!r} outcomes have no exposure; send those first")
            left = early
    finally:
        writer.close(_TIMEOUT_S)
        store.close()


def _written(
    writer: StoreWriter,
    stream: Sequence[Sent],
    numbers: Sequence[int],
    committed: Callable[[list[int]], None],
) -> Iterator[int]:
    """Write these events; gives back outcomes that came before their exposure."""
    flying: deque[tuple[list[int], list[int], Future[list[FeedbackResult]]]] = deque()
    for start in range(0, len(numbers) + _IN_FLIGHT * _AT_ONCE, _AT_ONCE):
        some = numbers[start : start + _AT_ONCE]
        if some:
            shown = [n for n in some if isinstance(stream[n].event, Exposure)]
            said = [n for n in some if isinstance(stream[n].event, Feedback)]
            done = writer.submit(
                [e for n in shown if isinstance(e := stream[n].event, Exposure)],
                [e for n in said if isinstance(e := stream[n].event, Feedback)],
            )
            flying.append((shown, said, done))
        if flying and (len(flying) >= _IN_FLIGHT or not some):
            shown, said, done = flying.popleft()
            results = dict(zip(said, done.result(timeout=_TIMEOUT_S), strict=True))
            early = [n for n, result in results.items() if result == "unknown"]
            committed(shown + [n for n in said if n not in early])
            yield from early


def stored(url: str) -> dict[str, list[str]]:
    """The event ids of both tables."""
    engine = open_database(url)
    try:
        with engine.connect() as connection:
            return {
                table.name: list(connection.execute(sa.select(table.c.event_id)).scalars())
                for table in (exposures, outcomes)
            }
    finally:
        engine.dispose()


def lost(url: str, expected: Sequence[Sent]) -> int:
    """How many of these events the store lacks."""
    held = {(table, one) for table, ids in stored(url).items() for one in ids}
    return len({(one.table, one.event_id) for one in expected} - held)


def send_and_kill(url: str, stream: Sequence[Sent], kills: int) -> tuple[int, int]:
    """Send everything, killing the writer on the way.

    Args:
        url: of the store.
        stream: from ``events``.
        kills: SIGKILLs, spread over the stream.

    Returns:
        Acknowledged events that the store lacked after some kill; kills that were made.

    Raises:
        RuntimeError: a writer ended by itself with an error.
    """
    acknowledged: set[int] = set()
    missing = made = 0
    for killing in range(1, kills + 2):
        enough = len(stream) * killing // (kills + 1)
        waiting = [number for number in range(len(stream)) if number not in acknowledged]
        with subprocess.Popen(
            [sys.executable, "-m", "bench.ab_lost_events", url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write(orjson.dumps(waiting))
            process.stdin.close()
            for line in process.stdout:
                acknowledged.update(orjson.loads(line))
                if killing <= kills and len(acknowledged) >= enough:
                    process.kill()
                    acknowledged.update(_whole_lines(process.stdout))
                    break
        made += process.returncode == -signal.SIGKILL
        if process.returncode not in {0, -signal.SIGKILL}:
            raise RuntimeError(f"the writer ended with status {process.returncode!r}")
        missing += lost(url, [stream[number] for number in acknowledged])
    return missing, made


def _whole_lines(out: IO[bytes]) -> list[int]:
    """What was acknowledged before the kill and not read yet; a torn last line is none."""
    lines = [line for line in out if line.endswith(b"\n")]
    return [number for line in lines for number in orjson.loads(line)]


def same_units(found: UnitOutcomes, expected: UnitOutcomes) -> bool:
    """Whether a verdict would read the same."""
    columns = [
        (one.unit, one.met("challenger"), one.exposures, one.outcomes) for one in (found, expected)
    ]
    return all(map(np.array_equal, *columns)) and np.allclose(
        found.reward, expected.reward, rtol=1e-12, equal_nan=True
    )


def measure(say: Callable[[str], None], *, kills: int = KILLS) -> dict[str, AbFigure]:
    """The figure ``events_lost``.

    Args:
        say: told how far it is.
        kills: of the writer.
    """
    traffic = draw(WORLD, _SEED)
    stream = events(traffic, _SEED)
    HOME.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=HOME) as folder:
        url = f"sqlite:///{Path(folder) / 'events.db'}"
        say(f"{len(stream):,} events are sent to a writer that is killed {kills} times")
        missing, made = send_and_kill(url, stream, kills)
        missing += lost(url, stream)
        held = stored(url)
        store = ExperimentStore(url)
        try:
            units = store.exposures_with_outcomes(
                deployment().experiment_id, deployment().deployment_id
            )
        finally:
            store.close()
    distinct = len({(one.table, one.event_id) for one in stream})
    surplus = sum(map(len, held.values())) - (distinct - missing)
    same = same_units(units, view(traffic, _ALL_DAYS, _RULE).units)
    return {
        "events_lost": AbFigure(
            float(missing),
            "0",
            f"{len(held['exposures']):,} exposures and {len(held['outcomes']):,} outcomes of "
            f"{len(traffic.on)} users, sent as {len(stream):,} events to StoreWriter on SQLite: up "
            f"to {24 * JITTER_DAYS:g} h out of order, {TWICE:.0%} twice, {CORRECTED:.0%} "
            f"corrected; the writer killed by SIGKILL {made} times, each time all that it had "
            f"acknowledged was looked for; rows too many: {surplus}; the units of a verdict "
            f"{'are' if same else 'are not'} those of the traffic",
            met=missing == 0 and surplus == 0 and same and made == kills,
        )
    }


def main() -> None:
    """Write the events whose numbers come in on standard input; print what is committed."""

    def committed(numbers: list[int]) -> None:
        print(orjson.dumps(numbers).decode(), flush=True)

    write(sys.argv[1], orjson.loads(sys.stdin.buffer.read()), committed)


if __name__ == "__main__":
    main()

"""One experiment's traffic as the events that reach the store: out of order, twice, corrected.

Traffic comes in; what a gateway would write of it goes out, in the order in which it comes: each
answer's exposure and its outcome, and of some outcomes a first word that was taken back.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from bench.ab_archive import deployment
from bench.ab_traffic import Traffic
from serving.experiments.hashes import hex_of
from serving.experiments.store import Exposure, Feedback, exposure_event_id

TWICE: Final = 0.1
CORRECTED: Final = 0.1
JITTER_DAYS: Final = 0.2
_DAY_US: Final = 86_400_000_000
_START_US: Final = 1_790_000_000_000_000


@dataclass(frozen=True)
class Sent:
    """One event as it arrives.

    Attributes:
        table: where it belongs.
        event_id: its row's.
        event: what is written.
    """

    table: str
    event_id: str
    event: Exposure | Feedback


def events(traffic: Traffic, seed: int) -> list[Sent]:
    """Every event of an experiment in the order in which they come, those sent twice twice."""
    random = np.random.default_rng(seed)
    answers = len(traffic.unit)
    came = [(at, _exposure(traffic, number)) for number, at in enumerate(traffic.at.tolist())]
    corrected = random.random(answers) < CORRECTED
    for number in np.flatnonzero(np.isfinite(traffic.known_at)).tolist():
        at, right = float(traffic.known_at[number]), float(traffic.right[number])
        came.append((at, _outcome(number, "last", at, right)))
        if corrected[number]:
            # Said an hour before the last word, and heard at any time.
            came.append((at, _outcome(number, "first", at - 1 / 24, 1.0 - right)))
    twice = random.random(len(came)) < TWICE
    came += [event for event, again in zip(came, twice.tolist(), strict=True) if again]
    late = np.asarray([at for at, _ in came]) + random.random(len(came)) * JITTER_DAYS
    return [came[place][1] for place in np.argsort(late, kind="stable").tolist()]


def _exposure(traffic: Traffic, number: int) -> Sent:
    unit = int(traffic.unit[number])
    arm = deployment().arms[int(traffic.on[unit])]
    exposure = Exposure(
        request_id=f"request-{number}",
        item=0,
        experiment_id=deployment().experiment_id,
        deployment_id=deployment().deployment_id,
        unit=hex_of(traffic.unit_id[unit : unit + 1])[0],
        arm=arm.name,
        model_version=f"{arm.model_name}/{arm.version}",
        text_sha256=hashlib.sha256(f"국물이 진해요 {number}".encode()).hexdigest(),
        prediction=orjson.dumps({"sentiment": {"label": "positive"}}),
        latency_ms=float(traffic.latency_ms[number]),
        created_at_us=_us(float(traffic.at[number])),
    )
    return Sent("exposures", exposure_event_id(exposure.request_id, 0), exposure)


def _outcome(number: int, which: str, day: float, reward: float) -> Sent:
    event_id = f"{which}-{number}"
    return Sent(
        "outcomes",
        event_id,
        Feedback(f"request-{number}", 0, _us(day), event_id=event_id, reward=reward),
    )


def _us(day: float) -> int:
    return _START_US + round(day * _DAY_US)

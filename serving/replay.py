"""Replays labelled reviews through a running gateway, and sends their true sentiment as feedback.

It is a replay, not traffic: N held-out reviews are drawn with replacement, each draw as a unit of
its own, so that observations are independent. An interval computed from it is about the models'
difference on those N reviews, not about diners. Every id follows from the deployment, the reviews
and the seed, so that a second replay adds nothing to the store.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict
from tenacity import AsyncRetrying, retry_if_result, stop_after_attempt, wait_exponential_jitter

from data.contract import LabelledReview, Sentiment
from data.errors import ExperimentError
from data.manifest import canonical_digest

_TRY_AGAIN: Final = frozenset({429, 503})
_ATTEMPTS: Final = 8
_PAUSE_S: Final = 0.05
_JSON: Final = {"Content-Type": "application/json"}


class ReplayResult(BaseModel):
    """What a replay sent and what came back.

    ``latency_ms`` runs from the moment a request was due (with a rate) or was sent (without) until
    its answer, so a gateway that falls behind shows it.
    """

    model_config = ConfigDict(frozen=True)

    note: str
    replay_id: str
    held_out_reviews: int
    requests: int
    answered: int
    outcomes_stored: int
    outcomes_known: int
    retries: int
    errors: dict[str, int]
    seconds: float
    requests_per_s: float
    latency_ms: dict[str, float]


@dataclass
class _Tally:
    """What has happened so far."""

    answered: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    latency_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Draw:
    request_id: str
    body: bytes
    sentiment: Sentiment


def replay(
    base_url: str,
    reviews: Sequence[LabelledReview],
    *,
    requests: int,
    seed: int,
    concurrency: int = 16,
    rate_per_s: float | None = None,
    timeout_s: float = 30.0,
) -> ReplayResult:
    """Send ``requests`` draws and their feedback; see the module for what the result means.

    Args:
        base_url: of a gateway that is ready.
        reviews: held-out reviews; those without a sentiment are left out.
        requests: draws, one review each.
        seed: of the draws.
        concurrency: requests under way at once.
        rate_per_s: requests that fall due each second; None sends as fast as answers come.
        timeout_s: for one answer.

    Raises:
        ExperimentError: no review has a sentiment, or the gateway is not ready.
    """
    if requests < 1 or concurrency < 1 or (rate_per_s is not None and rate_per_s <= 0):
        raise ExperimentError(
            f"requests={requests!r}, concurrency={concurrency!r}, rate_per_s={rate_per_s!r}: each "
            "must be above 0"
        )
    return asyncio.run(
        _replay(
            base_url,
            reviews,
            requests=requests,
            seed=seed,
            concurrency=concurrency,
            rate_per_s=rate_per_s,
            timeout_s=timeout_s,
        )
    )


async def _replay(
    base_url: str,
    reviews: Sequence[LabelledReview],
    *,
    requests: int,
    seed: int,
    concurrency: int,
    rate_per_s: float | None,
    timeout_s: float,
) -> ReplayResult:
    labelled = [row for row in reviews if row.label.sentiment is not None]
    if not labelled:
        raise ExperimentError(
            f"none of {len(reviews)} reviews has a true sentiment to send; pass labelled reviews"
        )
    tally = _Tally()
    # A connection of its own for each worker: httpx's pool looks through all its connections at
    # every request, which at 16 of them costs more than the request.
    secure = ssl.create_default_context()
    one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with AsyncExitStack() as opened:
        clients = [
            await opened.enter_async_context(
                httpx.AsyncClient(
                    base_url=base_url, limits=one, timeout=timeout_s, trust_env=False, verify=secure
                )
            )
            for _ in range(min(concurrency, requests))
        ]
        deployment_id = await _deployment_id(clients[0])
        ids = [row.review.review_id for row in labelled]
        replay_id = canonical_digest([deployment_id, seed, ids])[:16]
        draws = _draws(labelled, requests, seed, replay_id)
        started = time.perf_counter()
        await asyncio.gather(
            *(_work(client, draws, tally, started, rate_per_s) for client in clients)
        )
        seconds = time.perf_counter() - started
    p50, p95, p99 = np.percentile(tally.latency_ms or [float("nan")], [50, 95, 99]).tolist()
    return ReplayResult(
        note=(
            f"A replay of {len(labelled)} held-out labelled reviews, {requests} draws with "
            "replacement, one unit each. The interval is about these reviews, not about diners."
        ),
        replay_id=replay_id,
        held_out_reviews=len(labelled),
        requests=requests,
        answered=tally.answered,
        outcomes_stored=tally.outcomes["stored"],
        outcomes_known=tally.outcomes["duplicate"],
        retries=tally.retries,
        errors=dict(sorted(tally.errors.items())),
        seconds=seconds,
        requests_per_s=requests / seconds,
        latency_ms={"p50": p50, "p95": p95, "p99": p99},
    )


async def _deployment_id(client: httpx.AsyncClient) -> str:
    try:
        answer = await client.get("/ready")
        state = answer.json()
    except (httpx.TransportError, ValueError) as error:
        raise ExperimentError(
            f"no gateway answers at {str(client.base_url)!r} ({type(error).__name__}); start one: "
            "make serve"
        ) from error
    if not state.get("ready"):
        raise ExperimentError(
            f"the gateway at {str(client.base_url)!r} is not ready: {state.get('reasons')!r}"
        )
    return str(state["deployment_id"])


def _draws(
    labelled: Sequence[LabelledReview], requests: int, seed: int, replay_id: str
) -> "enumerate[_Draw]":
    random = np.random.default_rng(seed)
    drawn = random.integers(len(labelled), size=requests).tolist()

    def draw(number: int, row: LabelledReview) -> _Draw:
        request_id = f"replay-{replay_id}-{number}"
        review = {"review_id": row.review.review_id, "text": row.review.text, "unit": request_id}
        sentiment = row.label.sentiment
        if sentiment is None:
            raise ExperimentError(f"review {row.review.review_id!r} has no sentiment; label it")
        return _Draw(request_id, orjson.dumps({"reviews": [review]}), sentiment)

    return enumerate(draw(number, labelled[index]) for number, index in enumerate(drawn))


async def _work(
    client: httpx.AsyncClient,
    draws: "enumerate[_Draw]",
    tally: _Tally,
    started: float,
    rate_per_s: float | None,
) -> None:
    """One of several workers that share the draws."""
    for number, draw in draws:
        due = time.perf_counter()
        if rate_per_s is not None:
            due = started + number / rate_per_s
            await asyncio.sleep(max(due - time.perf_counter(), 0.0))
        headers = _JSON | {"X-Request-Id": draw.request_id}
        answer = await _post(client, tally, "/v1/analyze", draw.body, headers)
        if answer is None:
            continue
        tally.latency_ms.append((time.perf_counter() - due) * 1000)
        result = answer["results"][0]
        if result["status"] != "ok":
            tally.errors[result["error"]["code"]] += 1
            continue
        tally.answered += 1
        said = {"request_id": draw.request_id, "item": 0, "sentiment": draw.sentiment}
        taken = await _post(client, tally, "/v1/feedback", orjson.dumps(said), _JSON)
        if taken is not None:
            tally.outcomes[taken["status"]] += 1


async def _post(
    client: httpx.AsyncClient, tally: _Tally, path: str, body: bytes, headers: dict[str, str]
) -> dict[str, Any] | None:
    """The answer's JSON; None where it is an error, which is then counted."""

    async def send() -> httpx.Response | None:
        try:
            return await client.post(path, content=body, headers=headers)
        except httpx.TransportError:
            return None

    def again(answer: httpx.Response | None) -> bool:
        return answer is None or answer.status_code in _TRY_AGAIN

    answer = await send()
    if again(answer):  # tenacity costs as much as a request, so it is kept for the rare case
        retrying = AsyncRetrying(
            retry=retry_if_result(again),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=0.05, max=2.0),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        await asyncio.sleep(_PAUSE_S)
        answer = await retrying(send)
        tally.retries += int(retrying.statistics["attempt_number"])
    if answer is None:
        tally.errors["unreachable"] += 1
        return None
    parsed: dict[str, Any] = orjson.loads(answer.content)
    if answer.status_code != httpx.codes.OK:
        tally.errors[str(parsed["error"]["code"])] += 1
        return None
    return parsed

"""One held-out restaurant, asked for its summary through the real gateway over HTTP."""

from pathlib import Path
from typing import Any, Final

import httpx

from data.errors import EngineError
from data.manifest import read_labelled_reviews
from pipelines.traffic import gateway
from serving.registry.language_deploy import DEPLOYMENT_NAME

_TIMEOUT_S: Final = 120.0


def ask_summary(deployment: Path, split: Path, store_url: str, log: Path) -> dict[str, Any]:
    """Serve a language deployment and ask for the first restaurant of the test part.

    Args:
        deployment: folder of the language deployment.
        split: whose test part is asked about.
        store_url: where the gateway records what it answered.
        log: of the gateway.

    Returns:
        The gateway's answer.

    Raises:
        EngineError: the gateway does not become ready, or refuses.
    """
    rows = list(read_labelled_reviews(split / "test.jsonl"))
    name = next(row.review.restaurant_id for row in rows if row.review.restaurant_id)
    reviews = [row.review for row in rows if row.review.restaurant_id == name]
    asked = {
        "restaurant_id": name,
        "reviews": [{"review_id": each.review_id, "text": each.text} for each in reviews],
    }
    options = ["--language-deployment", str(deployment / DEPLOYMENT_NAME)]
    with gateway(options, store_url, log) as url:
        answer = httpx.post(f"{url}/v1/summary", json=asked, timeout=_TIMEOUT_S)
    if answer.status_code != httpx.codes.OK:
        raise EngineError(f"the gateway refused a summary: {answer.status_code} {answer.text}")
    found: dict[str, Any] = answer.json()
    return found

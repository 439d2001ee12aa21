"""Three gateways of the same models in one process: one neither deals nor stores, two do both.

    python -m bench.ab_overhead_gateway DEPLOYMENT WORK PORT

They listen on PORT and the two after it: bare, journaled, committed. Sharing the process, they meet
the same garbage collector, threads and neighbours.
"""

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import uvicorn
from fastapi import FastAPI

from data.privacy import mask_text
from serving.deployment import Deployment, read_deployment
from serving.gateway import parts
from serving.gateway.answering import Gateway
from serving.gateway.app import create_app
from serving.gateway.items import Item, read_items
from serving.gateway.schemas import ItemError, read_item
from serving.gateway.settings import ServingSettings, read_settings

MODES: Final = ("bare", "journaled", "committed")


class BareGateway(Gateway):
    """Checks, masks and answers as the gateway does; deals no units, and stores nothing."""

    def _items(self, body: object, request_id: str, deployment: Deployment) -> list[Item]:
        items = []
        for raw, _ in read_items(body, request_id, max_reviews=self._settings.max_reviews):
            review = read_item(raw)
            assert not isinstance(review, ItemError), "a measurement sends reviews that are right"
            text = self._mask(review.text)
            items.append(Item(review.review_id, text=text, arm=deployment.control))
        return items

    async def _commit(self, items: Iterable[tuple[int, Item]], *_: object, **__: object) -> None:
        pass


def app_of(mode: str, deployment: Deployment, work: Path) -> FastAPI:
    """The gateway of one mode, with a store of its own."""
    given: ServingSettings = read_settings(
        {
            "MATJIP_STORE_URL": f"sqlite:///{work / mode}.db",
            "MATJIP_STORE_ACK": "journaled" if mode == "journaled" else "committed",
            "MATJIP_JOURNAL_FOLDER": str(work / "journal"),
            "MATJIP_WORKERS": "1",
            "MATJIP_ENGINE": "plain",
            "MATJIP_MAX_WAIT_MS": "0",
        }
    )
    whole = parts.Gateway
    if mode == "bare":
        parts.Gateway = BareGateway  # type: ignore[misc]
    try:
        return create_app(given, deployment, mask=lambda text: mask_text(text)[0])
    finally:
        parts.Gateway = whole  # type: ignore[misc]


async def main(deployment_path: Path, work: Path, port: int) -> None:
    """Serve until killed."""
    deployment = read_deployment(deployment_path)
    servers = [
        uvicorn.Server(
            uvicorn.Config(
                app_of(mode, deployment, work),
                host="127.0.0.1",
                port=port + place,
                access_log=False,
                log_level="warning",
            )
        )
        for place, mode in enumerate(MODES)
    ]
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))

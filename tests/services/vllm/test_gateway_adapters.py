"""The gateway before one vLLM whose two adapters are its arms: side by side, swapped, and gone."""

import asyncio
import runpy
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from serving.engines.vllm_server import VllmServerEngine

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
talk: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gateway_talk.py"))))
CHAT, REVIEWS = talk.CHAT, talk.REVIEWS
ask, summary_of, text_of = talk.ask, talk.summary_of, talk.text_of
errors, obeys = talk.errors, talk.obeys


@pytest.fixture(scope="module")
def with_adapters(start_vllm: Any, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("adapters")
    lora = {"max_loras": 2, "max_lora_rank": 8, "hot_swap": True}
    options = [*talk.settings(folder, lora=lora), "--adapter", f"first={folders / 'first'}"]
    options += ["--adapter", f"second={folders / 'second'}"]
    return start_vllm(folders / "base", folder, *options)


@pytest.fixture(scope="module")
def two(fakes: Any, with_adapters: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway whose arms are two adapters on one base."""
    arms = [(with_adapters.url, name, 600) for name in ("first", "second")]
    with talk.open_site(fakes, tmp_path_factory.mktemp("two"), arms) as opened:
        yield opened


def test_two_adapters_answer_side_by_side(two: Any) -> None:
    assert two.come_to("up", "up")
    answers = {arm: two.chat(ask(REVIEWS[1]), arm) for arm in ("champion", "challenger")}
    for arm, answer in answers.items():
        assert answer.headers["X-Matjip-Arm"] == arm
        assert obeys(text_of(answer), REVIEWS[1])
        said = two.summary(REVIEWS, arm)
        assert (said.arm, said.model.name) == (arm, f"후기-{arm}")
        assert "not read" not in "".join(said.reasons)
    free = [text_of(two.chat(ask(REVIEWS[1], free=True, max_tokens=24), arm)) for arm in answers]
    assert free[0] != free[1]


def test_an_adapter_is_swapped_while_requests_run(
    two: Any, with_adapters: Any, folders: Path
) -> None:
    body = ask(REVIEWS[0], free=True, max_tokens=24)
    second = text_of(two.chat(body, "challenger"))
    assert text_of(two.chat(body)) != second

    async def scene() -> tuple[list[httpx.Response], list[httpx.Response]]:
        manager, swapped = VllmServerEngine(with_adapters.url, "matjip"), asyncio.Event()

        async def call(path: str, said: dict[str, Any]) -> list[httpx.Response]:
            """Again and again, until the adapter is another one, however fast the machine is."""
            answers = []
            while not swapped.is_set():
                answers.append(await client.post(path, json=said))
            return answers

        async with httpx.AsyncClient(base_url=two.client.base_url, timeout=100) as client:
            chats = [call(CHAT, ask(REVIEWS[n % 4], user=f"u{n}")) for n in range(24)]
            summaries = [call("/v1/summary", summary_of(REVIEWS[:2], f"s{n}")) for n in range(4)]
            waiting = asyncio.gather(*chats, *summaries)
            while await with_adapters.running(client) < 16:
                await asyncio.sleep(0.02)
            await manager.load_adapter("first", folders / "second")
            swapped.set()
            said = await waiting
        await manager.aclose()
        return list(chain(*said[:24])), list(chain(*said[24:]))

    chats, summaries = asyncio.run(scene())
    assert (len(chats) >= 24, len(summaries) >= 4) == (True, True)
    assert errors([*chats, *summaries]) == [], with_adapters.last_words()
    assert not [each for each in summaries if "not read" in "".join(each.json()["reasons"])]
    assert text_of(two.chat(body)) == second


def test_an_adapter_that_is_gone_is_its_own_arms_matter(
    two: Any, with_adapters: Any, folders: Path
) -> None:
    async def manage(*, load: bool) -> None:
        manager = VllmServerEngine(with_adapters.url, "matjip")
        if load:
            await manager.load_adapter("second", folders / "second")
        else:
            await manager.unload_adapter("second")
        await manager.aclose()

    asyncio.run(manage(load=False))
    assert two.come_to("up", "model_missing")
    gone = two.chat(ask(REVIEWS[0]), "challenger")
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "upstream_failed")
    assert "does not exist" in two.summary(REVIEWS, "challenger").reasons[0]
    assert obeys(text_of(two.chat(ask(REVIEWS[0]))), REVIEWS[0])
    asyncio.run(manage(load=True))
    assert two.come_to("up", "up")
    assert obeys(text_of(two.chat(ask(REVIEWS[0]), "challenger")), REVIEWS[0])

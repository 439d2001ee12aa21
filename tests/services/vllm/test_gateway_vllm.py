"""The gateway's own process before the real vLLM: an INT8 model that answers, dies and comes back.

What the model says is nonsense, see test_vllm.py; here every answer comes through the gateway. It
lives through vLLM's death; its challenger is asked through a relay that keeps what is sent.
"""

import asyncio
import json
import runpy
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from data.clauses import split_clauses
from data.prompts import TASKS, escaped, labels_prompt, prompt_version
from serving.gateway.language_schemas import UNIT_HEADER, SummaryOut

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
talk: Any = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("gateway_talk.py"))))
CHAT, REVIEWS, COMMANDS = talk.CHAT, talk.REVIEWS, talk.COMMANDS
ask, endless, summary_of, text_of = talk.ask, talk.endless, talk.summary_of, talk.text_of
errors, obeys = talk.errors, talk.obeys
GONE = ("broke off", "cannot be reached", "left alone")


@pytest.fixture(scope="module")
def int8(start_vllm: Any, folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("int8")
    return start_vllm(folders / "int8", folder, *talk.settings(folder))


@pytest.fixture(scope="module")
def site(fakes: Any, int8: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A gateway that lives through vLLM's death."""
    relay = fakes.Relay(int8.url)
    with fakes.serve(relay.app) as url:
        arms = [(int8.url, "matjip", 600), (url, "matjip", 500)]
        with talk.open_site(fakes, tmp_path_factory.mktemp("site"), arms, relay=relay) as opened:
            yield opened


def test_a_summary_rests_on_words_of_the_reviews(site: Any) -> None:
    for arm in ("champion", "challenger"):
        said = site.summary(REVIEWS, arm)
        assert (said.arm, said.model.name, said.model.version) == (arm, f"후기-{arm}", "3")
        assert said.deployment_id == site.deployment.deployment_id
        assert said.prompts == {task: prompt_version(task) for task in TASKS}
        assert said.status in {"ok", "degraded"}
        assert bool(said.reasons) == (said.status == "degraded")
        assert said.summary is not None
        assert said.strengths is not None
        assert min(said.tokens.prompt, said.tokens.completion) > 100
        bullets = [bullet for part in said.summary.aspects.values() for bullet in part.bullets]
        cited = [
            each for one in (*bullets, *said.strengths.representative) for each in one.evidence
        ]
        assert bullets
        for citation in cited:
            assert citation.span in REVIEWS[int(citation.review_id.removeprefix("r"))]


def test_a_unit_stays_with_its_arm(site: Any) -> None:
    assert site.come_to("up", "up")
    body = ask(REVIEWS[0], max_tokens=1)
    met = set()
    for unit in [f"손님-{number}" for number in range(12)] * 2:
        by_header = site.client.post(CHAT, json=body, headers={UNIT_HEADER: unit.encode()})
        by_user = site.client.post(CHAT, json=body | {"user": unit})
        seen = {answer.headers["X-Matjip-Arm"] for answer in (by_header, by_user)}
        assert seen == {site.arm(unit)}
        met |= seen
    assert met == {"champion", "challenger"}


def test_what_vllm_says_is_passed_on_whole(site: Any, int8: Any) -> None:
    body = ask(REVIEWS[1]) | {"model": "whatever the caller calls it"}
    answer = site.chat(body)
    assert answer.headers["X-Matjip-Model"].endswith("-champion/3")
    direct = httpx.post(f"{int8.url}{CHAT}", json=body | {"model": "matjip"}, timeout=60).json()
    said = answer.json()
    assert said["choices"][0]["message"] == direct["choices"][0]["message"]
    assert said["usage"] == direct["usage"]
    going_on = site.client.post(
        "/v1/completions", json={"prompt": "국물이 진하고", "max_tokens": 5, "temperature": 0}
    )
    assert going_on.json()["usage"]["completion_tokens"] == 5


def test_an_answer_is_really_constrained(site: Any) -> None:
    for review in REVIEWS:
        assert obeys(text_of(site.chat(ask(review))), review)
        with pytest.raises(json.JSONDecodeError):
            json.loads(text_of(site.chat(ask(review, free=True, max_tokens=20))))
    # Nothing but the mask could make a random model say this.
    only = "곱창전골 2인분, 사리 추가"
    form = {"type": "json_schema", "json_schema": {"name": "one", "schema": {"enum": [only]}}}
    assert json.loads(text_of(site.chat(ask(REVIEWS[0], response_format=form)))) == only
    chosen = ask(REVIEWS[0], free=True, structured_outputs={"choice": [only]})
    assert text_of(site.chat(chosen)) == only
    ignored = site.chat(ask(REVIEWS[0], free=True, guided_json={"enum": [only]}))
    assert (ignored.status_code, ignored.json()["error"]["code"]) == (422, "ignored_field")


def test_a_review_is_data_whatever_it_says(site: Any, int8: Any) -> None:
    site.relay.said.clear()
    outcome = site.summary(COMMANDS, "challenger")
    assert not [reason for reason in outcome.reasons if "not read" in reason]
    sent = [body for body, _ in site.relay.said]
    assert len(sent) >= len(COMMANDS)
    for body, answer in site.relay.said:
        assert body["max_tokens"] <= 500
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert "<" not in body["messages"][1]["content"]
        said = json.loads(answer)["choices"][0]["message"]["content"]
        form = body["response_format"]["json_schema"]["schema"]
        assert list(json.loads(said)) == list(form["properties"])
        tokens = httpx.post(f"{int8.url}/tokenize", json={"messages": body["messages"]}).json()
        assert tokens["tokens"].count(1) == 3  # <|im_start|>: ours, and the answer's
    for text in COMMANDS:  # in whatever order they arrived
        clauses = [escaped(clause.text) for clause in split_clauses(text)]
        body, answer = next(
            (body, answer)
            for body, answer in site.relay.said
            if all(clause in body["messages"][1]["content"] for clause in clauses)
        )
        assert body["messages"] == labels_prompt(split_clauses(text))
        assert obeys(json.loads(answer)["choices"][0]["message"]["content"], text)


def test_an_answer_streams(site: Any) -> None:
    body = ask(REVIEWS[1]) | {"stream": True, "stream_options": {"include_usage": True}}
    mine = {UNIT_HEADER: site.unit("champion")}
    with site.client.stream("POST", CHAT, json=body, headers=mine) as stream:
        assert stream.headers["X-Matjip-Arm"] == "champion"
        events = [line.removeprefix("data: ") for line in stream.iter_lines() if line]
    assert events.pop() == "[DONE]"
    *parts, last = [json.loads(event) for event in events]
    assert last["usage"]["completion_tokens"] > 10
    pieces = [part["choices"][0]["delta"].get("content") or "" for part in parts]
    assert len(pieces) > 10
    assert obeys("".join(pieces), REVIEWS[1])


def test_whoever_hangs_up_stops_the_answer(site: Any, int8: Any) -> None:
    """One caller of several is enough: vLLM may say a tiny model's whole answer before it looks.

    Its own process computes 400 tokens a second here, and while it does, the one that streams may
    send nothing and read nothing; asked directly, without the gateway, it does the same.
    """
    mine = {UNIT_HEADER: site.unit("champion")}
    bodies = [endless(review, max_tokens=800) | {"stream": True} for review in REVIEWS * 3]

    async def hang_up(body: dict[str, Any]) -> float:
        async with httpx.AsyncClient(base_url=site.client.base_url, timeout=60) as client:
            before = await int8.metric(client, "generation_tokens_total")
            async with client.stream("POST", CHAT, json=body, headers=mine) as stream:
                lines = stream.aiter_lines()
                said = [await anext(lines) for _ in range(10)]
                assert all(line.startswith("data: {") for line in said if line), said
            async with asyncio.timeout(20):
                while await int8.running(client):
                    await asyncio.sleep(0.05)
            return float(await int8.metric(client, "generation_tokens_total") - before)

    assert any(0 < asyncio.run(hang_up(body)) < 600 for body in bodies)


def test_sixty_four_at_once(site: Any) -> None:
    async def scene() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=site.client.base_url, timeout=120) as client:
            chats = [
                client.post(CHAT, json=ask(REVIEWS[n % 4], user=f"u{n}", max_tokens=300))
                for n in range(52)
            ]
            summaries = [
                client.post("/v1/summary", json=summary_of(REVIEWS[:2], f"s{n}")) for n in range(12)
            ]
            return await asyncio.gather(*chats, *summaries)

    said = asyncio.run(scene())
    assert errors(said) == []
    for n, answer in enumerate(said[:52]):
        assert answer.headers["X-Matjip-Arm"] == site.arm(f"u{n}")
        if answer.json()["choices"][0]["finish_reason"] == "stop":
            assert obeys(text_of(answer), REVIEWS[n % 4])
    for n, answer in enumerate(said[52:]):
        summary = SummaryOut.model_validate_json(answer.content)
        assert summary.arm == site.arm(f"s{n}")
        assert "not read" not in "".join(summary.reasons)
    ids = [answer.headers["X-Request-Id"] for answer in said]
    with sqlite3.connect(f"file:{site.folder / 'store.db'}?mode=ro", uri=True) as store:
        [(kept,)] = store.execute(
            "SELECT count(*) FROM exposures WHERE request_id IN (SELECT value FROM json_each(?))",
            [json.dumps(ids)],
        )
    store.close()
    assert kept == len(set(ids)) == 64


def test_what_cannot_be_asked_is_refused_alone(site: Any) -> None:
    async def scene() -> list[httpx.Response]:
        mine = {UNIT_HEADER: site.unit("champion")}
        async with httpx.AsyncClient(base_url=site.client.base_url, timeout=60) as client:
            bodies = [
                each
                for wrong, _, _ in talk.WRONG.values()
                for each in (wrong, talk.user("🍜🔥😍👍🏽"))
            ]
            return await asyncio.gather(
                *(client.post(CHAT, content=body, headers=mine) for body in bodies)
            )

    said = asyncio.run(scene())
    for (what, (_, status, named)), answer in zip(talk.WRONG.items(), said[::2], strict=True):
        assert answer.status_code == status, (what, answer.text)
        error = answer.json()["error"]
        assert named in str(error.get("field")) + error["message"], (what, error)
    assert all(text_of(answer) for answer in said[1::2])
    assert obeys(text_of(site.chat(ask(REVIEWS[0]))), REVIEWS[0])
    assert site.come_to("up", "up")


def test_a_review_that_the_context_cannot_hold_harms_no_other(site: Any) -> None:
    said = site.summary([*REVIEWS, "맛있어요 " * 1_900, "😍🔥"])
    assert said.status == "degraded"
    assert "1 of 6 reviews not read ('r4')" in said.reasons[0]
    assert "context length" in said.reasons[0]
    assert said.summary is not None


def test_vllm_dies_while_it_answers(site: Any, int8: Any) -> None:
    mine = site.unit("champion")
    streamed = ask(REVIEWS[0], user=mine) | {"stream": True}

    async def scene() -> tuple[list[httpx.Response], float]:
        int8.freeze()  # or it might have answered everything before it is killed
        async with httpx.AsyncClient(base_url=site.client.base_url, timeout=100) as client:
            posts = [client.post(CHAT, json=streamed) for _ in range(8)]
            posts += [client.post(CHAT, json=streamed | {"stream": False}) for _ in range(24)]
            posts += [client.post("/v1/summary", json=summary_of(REVIEWS, mine)) for _ in range(8)]
            waiting = asyncio.gather(*posts)
            while int8.callers() < 8 + 24 + 8 * len(REVIEWS):
                await asyncio.sleep(0.05)
            await asyncio.sleep(1)  # for the last of them to be read
            assert not waiting.done()
            int8.kill()
            killed = time.monotonic()
            return await waiting, time.monotonic() - killed

    said, took_s = asyncio.run(scene())
    assert took_s < 30
    streams, chats, summaries = said[:8], said[8:32], said[32:]
    for answer in summaries:
        assert answer.status_code == 200
        assert answer.json()["status"] == "degraded"
        reasons = answer.json()["reasons"]
        assert any(gone in reason for reason in reasons for gone in GONE), reasons
    for answer in chats:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "upstream_unreachable"
        assert int(answer.headers["Retry-After"]) >= 1
    for answer in streams:
        assert answer.status_code == 200
        assert "broke off" in answer.text.strip().rpartition("data: ")[2]
    assert site.come_to("down", "down")
    assert site.chat(ask(REVIEWS[0])).status_code == 503


def test_a_vllm_that_came_back_is_asked_again(
    site: Any, int8: Any, start_vllm: Any, folders: Path, tmp_path: Path
) -> None:
    port = int(int8.url.rpartition(":")[2])
    start_vllm(folders / "int8", tmp_path, *talk.settings(tmp_path), port=port)
    assert site.come_to("up", "up")
    for arm in ("champion", "challenger"):
        assert obeys(text_of(site.chat(ask(REVIEWS[0]), arm)), REVIEWS[0])
        assert "not read" not in "".join(site.summary(REVIEWS, arm).reasons)

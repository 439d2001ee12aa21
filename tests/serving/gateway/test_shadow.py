"""What a shadow's other arms are asked, while its callers notice nothing."""

import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import orjson
import pytest

from serving.dealing import PhasePlan
from serving.gateway.shadow import is_mirrored

TEXTS = ["국물이 맛있어요", "별로", "불친절해요"]


def wait_for(what, within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def count(client: httpx.Client, series: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"matjip_{series}"))


@pytest.fixture
def shadowed(deployment):
    """A shadow of the two arms, of this share of the requests."""

    def make(mirrored=1.0, **more):
        phase = PhasePlan(
            experiment="int8", version=1, number=1, kind="shadow", mirrored=mirrored, **more
        )
        shares = zip(deployment.arms, (1.0, 0.0), strict=True)
        arms = tuple(arm.model_copy(update={"share": share}) for arm, share in shares)
        return deployment.model_copy(update={"experiment_id": "int8", "phase": phase, "arms": arms})

    return make


@pytest.fixture
def rows(tmp_path):
    """What the store of this test holds: (why, arm, status, prediction, request id, item)."""

    def read():
        store = sqlite3.connect(tmp_path / "store.db")
        found = store.execute(
            "SELECT why, arm, status, prediction, request_id, item FROM exposures "
            "ORDER BY created_at_us"
        ).fetchall()
        store.close()
        return found

    return read


def ask(client, request_id, *texts, **more):
    return client.post(
        "/v1/analyze",
        json={"reviews": [{"text": text} for text in texts or TEXTS]} | more,
        headers={"X-Request-Id": request_id},
    )


def test_the_control_answers_and_the_other_arm_is_asked_too(start_embedding, shadowed, rows):
    with start_embedding(serve={"deployment": shadowed()}) as client:
        answer = ask(client, "visit-1", *TEXTS, "")
        assert [item["arm"] for item in answer.json()["results"]] == ["champion"] * 3 + [None]
        wait_for(lambda: count(client, "shadow_answers_total") == 3)
        said = {"request_id": "visit-1", "item": 0, "sentiment": "positive"}
        assert client.post("/v1/feedback", json=said).json()["status"] == "stored"
        again = ask(client, "visit-1", *TEXTS, "")
        assert again.json() == answer.json()
        wait_for(lambda: count(client, "shadow_answers_total") == 6)
        assert count(client, "shadow_dropped_total") == 0
    found = rows()
    assert [(why, arm, status) for why, arm, status, *_ in found] == [
        *[("assigned", "champion", "ok")] * 3,
        *[("mirrored", "challenger", "ok")] * 3,
    ]
    sent = [orjson.dumps(item["prediction"]) for item in answer.json()["results"][:3]]
    assert [orjson.dumps(orjson.loads(row[3])) for row in found[:3]] == sent
    assert all(row[3] != other[3] for row, other in zip(found[:3], found[3:], strict=True))
    assert [row[5] for row in found[3:]] == [0, 1, 2]


def test_a_share_of_the_requests_is_mirrored_always_the_same(shadowed):
    half, all_of_them = shadowed(0.5), shadowed(1.0)
    requests = [f"주문-{number}" for number in range(4_000)]
    chosen = [is_mirrored(half, each) for each in requests]
    assert chosen == [is_mirrored(half, each) for each in requests]
    assert 0.46 < sum(chosen) / len(chosen) < 0.54
    assert all(is_mirrored(all_of_them, each) for each in requests)


def test_only_a_shadow_mirrors_and_only_units_that_take_part(
    start_embedding, deployment, shadowed, rows
):
    canary = PhasePlan(experiment="spine-test", version=1, number=1, kind="canary")
    assert not is_mirrored(deployment, "a")
    assert not is_mirrored(deployment.model_copy(update={"phase": canary}), "a")
    with start_embedding(serve={"deployment": shadowed(holdout=0.5)}) as client:
        for number in range(20):
            assert ask(client, f"r{number}", "맛있어요", unit=f"u{number}").status_code == 200
        dealt = sum(why == "assigned" for why, *_ in rows())
        wait_for(lambda: count(client, "shadow_answers_total") == dealt)
    found = rows()
    assert {row[4] for row in found if row[0] == "mirrored"} == {
        row[4] for row in found if row[0] == "assigned"
    }
    assert {row[0] for row in found} == {"assigned", "holdout", "mirrored"}


def test_a_shadow_that_fails_or_hangs_harms_no_caller(start_embedding, shadowed, faulty, rows):
    settings = {"deadline_s": 1.0, "shadow_queue": 2}
    with start_embedding(serve={"deployment": shadowed()}, **settings) as client:
        faulty[1].fault = "nan"
        assert ask(client, "fails", "별로").status_code == 200
        wait_for(
            lambda: count(client, 'shadow_answers_total{arm="challenger",status="failed"') == 1
        )
        faulty[1].fault = ""
        faulty[1].gate.clear()
        for number in range(8):
            assert ask(client, f"hangs-{number}", "별로").status_code == 200
        assert count(client, 'shadow_dropped_total{reason="queue_full"}') >= 5
        wait_for(lambda: len([row for row in rows() if row[0] == "mirrored"]) >= 2)
        faulty[1].gate.set()
    mirrored = [row for row in rows() if row[0] == "mirrored"]
    assert [row[2] for row in mirrored][:2] == ["failed", "failed"]
    errors = [orjson.loads(row[3])["error"] for row in mirrored[:2]]
    assert errors == ["engine_failed", "deadline_passed"]


def test_mirrored_work_waits_until_callers_leave_room(start_embedding, shadowed, faulty):
    with (
        start_embedding(serve={"deployment": shadowed()}, workers=1) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        before = faulty[1].calls
        faulty[0].gate.clear()
        first = pool.submit(ask, client, "held", "맛있어요")
        wait_for(lambda: count(client, "requests_inside") == 1)
        faulty[0].gate.set()
        assert first.result().status_code == 200
        wait_for(lambda: faulty[1].calls > before)


def test_what_waits_is_answered_before_the_gateway_ends(start_embedding, shadowed, faulty, rows):
    with start_embedding(serve={"deployment": shadowed()}) as client:
        faulty[1].fault = "slow"
        for number in range(6):
            assert ask(client, f"last-{number}", "맛있어요").status_code == 200
    found = rows()
    assert len([row for row in found if row[0] == "mirrored"]) == 6

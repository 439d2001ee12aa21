import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from data.errors import MetricError
from training.evaluation.language.evaluation import evaluate_language_models
from training.evaluation.language.gold import Gold
from training.evaluation.language.judge import agreement, ask_judge, control_questions
from training.evaluation.language.judge_endpoint import JudgeEndpoint, Question
from training.evaluation.language.restaurants import Summarised

Reply = Callable[[dict[str, Any]], tuple[int, str]]


@contextmanager
def serving(reply: Reply) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server on loopback that speaks just enough of the chat API."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            status, content = reply(body)
            text = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def verdict(supported: bool) -> str:
    return json.dumps({"supported": supported})


def attentive(body: dict[str, Any]) -> tuple[int, str]:
    """Believes a bullet whose first two words stand in its evidence."""
    bullet, _, evidence = body["messages"][1]["content"].partition("\n[근거]\n")
    words = bullet.removeprefix("[요점] ").split()[:2]
    return 200, verdict(" ".join(words) in evidence)


def written(gold: Gold) -> list[Summarised]:
    return [Summarised(each.written.summary, each.written.strengths) for each in gold.restaurants]


def endpoint(url: str, **options: Any) -> JudgeEndpoint:
    return JudgeEndpoint(url, "judge", **({"longest_pause_s": 0.01, "controls": 30} | options))


def test_a_judge_that_reads_agrees_with_what_is_true(gold: Gold) -> None:
    with serving(attentive) as (url, asked):
        found = asyncio.run(
            ask_judge(endpoint(url, api_key="secret"), gold, {"gold": written(gold)})
        )
    agreed = found.report["agreement"]
    assert agreed["n"] == 60
    assert agreed["kappa"] == agreed["written_called_supported"] == 1.0
    assert agreed["mismatched_called_supported"] == 0.0
    assert agreed["low"] == agreed["high"] == 1.0
    bullets = [
        len([b for part in each.written.summary.aspects.values() for b in part.bullets])
        for each in gold.restaurants
    ]
    assert [parts["judged"] for parts in found.parts["gold"]] == [[n, n] for n in bullets]
    assert len(asked) == found.report["questions"]
    body = asked[0]
    assert (body["path"], body["key"], body["model"], body["temperature"]) == (
        "/v1/chat/completions",
        "Bearer secret",
        "judge",
        0.0,
    )
    form = body["response_format"]["json_schema"]
    assert form["strict"]
    assert form["schema"]["required"] == ["supported"]
    assert "secret" not in json.dumps(found.report) + repr(endpoint(url, api_key="secret"))


def test_a_judge_that_always_nods_has_no_agreement(gold: Gold) -> None:
    with serving(lambda _: (200, verdict(supported=True))) as (url, _):
        found = asyncio.run(ask_judge(endpoint(url), gold, {"gold": written(gold)}))
    assert found.report["agreement"]["kappa"] == 0.0
    assert found.report["agreement"]["mismatched_called_supported"] == 1.0


def test_a_busy_judge_is_asked_again(gold: Gold) -> None:
    times: list[int] = []

    def busy(body: dict[str, Any]) -> tuple[int, str]:
        times.append(1)
        return (503, "") if len(times) % 2 else attentive(body)

    with serving(busy) as (url, _):
        some = asyncio.run(ask_judge(endpoint(url, concurrency=1), gold, {}))
    assert some.report["unanswered"] == 0
    assert len(times) == 2 * some.report["questions"]


def test_what_the_judge_leaves_open_is_counted_and_not_taken_for_no(gold: Gold) -> None:
    mark = "알 수 없는 말"

    def partly(body: dict[str, Any]) -> tuple[int, str]:
        return (200, "maybe") if mark in body["messages"][1]["content"] else attentive(body)

    said = []
    for each in written(gold):
        assert each.summary is not None
        aspects = {
            name: part.model_copy(
                update={"bullets": (part.bullets[0].model_copy(update={"text": mark}),)}
            )
            for name, part in each.summary.aspects.items()
        }
        said.append(Summarised(each.summary.model_copy(update={"aspects": aspects})))
    with serving(partly) as (url, _):
        found = asyncio.run(ask_judge(endpoint(url), gold, {"odd": said}))
    assert all(parts["judged"] == [0.0, 0.0] for parts in found.parts["odd"])
    assert found.report["unanswered"] > 0
    assert found.report["agreement"]["kappa"] == 1.0
    assert "ValidationError" in found.report["failures"][0]


@pytest.mark.parametrize(
    "reply",
    [
        lambda _: (500, ""),
        lambda _: (401, ""),
        lambda _: (200, "yes"),
        lambda _: (200, '{"supported":"true"}'),
    ],
    ids=["fails", "refuses", "talks", "wrong type"],
)
def test_a_judge_that_never_answers_is_an_error(gold: Gold, reply: Reply) -> None:
    with serving(reply) as (url, _), pytest.raises(MetricError, match="answered none"):
        asyncio.run(ask_judge(endpoint(url, controls=2, attempts=2), gold, {}))


def test_an_absent_server_is_an_error(gold: Gold) -> None:
    with serving(attentive) as (url, _):
        pass
    with pytest.raises(MetricError, match="answered none"):
        asyncio.run(ask_judge(endpoint(url, controls=2, attempts=2), gold, {}))


def test_controls_are_half_true_and_mismatched_ones_are_of_another_restaurant(gold: Gold) -> None:
    controls = control_questions(gold, 20, seed=1)
    assert [each.supported for each in controls] == [True, False] * 20
    own = {
        each.written.restaurant_id: {
            citation.span
            for part in each.written.summary.aspects.values()
            for bullet in part.bullets
            for citation in bullet.evidence
        }
        for each in gold.restaurants
    }
    for each in controls:
        assert set(each.spans).issubset(own[each.restaurant]) == each.supported
    alone = Gold(gold.examples, gold.train, gold.restaurants[:1], gold.rows)
    with pytest.raises(MetricError, match="two restaurants"):
        control_questions(alone, 20, seed=1)


def test_agreement_of_nothing_is_no_number() -> None:
    question = Question("s0", "국물이 진하다", ("국물이 진해요",), supported=True)
    assert agreement([])["kappa"] is None
    assert "none" in agreement([(question, None)])["reason"]
    assert "one kind" in agreement([(question, True)])["reason"]


def test_kappa_is_cohens(gold: Gold) -> None:
    from sklearn.metrics import cohen_kappa_score

    truth = [True, True, False, False, True, False, True, False, False, True]
    said = [True, False, False, True, True, False, True, True, False, True]
    known = [
        (Question(f"s{n % 5}", f"{n}", ("x",), supported=is_so), verdict)
        for n, (is_so, verdict) in enumerate(zip(truth, said, strict=True))
    ]
    found = agreement(known, resamples=200)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(truth, said))
    assert found["low"] <= found["kappa"] <= found["high"]


def test_the_evaluation_reports_the_judge_beside_its_agreement(
    town: tuple[Path, Path], engine: Any, says_gold: Any, tmp_path: Path
) -> None:
    split, targets = town
    with serving(attentive) as (url, _):
        evaluate_language_models(
            targets,
            {"m": engine("m", says_gold)},
            tmp_path / "out",
            split=split,
            repeats=1,
            free=0,
            judge=endpoint(url),
            resamples=100,
        )
    result = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert result["judge"]["agreement"]["kappa"] == 1.0
    assert result["metrics"]["m"]["judged"]["value"] == 1.0
    assert result["metrics"]["other"]["judged"]["reason"].startswith("not asked")
    assert "kappa 1.000" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")

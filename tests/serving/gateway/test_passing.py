"""OpenAI's API, passed on to the unit's arm: what may pass, and what is refused."""

import httpx
import pytest

from serving.experiments.assignment import Dealer, unit_hash

IN_PROCESS = {"kind": "in_process", "folder": "/models/base"}
SCHEMA = {"enum": ["negative", "neutral", "positive"]}


def test_a_chat_is_passed_on_to_the_arms_model(
    start_language, vllm, fakes, tmp_path, exposures, chat, turn
):
    deployment = fakes.language_deployment(vllm.endpoint)
    with start_language(vllm.endpoint) as client:
        answer = chat(
            client,
            {"X-Request-Id": "chat-1"},
            model="gpt-9",
            user="account-17",
            temperature=0,
            response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"
        assert answer.headers["X-Request-Id"] == "chat-1"
        assert answer.headers["X-Matjip-Arm"] == "champion"
        assert answer.headers["X-Matjip-Model"] == "%ED%9B%84%EA%B8%B0-champion/3"
        assert answer.headers["X-Matjip-Deployment"] == deployment.deployment_id
        assert answer.headers["X-Matjip-Experiment"] == "language-test"
    (sent,) = vllm.bodies
    assert sent == {
        "model": "served",
        "messages": [turn],
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
    }
    (row,) = exposures()
    assert row["unit"] == unit_hash(deployment.salt, "account-17")
    assert row["latency_ms"] > 0
    kept = b"".join(path.read_bytes() for path in tmp_path.glob("store.db*"))
    assert "국물".encode() not in kept
    assert b"account-17" not in kept


def test_a_completion_and_parts_of_a_message_are_passed_on_masked(start_language, vllm, chat, turn):
    parts = [{"type": "text", "text": "전화 010-1234-5678"}]
    with start_language(vllm.endpoint) as client:
        said = client.post("/v1/completions", json={"prompt": "국물이 010-1234-5678 진하고"})
        assert said.json()["choices"][0]["text"] == "네"
        assert chat(client, messages=[turn | {"content": parts}]).status_code == 200
        many = client.post("/v1/completions", json={"prompt": ["가", "나"], "max_tokens": 4})
        assert many.status_code == 200
    assert vllm.bodies[0]["prompt"] == "국물이 ***-****-**** 진하고"
    assert vllm.bodies[1]["messages"][0]["content"][0]["text"] == "전화 ***-****-****"
    assert vllm.bodies[2]["prompt"] == ["가", "나"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/embeddings",
        "/v1/chat/completions/../load_lora_adapter",
        "/v1/chat/completions/render",
        "/tokenize",
        "/v1/responses",
        "/sleep",
        "/reset_prefix_cache",
    ],
)
def test_paths_that_are_not_on_the_list_are_404(refusing, path, assert_error):
    client, vllm, _ = refusing
    url = httpx.URL(str(client.base_url).rstrip("/"), raw_path=path.encode())
    for method in ("POST", "GET"):
        assert_error(client.request(method, url, json={}), 404, "not_found")
    assert vllm.bodies == []


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"guided_json": SCHEMA}, "ignored_field", "guided_json"),
        ({"guided_choice": ["긍정"]}, "ignored_field", "guided_choice"),
        ({"tools": []}, "invalid_request", "tools"),
        ({"extra_body": {"guided_json": {}}}, "invalid_request", "extra_body"),
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": "안녕"}, "invalid_request", "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "invalid_request", "messages.0.role"),
        ({"messages": None}, "invalid_request", "messages"),
        ({"temperature": 3}, "invalid_request", "temperature"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"max_tokens": "9"}, "invalid_request", "max_tokens"),
        ({"n": 99}, "invalid_request", "n"),
        ({"stream": "yes"}, "invalid_request", "stream"),
        ({"user": ""}, "invalid_request", "user"),
        ({"response_format": {"type": "json_schema"}}, "invalid_request", "response_format"),
        ({"response_format": {"type": "xml"}}, "invalid_request", "response_format.type"),
        ({"structured_outputs": {"jsn": SCHEMA}}, "invalid_request", None),
        (
            {"structured_outputs": {"json": SCHEMA}, "response_format": {"type": "text"}},
            "invalid_request",
            None,
        ),
    ],
)
def test_fields_that_are_not_on_the_list_are_422(refusing, change, code, field, chat, assert_error):
    client, vllm, _ = refusing
    message = assert_error(chat(client, **change), 422, code, field)
    if code == "ignored_field":
        assert "structured_outputs" in message
        assert "response_format" in message
    assert vllm.bodies == []


@pytest.mark.parametrize("body", [[], "x", {"prompt": []}, {"prompt": [[1, 2]]}, {"prompt": 5}])
def test_what_is_no_completion_is_a_422(refusing, body, assert_error):
    client, vllm, _ = refusing
    answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"
    assert_error(client.post("/v1/completions", content=b"{"), 400, "invalid_json")
    assert vllm.bodies == []


def test_a_schema_nested_too_deep_is_a_422(refusing, assert_error):
    client, vllm, _ = refusing
    deep = b'{"messages":[{"role":"user","content":"x"}],"structured_outputs":{"json":%s}}'
    content = deep % (b'{"a":' * 600 + b"1" + b"}" * 600)
    answer = client.post("/v1/chat/completions", content=content)
    assert "too deep" in assert_error(answer, 422, "invalid_request")
    assert vllm.bodies == []


def test_a_body_too_large_is_a_413(start_language, vllm, chat, assert_error, turn):
    with start_language(vllm.endpoint, max_body_bytes=2_048) as client:
        long = [turn | {"content": "가" * 100_000}]
        assert_error(chat(client, messages=long), 413, "body_too_large")


def test_the_header_names_the_unit_before_the_field(
    start_language, vllm, fakes, exposures, chat, assert_error
):
    deployment = fakes.language_deployment(vllm.endpoint, IN_PROCESS)
    with start_language(vllm.endpoint, IN_PROCESS) as client:
        for number in range(12):
            unit = f"손님-{number}"
            arm = Dealer(deployment).meet(unit_hash(deployment.salt, unit))[0].name
            by_header = chat(client, {"X-Matjip-Unit": unit.encode()}, user="somebody")
            assert by_header.headers["X-Matjip-Arm"] == arm
            assert chat(client, user=unit).headers["X-Matjip-Arm"] == arm
        for wrong in (b"\xff\xfe", b"a" * 501):
            refused = chat(client, {"X-Matjip-Unit": wrong})
            assert_error(refused, 422, "invalid_unit", "X-Matjip-Unit")
    assert {row["arm"] for row in exposures()} == {"champion", "challenger"}


def test_a_request_id_serves_one_chat(start_language, vllm, chat, assert_error, turn):
    headers = {"X-Request-Id": "once"}
    with start_language(vllm.endpoint) as client:
        assert chat(client, headers, user="u").status_code == 200
        assert chat(client, headers, user="u").status_code == 200
        other = chat(client, headers, user="u", messages=[turn | {"content": "다른 말"}])
        assert_error(other, 409, "request_id_reused", "X-Request-Id")
        streamed = chat(client, headers, user="v", stream=True)
        assert_error(streamed, 409, "request_id_reused", "X-Request-Id")

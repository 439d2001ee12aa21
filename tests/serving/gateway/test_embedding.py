"""POST /v1/embeddings as callers meet it: a real server, tiny embedding models, OpenAI's shape."""

import base64
import importlib.util

import httpx
import numpy as np
import orjson
import pytest

from data.privacy import mask_text
from serving.engines.choice import load_embedder
from serving.gateway.app import create_app
from serving.gateway.settings import ServingSettings

TEXTS = ["국물이 맛있어요", "별로", "존맛 👍🏽 ㅠㅠ", "맛있어요 " * 40]
LONG = "국물 맛있어요 " * 12_500


@pytest.fixture(scope="module")
def gateway(fakes, embedding_deployments, tmp_path_factory):
    """One gateway for all tests that leave its settings and its model alone."""
    folder = tmp_path_factory.mktemp("gateway")
    app = create_app(
        ServingSettings(
            store_url=f"sqlite:///{folder / 'store.db'}", max_inputs=50, max_input_tokens=120_000
        ),
        embedding=embedding_deployments[0],
        mask=lambda text: mask_text(text)[0],
    )
    with fakes.serve(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def embedder(tiny_embeddings):
    return load_embedder(tiny_embeddings[0])


def embed(client, given, **more) -> httpx.Response:
    return client.post("/v1/embeddings", json={"input": given} | more)


def vectors(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray([row["embedding"] for row in answer.json()["data"]], dtype=np.float32)


def test_vectors_are_the_models_in_openais_shape(gateway, embedder, embedding_deployments):
    answer = embed(gateway, TEXTS, model="reviews", user="account-1")
    body = answer.json()
    assert set(body) == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", "reviews")
    assert [row["index"] for row in body["data"]] == [0, 1, 2, 3]
    assert {row["object"] for row in body["data"]} == {"embedding"}
    np.testing.assert_allclose(vectors(answer), embedder.embed(TEXTS), atol=2e-6)
    tokens = embedder.tokenizer.encode_batch(TEXTS, add_special_tokens=False)
    read = sum(len(one.ids) for one in tokens)
    assert body["usage"] == {"prompt_tokens": read, "total_tokens": read}
    assert answer.headers["X-Matjip-Model"] == "matjip-embedding/1"
    assert answer.headers["X-Matjip-Deployment"] == embedding_deployments[0].deployment_id
    timing = [part.split(";dur=") for part in answer.headers["Server-Timing"].split(", ")]
    assert [name for name, _ in timing] == ["read", "tokenise", "queue", "compute", "serialise"]
    assert all(float(took) >= 0.0 for _, took in timing)
    for name in ("matjip-embedding", "matjip-embedding/1"):
        assert embed(gateway, "별로", model=name).status_code == 200


def test_one_text_and_a_list_of_it_are_the_same(gateway):
    alone, listed = vectors(embed(gateway, "별로")), vectors(embed(gateway, ["별로"]))
    assert alone.shape == (1, 16)
    np.testing.assert_allclose(alone, listed, atol=1e-6)


def test_base64_is_the_floats_bytes(gateway):
    body = embed(gateway, TEXTS, encoding_format="base64").json()
    read = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in body["data"]]
    np.testing.assert_allclose(np.stack(read), vectors(embed(gateway, TEXTS)), atol=2e-6)
    alone = embed(gateway, "별로", encoding_format="float").json()["data"][0]["embedding"]
    packed = embed(gateway, "별로", encoding_format="base64").json()["data"][0]["embedding"]
    assert np.float32(alone).tobytes() == base64.b64decode(packed)


def test_token_ids_are_the_models_own_and_mean_what_their_text_means(gateway, embedder):
    ids = [one.ids for one in embedder.tokenizer.encode_batch(TEXTS, add_special_tokens=False)]
    np.testing.assert_allclose(
        vectors(embed(gateway, ids)), vectors(embed(gateway, TEXTS)), atol=2e-6
    )
    np.testing.assert_allclose(
        vectors(embed(gateway, ids[0])), vectors(embed(gateway, TEXTS[0])), atol=2e-6
    )


def test_a_long_text_is_read_in_windows_and_never_cut(gateway, embedder):
    assert len(LONG) == 100_000
    answer = embed(gateway, [LONG, LONG + "별로 " * 2_000])
    whole, changed = vectors(answer)
    np.testing.assert_allclose(whole, embedder.embed([LONG])[0], atol=1e-5)
    assert np.abs(whole - changed).max() > 1e-4
    assert np.linalg.norm(whole) == pytest.approx(1.0, abs=1e-5)


def test_strange_texts_get_a_vector(gateway):
    strange = ["👍🏽👩‍👩‍👧", "\u0000\u0007", " ", "[CLS][SEP]", "\u202e뒤집힌", "한글", "ひどい"]
    found = vectors(embed(gateway, strange))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)


def test_personal_data_is_masked_before_it_is_read(gateway, embedder):
    said = "국물 010-1234-5678 맛있어요"
    masked = mask_text(said)[0]
    assert masked != said
    expected = embedder.embed([masked])
    np.testing.assert_allclose(vectors(embed(gateway, said)), expected, atol=2e-6)


def test_a_model_that_was_taught_so_is_cut_short_and_no_other(
    start_embedding, embedding_deployments, assert_error
):
    with start_embedding(serve={"embedding": embedding_deployments[1]}) as client:
        whole = vectors(embed(client, TEXTS))
        short = vectors(embed(client, TEXTS, dimensions=4))
        assert short.shape == (4, 4)
        again = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)
        np.testing.assert_allclose(short, again, atol=2e-6)
        packed = embed(client, TEXTS[:1], dimensions=4, encoding_format="base64").json()
        assert len(base64.b64decode(packed["data"][0]["embedding"])) == 16
        said = assert_error(
            embed(client, TEXTS, dimensions=17), 422, "invalid_dimensions", "dimensions"
        )
        assert "or fewer" in said


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "input: the text is empty"),
        (["맛", ""], "input[1]: the text is empty"),
        ([], "the list is empty"),
        (None, "a null is no text"),
        (5, "a int is no text"),
        ({"text": "맛"}, "a dict is no text"),
        (["맛", 5], "input[1]: a int is no text"),
        ([["맛"]], "input[0][0]: a str is no token id"),
        ([[]], "input[0]: the list of token ids is empty"),
        ([5, "맛"], "input[1]: a str is no token id"),
        ([5, 1.5], "input[1]: a float is no token id"),
        ([True], "a bool is no text"),
        ([5, 999], "input[1]: 999 is not in the model's vocabulary of 16"),
        ([-1], "input[0]: -1 is not in the model's vocabulary"),
        ([2, 5, 3], "input[0]: [CLS] is put there by the model"),
        (["맛", [5]], "mixed"),
    ],
)
def test_wrong_input_is_a_422_that_says_where(gateway, given, says, assert_error):
    assert says in assert_error(embed(gateway, given), 422, "invalid_input", "input")


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({}, 422, "invalid_request", "input"),
        ({"input": "맛", "model": 5}, 422, "invalid_request", "model"),
        ({"input": "맛", "model": "gpt"}, 404, "unknown_model", "model"),
        ({"input": "맛", "encoding_format": "hex"}, 422, "invalid_request", "encoding_format"),
        ({"input": "맛", "dimensions": 0}, 422, "invalid_request", "dimensions"),
        ({"input": "맛", "dimensions": 8}, 422, "invalid_dimensions", "dimensions"),
        ({"input": "맛", "user": 5}, 422, "invalid_request", "user"),
        ({"input": "맛", "inputs": "맛"}, 422, "invalid_request", "inputs"),
        ({"input": ["맛"] * 51}, 422, "too_many_inputs", "input"),
        ({"input": ["! " * 60_001] * 2}, 422, "too_many_tokens", "input"),
        ([], 422, "invalid_request", None),
    ],
)
def test_wrong_fields_are_refused_by_name(gateway, body, status, code, field, assert_error):
    assert_error(gateway.post("/v1/embeddings", json=body), status, code, field)


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b'{"input": "\xff\xfe"}', 400, "invalid_utf8"),
        (b'{"input": "\\ud800"}', 400, "invalid_json"),
        (b'{"input": ', 400, "invalid_json"),
        ("{'input': '맛'}".encode("euc-kr"), 400, "invalid_utf8"),
        (orjson.dumps({"input": "가" * 400_000}), 413, "body_too_large"),
    ],
)
def test_a_broken_body_is_refused(gateway, content, status, code, assert_error):
    assert_error(gateway.post("/v1/embeddings", content=content), status, code)


def test_the_document_is_whole_and_its_examples_are_answered(gateway):
    document = gateway.get("/openapi.json").json()
    route = document["paths"]["/v1/embeddings"]["post"]
    content = route["requestBody"]["content"]["application/json"]
    assert len(content["examples"]) == 3
    for example in content["examples"].values():
        assert gateway.post("/v1/embeddings", json=example["value"]).status_code == 200
    schema = content["schema"]["properties"]["input"]
    assert [kind["type"] for kind in schema["anyOf"]] == ["string", "array", "array", "array"]
    assert schema["anyOf"][1]["maxItems"] == 50
    assert {"200", "400", "404", "413", "422", "429", "503"} == set(route["responses"])
    assert "example" in route["responses"]["200"]["content"]["application/json"]
    listed = gateway.get("/v1/models").json()["data"]
    assert [(model["id"], model["version"]) for model in listed] == [("reviews", "1")]


def test_ready_and_metrics_tell_what_answers(gateway):
    embed(gateway, TEXTS)
    ready = gateway.get("/ready").json()
    assert ready["ready"]
    assert ready["embedding"]["model"] == {"name": "matjip-embedding", "version": "1"}
    assert ready["embedding"]["dimensions"] == 16
    page = gateway.get("/metrics").text
    for series in (
        'matjip_batch_rows_count{model="matjip-embedding/1"}',
        'matjip_batch_padding_ratio_count{model="matjip-embedding/1"}',
        'matjip_tokens_real_total{model="matjip-embedding/1"}',
        'matjip_tokens_padded_total{model="matjip-embedding/1"}',
        'matjip_queue_age_seconds_count{model="matjip-embedding/1"}',
        'matjip_queue_tokens{model="matjip-embedding/1"} 0.0',
        'matjip_out_of_memory_total{model="matjip-embedding/1"} 0.0',
        'matjip_worker_deaths_total{model="matjip-embedding/1"} 0.0',
        "matjip_admission_limit_bytes ",
        "matjip_admission_batches 0.0",
        "matjip_memory_free_bytes ",
        'matjip_stage_seconds_count{route="/v1/embeddings",stage="serialise"}',
        'matjip_texts_embedded_total{model="matjip-embedding/1"}',
        "matjip_embedding_deployment{",
    ):
        assert series in page, series


@pytest.mark.skipif(
    importlib.util.find_spec("openai") is None, reason="the openai package is not installed"
)
def test_openais_own_client_reads_the_answer(gateway):
    import openai

    client = openai.OpenAI(base_url=f"{gateway.base_url}/v1", api_key="none")
    answer = client.embeddings.create(input=TEXTS, model="reviews")
    np.testing.assert_allclose(
        [row.embedding for row in answer.data], vectors(embed(gateway, TEXTS)), atol=2e-6
    )


def test_the_engine_is_the_settings_choice(start_embedding):
    with start_embedding(embedding_engine="torch-fp32") as client:
        engine = client.get("/ready").json()["embedding"]["engine"]
        found = vectors(embed(client, TEXTS))
    with start_embedding(embedding_engine="torch-fp32-padded") as client:
        assert client.get("/ready").json()["embedding"]["engine"] != engine
        np.testing.assert_allclose(found, vectors(embed(client, TEXTS)), atol=1e-5)
    with start_embedding(embedding_engine="fastest") as client:
        ready = client.get("/ready")
        assert ready.status_code == 503
        assert "no engine 'fastest'" in ready.json()["reasons"][0]

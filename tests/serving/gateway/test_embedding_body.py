import base64

import numpy as np
import orjson
import pytest

from serving.gateway.embedding_body import cut, embeddings_body


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 24)).astype(np.float32)


def test_every_float_reads_back_as_the_same_float32(vectors):
    extreme = np.float32([[1e-38, -3.4e38, 0.1, 16777217.0], [0.0, -0.0, 1e-7, 1 / 3]])
    for rows in (vectors, extreme, np.asfortranarray(vectors), vectors[:, ::2]):
        body = orjson.loads(embeddings_body(rows, model="m", tokens=7))
        read = np.float32([row["embedding"] for row in body["data"]])
        assert read.tobytes() == np.ascontiguousarray(rows).tobytes()
        assert [row["index"] for row in body["data"]] == list(range(len(rows)))
        assert body["usage"] == {"prompt_tokens": 7, "total_tokens": 7}


def test_base64_is_of_little_endian_float32_whatever_the_array_is(vectors):
    for rows in (vectors, vectors.astype(">f4"), np.asfortranarray(vectors), vectors[:, ::2]):
        body = orjson.loads(embeddings_body(rows, model="m", tokens=7, encoding_format="base64"))
        read = [base64.b64decode(row["embedding"]) for row in body["data"]]
        expected = [np.ascontiguousarray(row, dtype="<f4").tobytes() for row in rows]
        assert read == expected


def test_a_models_name_cannot_break_the_json(vectors):
    body = embeddings_body(vectors, model='후기-"모델"\\', tokens=1)
    assert orjson.loads(body)["model"] == '후기-"모델"\\'


def test_cut_vectors_are_as_long_as_the_models_own(vectors):
    assert cut(vectors, 24, normalize=True) is vectors
    short = cut(vectors, 6, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(short[0] / short[0, 0], vectors[0, :6] / vectors[0, 0], rtol=1e-5)
    np.testing.assert_array_equal(cut(vectors, 6, normalize=False), vectors[:, :6])
    assert np.isfinite(cut(np.zeros((1, 8), np.float32), 4, normalize=True)).all()

"""What POST /v1/embeddings takes and gives, in OpenAI's words."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.gateway.limits import Refusal
from serving.gateway.schemas import first_problem

EncodingFormat = Literal["float", "base64"]
Tokens = list[int]
Given = str | Tokens
"""One thing to embed: a text, or the token ids of one."""


class EmbeddingsIn(BaseModel):
    """A request. ``input`` is checked by ``read_inputs``, which can say what is wrong and where."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    input: Any = Field(
        description="A text, a list of texts, one text's token ids, or a list of such. Token ids "
        "are those of the served model's own tokenizer, without special tokens."
    )
    model: str | None = Field(default=None, description="The served model; may be left out.")
    encoding_format: EncodingFormat = Field(
        default="float", description="base64 is of little-endian float32, a third of the bytes."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="The model's own, or fewer where it was taught for that."
    )
    user: str | None = Field(default=None, max_length=500, description="Ignored, never stored.")


class EmbeddingOut(BaseModel):
    """One vector, of length 1 where the model normalises."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class UsageOut(BaseModel):
    """Tokens that were read, the model's prefix included, special tokens not.

    The windows of a long text overlap, but its tokens count once.
    """

    prompt_tokens: int
    total_tokens: int


class EmbeddingsOut(BaseModel):
    """The answer, its vectors in the input's order."""

    object: Literal["list"]
    data: list[EmbeddingOut]
    model: str
    usage: UsageOut


def read_embeddings(body: object) -> EmbeddingsIn:
    """A request's fields.

    Raises:
        Refusal: 422, a field is missing, unknown or out of range.
    """
    try:
        return EmbeddingsIn.model_validate(body)
    except ValidationError as error:
        field, message = first_problem(error)
        raise Refusal(422, "invalid_request", message, field=field) from error


def read_inputs(
    given: object, *, max_inputs: int, vocabulary: int, frame: Mapping[int, str]
) -> list[Given]:
    """What is to be embedded, one by one.

    Args:
        given: the request's ``input``.
        max_inputs: texts of one request.
        vocabulary: token ids are below it.
        frame: special tokens that the model itself puts around a text, by id.

    Raises:
        Refusal: 422, what is wrong and where; nothing of a text is repeated.
    """
    several = given if isinstance(given, list) and not _is_token(given[:1]) else [given]
    if not several:
        raise _wrong("input: the list is empty; send at least one text")
    if len(several) > max_inputs:
        raise Refusal(
            422,
            "too_many_inputs",
            f"input: {len(several)} texts in one request; send at most {max_inputs}",
            field="input",
        )
    alone = several is not given
    kinds = {isinstance(one, str) for one in several}
    inputs = [
        _read_input(one, "input" if alone else f"input[{number}]", vocabulary, frame)
        for number, one in enumerate(several)
    ]
    if len(kinds) > 1:
        raise _wrong("input: texts and token ids are mixed; send one kind per request")
    return inputs


def _read_input(one: object, place: str, vocabulary: int, frame: Mapping[int, str]) -> Given:
    if isinstance(one, str):
        if not one:
            raise _wrong(f"{place}: the text is empty; send one that says something, or leave it")
        return one
    if not isinstance(one, list):
        kind = "null" if one is None else type(one).__name__
        raise _wrong(f"{place}: a {kind} is no text; send a string, or a list of token ids")
    if not one:
        raise _wrong(f"{place}: the list of token ids is empty; send at least one")
    for position, token in enumerate(one):
        wrong = _wrong_token(token, vocabulary, frame)
        if wrong is not None:
            raise _wrong(f"{place}[{position}]: {wrong}")
    return one


def _wrong_token(token: object, vocabulary: int, frame: Mapping[int, str]) -> str | None:
    if not isinstance(token, int) or isinstance(token, bool):
        return f"a {type(token).__name__} is no token id; send whole numbers"
    if not 0 <= token < vocabulary:
        return (
            f"{token!r} is not in the model's vocabulary of {vocabulary!r}; send ids of the served "
            "model's own tokenizer, or texts"
        )
    if token in frame:
        return f"{frame[token]} is put there by the model; send ids without special tokens"
    return None


def _is_token(start: list[Any]) -> bool:
    """Whether a list begins as one text's token ids do."""
    return bool(start) and isinstance(start[0], (int, float)) and not isinstance(start[0], bool)


def _wrong(message: str) -> Refusal:
    return Refusal(422, "invalid_input", message, field="input")


EMBEDDING_EXAMPLES: Final[dict[str, Any]] = {
    "one text": {"value": {"input": "국물이 진하고 사장님이 친절해요"}},
    "several, as base64": {
        "value": {
            "input": ["존맛ㅠㅠ 또 갈게요", "맛은 있는데 대기가 너무 길어요"],
            "encoding_format": "base64",
        }
    },
    "token ids": {"value": {"input": [[5, 6, 7], [8, 9]]}},
}
EMBEDDING_ANSWER_EXAMPLE: Final[dict[str, Any]] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.6, -0.8]}],
    "model": "reviews",
    "usage": {"prompt_tokens": 12, "total_tokens": 12},
}


def embeddings_request_schema(max_inputs: int) -> dict[str, Any]:
    """JSON Schema of a request, for the OpenAPI document."""
    schema = EmbeddingsIn.model_json_schema()
    text = {"type": "string", "minLength": 1}
    tokens = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
    several = {"type": "array", "minItems": 1, "maxItems": max_inputs}
    schema["properties"]["input"] |= {
        "anyOf": [text, several | {"items": text}, tokens, several | {"items": tokens}]
    }
    return schema

"""What an OpenAI-style server says, read strictly: an answer, a piece of one, or what went wrong.

Nothing is believed: a status of 200 with something else in it is an error that says so.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import httpx
import orjson
from pydantic import BaseModel, Field, ValidationError

from data.errors import EngineError
from serving.engines.chat import ChatAnswer

IDLE_S: Final = 2.0
"""A connection is used again within this time. vLLM closes one after 5 idle seconds, and a request
that is just then on its way breaks off: seen with httpx's own default, which is 5 s too."""
_ASK_AGAIN: Final = frozenset({404, 429, 502, 503, 504})
_REPLACED_S: Final = 0.5
"""A model that is not there may be an adapter that is being replaced; it is back within this."""
_SHOWN: Final = 300


class ServerError(EngineError):
    """A request that got no answer, and what that says of the server.

    Attributes:
        again: nobody can have worked on it, so it may be asked again.
        refused: the server lives, and will not: the fault is the request's, or it is busy.
        wait_s: how long it asks us to wait.
    """

    def __init__(
        self, message: str, *, again: bool = False, refused: bool = False, wait_s: float = 0.0
    ):
        """See the class."""
        super().__init__(message)
        self.again = again
        self.refused = refused
        self.wait_s = wait_s


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message
    finish_reason: str


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0)
    completion_tokens: int = Field(ge=0)


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1, max_length=1)
    usage: _Usage


class _Model(BaseModel):
    id: str


class _Models(BaseModel):
    data: list[_Model]


class _Tokens(BaseModel):
    tokens: list[int]


@asynccontextmanager
async def named_errors(timeout_s: float) -> AsyncIterator[None]:
    """Turns what goes wrong on the way to a server into sentences.

    Raises:
        ServerError: instead of httpx's errors and time-outs.
    """
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        reason = str(error) or type(error).__name__
        raise ServerError(
            f"vLLM cannot be reached: {reason}; start it, or correct its address", again=True
        ) from error
    except (TimeoutError, httpx.TimeoutException) as error:
        raise ServerError(
            f"vLLM did not answer in {timeout_s:g} s; ask for fewer tokens, or look at its log"
        ) from error
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise ServerError(f"vLLM broke off: {reason}; ask again, and look at its log") from error


def not_ok(response: httpx.Response) -> ServerError:
    """What a status other than 200 means; the body was read."""
    status = response.status_code
    said = response.text
    with suppress(orjson.JSONDecodeError, TypeError, KeyError):
        said = str(orjson.loads(response.content)["error"]["message"])
    after = response.headers.get("Retry-After", "")
    wait_s = _REPLACED_S if status == httpx.codes.NOT_FOUND else 0.0
    refused = httpx.codes.is_client_error(status)
    return ServerError(
        f"vLLM {'refused' if refused else 'failed'} ({status}): {said[:_SHOWN]!r}",
        again=status in _ASK_AGAIN,
        refused=refused,
        wait_s=float(after) if after.isdecimal() else wait_s,
    )


def read_completion(content: bytes, *, constrained: bool) -> ChatAnswer:
    """A whole answer.

    Args:
        content: the response's body.
        constrained: whether a JSON Schema was sent along.

    Raises:
        ServerError: it is none, or the server did not heed the schema.
    """
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError as error:
        raise ServerError(
            f"vLLM said what is no answer: {content[:_SHOWN]!r}; look at its log"
        ) from error
    [choice] = completion.choices
    text, usage = choice.message.content, completion.usage
    match choice.finish_reason:
        case "stop":
            if constrained and not _is_json(text):
                raise ServerError(
                    f"vLLM did not heed the JSON Schema, it said {text[:_SHOWN]!r}; start it with "
                    "the structured outputs of serving/vllm.yaml"
                )
            return ChatAnswer(text, "stop", usage.prompt_tokens, usage.completion_tokens)
        case "length" if usage.completion_tokens:
            return ChatAnswer(text, "length", usage.prompt_tokens, usage.completion_tokens)
        case "length":
            raise ServerError(
                f"the prompt of {usage.prompt_tokens} tokens leaves no room for an answer; "
                "send fewer or shorter reviews",
                refused=True,
            )
        case other:
            raise ServerError(f"vLLM ended its answer with {other!r}; look at its log")


def read_models(content: bytes) -> list[str]:
    """The names under which a server's model and adapters are asked for.

    Raises:
        ServerError: it is no such list.
    """
    try:
        return [each.id for each in _Models.model_validate_json(content).data]
    except ValidationError as error:
        raise ServerError(f"vLLM lists no models but {content[:_SHOWN]!r}") from error


def read_tokens(content: bytes) -> list[int]:
    """The token ids of a prompt.

    Raises:
        ServerError: there are none.
    """
    try:
        return _Tokens.model_validate_json(content).tokens
    except ValidationError as error:
        raise ServerError(f"vLLM names no token ids but {content[:_SHOWN]!r}") from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

"""OpenAI's chat answers from an engine in this process, for an arm that has no server."""

import time
from typing import Any, Final

import orjson

from data.errors import EngineError
from data.prompts import Message
from serving.engines.chat import ChatAnswer, ChatEngine, ChatRequest
from serving.gateway.language_schemas import ChatIn, CompletionIn
from serving.gateway.limits import Refusal

DEFAULT_TOKENS: Final = 512
_HEEDED: Final = frozenset(
    {
        "model",
        "user",
        "messages",
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "seed",
        "stream",
        "stream_options",
        "response_format",
        "structured_outputs",
    }
)
_AS_IF_LEFT_OUT: Final[dict[str, Any]] = {
    "top_p": 1.0,
    "n": 1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logprobs": False,
    "stop": [],
}


async def answer_chat(
    engine: ChatEngine, asked: ChatIn | CompletionIn, *, request_id: str, model: str
) -> dict[str, Any]:
    """A whole chat completion.

    Args:
        engine: of the arm.
        asked: a chat; a text to go on with is refused, since the engine knows only chats.
        request_id: the completion's id is made of it.
        model: what the answer says answered.

    Raises:
        Refusal: 422 a field that this engine does not heed, or a prompt it refuses; 503 it failed.
    """
    request = _request(asked)
    try:
        (answer,) = await engine.complete([request])
    except EngineError as error:
        raise Refusal(503, "engine_failed", str(error), retry_after_s=5) from error
    if answer.error is not None:
        raise Refusal(422, "engine_refused", f"the model gave no answer: {answer.error}")
    return {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text},
                "finish_reason": answer.finish_reason,
            }
        ],
        "usage": _usage(answer),
    }


def as_events(completion: dict[str, Any], *, with_usage: bool) -> bytes:
    """A whole chat completion as the server-sent events of a stream, its text in one part."""
    (choice,) = completion["choices"]
    head = {name: completion[name] for name in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"
    parts = [
        head | {"choices": [{"index": 0, "delta": choice["message"], "finish_reason": None}]},
        head | {"choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if with_usage:
        parts.append(head | {"choices": [], "usage": completion["usage"]})
    return b"".join(b"data: " + part + b"\n\n" for part in [*map(orjson.dumps, parts), b"[DONE]"])


def _request(asked: ChatIn | CompletionIn) -> ChatRequest:
    if isinstance(asked, CompletionIn):
        raise _not_heeded("prompt", "this arm's engine knows only chats; POST /v1/chat/completions")
    for name in sorted(asked.model_fields_set - _HEEDED):
        value = getattr(asked, name)
        if value is not None and value != _AS_IF_LEFT_OUT.get(name, None):
            raise _not_heeded(name, "this arm's engine does not heed it; leave it out")
    messages: list[Message] = [
        {"role": each.role, "content": each.text()} for each in asked.messages
    ]
    return ChatRequest(
        messages,
        schema=_schema(asked),
        max_tokens=asked.max_completion_tokens or asked.max_tokens or DEFAULT_TOKENS,
        temperature=1.0 if asked.temperature is None else asked.temperature,
        seed=asked.seed,
    )


def _schema(asked: ChatIn) -> dict[str, Any] | None:
    """The JSON Schema that decoding is constrained to, however it was said."""
    said = asked.structured_outputs
    if said is not None:
        if isinstance(said.get("json"), dict):
            schema: dict[str, Any] = said["json"]
            return schema
        if said.get("json_object") is True:
            return {"type": "object"}
        raise _not_heeded("structured_outputs", "this arm's engine heeds json alone, as an object")
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.json_schema is None:
        return {"type": "object"}
    constraint: dict[str, Any] = wanted.json_schema["schema"]
    return constraint


def _usage(answer: ChatAnswer) -> dict[str, int]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.completion_tokens,
        "total_tokens": answer.prompt_tokens + answer.completion_tokens,
    }


def _not_heeded(field: str, message: str) -> Refusal:
    return Refusal(422, "unsupported_field", f"{field}: {message}", field=field)

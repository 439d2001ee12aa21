"""Whether a chat's answer is the JSON that was asked for, and how many tokens it took."""

from typing import Any

import orjson

from serving.gateway.language_schemas import ChatIn, CompletionIn


def keeps_its_form(asked: ChatIn | CompletionIn, completion: dict[str, Any]) -> bool:
    """Whether every choice is JSON where JSON was asked for.

    Constrained decoding promises it, yet an answer that ran out of tokens is cut short, and a
    server that does not know the constraint passes over it. The schema itself is not gone through:
    it is the caller's, and may hold a pattern that takes for ever or a reference to anywhere.

    Args:
        asked: by the caller.
        completion: OpenAI's answer.
    """
    if not isinstance(asked, ChatIn) or not _wants_json(asked):
        return True
    return all(_is_json(choice) for choice in completion.get("choices", []))


def tokens_of(completion: dict[str, Any]) -> int | None:
    """Of prompt and answer together; None where the server does not say."""
    usage = completion.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return total if isinstance(total, int) and total >= 0 else None


def _wants_json(asked: ChatIn) -> bool:
    outputs, form = asked.structured_outputs, asked.response_format
    if outputs is not None:
        return "json" in outputs or outputs.get("json_object") is True
    return form is not None and form.type != "text"


def _is_json(choice: Any) -> bool:
    message = choice.get("message") if isinstance(choice, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, str):
        return False
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return True

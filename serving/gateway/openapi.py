"""What the routes' documentation shares: the errors they answer with, and bodies they read."""

from typing import Any, Final

from serving.gateway.schemas import ErrorAnswer

_ERRORS: Final = {
    400: "Not JSON, not UTF-8, or a bad X-Request-Id.",
    401: "The administrator's token is missing or wrong.",
    403: "This gateway changes nothing: it has no administrator's token.",
    404: "There is nothing of that name or id.",
    409: "It contradicts what happened before: an id was used, or somebody acted meanwhile.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "A field is missing, unknown or out of range.",
    429: "Too many requests wait; see Retry-After.",
    501: "This gateway cannot do that.",
    503: "Not ready, or the store, the engine or its server refused; see Retry-After.",
}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route that may answer with these statuses."""
    return {status: {"model": ErrorAnswer, "description": _ERRORS[status]} for status in statuses}


def json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    """The ``openapi_extra`` of a route that reads its body itself."""
    content = {"application/json": {"schema": _inlined(schema), "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its definitions put where they are used: a body has no place to keep them."""
    definitions = schema.get("$defs", {})

    def visit(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return visit(definitions[node["$ref"].rsplit("/", maxsplit=1)[-1]])
            return {key: visit(value) for key, value in node.items() if key != "$defs"}
        return [visit(each) for each in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = visit(schema)
    return inlined

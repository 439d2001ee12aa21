"""Who may change experiments by the API: whoever knows the administrator's token.

A wrong token is refused at once. There is no delay, which would only hold connections open: a token
has at least 16 characters, which nobody guesses, and refusals are counted as
``matjip_errors_total{code="wrong_token"}``.
"""

import hmac
from typing import Final

from fastapi import Request

from serving.gateway.limits import JSON, Refusal

_SCHEME: Final = "bearer"


def refuse_unless_admin(request: Request, token: str | None) -> None:
    """Let an administrator's request through, if it is one that no other site can forge.

    Args:
        request: with ``Authorization: Bearer <token>``, and JSON by its content type.
        token: the administrator's; None where nobody may write.

    Raises:
        Refusal: 403 nobody may write, 401 the token is missing or wrong, 415 the body is not
            declared as JSON, so that a form of another site could have sent it.
    """
    if token is None:
        raise Refusal(
            403,
            "writes_disabled",
            "this gateway changes no experiments: MATJIP_ADMIN_TOKEN is not set; set it to at "
            "least 16 characters and start the gateway again, or use make experiment",
        )
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Headers arrive as latin-1; compare_digest takes as long for any wrong token of a length.
    right = hmac.compare_digest(given.strip().encode("latin-1", "replace"), token.encode())
    if scheme.lower() != _SCHEME or not right:
        said = "is wrong" if given else "is missing"
        refusal = Refusal(
            401,
            "wrong_token",
            f"the administrator's token {said}; send Authorization: Bearer with the value of "
            "MATJIP_ADMIN_TOKEN",
            field="Authorization",
        )
        refusal.headers = {"WWW-Authenticate": "Bearer"}
        raise refusal
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Refusal(
            415,
            "not_json",
            f"the body's content type is {kind[:100]!r}; send Content-Type: {JSON}",
            field="Content-Type",
        )

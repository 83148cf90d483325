"""What the proxy answers by itself: refusals and failures of the upstream, in the caller's dialect."""

from __future__ import annotations

import logging

from starlette.responses import PlainTextResponse, Response

from leyline.dialects import Dialect
from leyline.harness.exchange import dumped, refusal

log = logging.getLogger("leyline.proxy")


class RefusedError(Exception):
    """A request that is answered here."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answer(refused: RefusedError, dialect: Dialect | None) -> Response:
    """A refusal in the caller's dialect."""
    log.warning("refused with %d: %s", refused.status, refused)
    if dialect is None:
        return PlainTextResponse(f"leyline: {refused}\n", refused.status)
    said = failure(dialect, f"leyline: {refused}", refused.status)
    return Response(dumped(said), refused.status, media_type="application/json")


_KINDS = {  # Anthropic's names of what an error's status means
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def failure(dialect: Dialect, message: str, status: int = 502) -> dict[str, object]:
    """The body of an error in the words of a dialect."""
    if dialect == "messages" and (status in _KINDS or status >= 500):
        return {"type": "error", "error": {"type": _KINDS.get(status, "api_error"), "message": message}}
    if status >= 500:
        return {"error": {"message": message, "type": "server_error", "param": None, "code": "leyline"}}
    return refusal(dialect, message)


def event(dialect: Dialect, message: str) -> bytes:
    """The event that ends a stream which broke off."""
    if dialect == "responses":
        said: dict[str, object] = {"type": "error", "code": "server_error", "message": message, "param": None}
        said["error"] = {"type": "server_error", "code": "leyline", "message": message}  # openai's client raises by it
        return b"event: error\ndata: " + dumped(said) + b"\n\n"
    named = b"event: error\n" if dialect == "messages" else b""
    return named + b"data: " + dumped(failure(dialect, message)) + b"\n\n"

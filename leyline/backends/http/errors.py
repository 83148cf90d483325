"""What went wrong with a server, in one line that says what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import openai

from leyline.backends.contract import BackendError, ContextOverflowError
from leyline.backends.http.overflow import is_overflow

OVERFLOW_STATUS = (400, 413, 422, 424, 500)
"""With which a server may say that a prompt is too long."""

_MESSAGES = ("message", "msg", "detail", "status_msg", "error_msg", "error_description")
# Where an error body speaks; some bodies repeat the request elsewhere.
_SAID = frozenset(
    {*_MESSAGES, "error", "errors", "details", "code", "type", "status", "reason", "base_resp", "metadata", "raw"}
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them


def translate(error: Exception, *, url: str, model: str, timeout: float) -> BackendError:
    """The backend error of a failed request to `url`."""
    if isinstance(error, BackendError):
        return error
    if isinstance(error, openai.APIStatusError):
        return _status(error, url, model)
    if isinstance(error.__cause__ or error, httpx.ConnectTimeout):
        return _connection(error, url)
    if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
        return BackendError(
            f"no answer from {url} within {timeout:g} s; raise the timeout or lower the load", retryable=True
        )
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):
        return _connection(error, url)
    if isinstance(error, UnicodeEncodeError):
        return BackendError(f"the request holds text that is not valid Unicode ({clean(error)}); clean the messages")
    return BackendError(
        f"{url} sent an answer that cannot be read ({clean(error)}); is it an OpenAI-compatible server?"
    )


def clean(value: object, limit: int = 300) -> str:
    """Untrusted text as one short line."""
    text = " ".join(_CONTROL.sub(" ", str(value)).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def body_message(body: object, levels: int = 4) -> tuple[str, str, str]:
    """Message, code and parameter of an error body in any of the usual shapes; empty strings where absent."""
    if isinstance(body, list):  # Gemini's compatible route
        return body_message(body[0], levels - 1) if body and levels else ("", "", "")
    if isinstance(body, str):
        return body, "", ""
    if not isinstance(body, dict):
        return "", "", ""
    inner = body.get("error") or body.get("base_resp") or body
    if not isinstance(inner, dict):
        return (inner if isinstance(inner, str) else ""), "", ""
    found = next((inner[name] for name in _MESSAGES if inner.get(name)), "")
    text = found if isinstance(found, str) else (levels and body_message(found, levels - 1)[0]) or str(found)[:1000]
    metadata = inner.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if raw:  # a router's own message says only that the provider behind it failed
        text = f"{text}: {raw}" if text else str(raw)
    return text, str(inner.get("code") or ""), str(inner.get("param") or "")


def is_failure(answer: Mapping[str, Any]) -> bool:
    """Whether what came with status 200 is an error all the same."""
    base = answer.get("base_resp")
    failed = isinstance(base, Mapping) and base.get("status_code") not in (None, 0)
    return bool(answer.get("error")) or failed or answer.get("object") == "error"


def body_overflows(body: object) -> bool:
    """Whether anything in an error body says that the prompt does not fit into the context."""
    return any(is_overflow(text) for text in _texts(body, 6))


def _texts(value: object, levels: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list) and levels:
        inner = value if isinstance(value, list) else [part for name, part in value.items() if name in _SAID]
        for part in inner:
            yield from _texts(part, levels - 1)


def _status(error: openai.APIStatusError, url: str, model: str) -> BackendError:
    status = error.status_code
    message, code, _ = body_message(error.body)
    said = clean(message or error.response.text or error.response.reason_phrase)
    if status in OVERFLOW_STATUS and body_overflows(error.body):
        return ContextOverflowError(
            f"the prompt does not fit into the context of {model!r}: {said}; edit or shorten it"
        )
    if status in (401, 403):
        return BackendError(f"{url} refused the API key ({status}: {said}); set OPENAI_API_KEY or pass another key")
    if status == 404:
        return BackendError(
            f"{url} knows no model {model!r} or no such route (404: {said}); "
            "check the model's name, and that the base URL ends in /v1"
        )
    if status == 429 and code == "insufficient_quota":
        return BackendError(f"{url} says that the quota is used up ({said}); add credit or use another key")
    if status == 429:
        return BackendError(f"{url} is busy (429: {said}); wait, or lower the number of workers", retryable=True)
    if status in (408, 409) or status >= 500:
        return BackendError(f"{url} failed ({status}: {said}); see the server's log and try again", retryable=True)
    return BackendError(f"{url} refused the request ({status}: {said}); check the model and its settings")


def _connection(error: Exception, url: str) -> BackendError:
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) and error.__cause__ else error
    if isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout):
        return BackendError(
            f"cannot connect to {url} ({clean(cause)}); start the server, or correct the base URL", retryable=True
        )
    return BackendError(f"the connection to {url} broke off ({clean(cause)}); see the server's log", retryable=True)

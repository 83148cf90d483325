"""What went wrong with a server, in one line that says what to do next."""

from __future__ import annotations

import re

import httpx
import openai

from leyline.backends.contract import BackendError, ContextOverflowError

_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length|context[ _]?(length|window|size)|prompt is too long"
    r"|too many (input )?tokens|max_model_len|longer than the model|input is too long|exceeds? the .{0,30}context",
    re.IGNORECASE,
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


def is_overflow(text: str) -> bool:
    """Whether a server's words mean that the prompt does not fit into the context."""
    return bool(_OVERFLOW.search(text))


def clean(value: object, limit: int = 300) -> str:
    """Untrusted text as one short line."""
    text = " ".join(_CONTROL.sub(" ", str(value)).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def body_message(body: object) -> tuple[str, str, str]:
    """Message, code and parameter of an error body in any of the usual shapes; empty strings where absent."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, str):
            return inner, "", ""
        if isinstance(inner, dict):
            text = inner.get("message") or inner.get("detail") or ""
            return str(text), str(inner.get("code") or ""), str(inner.get("param") or "")
    return "", "", ""


def _status(error: openai.APIStatusError, url: str, model: str) -> BackendError:
    status = error.status_code
    message, code, _ = body_message(error.body)
    said = clean(message or error.response.text or error.response.reason_phrase)
    if status in (400, 413, 422) and (code == "context_length_exceeded" or is_overflow(message)):
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

"""What went wrong with a server, in one line that says what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
    """The backend error of a failed request to an OpenAI-compatible server."""
    if isinstance(error, BackendError):
        return error
    server = Server(
        url,
        context=f"the context of {model!r}",
        unknown=f"knows no model {model!r} or no such route",
        missing="check the model's name, and that the base URL ends in /v1",
    )
    if isinstance(error, openai.APIStatusError):
        return server.status(error.status_code, error.body, error.response.text or error.response.reason_phrase)
    cause = error.__cause__ if isinstance(error, openai.APIConnectionError) else None
    if isinstance(cause, Exception):  # the client's own words say only that there was an error
        return server.connection(cause, timeout)
    if isinstance(error, openai.APIConnectionError | httpx.TransportError):
        return server.connection(error, timeout)
    if isinstance(error, UnicodeEncodeError):
        return no_unicode(error)
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


def is_failure(answer: Mapping[str, object]) -> bool:
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


@dataclass(frozen=True)
class Server:
    """A server as errors speak of it.

    url: its address. context: whose context a prompt overflows. unknown: what 404 says. key, missing, settings, start:
    what to do about a refused key, a 404, a refused request and a server that is not there.
    """

    url: str
    context: str = "the model's context"
    key: str = "set OPENAI_API_KEY or pass another key"
    unknown: str = "has no such route"
    missing: str = "check the address"
    settings: str = "check the model and its settings"
    start: str = "start the server"

    def status(self, status: int, body: object, text: str) -> BackendError:
        """What an answer with an error's status means. body: parsed, or text. text: for a body that says nothing."""
        message, code, _ = body_message(body)
        said, url = clean(message or text), self.url
        if status in OVERFLOW_STATUS and body_overflows(body):
            return ContextOverflowError(f"the prompt does not fit into {self.context}: {said}; edit or shorten it")
        if status in (401, 403):
            return BackendError(f"{url} refused the API key ({status}: {said}); {self.key}", final=True)
        if status == 404:
            return BackendError(f"{url} {self.unknown} (404: {said}); {self.missing}")
        if status == 429 and code == "insufficient_quota":
            return BackendError(
                f"{url} says that the quota is used up ({said}); add credit or use another key", final=True
            )
        if status == 429:
            return BackendError(f"{url} is busy (429: {said}); wait, or lower the number of workers", retryable=True)
        if status in (408, 409) or status >= 500:
            return BackendError(f"{url} failed ({status}: {said}); see the server's log and try again", retryable=True)
        return BackendError(f"{url} refused the request ({status}: {said}); {self.settings}")

    def connection(self, error: Exception, timeout: float) -> BackendError:
        """What a connection that was not made, timed out or broke off means. timeout: seconds."""
        said = clean(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return BackendError(
                f"cannot connect to {self.url} ({said}); {self.start}, or correct the base URL", retryable=True
            )
        if isinstance(error, openai.APITimeoutError | httpx.TimeoutException):
            return BackendError(
                f"no answer from {self.url} within {timeout:g} s; raise the timeout or lower the load", retryable=True
            )
        return BackendError(f"the connection to {self.url} broke off ({said}); see the server's log", retryable=True)


def no_unicode(error: UnicodeError) -> BackendError:
    """A request that cannot be sent as UTF-8."""
    return BackendError(f"the request holds text that is not valid Unicode ({clean(error)}); clean the messages")


def checked_url(url: str, form: str) -> str:
    """`url`, if it is one of HTTP. form: what it should look like. Raises BackendError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BackendError(f"base URL {url!r} is not a URL: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise BackendError(f"base URL {url!r} must have the form {form}")
    return url

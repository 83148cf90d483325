"""Any OpenAI-compatible server, over chat completions. No directives: edited prompts are prefilled as usual."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import httpx
import openai

from leyline.backends.contract import BackendError, Capabilities, TokenRenderer, Turn, TurnInput, Usage
from leyline.backends.http.affinity import affinity_headers
from leyline.backends.http.errors import body_message, checked_url, translate
from leyline.backends.openai.assembly import Assembly
from leyline.backends.openai.reply import (
    MalformedReplyError,
    Reply,
    is_bound,
    read_completion,
    read_models,
    shown_text,
    sse_chunks,
)
from leyline.directives import JsonObject, Message, Receipt

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0

# Settings that some servers refuse. A request that fails over one of them is sent again without it, once.
_OPTIONAL = ("max_tokens", "temperature", "top_p", "seed", "stop", "stream_options")

_NOT_TAKEN = re.compile(
    r"support|unexpected|unknown|unrecogni[sz]ed|extra|additional|must not|not (?:permitted|allowed|accepted)",
    re.IGNORECASE,
)


class OpenAIBackend:
    """Serves turns through `POST {base_url}/chat/completions`.

    model: the name to ask for; None takes the only model that the server lists.
    base_url: the address up to and including `/v1`; None is OPENAI_BASE_URL, else OpenAI's own.
    api_key: None is OPENAI_API_KEY; a server with its own `base_url` may do without.
    timeout: seconds for a whole answer, or between two pieces of a streamed one. retries: how often a request that
        timed out, found the server busy (429) or failed (5xx, refused connection) is sent again, with growing pauses.
    max_context: tokens, if known. extra_body: further fields of every request, such as a server's own settings.
    http_client: an `httpx.Client` to use instead of an own one; it is not closed.

    The session's text goes to `on_text` as it is generated, when one is given.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float = 600.0,
        retries: int = 3,
        max_context: int | None = None,
        extra_body: Mapping[str, object] | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        checked_url(base_url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1", "http://HOST:PORT/v1")
        self._timeout, self._max_context, self._extra_body = timeout, max_context, dict(extra_body or {})
        self._retries = retries
        self._refused: set[str] = set()
        self._unwanted: set[str] = set()  # fields of earlier answers that the server does not take back
        # Always an httpx client of ours: the openai package changed its own HTTP library between releases, and with it
        # the exceptions that a broken stream raises.
        self._http = http_client or httpx.Client(
            timeout=httpx.Timeout(timeout, connect=min(10.0, timeout)), follow_redirects=True
        )
        self._own_http = http_client is None
        self._client = self._connect(base_url, api_key, retries)
        self._url = str(self._client.base_url).rstrip("/")
        self._model = model

    def _connect(self, base_url: str | None, api_key: str | None, retries: int) -> openai.OpenAI:
        settings: JsonObject = {
            "timeout": self._http.timeout if self._own_http else self._timeout,
            "max_retries": retries,
            "http_client": self._http,
        }
        try:
            return openai.OpenAI(base_url=base_url, api_key=api_key, **settings)
        except openai.OpenAIError:  # no key anywhere; local servers want none
            if base_url is None and not os.environ.get("OPENAI_BASE_URL"):
                raise BackendError("no API key: set OPENAI_API_KEY, pass api_key, or name a base URL") from None
            return openai.OpenAI(base_url=base_url, api_key="none", **settings)

    @property
    def renderer(self) -> TokenRenderer | None:
        """None: the server renders."""
        return None

    @property
    def model(self) -> str:
        """The model's name; asks the server where none was given. Raises `BackendError`."""
        if self._model is None:
            names = self._guard(lambda: read_models(self._client.models.with_raw_response.list().content))
            if len(names) != 1:
                listed = ", ".join(names[:10]) or "none"
                raise BackendError(f"name the model to use; {self._url} lists {listed}")
            self._model = names[0]
        return self._model

    def capabilities(self) -> Capabilities:
        return Capabilities(
            name="openai",
            model=self.model,
            splice=False,
            tokens=False,
            max_context=self._max_context,
            reason="a plain OpenAI-compatible server takes no directives",
        )

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        """One completion. Raises `BackendError`; `ContextOverflowError` when the prompt does not fit."""
        request = self._request(messages, tools, session)
        started = time.perf_counter()
        first: list[float] = []
        shown: list[bool] = []

        def on_text(text: str) -> None:
            if not first:
                first.append(time.perf_counter() - started)
            if text and session.on_text is not None:
                shown.append(True)
                session.on_text(text)

        send = partial(self._again, lambda: not shown) if session.on_text is not None else self._whole
        reply = self._guard(lambda: self._adapt(send, request, on_text))
        usage = reply.usage or Usage(0, 0, 0)
        receipt = Receipt.plain(
            usage.prompt_tokens,
            usage.cached_tokens,
            directives=len(session.script) or session.edits,
            detail=None if reply.usage else "the server sent no usage block, so no tokens could be counted",
        )
        timings = {"ttft": first[0]} if first else {}
        return Turn(reply.message, usage, receipt, finish_reason=reply.finish_reason, timings=timings)

    def prewarm(self, session: TurnInput) -> None:
        """Nothing: a plain server cannot be told to prefill only."""

    def close(self) -> None:
        """Close the connections, unless they belong to a client that was passed in."""
        if self._own_http:
            self._http.close()

    def _request(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> JsonObject:
        sampling = session.sampling
        request: dict[str, object] = {
            "model": self.model,
            "messages": list(messages),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
        }
        if tools:
            request["tools"] = list(tools)
        if sampling.top_p != 1.0:
            request["top_p"] = sampling.top_p
        if sampling.seed is not None:
            request["seed"] = sampling.seed
        if sampling.stop:
            request["stop"] = list(sampling.stop)
        if session.on_text is not None:
            request.update(stream=True, stream_options={"include_usage": True})
        if self._extra_body:
            request["extra_body"] = self._extra_body
        request["extra_headers"] = affinity_headers(session.session_id, session.tenant, present=self._http.headers)
        return request

    def _adapt(
        self,
        send: Callable[[JsonObject, Callable[[str], None]], Reply],
        request: JsonObject,
        on_text: Callable[[str], None],
    ) -> Reply:
        """Send, and send again without a setting, or a field of an earlier answer, that this server refuses."""
        while True:
            usable = {name: value for name, value in request.items() if name not in self._refused}
            if self._unwanted:
                usable["messages"] = [_without(message, self._unwanted) for message in request["messages"]]
            if "max_tokens" in self._refused:
                usable["max_completion_tokens"] = request["max_tokens"]
            try:
                return send(usable, on_text)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                refused, unwanted = _refused_setting(error, usable), _unwanted_fields(error, usable["messages"])
                if refused is not None:
                    self._refused.add(refused)
                elif unwanted:
                    self._unwanted |= unwanted
                else:
                    raise

    def _whole(self, request: JsonObject, on_text: Callable[[str], None]) -> Reply:
        answer = self._client.chat.completions.with_raw_response.create(**request)
        return read_completion(answer.content, tools="tools" in request)

    def _again(self, may: Callable[[], bool], request: JsonObject, on_text: Callable[[str], None]) -> Reply:
        """A stream, sent again where it breaks off or fails in an event before any text was shown.

        The openai client sends again what fails before the stream opens; a router that loses a replica says so in it.
        """
        for tried in range(self._retries + 1):
            try:
                return self._stream(request, on_text)
            except (BackendError, httpx.HTTPError, httpx.StreamError) as error:
                lost = not isinstance(error, BackendError) or error.retryable
                if not lost or not may() or tried == self._retries:
                    raise
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**tried))
        raise AssertionError("the last try raises")

    def _stream(self, request: JsonObject, on_text: Callable[[str], None]) -> Reply:
        assembly = Assembly()
        with self._client.chat.completions.with_streaming_response.create(**request) as answer:
            if "text/event-stream" not in answer.headers.get("content-type", ""):
                reply = read_completion(answer.read(), tools="tools" in request)  # a server that does not stream
                on_text(shown_text(reply.message.get("content") or ""))
                return reply
            for chunk in sse_chunks(answer.iter_bytes()):
                on_text(assembly.add(chunk))
        return assembly.reply(tools="tools" in request)

    def _guard(self, call: Callable[[], T]) -> T:
        """Run a request; every way it can fail becomes a `BackendError`."""
        try:
            return call()
        except (openai.OpenAIError, httpx.HTTPError, httpx.StreamError, MalformedReplyError, UnicodeError) as error:
            raise translate(error, url=self._url, model=self._model or "", timeout=self._timeout) from None


def _refused_setting(error: openai.APIStatusError, request: Mapping[str, object]) -> str | None:
    """The optional setting of `request` that the server says it does not support, or None."""
    message, code, param = body_message(error.body)
    unsupported = code in ("unsupported_parameter", "unsupported_value") or "nsupported" in message
    if not unsupported and "not supported" not in message and "does not support" not in message:
        return None
    for name in _OPTIONAL:
        if name in request and (param == name or (not param and re.search(rf"\b{name}\b", message))):
            return name
    return None


def _unwanted_fields(error: openai.APIStatusError, messages: Sequence[Message]) -> set[str]:
    """The fields of earlier answers that the server says it does not take."""
    text = body_message(error.body)[0]
    if not _NOT_TAKEN.search(text):
        return set()
    held = {name for message in messages for name in message if is_bound(name)}
    return {name for name in held if re.search(rf"\b{re.escape(name)}\b", text)}


def _without(message: Message, fields: set[str]) -> Message:
    return {name: value for name, value in message.items() if name not in fields}

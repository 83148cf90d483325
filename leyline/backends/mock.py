"""A scripted backend, in process and without a model: for tests of policies, harnesses and agents."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline.backends.contract import BackendError, Capabilities, TokenRenderer, Turn, TurnInput, Usage
from leyline.directives import JsonObject, Message, Receipt, canonical
from leyline.directives.common import common_prefix

Reply = str | Message | BaseException | Callable[[list[Message]], Any]
"""What the mock answers: a text, an assistant message, an exception to raise, or a function of the messages that gives
one of these."""


def tool_call(name: str, /, call_id: str | None = None, **arguments: object) -> Message:
    """An assistant message that calls one tool. Without `call_id` the backend numbers the calls of its replies."""
    call = {
        "id": call_id or "",
        "type": "function",
        "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)},
    }
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@dataclass(frozen=True)
class MockRequest:
    """A request as the mock saw it; messages and tools are copies."""

    messages: list[Message]
    tools: list[JsonObject] | None
    session: TurnInput


@dataclass
class _Cache:
    """Every sequence served so far; a prompt hits the longest prefix that it shares with one of them."""

    sequences: list[Sequence[Any]] = field(default_factory=list)

    def hit(self, tokens: Sequence[object]) -> int:
        # The last token is always computed: its logits are the answer.
        longest = (common_prefix(tokens, s) for s in self.sequences)
        return min(max(longest, default=0), max(0, len(tokens) - 1))


class MockBackend:
    """Answers from a script, and counts tokens and cache hits as a plain server with a prefix cache would.

    script: the replies in order, or one function of the messages that answers every request.
    tokenize: text -> tokens; by default a token is a character.

    `requests` holds what was asked. A script that runs out raises `BackendError`. Tenants share no cache.
    """

    def __init__(
        self,
        script: Iterable[Reply] | Callable[[list[Message]], object],
        *,
        tokenize: Callable[[str], Sequence[object]] = tuple,
        model: str = "mock",
    ) -> None:
        if isinstance(script, str | Mapping):
            raise TypeError("script must be a list of replies or a function, not one reply; put it into a list")
        self._always = script if callable(script) else None
        self._replies = [] if callable(script) else list(script)
        self._tokenize, self._name = tokenize, model
        self._caches: dict[str | None, _Cache] = {}
        self._lock = threading.Lock()
        self._calls = 0
        self.requests: list[MockRequest] = []

    @property
    def renderer(self) -> TokenRenderer | None:
        """None: as a plain server, the mock renders by itself."""
        return None

    @property
    def remaining(self) -> int:
        """Replies of the script that were not asked for yet."""
        return 0 if self._always else max(0, len(self._replies) - len(self.requests))

    def capabilities(self) -> Capabilities:
        return Capabilities(
            name="mock", model=self._name, splice=False, tokens=False, reason="the mock has no cache to splice"
        )

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        """The next reply. Raises what the script says, and `BackendError` when it is used up."""
        seen = copy.deepcopy(list(messages))
        with self._lock:
            number = len(self.requests)
            self.requests.append(MockRequest(seen, copy.deepcopy([dict(t) for t in tools]) if tools else None, session))
            if self._always is None and number >= len(self._replies):
                raise BackendError(f"the mock's script has {len(self._replies)} replies, all used; add one")
            reply = self._resolve(self._always or self._replies[number], messages)
            prompt = "".join(
                [self._text(t, "tool") for t in tools or ()] + [self._text(m, "message") for m in messages]
            )
            return self._turn(reply, prompt, session)

    def prewarm(self, session: TurnInput) -> None:
        """Nothing: a plain server cannot be told to prefill only."""

    def close(self) -> None:
        """Nothing to close."""

    def _resolve(self, reply: object, messages: Sequence[Message]) -> Message:
        while callable(reply) and not isinstance(reply, BaseException | type):
            reply = reply(copy.deepcopy(list(messages)))
        if isinstance(reply, BaseException):
            raise reply
        if isinstance(reply, str):
            return {"role": "assistant", "content": reply}
        if not isinstance(reply, Mapping):
            raise TypeError(
                f"a reply must be a text, a message, an exception or a function, not {type(reply).__name__}"
            )
        message: Message = {"role": "assistant", **copy.deepcopy(dict(reply))}
        for call in message.get("tool_calls") or ():
            if not call.get("id"):
                self._calls += 1
                call["id"] = f"call_{self._calls}"
        return message

    def _turn(self, message: Message, prompt: str, session: TurnInput) -> Turn:
        tokens = self._tokenize(prompt)
        cache = self._caches.setdefault(session.tenant, _Cache())
        cached = cache.hit(tokens)
        whole = self._tokenize(prompt + self._text(message, "message"))
        cache.sequences.append(whole)
        usage = Usage(len(tokens), cached, max(1, len(whole) - len(tokens)))
        if session.on_text is not None and message.get("content"):
            for piece in str(message["content"]).splitlines(keepends=True):
                session.on_text(piece)
        receipt = Receipt.plain(len(tokens), cached, directives=len(session.script) or session.edits)
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        return Turn(message, usage, receipt, finish_reason=reason)

    @staticmethod
    def _text(value: Any, kind: str) -> str:
        return f"<{kind}>{canonical(value)}\n"

"""A backend in process that checks what a session tells it, with one character a token."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from leyline.backends.contract import BackendError, Capabilities, Turn, TurnInput, Usage
from leyline.directives import Fallback, Message, Receipt, Rendered

Answer = Message | BaseException | str


class CharRenderer:
    """`[role|content]` a message, one token a character; answers that were generated keep their exact tokens."""

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None = None,
        pinned: Mapping[int, Sequence[int]] | None = None,
    ) -> Rendered:
        ids: list[int] = []
        spans = []
        for index, message in enumerate(messages):
            start = len(ids)
            body = [ord(c) for c in self.body(message)]
            ids += [*map(ord, f"[{message['role']}|"), *((pinned or {}).get(index, body)), ord("]")]
            spans.append((start, len(ids)))
        return Rendered((*ids, *map(ord, "[assistant|")), tuple(spans))

    @staticmethod
    def body(message: Message) -> str:
        calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
        return f"{message.get('content') or ''}{calls}"


class ScriptedBackend:
    """Answers from a list, keeps every request, and refuses a script that does not lead to the prompt."""

    def __init__(self, answers: Sequence[Answer], *, tokens: bool = True, splice: bool = True) -> None:
        self.answers, self.splice = list(answers), splice
        self.renderer = CharRenderer() if tokens else None
        self.requests: list[tuple[list[Message], TurnInput]] = []
        self.prewarmed: list[TurnInput] = []
        self.held: tuple[int, ...] | None = None

    def capabilities(self) -> Capabilities:
        return Capabilities("scripted", "none", self.splice, self.renderer is not None)

    def chat(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] | None, session: TurnInput) -> Turn:
        self.requests.append((list(messages), session))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        text = CharRenderer.body(message)
        if session.on_text:
            session.on_text(text)
        receipt = self.serve(session) if session.prompt else Receipt.plain(10 * len(messages), 0)
        # The model wrote in capitals what the client gets in lower case: a renderer that re-tokenises is found out.
        output = tuple(map(ord, text.upper()))
        if session.prompt:
            self.held = session.prompt.ids + output
        usage = Usage(receipt.prompt_tokens, receipt.prefix_tokens, len(text))
        return Turn(message, usage, receipt, output if session.prompt else None, timings={"prefill": 0.5})

    def serve(self, session: TurnInput) -> Receipt:
        assert session.prompt is not None
        ids, total = session.prompt.ids, len(session.prompt.ids)
        if session.source is None:
            return Receipt.plain(total, 0)
        assert session.source == self.held
        target = session.script.apply(session.source)
        assert target == list(ids[: len(target)])
        parts = {"prefix": 0, "reuse": 0, "prefill": total - len(target)}
        for segment in session.script.segments(len(session.source), seam=session.seam):
            parts[segment.kind] += segment.length
        if not self.splice:
            parts["prefill"], parts["reuse"] = parts["prefill"] + parts["reuse"], 0
        lost = bool(session.script) and not self.splice
        return Receipt(
            total,
            parts["prefix"],
            parts["reuse"],
            parts["prefill"],
            approximate_from=parts["prefix"] if parts["reuse"] else None,
            lineage="L1" if parts["reuse"] else session.lineage,
            fallback=Fallback.BACKEND_HAS_NO_SPLICE if lost else None,
        )

    def prewarm(self, session: TurnInput) -> None:
        self.prewarmed.append(session)

    def close(self) -> None:
        self.answers.clear()


@pytest.fixture
def scripted() -> Callable[..., ScriptedBackend]:
    """`scripted(answers, tokens=True, splice=True)` gives a backend that answers from the list."""
    return ScriptedBackend


@pytest.fixture
def lost_server() -> BackendError:
    return BackendError("the server is away: start it again", retryable=True)

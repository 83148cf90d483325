"""Reads what `/generate` answers, piece by piece, without trust in its shape."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from leyline.backends.contract import BackendError, ContextOverflowError
from leyline.backends.http.errors import body_message, body_overflows, clean
from leyline.backends.http.overflow import is_overflow
from leyline.directives import JsonMapping, JsonObject
from leyline.directives.receipt import receipt_entry
from leyline.rendering.textstream import TextStream


@dataclass
class Generation:
    """One answer as it grows: `take` each event, then `finish`.

    Text is decoded here, from the tokens: the server drops special tokens from its own text, and models mark tool
    calls with them.
    """

    tokenizer: Tokenizer
    stop: tuple[str, ...] = ()
    on_text: Callable[[str], None] | None = None
    started: float = field(default_factory=time.perf_counter)
    ids: list[int] = field(default_factory=list)
    meta_info: JsonObject = field(default_factory=dict)
    finish: JsonMapping | None = None
    first: float | None = None
    _stream: TextStream = field(init=False)
    _pushed: int = 0

    def __post_init__(self) -> None:
        self._stream = TextStream(self.tokenizer, self.stop, self.on_text)

    def restart(self) -> None:
        """Forget what came of an answer that broke off before its first token."""
        self.ids, self.meta_info, self.finish = [], {}, None

    def take(self, event: Mapping[str, object]) -> bool:
        """Take an event in; whether the answer has begun. Raises `BackendError`, and is then unchanged."""
        if event.get("error"):
            raise _failed(event)
        meta, ids = event.get("meta_info"), event.get("output_ids")
        if not isinstance(meta, dict) or not isinstance(ids, list) or any(type(i) is not int for i in ids):
            raise BackendError("the server's answer has no output_ids or no meta_info; is it an SGLang server?")
        finish = meta.get("finish_reason")
        if isinstance(finish, Mapping) and finish.get("type") == "abort":
            raise _aborted(finish)
        told = [receipt_entry(m.get("leyline")) for m in (meta, self.meta_info)]
        receipt = next((entry for entry in told if entry is not None), None)
        self.meta_info = {**self.meta_info, **meta, "leyline": receipt}
        # A piece holds all tokens so far, or, with --incremental-streaming-output, the new ones.
        done = meta.get("completion_tokens")
        self.ids = ids if len(ids) == done else [*self.ids, *ids]
        if ids and self.first is None:
            self.first = time.perf_counter() - self.started
        if isinstance(finish, Mapping):
            self.finish = finish
        self._push()
        return bool(self.ids) or self.finish is not None

    def _push(self) -> None:
        """Decode what is new, without the token that stopped the answer."""
        for token in self.answer_ids()[self._pushed :]:
            self._pushed += 1
            if self._stream.push(token):
                return

    def answer_ids(self) -> list[int]:
        """The generated tokens, without the stop token that ended them."""
        matched = self.finish.get("matched") if self.finish is not None else None
        ended = type(matched) is int and bool(self.ids) and self.ids[-1] == matched
        return self.ids[:-1] if ended else self.ids

    def text_and_ids(self) -> tuple[str, list[int]]:
        """The whole text and its tokens. Raises `BackendError` when the stream broke off."""
        if self.finish is None:
            raise BackendError("the stream ended before the answer was complete; see the server's log", retryable=True)
        return self._stream.finish()

    def finish_reason(self) -> str:
        return str((self.finish or {}).get("type", "stop"))

    def count(self, name: str) -> int:
        """A number of tokens in `meta_info`; 0 where the server gives none."""
        value = self.meta_info.get(name)
        return value if type(value) is int and value > 0 else 0


def _failed(event: Mapping[str, object]) -> BackendError:
    message = body_message(dict(event))[0]
    said = clean(message or event.get("error"))
    if body_overflows(event):
        return ContextOverflowError(f"the prompt does not fit into the model's context: {said}; edit or shorten it")
    # A router reports a replica that died in the stream itself, since its headers are out; what is wrong with the
    # request stays wrong.
    error = event.get("error")
    code = error.get("code") if isinstance(error, Mapping) else None
    wrong = type(code) is int and 400 <= code < 500 and code not in (408, 429)
    return BackendError(f"the server could not answer ({said}); see its log", retryable=not wrong)


def _aborted(finish: Mapping[str, object]) -> BackendError:
    said = clean(finish.get("message") or "no reason given")
    if is_overflow(str(finish.get("message"))):
        return ContextOverflowError(f"the prompt does not fit: {said}; edit or shorten it")
    busy = finish.get("status_code") in (429, 503)
    return BackendError(f"the server aborted the request ({said})", retryable=busy)

"""From tokens to text while they are generated: stop strings, and pieces of text that no later token changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
WINDOW = 16


class TextStream:
    """Collects tokens, hands out text as soon as it is certain, and watches for stop strings.

    on_text gets the pieces; joined they are `text()`. Text that may be the start of a stop string, or half of a
    character, is held back.
    """

    def __init__(
        self, tokenizer: Tokenizer, stop: Sequence[str] = (), on_text: Callable[[str], None] | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._stop = tuple(s for s in stop if s)
        self._on_text = on_text
        self._ids: list[int] = []
        self._settled = 0  # tokens whose text is in _done
        self._done = ""
        self._sent = 0
        self._cut: int | None = None

    def push(self, token: int) -> bool:
        """Take a token. Returns True when a stop string is complete."""
        self._ids.append(token)
        if self._on_text is None and not self._stop:
            return False
        text = self._text()
        hits = [at for s in self._stop if (at := text.find(s, max(0, self._sent - len(s)))) >= 0]
        if hits:
            self._cut = min(hits)
            self._send(text[: self._cut])
            return True
        self._send(text[: len(text) - self._unsure(text)])
        return False

    def finish(self) -> tuple[str, list[int]]:
        """The whole text, and the tokens that make it up: all of them, or those before a stop string."""
        text = self._decode(self._ids)
        if self._cut is None:
            self._send(text)
            return text, self._ids
        text = text[: self._cut]
        kept = len(self._ids)
        while kept and not text.startswith(self._decode(self._ids[:kept])):
            kept -= 1
        return text, self._ids[:kept]

    def _text(self) -> str:
        """All text so far. Only the last tokens are decoded again: a token changes the text of few before it."""
        if len(self._ids) - self._settled > 2 * WINDOW:
            cut = len(self._ids) - WINDOW
            piece = self._decode(self._ids[self._settled : cut])
            rest = self._decode(self._ids[cut:])
            if piece + rest == self._decode(self._ids[self._settled :]):
                self._done += piece
                self._settled = cut
        return self._done + self._decode(self._ids[self._settled :])

    def _unsure(self, text: str) -> int:
        """How many characters at the end may still change or belong to a stop string."""
        unsure = len(text) - len(text.rstrip(REPLACEMENT))
        for s in self._stop:
            for size in range(min(len(s) - 1, len(text)), unsure, -1):
                if text.endswith(s[:size]):
                    unsure = size
                    break
        return unsure

    def _send(self, text: str) -> None:
        if self._on_text is not None and len(text) > self._sent:
            self._on_text(text[self._sent :])
        self._sent = max(self._sent, len(text))

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

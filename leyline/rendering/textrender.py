"""A renderer for recorded text, for any tokenizer: ChatML frames, each message tokenised once.

Recordings often come without the model that made them. Hit rates depend on where messages begin and how long they are,
not on the exact frame, so ChatML stands in; give `leyline replay` a model folder to render with its own template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from leyline.directives import Message, Rendered
from leyline.directives.content import content_text
from leyline.directives.hermes import block
from leyline.rendering.tokenizer import tokenisable

_MAX_CACHED = 200_000


class TextRenderer:
    """Implements `TokenRenderer`. Not thread-safe; share one between policies, so that a text is tokenised once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, tuple[int, ...]] = {}
        self._close = self._ids("<|im_end|>\n")
        self._prompt = self._ids("<|im_start|>assistant\n")

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        pinned: Mapping[int, Sequence[int]] | None = None,
    ) -> Rendered:
        """The tokens of a conversation, one span a message, and the opening of the answer."""
        ids: list[int] = []
        spans = []
        if tools:
            ids += self._ids(f"<|im_start|>system\n{json.dumps(list(tools))}<|im_end|>\n")
        for index, message in enumerate(messages):
            start = len(ids)
            ids += self._ids(f"<|im_start|>{message['role']}\n")
            ids += pinned[index] if pinned is not None and index in pinned else self.answer_ids(message)
            ids += self._close
            spans.append((start, len(ids)))
        ids += self._prompt
        return Rendered(tuple(ids), tuple(spans))

    def answer_ids(self, message: Message) -> tuple[int, ...]:
        """The tokens of a message inside its frame."""
        return self._ids(text_of(message))

    def _ids(self, text: str) -> tuple[int, ...]:
        found = self._cache.get(text)
        if found is None:
            if len(self._cache) > _MAX_CACHED:
                self._cache.clear()
            found = self._cache[text] = tuple(self._tokenizer.encode(tokenisable(text), add_special_tokens=False).ids)
        return found


def text_of(message: Message) -> str:
    """The text a model would read: the text of the content, tool calls as Hermes blocks."""
    text = content_text(message)
    for call in message.get("tool_calls") or ():
        text += block(json.dumps(call.get("function") or {}, ensure_ascii=False, default=str))
    return text

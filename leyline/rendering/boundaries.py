"""Where each message ends in a rendered conversation.

A template is a program: it need not print messages one after the other. The end of message i is looked for by
rendering the messages up to i; a result that is no prefix of the whole text means that the template treats a last
message otherwise (Qwen3 keeps the thinking of the newest turn only, Qwen2.5 joins neighbouring tool results). Then a
message that goes on with the conversation is appended, and at last the common prefix decides. A boundary that is off
by some tokens is not wrong, only costly: what changes outside of a message that was edited counts as undeclared and
is prefilled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b

from leyline.directives import JsonMapping, Message
from leyline.directives.common import common_prefix
from leyline.rendering.errors import RenderingError
from leyline.rendering.template import ChatTemplate

PROBE: Message = {"role": "user", "content": "\u241fleyline probe\u241f"}
ANSWER: Message = {"role": "assistant", "content": "\u241fleyline answer\u241f"}
"""For templates in which the user and the assistant must take turns."""


class BoundaryFinder:
    """Renders conversations and remembers where messages ended, so that a growing history is not rendered anew."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[bytes, tuple[int, bytes]] = {}

    def find(self, messages: Sequence[Message], tools: Sequence[JsonMapping] | None) -> tuple[str, list[int]]:
        """The text with the generation prompt, and for each message the character where it ends, ascending."""
        text = self._template.render(messages, tools, add_generation_prompt=True)
        seen = blake2b()
        seen_to = 0
        known: dict[bytes, tuple[int, bytes]] = {}
        chain = blake2b(json.dumps(tools, default=str).encode()).digest()
        boundaries: list[int] = []
        for index, message in enumerate(messages):
            content = json.dumps(message, sort_keys=True, default=str)
            chain = blake2b(chain + content.encode()).digest()
            length, digest = self._known.get(chain, (0, b""))
            at = -1
            if digest and seen_to <= length <= len(text):
                here = seen.copy()
                here.update(text[seen_to:length].encode(errors="surrogatepass"))
                at = length if here.digest() == digest else -1
            exact = at >= 0
            if not exact:
                at, exact = self._search(text, messages[: index + 1], tools)
            at = max(at, boundaries[-1] if boundaries else 0)
            if exact:
                seen.update(text[seen_to:at].encode(errors="surrogatepass"))
                seen_to = at
                known[chain] = (at, seen.digest())
            boundaries.append(at)
        self._known = known
        return text, boundaries

    def _search(
        self, text: str, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None
    ) -> tuple[int, bool]:
        """Where the last of `messages` ends in `text`, and whether that holds for every continuation."""
        alone = self._render(messages, tools)
        if alone is not None and text.startswith(alone):
            return len(alone), True
        one = self._render([*messages, PROBE], tools)
        two = self._render([*messages, PROBE, PROBE], tools)
        if one is not None and two is not None and two.startswith(one):
            probe = two[len(one) :]
            end = len(one) - len(probe)
            if one.endswith(probe) and text.startswith(one[:end]):
                return end, False
        answered = self._render([*messages, ANSWER], tools) if one is None else None
        shared = [common_prefix(text, other) for other in (alone, one, answered) if other is not None]
        return max(shared, default=0), False

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None) -> str | None:
        try:
            return self._template.render(messages, tools, add_generation_prompt=False)
        except RenderingError:
            return None

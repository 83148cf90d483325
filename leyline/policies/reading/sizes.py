"""The size of messages without a tokenizer."""

from __future__ import annotations

import json

from leyline.directives import Message
from leyline.directives.content import content_text, is_thinking, other_parts

PART_TOKENS = 1000
"""What an image, or any other part of a content that is not text, counts: a rough constant, not a measurement.

It lies between two published rules for an image of 1024 by 1024 pixels: 765 tokens (OpenAI's for GPT-4o: 85, and 170
for each tile of 512 by 512) and 1,398 (Anthropic's: pixels over 750). The length of its encoding says little.
"""

_BESIDE = frozenset({"role", "content", "cache_control", "tool_call_id", "id", "name", "is_error", "status", "refusal"})


def approximate_tokens(message: Message) -> int:
    """Characters of text, thinking and tool calls, over four, rounded up, and `PART_TOKENS` for each other part."""
    calls, content = message.get("tool_calls"), message.get("content")
    thought = [part for part in content if is_thinking(part)] if isinstance(content, list) else []
    extra = sum(len(json.dumps(found, ensure_ascii=False, default=str)) for found in (calls, thought) if found)
    return -(-(len(content_text(message)) + extra) // 4) + PART_TOKENS * len(other_parts(message))


def weight(message: Message) -> int:
    """Characters of everything in a message that a model reads; `4 * PART_TOKENS` for each part that is no text."""
    rest = {k: v for k, v in message.items() if k not in _BESIDE and v not in (None, "", [], {})}
    content = message.get("content")
    thought = [part for part in content if is_thinking(part)] if isinstance(content, list) else []
    extra = sum(len(json.dumps(found, ensure_ascii=False, default=str)) for found in (rest, thought) if found)
    return len(content_text(message)) + extra + 4 * PART_TOKENS * len(other_parts(message))

"""The size of messages without a tokenizer."""

from __future__ import annotations

import json

from leyline.directives import Message
from leyline.directives.content import content_text, other_parts

PART_TOKENS = 1000
"""What an image, or any other part of a content that is not text, counts: a rough constant, not a measurement.

It lies between two published rules for an image of 1024 by 1024 pixels: 765 tokens (OpenAI's for GPT-4o: 85, and 170
for each tile of 512 by 512) and 1,398 (Anthropic's: pixels over 750). The length of its encoding says little.
"""


def approximate_tokens(message: Message) -> int:
    """Characters of text and tool calls, over four, rounded up, and `PART_TOKENS` for each part that is not text."""
    calls = message.get("tool_calls")
    extra = len(json.dumps(calls, ensure_ascii=False, default=str)) if calls else 0
    return -(-(len(content_text(message)) + extra) // 4) + PART_TOKENS * len(other_parts(message))

"""The size of messages without a tokenizer."""

from __future__ import annotations

import json

from leyline.directives import Message
from leyline.policies.text import content_text


def approximate_tokens(message: Message) -> int:
    """Characters of content and tool calls, over four, rounded up."""
    calls = message.get("tool_calls")
    extra = len(json.dumps(calls, ensure_ascii=False, default=str)) if calls else 0
    return -(-(len(content_text(message)) + extra) // 4)

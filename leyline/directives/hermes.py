"""Tool calls in text, in the Hermes form: where the blocks stand, and how one is written."""

from __future__ import annotations

import re
from collections.abc import Iterator

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_BLOCK = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)


def blocks(text: str) -> Iterator[re.Match[str]]:
    """Every whole block in order; group 1 is what stands between the tags."""
    # Behind the last closing tag nothing can match, and each opening tag there would be looked for to the end.
    return _BLOCK.finditer(text, 0, text.rfind(CLOSE) + len(CLOSE))


def block(body: str) -> str:
    """The block of a call, as models write it behind their words. body: the call as JSON."""
    return f"\n{OPEN}\n{body}\n{CLOSE}"

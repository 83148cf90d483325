"""Two rules of one's own, to try on a recording before a model sees them:

leyline policy test examples/rules.py:cut_tracebacks --trace trajectory.jsonl
leyline run --suite micro --policy "then('examples/rules.py:cut_tracebacks', 'examples/rules.py:shorten_views(n=1)')"
"""

import re

from leyline import rule, truncate
from leyline.directives import Message
from leyline.policies import RuleContext

TRACEBACK = re.compile(r"Traceback \(most recent call last\):\n(?: .*\n)+(?=\S)")


@rule(roles="tool")
def cut_tracebacks(message: Message, ctx: RuleContext) -> Message | None:
    """Leave the last line of each traceback, once a newer output is there."""
    text = message.get("content")
    if ctx.newer_tool_messages >= 1 and isinstance(text, str) and TRACEBACK.search(text):
        return {**message, "content": TRACEBACK.sub("[traceback cut]\n", text)}
    return None


@rule(roles="tool")
def shorten_views(message: Message, ctx: RuleContext, n: int = 2, max_chars: int = 200) -> Message | None:
    """Cut views of files that lie `n` outputs back; what tests said stays."""
    if ctx.tool_name == "view" and ctx.newer_tool_messages >= n:
        return truncate(message, max_chars=max_chars)
    return None

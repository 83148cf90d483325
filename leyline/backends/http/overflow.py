"""Whether a server's words mean that the prompt does not fit into the model's context.

There is no common code for it. What providers say has three things in common: it names the prompt (or the context, or
its tokens), it says that this is too much, and it is not about something else that can be too much (the length of the
answer alone, a rate, a file, a name).
"""

from __future__ import annotations

import re

_CHARS = 2000  # of a server's words; what follows is a stack trace


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_CODES = _any(
    r"context_length_exceeded|context_window_exceeded|exceed_context_size|max_prompt_tokens_exceeded",
    r"tokens_limit_reached|prompt_too_long|input_too_long|\bcontext overflow",
)
_PROMPT = _any(r"\b(?:prompts?|inputs?|context|messages?|requests?|conversation|history|sequence)\b|model token limit")
_AMOUNT = _any(r"\b(?:tokens?|length|context|long|window)\b", r"too (?:long|large)", "超")
_TOO_MUCH = _any(
    r"exceed|\btoo (?:long|large|big|many)\b|\b(?:longer|greater|larger|more) than\b|\boverflow|超",
    r"\bonly (?:supports?|up to|\d)|\bup to\b|\bat most \d|\bover the\b|\bnot fit\b|\bnot enough\b|\blimited to\b",
    r"\breduce\b|\bshorten\b|\bshould be \[|\bshould not\b|\blimit of \d|\d\s*>\s*\d|\bconfigured context",
    r"\bmaximum (?:context|prompt|input|model|sequence)\b",
    r"\bmust (?:be|have) (?:<=?|≤|less|fewer|at most|under|below)",
)
# What is too much may be the answer that was asked for: then the prompt must be named with an amount of its own.
_ANSWER = _any(
    r"max_(?:completion_|output_|new_)?tokens|max_gen_len|maxOutputTokens",
    r"\b(?:completion|output) tokens\b|\bmaximum number of output",
)
_AND_PROMPT = _any(
    r"\bcontext (?:length|window|limit|size)|\b(?:prompt|input) (?:length|tokens?)\b|`inputs`",
    r"\bin (?:your|the) prompt|\bsum of\b|\blength of the (?:messages|prompt|input)",
)
_SOMETHING_ELSE = _any(
    r"\bper[ -](?:second|minute|min|hour|day)\b|\brate.?limit|\b(?:TPM|RPM|quota|credits?)\b|\bconcurren",
    r"\bplease wait\b|\btry again (?:in|later)|\btoo many requests\b|\btimed? ?out\b|\btimeout\b|\bseconds\b",
    r"\bimages?\b(?!.*\btokens?\b)|\b(?:audio|videos?|pdf|files?|headers?|megabytes|MB)\b",
    r"\b(?:un|not )support(?:ed)?\b|\b(?:unknown|unrecogni[sz]ed|unexpected|not permitted)\b|\bstop sequences?\b",
    r"\b(?:tools?|functions?)(?:\[\d+\])?[.'\"]|\b(?:function|tool) (?:name|description)",
    r"\bmessages? (?:per|count)|\bnumber of (?:messages|requests|tools)\b|\btool_call_ids?\b",
    r"\bdeadline\b|\bout of memory\b|\bqueue|\bbalance\b",  # Go calls a time limit a context's deadline
)
_FIELD = re.compile(r"[Ii]nvalid '([^']+)'")
_TEXT_FIELD = re.compile(r"^(?:messages|input|prompt)(?:\[\d+\])?$|\.(?:content|text|output|arguments)(?:\[\d+\])?$")


def is_overflow(text: str) -> bool:
    """Whether a server's words mean that the prompt, with the answer asked for, does not fit into the context."""
    text = text[:_CHARS]
    if _CODES.search(text):
        return True
    if not all(pattern.search(text) for pattern in (_TOO_MUCH, _PROMPT, _AMOUNT)) or _SOMETHING_ELSE.search(text):
        return False
    field = _FIELD.search(text)
    if field is not None and not _TEXT_FIELD.search(field.group(1)):
        return False
    return not _ANSWER.search(text) or bool(_AND_PROMPT.search(text))

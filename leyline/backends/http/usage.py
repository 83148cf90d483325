"""Token counts of a usage block, whichever provider's words it is in.

Providers differ in the names and in one rule: OpenAI, Gemini, DeepSeek, Mistral, xAI and Moonshot count cached tokens
into the prompt; Anthropic and Bedrock count them beside it. `Usage` is OpenAI's: the prompt includes the cached tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leyline.backends.contract import Usage

_PROMPT = ("prompt_tokens", "input_tokens", "promptTokenCount", "prompt_token_count", "inputTokens", "promptTokens")
_COMPLETION = (
    *("completion_tokens", "output_tokens", "candidatesTokenCount", "candidates_token_count"),
    *("outputTokens", "completionTokens"),
)
_THOUGHTS = ("thoughtsTokenCount", "thoughts_token_count")  # Gemini counts them beside the answer
_CACHED = (
    "cached_tokens",  # Moonshot, Together, StepFun
    "prompt_cache_hit_tokens",  # DeepSeek, SiliconFlow
    "num_cached_tokens",  # Mistral
    "cachedContentTokenCount",  # Gemini
    "cached_content_token_count",
    "cached_prompt_text_tokens",  # xAI's own API
    "cachedPromptTextTokens",
    "cached_input_tokens",
    "cachedInputTokens",
    "prompt_cached_tokens",
)
_DETAILS = (
    *("prompt_tokens_details", "input_tokens_details", "prompt_token_details", "input_token_details"),
    *("promptTokensDetails", "inputTokensDetails", "inputTokenDetails"),
)
_IN_DETAILS = ("cached_tokens", "cachedTokens", "cache_read", "cacheReadTokens")
_BESIDE = ("cache_read_input_tokens", "cacheReadInputTokens", "cacheReadInputTokenCount")
_WRITTEN = ("cache_creation_input_tokens", "cacheWriteInputTokens", "cacheWriteInputTokenCount")
# Anthropic's and Bedrock's name of the prompt: what they report as read from the cache is not in it.
_PROMPT_WITHOUT_CACHE = ("input_tokens", "inputTokens")


def read_usage(block: object) -> Usage | None:
    """Tokens of a usage block (a mapping, or an object of a client library), or None where it counts no prompt.

    cached_tokens never exceeds prompt_tokens, whatever the server says.
    """
    usage = _as_mapping(block)
    if usage is None:
        return None
    name, prompt = _first(usage, _PROMPT)
    hit, missed = _number(usage.get("prompt_cache_hit_tokens")), _number(usage.get("prompt_cache_miss_tokens"))
    if prompt is None and hit is not None and missed is not None:
        prompt = hit + missed
    if prompt is None:
        return None
    beside, written = _first(usage, _BESIDE)[1] or 0, _first(usage, _WRITTEN)[1] or 0
    told = max((cached for cached in _told(usage)), default=0)
    if name in _PROMPT_WITHOUT_CACHE and not told:
        prompt, told = prompt + beside + written, beside
    elif beside:
        # A proxy that speaks OpenAI's names and keeps Anthropic's: where the parts do not fit into the prompt, they
        # were not counted into it.
        told = max(told, beside)
        prompt = prompt if told + written <= prompt else prompt + told + written
    completion = (_first(usage, _COMPLETION)[1] or 0) + (_first(usage, _THOUGHTS)[1] or 0)
    return Usage(prompt, min(told, prompt), completion)


def find_usage(answer: Mapping[str, object]) -> Usage | None:
    """The usage of a completion or of a stream's chunk, wherever the provider puts it; None where there is none."""
    for block in _blocks(answer):
        found = read_usage(block)
        if found is not None:
            return found
    return None


def _blocks(answer: Mapping[str, object]) -> Iterator[object]:
    for name in ("usage", "usageMetadata", "usage_metadata"):
        yield answer.get(name)
    groq = answer.get("x_groq")
    if isinstance(groq, Mapping):
        yield groq.get("usage")
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        yield choices[0].get("usage")  # Moonshot, in the last chunk of a stream


def _told(usage: Mapping[str, object]) -> Iterator[int]:
    """Every count of cached tokens that belongs to the prompt."""
    for name in _CACHED:
        yield _number(usage.get(name)) or 0
    for name in _DETAILS:
        details = _as_mapping(usage.get(name))
        for inner in _IN_DETAILS if details is not None else ():
            yield _number((details or {}).get(inner)) or 0


def _first(usage: Mapping[str, object], names: tuple[str, ...]) -> tuple[str | None, int | None]:
    for name in names:
        value = _number(usage.get(name))
        if value is not None:
            return name, value
    return None, None


def _number(value: object) -> int | None:
    """A count; a whole float is one too. None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and value >= 0 else None


def _as_mapping(value: object) -> Mapping[str, object] | None:
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    found = dump(warnings=False) if callable(dump) else None  # what a server sends need not fit the library's types
    return found if isinstance(found, Mapping) else None

"""Usage blocks in every provider's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CompletionUsage

from leyline.backends.contract import Usage
from leyline.backends.http.usage import find_usage, read_usage

BLOCKS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "OpenAI": (
        {"prompt_tokens": 900, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 600}},
        (900, 600, 5),
    ),
    "OpenAI Responses": (
        {"input_tokens": 900, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 600}},
        (900, 600, 5),
    ),
    "no details": ({"prompt_tokens": 900, "completion_tokens": 5, "prompt_tokens_details": None}, (900, 0, 5)),
    "DeepSeek": (
        {
            "prompt_tokens": 900,
            "completion_tokens": 5,
            "prompt_cache_hit_tokens": 600,
            "prompt_cache_miss_tokens": 300,
            "prompt_tokens_details": {"cached_tokens": 600},
        },
        (900, 600, 5),
    ),
    "DeepSeek without a sum": ({"prompt_cache_hit_tokens": 600, "prompt_cache_miss_tokens": 300}, (900, 600, 0)),
    "Anthropic": (
        {
            "input_tokens": 100,
            "cache_read_input_tokens": 600,
            "cache_creation_input_tokens": 200,
            "output_tokens": 5,
        },
        (900, 600, 5),
    ),
    "Anthropic, all read": (
        {"input_tokens": 3, "cache_read_input_tokens": 12000, "output_tokens": 5},
        (12003, 12000, 5),
    ),
    "Anthropic through LiteLLM": (
        {
            "prompt_tokens": 900,
            "completion_tokens": 5,
            "cache_read_input_tokens": 600,
            "cache_creation_input_tokens": 200,
            "prompt_tokens_details": {"cached_tokens": 600},
        },
        (900, 600, 5),
    ),
    "Anthropic through a proxy that does not add up": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "cache_read_input_tokens": 600,
            "cache_creation_input_tokens": 200,
        },
        (900, 600, 5),
    ),
    "Bedrock": (
        {"inputTokens": 100, "outputTokens": 5, "cacheReadInputTokens": 600, "cacheWriteInputTokens": 200},
        (900, 600, 5),
    ),
    "Gemini": (
        {
            "promptTokenCount": 900,
            "cachedContentTokenCount": 600,
            "candidatesTokenCount": 3,
            "thoughtsTokenCount": 2,
            "totalTokenCount": 905,
        },
        (900, 600, 5),
    ),
    "Gemini in Python": (
        {"prompt_token_count": 900, "cached_content_token_count": 600, "candidates_token_count": 5},
        (900, 600, 5),
    ),
    "Mistral": ({"prompt_tokens": 900, "completion_tokens": 5, "num_cached_tokens": 600}, (900, 600, 5)),
    "Moonshot": ({"prompt_tokens": 900, "completion_tokens": 5, "cached_tokens": 600}, (900, 600, 5)),
    "xAI": ({"prompt_tokens": 900, "completion_tokens": 5, "cached_prompt_text_tokens": 600}, (900, 600, 5)),
    "whole floats": ({"prompt_tokens": 900.0, "completion_tokens": 5.0, "cached_tokens": 600.0}, (900, 600, 5)),
    "more cached than asked": (
        {"prompt_tokens": 3, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 12000}},
        (3, 3, 5),
    ),
}


@pytest.mark.parametrize("provider", BLOCKS)
def test_blocks(provider: str) -> None:
    block, (prompt, cached, completion) = BLOCKS[provider]
    assert read_usage(block) == Usage(prompt, cached, completion)


def test_an_object_of_the_client_library_is_read_with_what_it_does_not_know() -> None:
    block = CompletionUsage.model_validate(
        {"prompt_tokens": 900, "completion_tokens": 5, "total_tokens": 905, "prompt_cache_hit_tokens": 600}
    )
    assert read_usage(block) == Usage(900, 600, 5)


@pytest.mark.parametrize(
    "answer",
    [
        {"usage": {"prompt_tokens": 9, "completion_tokens": 1}},
        {"usage": None, "x_groq": {"usage": {"prompt_tokens": 9, "completion_tokens": 1}}},
        {"choices": [{"usage": {"prompt_tokens": 9, "completion_tokens": 1}}]},
        {"usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 1}},
    ],
)
def test_places(answer: dict[str, Any]) -> None:
    assert find_usage(answer) == Usage(9, 0, 1)


@pytest.mark.parametrize("block", [None, 5, "x", [], {}, {"completion_tokens": 4}, {"prompt_tokens": "many"}])
def test_no_block(block: Any) -> None:
    assert read_usage(block) is None


NAMES = sorted({name for block, _ in BLOCKS.values() for name in block})
VALUES = st.one_of(st.integers(-5, 10**6), st.floats(), st.none(), st.text(max_size=3), st.booleans())


@given(st.dictionaries(st.sampled_from(NAMES), VALUES | st.dictionaries(st.just("cached_tokens"), VALUES)))
def test_never_more_cached_than_prompt(block: dict[str, Any]) -> None:
    found = read_usage(block)
    assert found is None or 0 <= found.cached_tokens <= found.prompt_tokens

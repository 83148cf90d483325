"""The truncation text, byte for byte, and its algebra."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.policies import PolicyError, truncate
from leyline.policies.size import PART_TOKENS, approximate_tokens
from leyline.policies.text import cut, stub


def reference(text: str, max_chars: int) -> str:
    """The text that the bundled agent was trained on."""
    if len(text) <= max_chars:
        return text
    half = max_chars // 2
    return text[:half] + "\n[... %d characters removed ...]\n" % (len(text) - 2 * half) + text[len(text) - half :]  # noqa: UP031


@given(st.text(max_size=400), st.integers(0, 300))
def test_exact_text(text, size):
    assert cut(text, size) == reference(text, size)


@given(st.text(max_size=600), st.integers(0, 300), st.integers(0, 300))
def test_cutting_twice_is_cutting_to_the_smaller_size(text, first, second):
    once = cut(text, first)
    assert cut(once, first) == once
    if first // 2 <= second // 2 and first <= second:
        assert cut(once, second) == once
    elif len(text) > first:
        assert cut(once, second) == cut(text, second)


def test_other_fields_and_parts_stay():
    message = {
        "role": "tool",
        "tool_call_id": "a",
        "content": [{"type": "text", "text": "x" * 9}, {"type": "image_url"}],
    }
    result = truncate(message, max_chars=2)
    assert result["tool_call_id"] == "a"
    assert result["content"][0]["text"] == "x\n[... 7 characters removed ...]\nx"
    assert result["content"][1] == {"type": "image_url"}
    assert message["content"][0]["text"] == "x" * 9


def test_no_content():
    assert truncate({"role": "assistant", "content": None}, 2) == {"role": "assistant", "content": None}


@pytest.mark.parametrize("size", [-1, 2.5, "9", True])
def test_bad_size(size):
    with pytest.raises(PolicyError, match="max_chars must be a whole number"):
        truncate({"role": "tool", "content": "x"}, size)


def test_a_stub_never_lengthens():
    assert stub({"role": "tool", "content": "abc"}, "[gone]") == {"role": "tool", "content": "abc"}
    assert stub({"role": "tool", "content": "a" * 9}, "[gone]") == {"role": "tool", "content": "[gone]"}


def test_what_is_no_text_has_a_weight_whatever_its_encoding():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    text = {"type": "text", "text": "x" * 9}
    assert approximate_tokens({"role": "tool", "content": [text, image, image]}) == 2 * PART_TOKENS + 3
    assert approximate_tokens({"role": "tool", "content": [text]}) == 3
    assert approximate_tokens({"role": "assistant", "content": None}) == 0
    assert stub({"role": "tool", "content": [image]}, "[gone]") == {"role": "tool", "content": "[gone]"}
    assert stub({"role": "tool", "content": [text]}, "[longer note]") == {"role": "tool", "content": [text]}

"""The truncation text, byte for byte, and its algebra."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives.content import content_text, other_parts
from leyline.policies import PolicyError, truncate
from leyline.policies.reading.sizes import PART_TOKENS, approximate_tokens
from leyline.policies.reading.text import cut, stub


def reference(text: str, max_chars: int) -> str:
    """The text that the bundled agent was trained on, where it is shorter."""
    if len(text) <= max_chars:
        return text
    half = max_chars // 2
    cut = text[:half] + "\n[... %d characters removed ...]\n" % (len(text) - 2 * half) + text[len(text) - half :]  # noqa: UP031
    return cut if len(cut) < len(text) else text


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
        "content": [{"type": "text", "text": "x" * 90}, {"type": "image_url"}],
    }
    result = truncate(message, max_chars=2)
    assert result["tool_call_id"] == "a"
    assert result["content"][0]["text"] == "x\n[... 88 characters removed ...]\nx"
    assert result["content"][1] == {"type": "image_url"}
    assert message["content"][0]["text"] == "x" * 90


def test_the_text_parts_of_a_message_obey_one_limit():
    image = {"type": "image_url", "image_url": {}}
    texts = [{"type": "text", "text": c * 150, "mark": c} for c in "abc"]
    message = {"role": "tool", "tool_call_id": "a", "content": [image, *texts, image]}
    result = truncate(message, max_chars=200)
    shorter = "a" * 100 + "\n[... 252 characters removed ...]\n" + "c" * 100
    assert result["content"] == [image, {"type": "text", "text": shorter, "mark": "a"}, image]
    assert truncate(result, max_chars=200) == result
    assert truncate(result, max_chars=20) == truncate(message, max_chars=20)
    assert truncate(message, max_chars=452) == message
    assert truncate(message, max_chars=451) == message
    assert content_text(truncate(message, max_chars=410)) != content_text(message)


@given(st.lists(st.one_of(st.text(max_size=90), st.none()), max_size=5), st.integers(0, 200), st.integers(0, 200))
def test_parts_are_cut_as_their_joined_text(texts, first, second):
    content = [{"type": "image_url"} if text is None else {"type": "text", "text": text} for text in texts]
    message = {"role": "tool", "content": content}
    once = truncate(message, first)
    assert content_text(once) == cut(content_text(message), first)
    assert other_parts(once) == other_parts(message)
    assert truncate(once, first) == once
    assert content_text(truncate(once, second)) == cut(content_text(once), second)


def test_a_marker_that_is_no_number_of_characters():
    text = "a\n[... " + "9" * 5000 + " characters removed ...]\nb"
    assert cut(text, 2) == reference(text, 2)


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

"""What a message says, and calls that stand in text."""

from __future__ import annotations

import json

from leyline.directives.content import content_text, message_text, other_parts
from leyline.directives.hermes import block, read_written

IMAGE = {"type": "image_url", "image_url": {"url": "data:..."}}
MIXED = {"role": "user", "content": [{"type": "text", "text": "look"}, IMAGE, {"type": "text", "text": "here"}]}


def test_the_text_of_a_content_is_its_text_parts() -> None:
    assert content_text({"role": "user", "content": "plain"}) == "plain"
    assert content_text({"role": "assistant", "content": None}) == ""
    assert content_text(MIXED) == "look\nhere"
    assert other_parts(MIXED) == [IMAGE]


def test_people_read_images_by_name_and_calls_as_calls() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "view", "arguments": '{"path": "a.py"}'}}
    assert message_text(MIXED) == "look\nhere\n[image_url]"
    assert message_text({"role": "assistant", "content": None, "tool_calls": [call]}) == 'view({"path": "a.py"})'
    assert message_text({"role": "assistant", "content": "so", "tool_calls": [{}]}) == "so\n?()"
    assert message_text(None) == ""


def test_what_is_written_as_a_block_is_read_as_one() -> None:
    bodies = ['{"name": "a"}', '{"name": "b", "arguments": {}}']
    text = "thinking" + "".join(map(block, bodies)) + "<tool_call> never closed"
    assert [json.loads(found.body) for found in read_written(text).blocks] == [json.loads(body) for body in bodies]

"""Histories as the chat route of an SGLang server renders them, against its own code where it is installed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from leyline.rendering.served import as_served, takes_parts

TEXT = "{% for message in messages %}{{ message.content }}{% endfor %}"
PARTS = "{% for message in messages %}{% for part in message['content'] %}{{ part.text }}{% endfor %}{% endfor %}"


def call(arguments: Any) -> dict[str, Any]:
    function = {"name": "view", "arguments": arguments}
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "type": "function", "function": function}]}


@pytest.mark.parametrize("arguments", ['{"a":1}', '{ "a" : 1 }', '{"a":1.50}', '{"a":"é"}', '{"a":"\\u00e9"}', "{}"])
def test_arguments_are_parsed_and_printed_again(arguments: str) -> None:
    (message,) = as_served([call(arguments)])
    assert message["tool_calls"][0]["function"]["arguments"] == json.loads(arguments)
    assert message["content"] == ""


@pytest.mark.parametrize("arguments", ["", "{", "[1]", "7", {"a": 1}])
def test_what_is_no_object_stays(arguments: Any) -> None:
    (message,) = as_served([call(arguments)])
    assert message["tool_calls"][0]["function"]["arguments"] == arguments


def test_parts_are_joined_with_a_space_and_null_fields_go() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}, {"type": "input_text", "text": "b"}]
    given = {"role": "user", "content": parts, "name": None}
    assert as_served([given]) == [{"role": "user", "content": "a b"}]
    assert as_served([given], parts=True) == [{"role": "user", "content": parts}]
    assert given["name"] is None  # what was given is not changed


TEMPLATES = {
    TEXT: False,
    PARTS: True,
    PARTS.replace("message", "msg"): True,
    PARTS.replace("message", "m"): True,
    PARTS.replace("['content']", ".content"): True,
    PARTS.replace("['content']", '["content"]|list'): True,
    PARTS.replace("['content']", "['content'][1:]"): True,
    PARTS.replace("message['content']", "other['content']"): False,
    PARTS.replace("message['content']", "message.tool_calls"): False,
    TEXT + "{# vision #}": True,
    TEXT + "{% if message.content %}for x in message.content{% endif %}": False,
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_which_templates_take_parts(template: str) -> None:
    assert takes_parts(template) is TEMPLATES[template]


@pytest.mark.sglang
@pytest.mark.filterwarnings("ignore")
def test_the_servers_own_code_agrees() -> None:
    utils = pytest.importorskip("sglang.srt.parser.jinja_template_utils", exc_type=ImportError)
    for template, expected in TEMPLATES.items():
        assert (utils.detect_jinja_template_content_format(template) == "openai") is expected
    content = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    for message in ({"role": "user", "content": content, "name": None}, {"role": "tool", "content": "x", "name": None}):
        theirs = utils.process_content_for_template_format(dict(message), "string", [], [], [], [])
        assert [theirs] == as_served([message])

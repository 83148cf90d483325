"""Templates of real models, against transformers' own rendering of the same histories."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from leyline.models import tokenizer_file
from leyline.rendering import Renderer, RenderingError
from leyline.rendering.boundaries import BoundaryFinder
from leyline.rendering.normal import NULL, Parts, RawArguments, normalise
from leyline.rendering.template import ChatTemplate

TEMPLATES = sorted((Path(__file__).parent / "templates").glob("*.jinja"))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "bash",
            "description": "Run.",
            "parameters": {"type": "object", "properties": {"command": {"type": "string", "description": "What."}}},
        },
    }
]
Message = dict[str, Any]


def call(call_id: str, arguments: Any = '{"command": "ls"}') -> Message:
    return {"id": call_id, "type": "function", "function": {"name": "bash", "arguments": arguments}}


def said(*calls: Message, content: Any = None, **more: Any) -> Message:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **more}


def out(call_id: str, content: Any) -> Message:
    return {"role": "tool", "tool_call_id": call_id, "name": "bash", "content": content}


A, B = "123456789", "abcdefghi"  # Devstral takes ids of nine characters only
SYSTEM, TASK = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Fix it."}
THOUGHT = "<think>\nhm\n</think>\n\nI look."
HISTORIES: dict[str, list[Message]] = {
    "calls alone": [SYSTEM, TASK, said(call(A)), out(A, "a.py"), {"role": "assistant", "content": "Done."}, TASK],
    "empty content": [SYSTEM, TASK, said(call(A), content=""), out(A, "a.py"), {"role": "assistant", "content": "Ok"}],
    "with text": [TASK, said(call(A), content="I look."), out(A, "a.py")],
    "parallel": [TASK, said(call(A), call(B, '{"n": [1, {"a": "é"}], "s": "<>"}')), out(A, "a"), out(B, "b")],
    "thinking in text": [TASK, said(call(A), content=THOUGHT), out(A, "a"), {"role": "assistant", "content": THOUGHT}],
    "reasoning": [TASK, said(call(A), content="I look.", reasoning_content="hm"), out(A, "a"), TASK],
    "old thinking": [
        TASK,
        {"role": "assistant", "content": THOUGHT},
        TASK,
        {"role": "assistant", "content": "x"},
        TASK,
    ],
}


def renderer(source: str) -> Renderer:
    from tokenizers import Tokenizer

    return Renderer(Tokenizer.from_file(str(tokenizer_file())), source, SPECIAL)


def theirs(source: str, messages: list[Message], tools: list[Any] | None) -> str:
    """What transformers renders. Raises whatever it raises."""
    utils = pytest.importorskip("transformers.utils.chat_template_utils", reason="transformers is not installed")
    given = copy.deepcopy([messages])
    return str(
        utils.render_jinja_template(given, tools=tools, chat_template=source, add_generation_prompt=True, **SPECIAL)[0][
            0
        ]
    )


def served(messages: list[Message], *, mapped: bool, emptied: bool) -> list[Message]:
    """The history as OpenAI-compatible servers hand it to transformers: arguments as a mapping, null as empty text."""
    given = copy.deepcopy(messages)
    for message in given:
        if emptied and message["content"] is None:
            message["content"] = ""
        for made in message.get("tool_calls") or ():
            if mapped:
                made["function"]["arguments"] = json.loads(made["function"]["arguments"])
    return given


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_a_real_template_renders_as_in_transformers(path: Path, name: str, tools: list[Any] | None) -> None:
    """The very history where transformers takes it; else with what servers put in place of null and of JSON text."""
    source, messages = path.read_text("utf-8"), HISTORIES[name]
    ours = renderer(source).text(messages, tools)
    rendered = []
    for mapped, emptied in [(False, False), (True, False), (False, True), (True, True)]:
        try:
            rendered.append(theirs(source, served(messages, mapped=mapped, emptied=emptied), tools))
        except (TypeError, ValueError, AttributeError) as error:
            rendered.append(repr(error))
        except Exception as error:  # jinja2's own, which need not be installed under that name
            rendered.append(repr(error))
    assert ours in rendered
    assert "None" not in ours.replace("is None", "")
    if messages is HISTORIES["calls alone"]:
        assert "ls" in ours  # the call is there: no template took the empty content for an answer without calls


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_message_has_its_place_in_a_real_template(path: Path) -> None:
    messages = HISTORIES["calls alone"]
    rendered = renderer(path.read_text("utf-8")).render(messages, TOOLS)
    assert len(rendered.spans) == len(messages)
    ends = [end for _, end in rendered.spans]
    assert ends == sorted(ends)
    assert ends[-1] <= len(rendered.ids)
    # The answer and the last question are told apart, whatever the template refuses to render alone.
    assert rendered.spans[-1][0] < rendered.spans[-1][1]


ODD: dict[str, tuple[list[Message], list[Message]]] = {
    "text parts": (
        [{"role": "user", "content": [{"type": "text", "text": "Fix "}, {"type": "text", "text": "it."}]}],
        [TASK],
    ),
    "bare text parts": ([{"role": "user", "content": ["Fix ", "it."]}], [TASK]),
    "no arguments": ([TASK, said(call(A, "")), out(A, "a")], [TASK, said(call(A, "{}")), out(A, "a")]),
    "null arguments": ([TASK, said(call(A, None)), out(A, "a")], [TASK, said(call(A, "{}")), out(A, "a")]),
    "an object": ([TASK, said(call(A, {"command": "ls"})), out(A, "a")], [TASK, said(call(A)), out(A, "a")]),
    "no content": (
        [TASK, {"role": "assistant", "tool_calls": [call(A)]}, out(A, "a")],
        [TASK, said(call(A)), out(A, "a")],
    ),
    "null fields": (
        [
            TASK,
            {"role": "assistant", "content": "x", "tool_calls": None, "refusal": None, "reasoning_content": None},
            TASK,
        ],
        [TASK, {"role": "assistant", "content": "x"}, TASK],
    ),
    "no calls": (
        [TASK, {"role": "assistant", "content": "x", "tool_calls": []}, TASK],
        [TASK, {"role": "assistant", "content": "x"}, TASK],
    ),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_another_way_to_say_the_same_renders_the_same(path: Path, name: str) -> None:
    odd, plain = ODD[name]
    ours = renderer(path.read_text("utf-8"))
    assert ours.text(odd, TOOLS) == ours.text(plain, TOOLS)


REFUSED: dict[str, tuple[list[Message], str]] = {
    "an object as content": ([TASK, said(call(A)), out(A, {"stdout": "x"})], "message 2 has a content of type dict"),
    "a number as content": ([{"role": "user", "content": 5}], "message 0 has a content of type int"),
    "half an emoji": ([{"role": "user", "content": "caf\udce9 \ud83d"}], "not valid Unicode"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_no_template_can_say_is_refused_in_one_line(path: Path, name: str) -> None:
    messages, words = REFUSED[name]
    with pytest.raises(RenderingError, match=words) as caught:
        renderer(path.read_text("utf-8")).render(messages)
    assert "\n" not in str(caught.value)


IMAGE = [TASK, {"role": "assistant", "content": "ok"}, {"role": "user", "content": [
    {"type": "text", "text": "See this."},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
]}]  # fmt: skip
READ_PARTS = {"qwen3_5", "glm_4_6", "devstral", "kimi_k2"}
THOUGHTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
    {"type": "text", "text": "I look."},
]


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_an_image_is_rendered_as_in_transformers_or_refused(path: Path) -> None:
    """Qwen3 renders a content of parts as an empty one: what was asked is lost and nobody is told."""
    source = path.read_text("utf-8")
    if path.stem in READ_PARTS:
        ours = renderer(source).text(IMAGE)
        assert "See this." in ours
        assert ours == theirs(source, IMAGE, None)
    else:
        with pytest.raises(RenderingError, match=r"message 2 holds content parts \(image_url\) that the chat template"):
            renderer(source).text(IMAGE)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_thinking_in_parts_is_no_part_of_what_was_said(path: Path) -> None:
    messages = [TASK, {"role": "assistant", "content": THOUGHTS}, TASK]
    ours = renderer(path.read_text("utf-8")).text(messages)
    assert "I look." in ours
    assert "'type'" not in ours


def render(source: str, messages: list[Message]) -> str:
    given = [normalise(message) for message in messages]
    return ChatTemplate(source, {}).render(given, None, add_generation_prompt=False)


@pytest.mark.parametrize(
    "asks",
    [
        "{% if m.content is none %}null{% else %}{{ m.content }}{% endif %}",
        "{% if m.content is not none %}{{ m.content }}{% else %}null{% endif %}",
        "{% if m.content == none %}null{% endif %}",
        "{% if m.content != none %}{{ m.content }}{% else %}null{% endif %}",
        "{% if '</think>' in m.content %}x{% endif %}null",
        "{{ m.content.split('</think>')[-1] }}null",
        "{{ m.content | trim }}null",
        "{{ 'nu' + m.content + 'll' }}",
        "{% if m.content %}x{% endif %}{{ m.content }}null",
        "{% if m.content is string %}{{ m.content }}{% else %}x{% endif %}null",
        "{{ m['content'] or 'null' }}",
    ],
)
def test_null_answers_a_template_as_its_author_meant_it(asks: str) -> None:
    for message in (said(call(A)), {"role": "assistant", "tool_calls": [call(A)]}):
        assert render("{% for m in messages %}" + asks + "{% endfor %}", [message]) == "null"
    assert NULL == ""
    assert (NULL != "") is False
    assert hash(NULL) == hash("")


RAW = '{"command":  "ls", "é": 1}'


@pytest.mark.parametrize(
    ("asks", "printed"),
    [
        ("{{ a }}", RAW),
        ("{{ a | tojson }}", RAW),
        ("{{ a | string }}", RAW),
        ("{{ a | trim }}", RAW),
        ("{{ 'x' + a + 'y' }}", f"x{RAW}y"),
        ("{{ 'x' ~ a }}", f"x{RAW}"),
        ("{{ ['x', a] | join }}", f"x{RAW}"),
        ("{{ '%s' | format(a) }}", RAW),
        ("{{ [m.tool_calls[0]] | map(attribute='function.arguments') | join }}", RAW),
        ("{{ [m.tool_calls[0]] | map(attribute='function.arguments') | map('tojson') | join }}", RAW),
        ("{% for k, v in a.items() %}{{ k }}={{ v }};{% endfor %}", "command=ls;é=1;"),
        ("{% for k, v in a | items %}{{ k }}={{ v }};{% endfor %}", "command=ls;é=1;"),
        ("{{ a.items() | map('join', '=') | join(';') }}", "command=ls;é=1"),
        ("{{ a is mapping }} {{ a is string }}", "True False"),
        ("{{ a.command }} {{ 'command' in a }} {{ a | length }}", "ls True 2"),
        ("{{ a | tojson(indent=1) }}", json.dumps(json.loads(RAW), ensure_ascii=False, indent=1)),
    ],
)
def test_arguments_are_joined_mapped_and_printed(asks: str, printed: str) -> None:
    source = "{% for m in messages %}{% set a = m.tool_calls[0].function.arguments %}" + asks + "{% endfor %}"
    assert render(source, [said(call(A, RAW))]) == printed


def test_what_is_no_text_cannot_be_added_to_arguments() -> None:
    for asks in ("{{ 5 + a }}", "{{ a + 5 }}"):
        source = "{% for m in messages %}{% set a = m.tool_calls[0].function.arguments %}" + asks + "{% endfor %}"
        with pytest.raises(RenderingError, match="refuses these messages"):
            render(source, [said(call(A, RAW))])
    assert RawArguments({}, "{}") == {}


def test_parts_are_told_by_what_a_template_does_with_them() -> None:
    parts = Parts([{"type": "image_url"}, {"type": "text", "text": "x"}])
    with pytest.raises(RenderingError, match="prints a content of parts"):
        str(parts)
    assert parts.kinds() == {"image_url"}
    walks = "{% for m in messages %}{% for p in m.content %}{{ p.text or '[image]' }}{% endfor %}{% endfor %}"
    assert render(walks, [{"role": "user", "content": list(parts)}]) == "[image]x"
    with pytest.raises(RenderingError, match=r"message 0 holds content parts \(image_url\)"):
        render("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}", [
            {"role": "user", "content": list(parts)}
        ])  # fmt: skip


WANTS_USER = (
    "{% if not messages | selectattr('role', 'equalto', 'user') | list %}{{ raise_exception('no user') }}{% endif %}"
)
TAKES_TURNS = (
    "{% for m in messages | rejectattr('role', 'equalto', 'system') %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}{% endfor %}"
)
PLAIN = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"


@pytest.mark.parametrize("refuses", [WANTS_USER, TAKES_TURNS, WANTS_USER + TAKES_TURNS])
def test_a_template_may_refuse_a_beginning_of_the_conversation(refuses: str) -> None:
    messages = [SYSTEM, TASK, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "And this?"}]
    given = [normalise(message) for message in messages]
    text, ends = BoundaryFinder(ChatTemplate(refuses + PLAIN, {})).find(given, None)
    pieces = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    for piece, message in zip(pieces, messages, strict=True):
        assert message["content"] in piece

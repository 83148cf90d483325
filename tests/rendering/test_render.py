"""From messages to tokens: every template's text exactly, spans that tile, and generated tokens kept as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leyline.directives import EditScript, MessageEdit, Mode, Rendered, token_script, undeclared_edits
from leyline.rendering.errors import RenderingError
from leyline.rendering.normal import normalise
from leyline.rendering.render import Renderer
from leyline.rendering.template import ChatTemplate

# Like Qwen3's: the thinking of an answer is printed while it is the newest only.
FORGETFUL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and not loop.last and '</think>' in m.content %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Like Qwen2.5's: neighbouring tool results share one turn.
JOINING = (
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{% if loop.first or loop.previtem.role != 'tool' %}<|im_start|>user\n{% endif %}<r>{{ m.content }}</r>"
    "{% if loop.last or loop.nextitem.role != 'tool' %}<|im_end|>\n{% endif %}"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = [{"type": "function", "function": {"name": "view", "parameters": {"type": "object", "properties": {}}}}]

texts = st.text(st.sampled_from("abc <|>_\n\té日\u200d"), max_size=12)
conversations = st.lists(
    st.builds(
        lambda role, content: {"role": role, "content": content}, st.sampled_from(["user", "assistant", "tool"]), texts
    ),
    min_size=1,
    max_size=8,
)
slow_fixtures = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@slow_fixtures
@given(messages=conversations, template=st.sampled_from(["chatml", FORGETFUL, JOINING]))
def test_tokens_are_the_templates_and_spans_tile(
    make_renderer: Callable[..., Renderer], messages: list[dict[str, str]], template: str
) -> None:
    renderer = make_renderer() if template == "chatml" else make_renderer(template)
    rendered = renderer.render(messages)
    ids, spans = rendered.ids, rendered.spans
    assert list(ids) == renderer.encode(renderer.decode(ids))
    assert len(spans) == len(messages)
    position = 0
    for start, end in spans:
        assert start == position <= end
        position = end
    assert renderer.decode(ids[position:]).endswith("<|im_start|>assistant\n")


@slow_fixtures
@given(messages=conversations, more=conversations, template=st.sampled_from(["chatml", JOINING]), data=st.data())
def test_any_edit_of_any_message_leads_to_the_new_prompt(
    make_renderer: Callable[..., Renderer],
    messages: list[dict[str, str]],
    more: list[dict[str, str]],
    template: str,
    data: Any,
) -> None:
    renderer = make_renderer() if template == "chatml" else make_renderer(template)
    source = renderer.render([*messages, {"role": "assistant", "content": "done"}])
    source = Rendered(source.ids[: source.spans[-1][1]], source.spans)
    index = data.draw(st.integers(0, len(messages) - 1))
    new = data.draw(st.none() | texts)
    edit = MessageEdit(index, None if new is None else {**messages[index], "content": new}, Mode.AMORTIZE)
    edited = [m for k, m in enumerate(messages) if k != index or new is not None]
    if new is not None:
        edited[index] = {**messages[index], "content": new}
    target = renderer.render([*edited, {"role": "assistant", "content": "done"}, *more])
    script = token_script(source, target, [edit])
    led = tuple(script.apply(source.ids))
    assert target.ids[: len(led)] == led


def test_a_message_that_is_edited_alone_is_the_only_directive(make_renderer: Callable[..., Renderer]) -> None:
    renderer = make_renderer()
    messages = [
        {"role": r, "content": c} for r, c in (("user", "go"), ("assistant", "a"), ("tool", "x" * 50), ("user", "on"))
    ]
    source = renderer.render(messages)
    edited = [*messages[:2], {"role": "tool", "content": "x"}, messages[3]]
    script = token_script(source, renderer.render(edited), [MessageEdit(2, edited[2])])
    assert [(d.end - d.start, d.mode) for d in script] == [(49, Mode.AMORTIZE)]


def test_a_template_that_rewrites_old_answers_is_an_undeclared_edit(make_renderer: Callable[..., Renderer]) -> None:
    renderer = make_renderer(FORGETFUL)
    messages = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "<think>hm</think>yes"}]
    source = renderer.render(messages)
    source = Rendered(source.ids[: source.spans[-1][1]], source.spans)
    target = renderer.render([*messages, {"role": "user", "content": "on"}])
    assert undeclared_edits(source, target, []) == (1,)
    assert [d.mode for d in token_script(source, target, [])] == [Mode.FORGET]


def test_generated_tokens_stand_as_they_were_generated(make_renderer: Callable[..., Renderer], tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import ByteLevel

    letters = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merged = {**letters, "ab": len(letters)}
    tokenizer = Tokenizer(models.BPE(vocab=merged, merges=[("a", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevel()
    renderer = Renderer(tokenizer, "{% for m in messages %}[{{ m.content }}]{% endfor %}")
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "ab"}]
    unmerged = (letters["a"], letters["b"])
    assert merged["ab"] in renderer.render(messages).ids
    kept = renderer.render(messages, pinned={1: unmerged})
    start, end = kept.spans[1]
    assert kept.ids[start:end][1:3] == unmerged
    assert renderer.render(messages, pinned={1: (letters["x"],)}) == renderer.render(messages)
    with pytest.raises(RenderingError, match="message 5 is pinned, but there are 2"):
        renderer.render(messages, pinned={5: unmerged})


def test_templates_get_what_their_makers_expect(make_tokenizer: Callable[[], Any]) -> None:
    template = (
        "{% if tools %}{{ tools | tojson }}{% endif %}{{ bos_token }}{% for m in messages %}"
        "{% for c in m.tool_calls or [] %}{{ c.function.name }}({{ c.function.arguments | tojson }}){% endfor %}"
        "{% generation %}{{ m.content or '' }}{% endgeneration %}"
        "{% if loop.index > 5 %}{% break %}{% endif %}{% endfor %}"
    )
    renderer = Renderer(make_tokenizer(), template, {"bos_token": "<|bos|>"})
    raw = '{"path":  "é.py"}'
    call = {"id": "1", "type": "function", "function": {"name": "view", "arguments": raw}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    text = renderer.decode(renderer.render(messages, TOOLS).ids)
    assert text == json.dumps(TOOLS) + "<|bos|>ab" + f"view({raw})"
    assert messages[1]["tool_calls"][0]["function"]["arguments"] == raw, "the caller's messages were changed"


@pytest.mark.parametrize(
    ("source", "messages", "says"),
    [
        ("{% for %}", [], "not valid Jinja"),
        ("{{ raise_exception('roles must alternate') }}", [], "refuses these messages: roles must alternate"),
        ("{{ messages[3].content }}", [], "refuses these messages"),
        ("{{ ''.__class__.__mro__ }}", [], "refuses these messages"),
        ("{{ messages[0].content + 1 }}", [{"role": "user", "content": "a"}], "refuses these messages"),
    ],
)
def test_a_template_that_fails_is_one_line(source: str, messages: list[Any], says: str) -> None:
    with pytest.raises(RenderingError, match=says) as failure:
        ChatTemplate(source, {}).render(messages, None, add_generation_prompt=True)
    assert "\n" not in str(failure.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    )
)
def test_no_message_is_too_odd_to_normalise(value: Any) -> None:
    for message in ({"role": "user", "content": value}, {"role": "assistant", "tool_calls": value}):
        normalise(message)
    calls = [{"function": {"name": "f", "arguments": json.dumps(value)}}]
    assert normalise({"role": "assistant", "tool_calls": calls})["role"] == "assistant"


def test_from_dir_reads_what_model_makers_write(model_dir: Callable[..., Path]) -> None:
    path = model_dir("llama")
    renderer = Renderer.from_dir(path)
    assert renderer.eos_token_id == 259
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "chat_template.jinja").write_text("file:{{ messages[0].content }}")
    renderer = Renderer.from_dir(path)
    assert renderer.decode(renderer.render([{"role": "user", "content": "a"}]).ids) == "file:a"
    (path / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": named}))
    renderer = Renderer.from_dir(path)
    message = [{"role": "user", "content": "a"}]
    said = [renderer.decode(renderer.render(message, tools).ids) for tools in (None, TOOLS)]
    assert said == ["plain", "tools"]


def test_an_empty_script_for_an_empty_change(make_renderer: Callable[..., Renderer]) -> None:
    renderer = make_renderer()
    source = renderer.render([{"role": "user", "content": "a"}])
    assert token_script(source, source, []) == EditScript(())


def test_text_that_no_tokenizer_takes_is_one_line(make_renderer: Callable[..., Renderer]) -> None:
    with pytest.raises(RenderingError, match="not valid Unicode"):
        make_renderer().render([{"role": "user", "content": "half a character: \ud800"}])


def test_the_text_is_what_is_tokenised_and_the_old_report_still_gives_both(
    make_renderer: Callable[..., Renderer],
) -> None:
    renderer = make_renderer(FORGETFUL)
    history = [{"role": "user", "content": "Fix it."}]
    text = renderer.text(history)
    assert tuple(renderer.encode(text)) == renderer.render(history).ids
    with pytest.warns(DeprecationWarning, match=r"render\(\) and text\(\)"):
        old = renderer.report(history)
    assert (old.text, old.rendered) == (text, renderer.render(history))

"""Directives fit the prompt that a server's chat route renders, however the harness writes its messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer

from leyline.directives import WireRequest
from leyline.harness.editor.editor import Editor
from leyline.models import tokenizer_file
from leyline.rendering.render import Renderer

TEMPLATE = (
    "{%- for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}"
    "</{{ m.role }}>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
RENDERER = Renderer(Tokenizer.from_file(str(tokenizer_file())), TEMPLATE, {"eos_token": "</s>"})


def served(messages: list[dict[str, Any]]) -> list[int]:
    """As SGLang's chat route: arguments parsed and printed again, parts joined with a space, null is empty."""
    text = ""
    for m in messages:
        content = m.get("content")
        content = " ".join(part["text"] for part in content) if isinstance(content, list) else content or ""
        text += f"<{m['role']}>{content}"
        for c in m.get("tool_calls") or []:
            arguments = json.dumps(json.loads(c["function"]["arguments"]), ensure_ascii=False)
            text += f"[{c['function']['name']} {arguments}]"
        text += f"</{m['role']}>\n"
    return RENDERER.encode(text + "<assistant>")


ARGUMENTS: dict[str, Callable[[int], str]] = {
    "spaced": lambda k: json.dumps({"path": f"f{k}.py", "start": 1}),
    "compact": lambda k: json.dumps({"path": f"f{k}.py", "start": 1}, separators=(",", ":")),
    "indented": lambda k: json.dumps({"path": f"f{k}.py", "start": 1}, indent=1),
    "escaped": lambda k: json.dumps({"path": f"é{k}.py"}, ensure_ascii=True),
    "raw": lambda k: json.dumps({"path": f"é{k}.py"}, ensure_ascii=False),
}
OUTPUTS: dict[str, Callable[[int], Any]] = {
    "text": lambda k: f"output {k} " + "text " * 60,
    "parts": lambda k: [{"type": "text", "text": f"output {k}"}, {"type": "text", "text": "text " * 60}],
}


@pytest.mark.parametrize("said", ["I look.", None])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_directives_fit(arguments: str, output: str, said: str | None) -> None:
    editor = Editor("truncate_older_than(n=1, max_chars=40)", renderer=RENDERER, splice=True)
    history: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    held: list[int] = []
    directives = 0
    for step in range(4):
        plan = editor.plan({"model": "m", "messages": history})
        assert plan.body is not None
        prompt = served(plan.body["messages"])
        wire = (plan.body.get("custom_params") or {}).get("leyline")
        if wire:
            directives += 1
            source = WireRequest.from_json(wire).source(prompt)
            assert source[: len(held) - 4] == held[:-4]  # but for the opening of the answer
        plan.served({"usage": {"prompt_tokens": len(prompt), "completion_tokens": 1}})
        held = prompt
        function = {"name": "view", "arguments": ARGUMENTS[arguments](step)}
        call = {"id": f"c{step}", "type": "function", "function": function}
        history += [
            {"role": "assistant", "content": said, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{step}", "content": OUTPUTS[output](step)},
        ]
    assert directives == 2

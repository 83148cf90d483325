"""The kinds of tool call that the Responses API has, and their outputs, as plain calls and tool messages."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from leyline.dialects.base import DialectError
from leyline.dialects.parts import rewritten
from leyline.dialects.plain import without_marks
from leyline.directives import JsonMapping, JsonObject, Message
from leyline.directives.clone import clone

CALLS = frozenset(
    {
        *("function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call", "computer_call"),
        "program",
    }
)
OUTPUTS = frozenset({*(f"{kind}_output" for kind in CALLS)})
_NAMES = {"local_shell_call": "bash", "shell_call": "bash", "apply_patch_call": "apply_patch"}
_NAMES |= {"computer_call": "computer", "program": "program"}


def check(item: Mapping[str, object], kind: str, where: str) -> None:
    """Raise DialectError for a call or an output without what ties the two together."""
    if kind in ("function_call", "custom_tool_call") and not isinstance(item.get("name"), str):
        raise DialectError(f"{where} is a {kind} without a name")
    if (kind in CALLS or kind in OUTPUTS) and not isinstance(item.get("call_id", item.get("id")), str):
        raise DialectError(f"{where} is a {kind} without a call_id")
    action = item.get("action") if kind == "shell_call" else None
    if isinstance(action, Mapping) and not isinstance(action.get("commands") or [], list):
        raise DialectError(f"{where} is a shell_call whose commands are no list")


def call_id(item: Mapping[str, object]) -> str:
    return str(item.get("call_id") or item.get("id"))


def call_ids(items: Sequence[Message]) -> dict[str, str]:
    """What an output may name a call by, to the call's id: a local shell's output names the item's id."""
    found: dict[str, str] = {}
    for item in items:
        if item["type"] in CALLS:
            found |= {str(item[key]): call_id(item) for key in ("id", "call_id") if item.get(key)}
    return found


def read_call(item: JsonMapping) -> JsonObject:
    kind = item["type"]
    name = _NAMES.get(kind) or item["name"]
    function = {"name": name, "arguments": _arguments(item, kind)}
    return {"id": call_id(item), "type": "function", "function": function}


def _arguments(item: Mapping[str, object], kind: str) -> str:
    if kind == "function_call":
        arguments = item.get("arguments")
        return arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    action = item.get("action")
    action = action if isinstance(action, Mapping) else {}
    value: object
    if kind == "custom_tool_call":
        value = {"input": item.get("input")}
    elif kind == "local_shell_call":
        value = {"command": _command(action.get("command"))}
    elif kind == "shell_call":
        value = {"command": "\n".join(map(str, action.get("commands") or ()))}
    elif kind == "apply_patch_call":
        value = item.get("operation") or {}
    elif kind == "program":
        value = {"code": item.get("code")}
    else:
        value = {"actions": item["actions"]} if item.get("actions") else dict(action)
    return json.dumps(value, ensure_ascii=False)


def _command(argv: object) -> str:
    words = [str(word) for word in argv] if isinstance(argv, list) else [str(argv or "")]
    shell = len(words) == 3 and words[0].rsplit("/", 1)[-1] in ("bash", "sh", "zsh") and words[1] in ("-c", "-lc")
    return words[2] if shell else shlex.join(words)


def write_call(item: Message, call: JsonMapping) -> Message:
    """A call whose arguments an edit changed."""
    kind, text = item["type"], (call.get("function") or {}).get("arguments")
    if kind == "function_call":
        return {**item, "arguments": text if isinstance(text, str) else json.dumps(text or {}, ensure_ascii=False)}
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DialectError(f"an edit leaves the arguments of the {kind} {call_id(item)!r} without a JSON object")
    if kind == "custom_tool_call":
        return {**item, "input": str(value.get("input", ""))}
    if kind == "local_shell_call":
        argv = ["bash", "-lc", str(value.get("command", ""))]
        return {**item, "action": {**(item.get("action") or {}), "command": argv}}
    if kind == "shell_call":
        return {**item, "action": {**(item.get("action") or {}), "commands": [str(value.get("command", ""))]}}
    if kind == "program":
        return {**item, "code": str(value.get("code", ""))}
    if kind == "apply_patch_call":
        return {**item, "operation": value}
    name = "actions" if item.get("actions") else "action"
    return {**item, name: value.get(name, value)}


def read_output(item: Message, ids: Mapping[str, str]) -> Message:
    named = call_id(item)
    output = item.get("result" if item["type"] == "program_output" else "output")
    message: Message = {"role": "tool", "tool_call_id": ids.get(named, named), "content": ""}
    failed = item.get("status") in ("failed", "incomplete") and item["type"] == "apply_patch_call_output"
    if item["type"] == "shell_call_output" and isinstance(output, list):
        message["content"] = "\n".join(text for part in output for text in _streams(part))
        outcomes = [part.get("outcome") for part in output if isinstance(part, Mapping)]
        failed = any(isinstance(o, Mapping) and (o.get("exit_code") or o.get("type") == "timeout") for o in outcomes)
    elif isinstance(output, list):
        message["content"] = [without_marks(part) for part in output if isinstance(part, dict)]
    elif isinstance(output, dict):
        message["content"] = [output]
    else:
        message["content"] = output if isinstance(output, str) else ""
    return {**message, "is_error": True} if failed else message


def _streams(part: object) -> list[str]:
    texts = [part.get("stdout"), part.get("stderr")] if isinstance(part, Mapping) else []
    return [text for text in texts if isinstance(text, str) and text]


def write_output(item: Message, content: object) -> Message:
    """An output with a new content. Raises DialectError where its kind has no text."""
    kind = item["type"]
    if kind == "computer_call_output":
        if isinstance(content, list) and len(content) == 1:
            return {**item, "output": clone(content[0])}
        raise DialectError(
            f"the screenshot that answers {call_id(item)!r} cannot be replaced by text; leave it alone with "
            "protect(tools=['computer'], ...), or drop it together with its call"
        )
    if kind == "program_output":
        return {**item, "result": content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)}
    output = item.get("output")
    if kind == "shell_call_output" and isinstance(output, list):
        last = output[-1] if output and isinstance(output[-1], dict) else {}
        return {**item, "output": [{**last, "stdout": content if isinstance(content, str) else "", "stderr": ""}]}
    if isinstance(output, list) and isinstance(content, list):
        slots = rewritten(content, [without_marks(part) for part in output], output, "input_text")
        return {**item, "output": [part for slot in slots for part in slot]}
    return {**item, "output": clone(content) if content is not None else ""}

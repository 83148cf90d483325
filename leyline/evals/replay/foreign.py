"""Recordings of other harnesses: sessions of Claude Code and Codex, logs of Inspect; others are refused by name.

A session that was compacted is several trajectories: behind a compaction the model saw another history.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyline.dialects import DialectError, detect, read
from leyline.directives import JsonMapping, LeylineError, Message


class TraceError(LeylineError, ValueError):
    """A file holds no trajectory, or not the one asked for. The message names the file and the line."""


_CLAUDE_CODE = frozenset({"uuid", "sessionId", "leafUuid", "parentUuid"})
_CODEX = frozenset({"session_meta", "response_item", "event_msg", "turn_context", "compacted"})
_CODEX_ITEMS = frozenset(
    {
        *("message", "reasoning", "function_call", "function_call_output", "custom_tool_call"),
        *("custom_tool_call_output", "local_shell_call", "local_shell_call_output", "web_search_call"),
    }
)
_ATTACHMENT = "attachment://"


def is_session(record: object) -> bool:
    """Whether a line is one of a Claude Code session or of a Codex rollout."""
    return _is_claude_code(record) or _is_codex(record)


def read_session(records: Sequence[Mapping[str, object]], where: str, name: str) -> Iterator[tuple[str, list[Message]]]:
    """The histories of a session's lines, each with a name. Raises TraceError."""
    codex = any(map(_is_codex, records))
    parts = list(_codex(records) if codex else _claude_code(records))
    kind = "Codex" if codex else "Claude Code"
    found = 0
    for body in parts:
        history = _history(body, "responses" if codex else "messages", f"{where}: a session of {kind}")
        if any(message.get("role") == "assistant" for message in history):
            found += 1
            yield (name if found == 1 else f"{name} part {found}"), history
    if not found:
        raise TraceError(f"{where} is a session of {kind} without an answer of the model")


def plain_history(record: JsonMapping, where: str) -> list[Message]:
    """The messages of a record as policies read them: those of other APIs are turned into plain ones, calls into lists.

    What is in none of these forms stays as it is. Raises TraceError.
    """
    messages: list[Message] = record["messages"]
    dialect = detect({"messages": messages})
    if dialect == "chat":
        return [_with_calls(m) if isinstance(m, dict) and "tool_calls" in m else m for m in messages]
    return _history(record if dialect == "messages" else {"input": messages}, dialect, where)


def _with_calls(message: dict[str, object]) -> dict[str, object]:
    """The message with its calls as a list, where an export made JSON text or an object by number of it."""
    made = message["tool_calls"]
    if isinstance(made, str):
        try:
            made = json.loads(made) if made.strip() else None
        except (ValueError, RecursionError):
            return message
    if isinstance(made, dict):
        made = [made] if "function" in made else list(made.values())
    return (
        {**message, "tool_calls": made} if made is not None else {k: v for k, v in message.items() if k != "tool_calls"}
    )


def inspect_samples(log: object) -> list[object] | None:
    """The samples of an Inspect log that is one JSON object, or None if it is none."""
    samples = log.get("samples") if isinstance(log, Mapping) and isinstance(log.get("eval"), Mapping) else None
    return samples if isinstance(samples, list) else None


def inspect_record(sample: object, where: str) -> dict[str, object]:
    """A sample of an Inspect log as a record with messages. Raises TraceError."""
    if not isinstance(sample, Mapping) or not isinstance(sample.get("messages"), list):
        raise TraceError(f"{where}: a sample of an Inspect log without messages")
    attached = sample.get("attachments")
    attached = attached if isinstance(attached, Mapping) else {}
    messages = [_of_inspect(_attach(message, attached)) for message in sample["messages"]]
    name = f"{sample.get('id', where)}"
    epoch = sample.get("epoch")
    return {"id": name if epoch in (None, 1) else f"{name} epoch {epoch}", "messages": messages}


def read_zip(path: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """The samples of an Inspect `.eval` file, as place and record. Raises TraceError for another zip file."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(
                name for name in archive.namelist() if name.startswith("samples/") and name.endswith(".json")
            )
            if not names:
                raise TraceError(f"{path} is a zip file, but no log of Inspect: it holds no samples")
            for name in names:
                yield f"{path}, {name}", inspect_record(json.loads(archive.read(name)), f"{path}, {name}")
    except (zipfile.BadZipFile, ValueError, OSError, RecursionError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path} is a damaged zip file ({' '.join(str(error).split())}); fetch it again") from None
    except NotImplementedError:
        raise TraceError(
            f"{path} is a log of Inspect that is packed in a way that Python cannot open; "
            "convert it: inspect log convert --to json"
        ) from None


def refused(data: object) -> str | None:
    """What a record is that is known but not read, and what to give instead; None for anything else."""
    if isinstance(data, Mapping):
        if isinstance(data.get("conversations"), list):
            return "a ShareGPT conversation, which has no tool calls; give records with `messages`"
        if isinstance(data.get("steps"), list) and str(data.get("schema_version", "")).startswith("ATIF"):
            return "an ATIF trajectory (Harbor, Terminal-Bench), which is not read; give the agent's own log"
        events = data.get("history", data.get("events"))
        if "model_patch" in data or "prediction" in data:
            return "a file of predictions, not of trajectories"
        if "outcome" in data and "arm" in data:
            return "the records of a run, not its trajectories; those are in its folder `trajectories`"
        if str(data.get("format", "")).startswith("leyline-"):
            return f"a file of {data['format']} records, not of trajectories"
        return refused(events) if isinstance(events, list) else _openhands([data])
    return _openhands(data) if isinstance(data, list) else None


def _openhands(events: Sequence[object]) -> str | None:
    first = events[0] if events else None
    if not isinstance(first, Mapping):
        return None
    old = "source" in first and ("action" in first or "observation" in first)
    if not old and not str(first.get("kind", "")).endswith("Event"):
        return None
    return "a trajectory of OpenHands, whose events are not read; give the completions that it logs (log_completions)"


def _is_claude_code(record: object) -> bool:
    return isinstance(record, Mapping) and isinstance(record.get("type"), str) and bool(_CLAUDE_CODE & record.keys())


def _is_codex(record: object) -> bool:
    return isinstance(record, Mapping) and record.get("type") in _CODEX and isinstance(record.get("payload"), Mapping)


def _claude_code(records: Sequence[Mapping[str, object]]) -> Iterator[dict[str, object]]:
    """Bodies of the messages API, one up to each compaction. Side chains (subagents) are other conversations."""
    messages: list[dict[str, object]] = []
    answers: dict[str, dict[str, object]] = {}
    for record in records:
        if record.get("subtype") == "compact_boundary" and messages:
            yield {"messages": messages}
            messages, answers = [], {}
        message = record.get("message")
        if (
            record.get("type") not in ("user", "assistant")
            or record.get("isSidechain")
            or not isinstance(message, Mapping)
        ):
            continue
        known = answers.get(str(message.get("id"))) if message.get("role") == "assistant" else None
        if known is not None:  # an answer stands in a line for each of its blocks
            known["content"] = [*_blocks(known["content"]), *_blocks(message.get("content"))]
            continue
        kept = {"role": message.get("role"), "content": message.get("content")}
        messages.append(kept)
        if kept["role"] == "assistant":
            answers[str(message.get("id"))] = kept
    if messages:
        yield {"messages": messages}


def _blocks(content: object) -> list[object]:
    return list(content) if isinstance(content, list) else [{"type": "text", "text": str(content)}]


def _codex(records: Sequence[Mapping[str, object]]) -> Iterator[dict[str, object]]:
    """Bodies of the Responses API, one up to each compaction."""
    items: list[object] = []
    told: str | None = None
    for record in records:
        payload = record.get("payload")
        if not isinstance(payload, Mapping):
            continue
        if record.get("type") == "session_meta":
            base = payload.get("base_instructions") or payload.get("instructions")
            base = base.get("text") if isinstance(base, Mapping) else base
            told = base if isinstance(base, str) else told
        elif record.get("type") == "compacted":
            if items:
                yield {"input": items, "instructions": told}
            after = payload.get("replacement_history")
            said = {"type": "message", "role": "user", "content": str(payload.get("message") or "")}
            items = list(after) if isinstance(after, list) else [said]
        elif record.get("type") == "response_item" and payload.get("type") in _CODEX_ITEMS:
            items.append(payload)
    if items:
        yield {"input": items, "instructions": told}


def _history(body: JsonMapping, dialect: Any, where: str) -> list[Message]:
    try:
        return read(body, dialect).history
    except (DialectError, TypeError, AttributeError, KeyError) as error:  # a file may hold anything
        raise TraceError(f"{where}: {error}") from None


def _of_inspect(message: object) -> Any:
    if not isinstance(message, Mapping):
        return message
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    thinking = [str(p.get("reasoning") or "") for p in parts if isinstance(p, Mapping) and p.get("type") == "reasoning"]
    if isinstance(content, list):
        content = [p for p in parts if not (isinstance(p, Mapping) and p.get("type") == "reasoning")]
        if all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
            content = "".join(str(p.get("text") or "") for p in content)
    error = message.get("error")
    if message.get("role") == "tool" and not content and isinstance(error, Mapping):
        content = str(error.get("message") or "")
    calls = message.get("tool_calls") or []
    made: Message = {"role": message.get("role"), "content": content}
    if calls:
        made["tool_calls"] = [_inspect_call(call) for call in calls]
    if message.get("tool_call_id") is not None:
        made["tool_call_id"] = message["tool_call_id"]
    return {**made, **({"reasoning_content": "\n".join(thinking)} if thinking else {})}


def _inspect_call(call: object) -> Any:
    if not isinstance(call, Mapping):
        return call
    arguments = call.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    function = {"name": str(call.get("function") or ""), "arguments": text}
    return {"id": call.get("id"), "type": "function", "function": function}


def _attach(value: object, attached: Mapping[str, object]) -> Any:
    """A message with the texts that the log keeps apart put back."""
    if isinstance(value, str):
        return attached.get(value.removeprefix(_ATTACHMENT), value) if value.startswith(_ATTACHMENT) else value
    if isinstance(value, Mapping):
        return {name: _attach(inner, attached) for name, inner in value.items()}
    return [_attach(inner, attached) for inner in value] if isinstance(value, list) else value

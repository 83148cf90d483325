"""Tool calls in generated text: the Hermes form `<tool_call>\\n{"name": ..., "arguments": {...}}\\n</tool_call>`.

What a model drafts while it thinks is no call (`leyline.directives.hermes` tells the two apart). Malformed calls
stay text, and `error` says what is wrong in words that can be given to the model.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import blake2b

from leyline.directives import JsonObject, Message
from leyline.directives.hermes import CLOSE, OPEN, read_written, unpaired_tags

_ARGUMENTS = re.compile(r'"arguments"\s*:\s*')


@dataclass(frozen=True, slots=True)
class ParsedOutput:
    """What a model said.

    content: the text outside of well-formed calls; one line break before the first call belongs to the call.
    tool_calls: in OpenAI's form; `arguments` is the JSON text exactly as generated.
    error: why a call could not be read, or None. Then its text is still in `content`.
    raw: the text as generated.
    """

    content: str
    tool_calls: tuple[JsonObject, ...]
    error: str | None
    raw: str

    def message(self) -> Message:
        """An assistant message; `content` is None when there is nothing but calls."""
        message: Message = {"role": "assistant", "content": self.content or (None if self.tool_calls else "")}
        if self.tool_calls:
            message["tool_calls"] = [dict(call) for call in self.tool_calls]
        return message


def parse_output(text: str, *, seed: str = "") -> ParsedOutput:
    """Read the tool calls of generated text. Never raises.

    seed: makes the ids of equal calls in different turns different; equal seed and text give equal ids.
    """
    calls: list[dict[str, object]] = []
    errors: list[str] = []
    kept: list[str] = []
    position = 0
    for block in read_written(text).blocks:
        body = block.body.strip()
        name, arguments, error = _read_call(body)
        if error is not None:
            errors.append(error)
            continue
        before = text[position : block.start]
        kept.append(before.removesuffix("\n") if before.strip() else "")
        position = block.end
        digest = blake2b(f"{seed}\0{len(calls)}\0{body}".encode(errors="surrogatepass"), digest_size=12)
        calls.append(
            {
                "id": f"call_{digest.hexdigest()}",
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
        )
    rest = text[position:]
    kept.append(rest if rest.strip() or not calls else "")
    opened, closed = unpaired_tags(text, position)
    if opened > closed:
        errors.append(f"the last {OPEN} is not closed by {CLOSE}")
    elif closed > opened:
        errors.append(f"a {CLOSE} stands without its {OPEN}")
    return ParsedOutput("".join(kept), tuple(calls), errors[0] if errors else None, text)


def _read_call(body: str) -> tuple[str, str, str | None]:
    """Name, arguments as JSON text, and the error."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = (
            f"{error.msg} at character {error.pos}" if isinstance(error, json.JSONDecodeError) else "nested too deep"
        )
        return "", "", f"the tool call is not valid JSON: {reason}"
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or not call["name"]:
        return "", "", 'the tool call must be a JSON object with a "name" that is a string'
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments, given = json.loads(arguments), arguments
        except (ValueError, RecursionError):
            return "", "", 'the "arguments" of the tool call are a string that is not valid JSON'
    else:
        given = _verbatim(body, arguments)
    if not isinstance(arguments, dict):
        return "", "", 'the "arguments" of the tool call must be a JSON object'
    return call["name"], given, None


def _verbatim(body: str, arguments: object) -> str:
    """The arguments as they stand in `body`, so that a template can print again exactly what was generated."""
    decoder = json.JSONDecoder()
    for match in _ARGUMENTS.finditer(body):
        try:
            value, end = decoder.raw_decode(body, match.end())
        except ValueError:
            continue
        if value == arguments and body[end:].strip() == "}":
            return body[match.end() : end]
    return json.dumps(arguments, ensure_ascii=False)

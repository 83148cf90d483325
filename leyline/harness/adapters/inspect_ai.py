"""inspect_ai: an edit policy around a model. Needs `leyline-kv[inspect-ai]`.

eval(task, model=edit_model("openai/gpt-5", "truncate_older_than(n=2, max_chars=200)"))
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import wraps

from anyio import to_thread
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    Content,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)
from inspect_ai.tool import ToolCall

from leyline.directives import JsonObject, Mode
from leyline.harness.adapters.native import PLACE, Native, Role, Told, opaque, text_of
from leyline.harness.adapters.server import body_beside, splices, usage
from leyline.harness.editor import Editor
from leyline.policies import Policy


def edit_model(
    model: str | Model,
    policy: str | Policy = "keep_all",
    *,
    mode: Mode | str = Mode.AMORTIZE,
    audit: bool = False,
    editor: Editor | None = None,
    **settings: object,
) -> Model:
    """A model whose requests are edited; the one that is given stays as it is, and so does a task's own history.

    model: a model, or its name, with the settings that `get_model` takes. editor: where you want to ask for its report,
    made with `splice=True` where the server may be told of edits; else one is made of the other settings. An
    OpenAI-compatible server that announces the plugin of Leyline is told what it may splice.
    """
    given = get_model(model, memoize=False, **settings) if isinstance(model, str) else model
    made, api = copy.copy(given), copy.copy(given.api)
    inner = given.api.generate
    plans = editor or Editor(policy, mode=mode, audit=audit, splice=True, owner="inspect_ai")

    @wraps(inner)
    async def generate(input: list[ChatMessage], tools: Native, tool_choice: Native, config: GenerateConfig) -> Native:
        told = Told(_Form(), input)
        chat = getattr(api, "responses_api", True) in (None, False)  # other providers have no such setting
        splice = chat and await to_thread.run_sync(splices, api.base_url, api.api_key)
        plan = await plans.aplan(
            told.history, dialect="messages", sent_as="chat" if chat else None, splice=splice, model=api.model_name
        )
        update: JsonObject = {}
        if chat:
            own = config.extra_headers or {}
            update["extra_headers"] = {**own, **plan.headers_beside(own)}
        if plan.request_fields:
            update["extra_body"] = body_beside(plan, config.extra_body)
        config = config.model_copy(update=update)
        answer = await inner(told.edited(plan), tools, tool_choice, config)
        output = answer[0] if isinstance(answer, tuple) else answer
        if isinstance(output, ModelOutput):
            plan.served(_counted(output))
        return answer

    api.generate = generate
    made.api = api
    return made


def _counted(output: ModelOutput) -> JsonObject | None:
    used = output.usage
    if used is None:
        return None
    cached = used.input_tokens_cache_read or 0
    prompt = used.input_tokens + cached + (used.input_tokens_cache_write or 0)
    return usage(prompt, cached, used.output_tokens)


class _Form:
    """inspect_ai's messages. A part is a content, a call, the text of a message, or the whole of a tool's message."""

    def read(self, message: ChatMessage) -> list[tuple[Role, Native, JsonObject]]:
        if isinstance(message, ChatMessageTool):
            return [("user", message, _result(message))]
        texts: list[Native] = [message.content] if isinstance(message.content, str) else list(message.content)
        calls = (message.tool_calls or []) if isinstance(message, ChatMessageAssistant) else []
        return [(message.role, part, _block(part)) for part in [*(text for text in texts if text != ""), *calls]]

    def rewrite(self, part: Native, block: JsonObject) -> Native:
        if isinstance(part, ToolCall):
            return replace(part, arguments=block["input"])
        if not isinstance(part, ChatMessageTool):
            return block["text"] if isinstance(part, str) else part.model_copy(update={"text": block["text"]})
        told = block.get("content")
        if part.error is not None:
            return part.model_copy(update={"error": replace(part.error, message=text_of(told))})
        if isinstance(part.content, str) or not isinstance(told, list):
            return part.model_copy(update={"content": text_of(told)})
        contents = [(part.content[one[PLACE]] if PLACE in one else None, one) for one in told]
        made = [_content(content, one) for content, one in contents]
        return part.model_copy(update={"content": made})

    def added(self, role: Role, text: str) -> Native:
        return text

    def rebuilt(self, message: ChatMessage, parts: list[Native]) -> ChatMessage:
        if isinstance(message, ChatMessageTool):
            return parts[0]
        update: JsonObject = {"content": _together([part for part in parts if not isinstance(part, ToolCall)])}
        if isinstance(message, ChatMessageAssistant):
            update["tool_calls"] = [part for part in parts if isinstance(part, ToolCall)] or None
        return message.model_copy(update=update)

    def fresh(self, role: Role, parts: list[Native]) -> ChatMessage:
        kind = {"user": ChatMessageUser, "assistant": ChatMessageAssistant, "system": ChatMessageSystem}[role]
        return kind(content=_together(parts))


def _result(message: ChatMessageTool) -> JsonObject:
    content: str | list[JsonObject]
    if message.error is not None:
        content = message.error.message
    elif isinstance(message.content, str):
        content = message.content
    else:
        content = [{**_block(part), PLACE: place} for place, part in enumerate(message.content)]
    block: JsonObject = {"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": content}
    return {**block, "is_error": True} if message.error is not None else block


def _block(part: str | Content | ToolCall) -> JsonObject:
    if isinstance(part, ToolCall):
        return {"type": "tool_use", "id": part.id, "name": part.function, "input": part.arguments}
    if isinstance(part, str | ContentText):
        return {"type": "text", "text": part if isinstance(part, str) else part.text}
    if isinstance(part, ContentReasoning):
        return {"type": "thinking", "thinking": part.reasoning}
    return opaque(part)


def _content(part: Content | None, block: JsonObject) -> Content:
    """A content of a tool's result, with the text that an edited block has."""
    if part is None:
        return ContentText(text=str(block.get("text") or ""))
    return part.model_copy(update={"text": block["text"]}) if block["type"] == "text" else part


def _together(parts: list[Native]) -> Native:
    """The content of a message: text where there is only that."""
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    return [ContentText(text=part) if isinstance(part, str) else part for part in parts]

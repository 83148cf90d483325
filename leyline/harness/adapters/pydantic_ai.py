"""pydantic-ai: an edit policy as a capability of an agent. Needs `leyline-kv[pydantic-ai]`.

agent = Agent("openai:gpt-5", capabilities=[Leyline("truncate_older_than(n=2, max_chars=200)")])
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from anyio import to_thread
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import (
    CachePoint,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryFeedbackPart,
    RetryPromptPart,
    SystemPromptPart,
    TextContent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.tools import RunContext

from leyline.dialects import DialectError
from leyline.directives import JsonObject, Mode
from leyline.harness.adapters.native import Native, Role, Told, opaque, text_of
from leyline.harness.adapters.server import body_beside, splices, usage
from leyline.harness.editor import Editor
from leyline.policies import Policy


class Leyline(AbstractCapability[object]):  # type: ignore[misc]
    """Edits what the model is sent; the run's own messages stay whole. `.leyline` is the `Editor`.

    A chat model whose server announces the plugin of Leyline is told what it may splice.
    """

    def __init__(
        self, policy: str | Policy = "keep_all", *, mode: Mode | str = Mode.AMORTIZE, audit: bool = False
    ) -> None:
        self.leyline = Editor(policy, mode=mode, audit=audit, splice=True, owner="pydantic-ai")

    async def wrap_model_request(
        self,
        ctx: RunContext[object],
        *,
        request_context: ModelRequestContext,
        handler: Callable[[ModelRequestContext], Awaitable[ModelResponse]],
    ) -> ModelResponse:
        """Edit, send, remember."""
        told = Told(_Form(), request_context.messages)
        chat = _chat_model(request_context)
        splice = chat is not None and await to_thread.run_sync(splices, chat.base_url, chat.client.api_key)
        plan = await self.leyline.aplan(
            told.history,
            dialect="messages",
            sent_as="chat" if chat is not None else None,
            splice=splice,
            session=ctx.conversation_id,
            model=request_context.model.model_name,
        )
        settings: Native = request_context.model_settings
        if chat is not None:
            own: Native = (settings or {}).get("extra_headers") or {}
            settings = {**(settings or {}), "extra_headers": {**own, **plan.headers_beside(own)}}
        if plan.request_fields:
            body = body_beside(plan, settings.get("extra_body"), stream=request_context.streaming)
            settings = {**settings, "extra_body": body}
        response = await handler(replace(request_context, messages=told.edited(plan), model_settings=settings))
        used = response.usage
        plan.served(usage(used.input_tokens, used.cache_read_tokens, used.output_tokens))
        return response


def _chat_model(context: ModelRequestContext) -> OpenAIChatModel | None:
    """The model of a request, where it speaks chat completions."""
    model = context.model
    while hasattr(model, "wrapped"):
        model = model.wrapped
    return model if isinstance(model, OpenAIChatModel) else None


@dataclass(frozen=True)
class _Item:
    """One item of a prompt that has several, with the cache mark behind it."""

    prompt: UserPromptPart
    items: tuple[Native, ...]


class _Form:
    """pydantic-ai's messages."""

    def read(self, message: ModelMessage) -> list[tuple[Role, Native, JsonObject]]:
        if isinstance(message, ModelResponse):
            return [("assistant", part, _said(part)) for part in message.parts]
        return [_asked(item) for part in message.parts for item in _items(part)]

    def rewrite(self, part: Native, block: JsonObject) -> Native:
        if isinstance(part, _Item):
            return replace(part, items=(block["text"], *part.items[1:]))
        if isinstance(part, ToolCallPart):
            return replace(part, args=block["input"])
        if isinstance(part, TextPart | SystemPromptPart | UserPromptPart):
            return replace(part, content=block["text"])
        if isinstance(part, ToolReturnPart):
            text = text_of(block.get("content"))
            kept = part.files if isinstance(block.get("content"), list) and len(block["content"]) > 1 else ()
            return replace(part, content=[text, *kept] if kept else text)
        if isinstance(part, RetryPromptPart) and part.tool_name is not None:
            return ToolReturnPart(part.tool_name, text_of(block.get("content")), part.tool_call_id)
        return UserPromptPart(str(block["text"]))

    def added(self, role: Role, text: str) -> Native:
        return {"assistant": TextPart, "system": SystemPromptPart, "user": UserPromptPart}[role](text)

    def rebuilt(self, message: ModelMessage, parts: list[Native]) -> ModelMessage:
        return replace(message, parts=_joined(parts))

    def fresh(self, role: Role, parts: list[Native]) -> ModelMessage:
        return ModelResponse(parts) if role == "assistant" else ModelRequest(_joined(parts))


def _said(part: object) -> JsonObject:
    """A part of an answer as a block."""
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.content}
    if isinstance(part, ThinkingPart):
        return {"type": "thinking", "thinking": part.content}
    if isinstance(part, ToolCallPart):
        return {"type": "tool_use", "id": part.tool_call_id, "name": part.tool_name, "input": part.args_as_dict()}
    return opaque(part)


def _asked(part: Native) -> tuple[Role, Native, JsonObject]:
    """A part of a request with its speaker."""
    if isinstance(part, SystemPromptPart):
        return "system", part, {"type": "text", "text": part.content}
    if isinstance(part, UserPromptPart):
        return "user", part, {"type": "text", "text": part.content}
    if isinstance(part, _Item):
        first = part.items[0]
        text = first.content if isinstance(first, TextContent) else first
        return "user", part, {"type": "text", "text": text} if isinstance(text, str) else opaque(first)
    if isinstance(part, ToolReturnPart):
        text = part.model_response_str()
        content = [{"type": "text", "text": text}, *map(opaque, part.files)] if part.files else text
        return "user", part, {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": content}
    if isinstance(part, RetryPromptPart) and part.tool_name is not None:
        return "user", part, {"type": "tool_result", "tool_use_id": part.tool_call_id, "content": part.model_response()}
    if isinstance(part, RetryPromptPart | RetryFeedbackPart):
        return "user", part, {"type": "text", "text": part.model_response()}
    raise DialectError(f"pydantic-ai: leyline does not read a {type(part).__name__}; use leyline.wrap on its client")


def _items(part: Native) -> list[Native]:
    """A request's part, or the items of a prompt that has several."""
    if not isinstance(part, UserPromptPart) or isinstance(part.content, str):
        return [part]
    made: list[_Item] = []
    for item in part.content:
        if isinstance(item, CachePoint) and made:
            made[-1] = replace(made[-1], items=(*made[-1].items, item))
        else:
            made.append(_Item(part, (item,)))
    return made


def _joined(parts: list[Native]) -> list[Native]:
    """Parts of a request, with the items of a prompt put together again."""
    made: list[Native] = []
    last: UserPromptPart | None = None
    for part in parts:
        prompt = part.prompt if isinstance(part, _Item) else None
        if prompt is None:
            made.append(part)
        elif prompt is last:
            made[-1] = replace(made[-1], content=[*made[-1].content, *part.items])
        else:
            made.append(replace(prompt, content=list(part.items)))
        last = prompt
    return made

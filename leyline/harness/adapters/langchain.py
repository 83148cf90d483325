"""LangChain: an edit policy as agent middleware, and for a chat model alone. Needs `leyline-kv[langchain]`.

agent = create_agent(model, tools, middleware=[LeylineMiddleware("truncate_older_than(n=2, max_chars=200)")])
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import httpx
from anyio import to_thread
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI

from leyline.dialects import DialectError
from leyline.directives import JsonObject, Mode
from leyline.harness.adapters.native import PLACE, Native, Role, Told, opaque
from leyline.harness.adapters.server import body_beside, splices, usage
from leyline.harness.editor import Editor, EditPlan
from leyline.harness.transport import transport
from leyline.policies import Policy


class LeylineMiddleware(AgentMiddleware):  # type: ignore[misc]
    """Edits what the model is sent; the agent's own state keeps the whole history. `.leyline` is the `Editor`.

    A `ChatOpenAI` whose server announces the plugin of Leyline is told what it may splice.
    """

    def __init__(
        self, policy: str | Policy = "keep_all", *, mode: Mode | str = Mode.AMORTIZE, audit: bool = False
    ) -> None:
        super().__init__()
        self.leyline = Editor(policy, mode=mode, audit=audit, splice=True, owner="LeylineMiddleware")

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        """Edit, send, remember."""
        told = Told(_Form(), request.messages)
        plan = self.leyline.plan(told.history, **_of(request))
        response = handler(_edited(request, told, plan))
        plan.served(_usage(response))
        return response

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> ModelResponse:
        """The same in an event loop."""
        told = Told(_Form(), request.messages)
        plan = await self.leyline.aplan(told.history, **await to_thread.run_sync(_of, request))
        response = await handler(_edited(request, told, plan))
        plan.served(_usage(response))
        return response


def chat_openai(policy: str | Policy, *, mode: Mode | str = Mode.AMORTIZE, **settings: object) -> ChatOpenAI:
    """`ChatOpenAI(**settings)` whose requests are edited on their way, without an agent around it."""
    edited = transport(policy, mode=mode)
    return ChatOpenAI(
        http_client=httpx.Client(transport=edited),
        http_async_client=httpx.AsyncClient(transport=edited),
        **settings,
    )


def _of(request: ModelRequest) -> JsonObject:
    """How a plan is made for a request. The system message is no part of `request.messages`."""
    model = request.model
    if not isinstance(model, ChatOpenAI) or model.use_responses_api:
        return {"dialect": "messages"}
    key = model.openai_api_key
    secret = key.get_secret_value() if hasattr(key, "get_secret_value") else None
    return {"dialect": "messages", "sent_as": "chat", "splice": splices(model.openai_api_base, secret)}


def _edited(request: ModelRequest, told: Told[AnyMessage, Native], plan: EditPlan) -> ModelRequest:
    """The request with edited messages and with what its server is told. Of the chat models those of OpenAI's family
    take headers, which keep the conversation on one replica of several.
    """
    changes: JsonObject = {} if plan.messages is told.history else {"messages": told.edited(plan)}
    model, settings = request.model, dict(request.model_settings)
    if isinstance(model, BaseChatOpenAI):
        own = settings.get("extra_headers") or {}
        settings["extra_headers"] = {**own, **plan.headers_beside([*own, *(model.default_headers or {})])}
        if plan.request_fields:
            given = settings.get("extra_body") or model.extra_body
            settings["extra_body"] = body_beside(plan, given, stream=bool(model.streaming))
        changes["model_settings"] = settings
    return request.override(**changes) if changes else request


def _usage(response: Native) -> JsonObject | None:
    """The usage block of an answer, in the words of chat completions."""
    answers: Sequence[Native] = getattr(response, "result", None) or [response]
    used = getattr(answers[0], "usage_metadata", None)
    if not used:
        return None
    cached = (used.get("input_token_details") or {}).get("cache_read", 0)
    return usage(used.get("input_tokens", 0), cached, used.get("output_tokens", 0))


@dataclass(frozen=True)
class _Call:
    """A call of an answer, and the block that says it again in its content, for the providers that have one."""

    call: Native
    block: Native = None


_ROLES: dict[str, Role] = {"human": "user", "ai": "assistant", "system": "system"}


class _Form:
    """LangChain's messages. A part is a block of a content, a text, a call, or the whole message of a tool."""

    def read(self, message: AnyMessage) -> list[tuple[Role, Native, JsonObject]]:
        if isinstance(message, ToolMessage):
            content = message.content
            told = content if isinstance(content, str) else [{**_block(b), PLACE: k} for k, b in enumerate(content)]
            result: JsonObject = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": told}
            return [("user", message, {**result, "is_error": True} if message.status == "error" else result)]
        role = _ROLES.get(message.type)
        if role is None:
            raise DialectError(f"LangChain: leyline does not read a {type(message).__name__}; use chat_openai or wrap")
        calls = {call["id"]: call for call in message.tool_calls} if isinstance(message, AIMessage) else {}
        content = [message.content] if isinstance(message.content, str) else message.content
        parts: list[Native] = []
        for block in content:
            name = _name(block)
            if name in calls:
                parts.append(_Call(calls.pop(name), block))
            elif block != "":
                parts.append(block)
        return [(role, part, _block(part)) for part in [*parts, *map(_Call, calls.values())]]

    def rewrite(self, part: Native, block: JsonObject) -> Native:
        if isinstance(part, _Call):
            said = None if part.block is None else {**part.block, "input": block["input"]}
            return replace(part, call={**part.call, "args": block["input"]}, block=said)
        if not isinstance(part, ToolMessage):
            return block["text"] if isinstance(part, str) else {**part, "text": block["text"]}
        told = block.get("content")
        if not isinstance(told, list):
            return part.model_copy(update={"content": told or ""})
        return part.model_copy(update={"content": [_content(part.content, one) for one in told]})

    def added(self, role: Role, text: str) -> Native:
        return text

    def rebuilt(self, message: AnyMessage, parts: list[Native]) -> AnyMessage:
        if isinstance(message, ToolMessage):
            made: AnyMessage = parts[0]
            return made
        content = [part.block if isinstance(part, _Call) else part for part in parts]
        update: JsonObject = {"content": _together([block for block in content if block is not None])}
        if isinstance(message, AIMessage):
            update["tool_calls"] = [part.call for part in parts if isinstance(part, _Call)]
        return message.model_copy(update=update)

    def fresh(self, role: Role, parts: list[Native]) -> AnyMessage:
        kind = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}[role]
        return kind(content=_together(parts))


def _name(block: Native) -> str | None:
    """The id of the call that a block of a content is."""
    kinds = ("tool_use", "function_call", "tool_call")
    named = block.get("call_id") or block.get("id") if isinstance(block, dict) and block.get("type") in kinds else None
    return named if isinstance(named, str) else None


def _block(part: Native) -> JsonObject:
    if isinstance(part, _Call):
        return {"type": "tool_use", "id": part.call["id"], "name": part.call["name"], "input": part.call["args"]}
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.get("type") == "text" and isinstance(part.get("text"), str):
        return {key: part[key] for key in ("type", "text", "cache_control") if key in part}
    if part.get("type") == "thinking" and isinstance(part.get("thinking"), str):
        return {"type": "thinking", "thinking": part["thinking"]}
    return opaque(part)


def _content(content: Native, block: JsonObject) -> Native:
    """A block of a tool's result, with the text that an edited one has."""
    if PLACE not in block:
        return {"type": "text", "text": str(block.get("text") or "")}
    given = content[block[PLACE]]
    if block["type"] != "text":
        return given
    return block["text"] if isinstance(given, str) else {**given, "text": block["text"]}


def _together(parts: list[Native]) -> Native:
    """The content of a message: text where there is only that."""
    if all(isinstance(part, str) for part in parts):
        return "\n".join(parts)
    return parts

"""LangChain: an edit policy as agent middleware, and for a chat model alone. Needs `leyline-kv[langchain]`.

agent = create_agent(model, tools, middleware=[LeylineMiddleware("truncate_older_than(n=2, max_chars=200)")])
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import BaseMessage, convert_to_messages, convert_to_openai_messages
from langchain_openai import ChatOpenAI
from langchain_openai.chat_models.base import BaseChatOpenAI

from leyline.directives import Mode
from leyline.harness.editor import Editor, EditPlan
from leyline.harness.transport import transport
from leyline.policies import Policy


class LeylineMiddleware(AgentMiddleware):  # type: ignore[misc]
    """Edits what the model is sent; the agent's own state keeps the whole history. `.leyline` is the `Editor`."""

    def __init__(
        self, policy: str | Policy = "keep_all", *, mode: Mode | str = Mode.AMORTIZE, audit: bool = False
    ) -> None:
        super().__init__()
        self.leyline = Editor(policy, mode=mode, audit=audit, owner="LeylineMiddleware")

    def wrap_model_call(self, request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
        """Edit, send, remember."""
        plan = self.leyline.plan(_history(request), dialect="chat")
        response = handler(_edited(request, plan))
        plan.served(_usage(response))
        return response

    async def awrap_model_call(
        self, request: ModelRequest, handler: Callable[[ModelRequest], Awaitable[ModelResponse]]
    ) -> ModelResponse:
        """The same in an event loop."""
        plan = await self.leyline.aplan(_history(request), dialect="chat")
        response = await handler(_edited(request, plan))
        plan.served(_usage(response))
        return response


def chat_openai(policy: str | Policy, *, mode: Mode | str = Mode.AMORTIZE, **settings: Any) -> ChatOpenAI:
    """`ChatOpenAI(**settings)` whose requests are edited on their way, without an agent around it."""
    edited = transport(policy, mode=mode)
    return ChatOpenAI(
        http_client=httpx.Client(transport=edited),
        http_async_client=httpx.AsyncClient(transport=edited),
        **settings,
    )


def _history(request: ModelRequest) -> list[dict[str, Any]]:
    """The messages as chat completions have them; the system message is no part of `request.messages`."""
    return [dict(message) for message in convert_to_openai_messages(request.messages)]


def _edited(request: ModelRequest, plan: EditPlan) -> ModelRequest:
    """The request with edited messages; those without an edit are the very objects that it had. Of the chat models
    those of OpenAI's family take headers, which keep the conversation on one replica of several.
    """
    if isinstance(request.model, BaseChatOpenAI):
        own = request.model_settings.get("extra_headers") or {}
        present = [*own, *(request.model.default_headers or {})]
        headers = {**own, **plan.headers_beside(present)}
        request = request.override(model_settings={**request.model_settings, "extra_headers": headers})
    if not plan.edited:
        return request
    made: list[BaseMessage] = []
    for message, origin in zip(plan.messages, plan.view, strict=True):
        original = request.messages[origin.index] if origin.index is not None else None
        if original is None:
            made += convert_to_messages([message])
        else:
            content = dict(message).get("content") or ""
            made.append(original.model_copy(update={"content": content}) if origin.edited else original)
    return request.override(messages=made)


def _usage(response: Any) -> dict[str, Any] | None:
    """The usage block of an answer, in the words of chat completions."""
    answers: Sequence[Any] = getattr(response, "result", None) or [response]
    usage = getattr(answers[0], "usage_metadata", None)
    if not usage:
        return None
    cached = (usage.get("input_token_details") or {}).get("cache_read", 0)
    return {
        "usage": {
            "prompt_tokens": usage.get("input_tokens", 0),
            "completion_tokens": usage.get("output_tokens", 0),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    }

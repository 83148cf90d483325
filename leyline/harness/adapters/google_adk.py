"""google-adk: an edit policy as a plugin of a runner, or as the callbacks of one agent. Needs `leyline-kv[google-adk]`.

runner = InMemoryRunner(agent, plugins=[LeylinePlugin("truncate_older_than(n=2, max_chars=200)")])
"""

from __future__ import annotations

import json

from google.adk.agents.callback_context import CallbackContext
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.plugins.base_plugin import BasePlugin
from google.genai import types

from leyline.dialects import DialectError
from leyline.directives import JsonObject, Mode
from leyline.harness.adapters.native import Role, Told, opaque, text_of
from leyline.harness.adapters.server import usage
from leyline.harness.editor import Editor, EditPlan
from leyline.policies import Policy


class LeylinePlugin(BasePlugin):  # type: ignore[misc]
    """Edits what the model is sent; the session's events stay whole. `.leyline` is the `Editor`."""

    def __init__(
        self,
        policy: str | Policy = "keep_all",
        *,
        mode: Mode | str = Mode.AMORTIZE,
        audit: bool = False,
        name: str = "leyline",
    ) -> None:
        super().__init__(name)
        self.leyline = Editor(policy, mode=mode, audit=audit, owner="google-adk")
        self._plans: dict[tuple[str, str], EditPlan] = {}

    async def before_model_callback(self, *, callback_context: CallbackContext, llm_request: LlmRequest) -> None:
        """Edit what will be sent."""
        told = Told(_Form(), llm_request.contents)
        plan = await self.leyline.aplan(
            told.history, dialect="messages", session=_session(callback_context), model=llm_request.model
        )
        llm_request.contents = told.edited(plan)
        self._plans[_call(callback_context)] = plan

    async def after_model_callback(self, *, callback_context: CallbackContext, llm_response: LlmResponse) -> None:
        """Remember what was served. A stream comes here piece by piece."""
        plan = self._plans.get(_call(callback_context))
        if plan is None or llm_response.error_code:
            return
        used = llm_response.usage_metadata
        counted = None
        if used is not None and used.prompt_token_count:
            cached, answer = used.cached_content_token_count or 0, used.candidates_token_count or 0
            counted = usage(used.prompt_token_count, cached, answer)
        plan.served(counted)
        if not llm_response.partial:
            self._plans.pop(_call(callback_context), None)

    async def on_model_error_callback(
        self, *, callback_context: CallbackContext, llm_request: LlmRequest, error: Exception
    ) -> None:
        """A request that failed is not remembered."""
        self._plans.pop(_call(callback_context), None)


def _session(context: CallbackContext) -> str:
    return f"{context.session.id}/{context.agent_name}"


def _call(context: CallbackContext) -> tuple[str, str]:
    """An agent of an invocation asks its model one thing at a time."""
    return context.invocation_id, context.agent_name


class _Form:
    """Contents of google-genai. A call without an id is told by its place, as its result is."""

    def __init__(self) -> None:
        self._calls: list[tuple[str, str | None]] = []
        self._unnamed = 0

    def read(self, message: types.Content) -> list[tuple[Role, types.Part, JsonObject]]:
        role: Role = "assistant" if message.role == "model" else "user"
        return [(role, part, self._block(part)) for part in message.parts or ()]

    def _block(self, part: types.Part) -> JsonObject:
        if part.function_call is not None:
            self._unnamed += 1
            name = part.function_call.id or f"call-{self._unnamed}"
            self._calls.append((name, part.function_call.name))
            args = part.function_call.args or {}
            return {"type": "tool_use", "id": name, "name": part.function_call.name or "", "input": args}
        if part.function_response is not None:
            content = _result(part.function_response.response)
            return {"type": "tool_result", "tool_use_id": self._answered(part.function_response), "content": content}
        if part.text is not None and part.thought:
            return {"type": "thinking", "thinking": part.text}
        if part.text is not None:
            return {"type": "text", "text": part.text}
        return opaque(part, part.model_dump_json())

    def _answered(self, response: types.FunctionResponse) -> str:
        wanted = (response.id, None) if response.id else (None, response.name)
        for place, call in enumerate(self._calls):
            if wanted[0] == call[0] or (wanted[0] is None and wanted[1] == call[1]):
                del self._calls[place]
                return call[0]
        raise DialectError(f"google-adk: the result of {response.name!r} answers no call of its history")

    def rewrite(self, part: types.Part, block: JsonObject) -> types.Part:
        if part.function_call is not None:
            call = part.function_call.model_copy(update={"args": block["input"]})
            return part.model_copy(update={"function_call": call})
        if part.function_response is not None:
            said = {"result": text_of(block.get("content"))}
            response = part.function_response.model_copy(update={"response": said})
            return part.model_copy(update={"function_response": response})
        return part.model_copy(update={"text": block["text"]})

    def added(self, role: Role, text: str) -> types.Part:
        return types.Part(text=text)

    def rebuilt(self, message: types.Content, parts: list[types.Part]) -> types.Content:
        return message.model_copy(update={"parts": parts})

    def fresh(self, role: Role, parts: list[types.Part]) -> types.Content:
        return types.Content(role="model" if role == "assistant" else "user", parts=parts)


def _result(response: object) -> str:
    """The text of a result: what a function gave, or all of it as JSON."""
    if isinstance(response, dict) and set(response) == {"result"} and isinstance(response["result"], str):
        return str(response["result"])
    return json.dumps(response, ensure_ascii=False, default=str)

"""openai-agents: an edit policy around a run's models, or as its input filter. Needs `leyline-kv[openai-agents]`.

await Runner.run(agent, "Fix the bug.", run_config=RunConfig(model_provider=LeylineProvider("drop_stale")))
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

from agents import ModelProvider, ModelSettings, MultiProvider, OpenAIChatCompletionsModel
from agents.items import ModelResponse, TResponseStreamEvent
from agents.models.interface import Model
from agents.run_config import CallModelData, ModelInputData
from anyio import to_thread

from leyline.directives import JsonObject, Mode
from leyline.harness.adapters.native import Native
from leyline.harness.adapters.server import body_beside, splices, usage
from leyline.harness.editor import Editor, EditPlan
from leyline.policies import Policy


class LeylineModel(Model):  # type: ignore[misc]
    """A model whose requests are edited; everything else is the model's that it was given.

    A chat model whose server announces the plugin of Leyline is told what it may splice.
    """

    def __init__(
        self, model: Model, policy: str | Policy | Editor = "keep_all", *, mode: Mode | str = Mode.AMORTIZE
    ) -> None:
        """policy: or an `Editor` of your own, made with `splice=True` where the server may be told."""
        if not isinstance(policy, Editor):
            policy = Editor(policy, mode=mode, splice=True, owner="openai-agents")
        self.leyline = policy
        self._model = model

    def __getattr__(self, name: str) -> Native:
        return getattr(self.__dict__["_model"], name)

    async def close(self) -> None:
        await self._model.close()

    async def get_response(
        self,
        system_instructions: str | None,
        input: Native,
        model_settings: ModelSettings,
        *args: object,
        **kwargs: object,
    ) -> ModelResponse:
        plan = await self._plan(input, kwargs)
        settings = _settings(plan, model_settings)
        made = input if isinstance(input, str) else plan.messages
        response = await self._model.get_response(system_instructions, made, settings, *args, **kwargs)
        used = response.usage
        plan.served(usage(used.input_tokens, used.input_tokens_details.cached_tokens or 0, used.output_tokens))
        return response

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Native,
        model_settings: ModelSettings,
        *args: object,
        **kwargs: object,
    ) -> AsyncIterator[TResponseStreamEvent]:
        plan = await self._plan(input, kwargs)
        settings = _settings(plan, model_settings, stream=True)
        made = input if isinstance(input, str) else plan.messages
        async for event in self._model.stream_response(system_instructions, made, settings, *args, **kwargs):
            plan.served(event)
            yield event

    async def _plan(self, input: Native, kwargs: JsonObject) -> EditPlan:
        held = {"previous_response_id": "previous_response_id", "conversation": "conversation_id"}
        body = {"input": input, **{name: kwargs[given] for name, given in held.items() if kwargs.get(given)}}
        chat = isinstance(self._model, OpenAIChatCompletionsModel)
        client, name = getattr(self._model, "_client", None), getattr(self._model, "model", None)
        url, key = getattr(client, "base_url", None), getattr(client, "api_key", None)
        return await self.leyline.aplan(
            body,
            dialect="responses",
            sent_as="chat" if chat else None,
            splice=chat and await to_thread.run_sync(splices, url, key),
            model=None if name is None else str(name),
        )


def _settings(plan: EditPlan, given: ModelSettings, *, stream: bool = False) -> ModelSettings:
    """The settings of a request with what its server is told; its model sends them where it speaks HTTP."""
    own = given.extra_headers or {}
    made = replace(given, extra_headers={**own, **plan.headers_beside(own)})
    if plan.request_fields:
        made = replace(made, extra_body=body_beside(plan, given.extra_body, stream=stream))
    return made


class LeylineProvider(ModelProvider):  # type: ignore[misc]
    """Edits what the models of another provider are sent. `.leyline` is the `Editor`.

    models: the provider that makes the models; None takes the one of openai-agents.
    """

    def __init__(
        self,
        policy: str | Policy = "keep_all",
        *,
        models: ModelProvider | None = None,
        mode: Mode | str = Mode.AMORTIZE,
        audit: bool = False,
    ) -> None:
        self.leyline = Editor(policy, mode=mode, audit=audit, splice=True, owner="openai-agents")
        self._models = models or MultiProvider()

    def get_model(self, model_name: str | None) -> Model:
        return LeylineModel(self._models.get_model(model_name), self.leyline)

    async def aclose(self) -> None:
        await self._models.aclose()


def input_filter(
    policy: str | Policy = "keep_all", *, mode: Mode | str = Mode.AMORTIZE, editor: Editor | None = None
) -> Callable[[CallModelData[object]], Awaitable[ModelInputData]]:
    """A filter for `RunConfig(call_model_input_filter=...)`; give one to all runs of a program.

    editor: where you want to ask for its report; else one is made of `policy` and `mode`. The filter does not learn
    what became of a request, so that an edit counts as made when it is sent, and no server is told what it may splice.
    """
    made = editor or Editor(policy, mode=mode, owner="input_filter")

    async def edit(data: CallModelData[object]) -> ModelInputData:
        given = data.model_data
        plan = await made.aplan(list(given.input), dialect="responses", model=data.agent.name)
        plan.served()
        return ModelInputData(input=plan.messages, instructions=given.instructions)

    return edit

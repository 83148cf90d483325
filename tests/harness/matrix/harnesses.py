"""The agent in other harnesses' own loops, through the adapter of each; one that is not installed is skipped."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from clients import agent as loop
from recorded import ASKED, PNG, SYSTEM, TURNS, Server, output_of

from leyline.harness import Editor

Play = Callable[[Server, str | None], Editor | None]


def needs(*modules: str, extra: str) -> None:
    for module in modules:
        pytest.importorskip(module, reason=f"needs pip install 'leyline-kv[{extra}]'", exc_type=ImportError)


def bash(command: str) -> str:
    """Run a command."""
    return output_of(command)


def mini_swe_agent(server: Server, policy: str | None) -> Editor | None:
    needs("minisweagent", extra="mini-swe-agent")
    from minisweagent.agents.default import DefaultAgent
    from minisweagent.models.litellm_model import LitellmModel

    from leyline.harness.adapters.mini_swe_agent import LeylineModel

    class Place:
        """An environment whose commands give what is recorded."""

        config = None

        def execute(self, action: dict[str, Any], cwd: str = "", **kwargs: Any) -> dict[str, Any]:
            return {"output": output_of(action["command"]), "returncode": 0, "exception_info": ""}

        def get_template_vars(self, **kwargs: Any) -> dict[str, Any]:
            return {}

        def serialize(self) -> dict[str, Any]:
            return {}

    settings: dict[str, Any] = {
        "model_name": "openai/m",
        "model_kwargs": {"api_base": server.url, "api_key": "k"},
        "cost_tracking": "ignore_errors",
        "observation_template": "{{output.output}}",
    }
    model = LitellmModel(**settings) if policy is None else LeylineModel(policy=policy, **settings)
    made = DefaultAgent(model, Place(), system_template=SYSTEM, instance_template=ASKED, step_limit=TURNS)
    made.run("")
    return None if policy is None else model.leyline


def _langchain(make: Callable[[Server, str | None], tuple[Any, list[Any], Editor | None]], later: bool) -> Play:
    def play(server: Server, policy: str | None) -> Editor | None:
        needs("langchain", "langchain_openai", extra="langchain")
        from langchain.agents import create_agent

        model, middleware, editor = make(server, policy)
        made = create_agent(model, [bash], system_prompt=SYSTEM, middleware=middleware)
        asked = {"messages": [{"role": "user", "content": _chat_prompt()}]}
        config: Any = {"recursion_limit": 99}
        state = asyncio.run(made.ainvoke(asked, config)) if later else made.invoke(asked, config)
        assert "removed" not in str(state["messages"]), "the agent's own state is whole"
        return editor

    return play


def _chat_prompt() -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": ASKED},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]


def _middleware(server: Server, policy: str | None) -> tuple[Any, list[Any], Editor | None]:
    from langchain_openai import ChatOpenAI

    from leyline.harness.adapters.langchain import LeylineMiddleware

    model = ChatOpenAI(model="m", base_url=server.url, api_key="k")
    if policy is None:
        return model, [], None
    middleware = LeylineMiddleware(policy)
    return model, [middleware], middleware.leyline


def _chat_openai(server: Server, policy: str | None) -> tuple[Any, list[Any], Editor | None]:
    from langchain_openai import ChatOpenAI

    from leyline.harness.adapters.langchain import chat_openai

    settings: dict[str, Any] = {"model": "m", "base_url": server.url, "api_key": "k"}
    if policy is None:
        return ChatOpenAI(**settings), [], None
    model = chat_openai(policy, **settings)
    return model, [], model.http_client._transport.leyline


def _agents(responses: bool, how: str) -> Play:
    def play(server: Server, policy: str | None) -> Editor | None:
        needs("agents", extra="openai-agents")
        from agents import Agent, ModelSettings, MultiProvider, RunConfig, Runner, function_tool, set_tracing_disabled
        from openai import AsyncOpenAI

        from leyline.harness.adapters.openai_agents import LeylineProvider, input_filter

        set_tracing_disabled(True)
        tool = function_tool(bash)
        editor = None if policy is None else Editor(policy)

        async def main() -> Editor | None:
            client = AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0)
            models: Any = MultiProvider(openai_client=client, openai_use_responses=responses)
            if policy is not None and how != "filter":
                models = LeylineProvider(policy, models=models)
            config = RunConfig(model_provider=models)
            if how == "filter" and editor is not None:
                config.call_model_input_filter = input_filter(editor=editor)
            made = Agent("fixer", instructions=SYSTEM, model="m", tools=[tool], model_settings=ModelSettings())
            image = {"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"}
            asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": ASKED}, image]}]
            if how == "stream":
                result = Runner.run_streamed(made, asked, run_config=config, max_turns=99)
                async for _ in result.stream_events():
                    pass
            else:
                result = await Runner.run(made, asked, run_config=config, max_turns=99)
            assert result.final_output == "Done."
            await client.close()
            return editor if how == "filter" or policy is None else models.leyline

        return asyncio.run(main())

    return play


def _pydantic_ai(stream: bool) -> Play:
    def play(server: Server, policy: str | None) -> Editor | None:
        needs("pydantic_ai", extra="pydantic-ai")
        from pydantic_ai import Agent, BinaryContent
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        from leyline.harness.adapters.pydantic_ai import Leyline

        model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=server.url, api_key="k"))
        capability = None if policy is None else Leyline(policy)
        made = Agent(model, instructions=SYSTEM, tools=[bash], capabilities=[] if capability is None else [capability])
        asked = [ASKED, BinaryContent(base64.b64decode(PNG), media_type="image/png")]

        async def main() -> None:
            if not stream:
                result = await made.run(asked)
                assert result.output == "Done."
                assert "removed" not in str(result.all_messages()), "the run's own messages are whole"
                return

            async def read(ctx: Any, events: Any) -> None:
                async for _ in events:
                    pass

            assert (await made.run(asked, event_stream_handler=read)).output == "Done."

        asyncio.run(main())
        return None if capability is None else capability.leyline

    return play


def litellm_sdk(server: Server, policy: str | None) -> Editor | None:
    needs("litellm", extra="litellm")
    import litellm

    from leyline.harness.adapters.litellm import LeylineLogger

    logger = None if policy is None else LeylineLogger(policy)
    litellm.callbacks = [] if logger is None else [logger]

    class Completions:
        @staticmethod
        def create(**call: Any) -> Any:
            call["model"] = "openai/m"
            return asyncio.run(litellm.acompletion(api_base=server.url, api_key="k", **call))

    try:
        loop("chat", type("Client", (), {"chat": type("Chat", (), {"completions": Completions})}))
    finally:
        litellm.callbacks = []
    return None if logger is None else logger.leyline


def litellm_transport(server: Server, policy: str | None) -> Editor | None:
    needs("litellm", extra="litellm")
    import litellm

    from leyline.harness.adapters.litellm import plug_in

    plug = None if policy is None else plug_in(policy)
    if policy is None:
        litellm.client_session = httpx.Client()

    class Completions:
        @staticmethod
        def create(**call: Any) -> Any:
            call["model"] = "openai/m"
            return litellm.completion(api_base=server.url, api_key="k", **call)

    try:
        loop("chat", type("Client", (), {"chat": type("Chat", (), {"completions": Completions})}))
    finally:
        litellm.client_session.close()
        litellm.client_session = litellm.aclient_session = None
    return None if plug is None else plug.leyline


def inspect_ai(server: Server, policy: str | None) -> Editor | None:
    needs("inspect_ai", extra="inspect-ai")
    from inspect_ai.model import ChatMessageSystem, ChatMessageUser, ContentImage, ContentText, get_model
    from inspect_ai.tool import ToolDef

    from leyline.harness.adapters.inspect_ai import edit_model

    async def run(command: str) -> str:
        return output_of(command)

    tool = ToolDef(run, name="bash", description="Run a command.", parameters={"command": "The command."}).as_tool()
    model = get_model("openai-api/local/m", base_url=server.url, api_key="k", memoize=False)
    editor = None if policy is None else Editor(policy, splice=True)
    made = model if editor is None else edit_model(model, editor=editor)
    asked = [
        ChatMessageSystem(content=SYSTEM),
        ChatMessageUser(content=[ContentText(text=ASKED), ContentImage(image=f"data:image/png;base64,{PNG}")]),
    ]

    async def main() -> None:
        messages, output = await made.generate_loop(asked, tools=[tool])
        assert output.completion == "Done."
        assert "removed" not in str(messages)

    asyncio.run(main())
    return editor


def google_adk(server: Server, policy: str | None) -> Editor | None:
    needs("google.adk", "litellm", extra="google-adk")
    from google.adk.agents import LlmAgent
    from google.adk.apps import App
    from google.adk.models.lite_llm import LiteLlm
    from google.adk.runners import InMemoryRunner
    from google.genai import types

    from leyline.harness.adapters.google_adk import LeylinePlugin

    model = LiteLlm(model="openai/m", api_base=server.url, api_key="k")
    made = LlmAgent(name="fixer", model=model, instruction=SYSTEM, tools=[bash])
    plugin = None if policy is None else LeylinePlugin(policy)

    async def main() -> None:
        app = App(name="fix", root_agent=made, plugins=[] if plugin is None else [plugin])
        runner = InMemoryRunner(app=app)
        session = await runner.session_service.create_session(app_name="fix", user_id="u")
        image = types.Part(inline_data=types.Blob(mime_type="image/png", data=base64.b64decode(PNG)))
        asked = types.Content(role="user", parts=[types.Part(text=ASKED), image])
        events = [event async for event in runner.run_async(user_id="u", session_id=session.id, new_message=asked)]
        assert events[-1].content.parts[-1].text == "Done."
        assert "removed" not in str(events), "the session's events are whole"

    asyncio.run(main())
    return None if plugin is None else plugin.leyline


HARNESSES: dict[str, Play] = {
    "mini-swe-agent": mini_swe_agent,
    "langchain-middleware": _langchain(_middleware, later=False),
    "langchain-middleware-async": _langchain(_middleware, later=True),
    "langchain-chat_openai": _langchain(_chat_openai, later=False),
    "openai-agents-chat": _agents(False, "model"),
    "openai-agents-responses": _agents(True, "model"),
    "openai-agents-stream": _agents(True, "stream"),
    "openai-agents-filter": _agents(False, "filter"),
    "pydantic-ai": _pydantic_ai(stream=False),
    "pydantic-ai-stream": _pydantic_ai(stream=True),
    "litellm-callback": litellm_sdk,
    "litellm-transport": litellm_transport,
    "inspect-ai": inspect_ai,
    "google-adk": google_adk,
}

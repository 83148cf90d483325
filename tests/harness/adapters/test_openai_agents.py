"""openai-agents' own runner with leyline's input filter."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("agents", reason="needs pip install 'leyline-kv[openai-agents]'")

# These harnesses leave loops and sockets to the garbage collector, which is run here and not in some later test.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POLICY = "truncate_older_than(n=1, max_chars=60)"


def test_its_own_runner_edits_once_and_stays(server: Any, pinned: Any) -> None:
    from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner, function_tool, set_tracing_disabled
    from openai import AsyncOpenAI

    from leyline.harness import Editor
    from leyline.harness.adapters.openai_agents import input_filter

    set_tracing_disabled(True)

    @function_tool
    def look() -> str:
        """Look at the file."""
        return "a line of output\n" * 40

    async def main() -> Any:
        client = AsyncOpenAI(base_url=server.url, api_key="k")
        model = OpenAIChatCompletionsModel(model="m", openai_client=client)
        agent = Agent(name="fixer", instructions="You fix code.", model=model, tools=[look])
        config = RunConfig(call_model_input_filter=input_filter(editor=editor))
        return await Runner.run(agent, "Fix a.py", run_config=config)

    server.tool, editor = "look", Editor(POLICY)
    result = asyncio.run(main())
    assert result.final_output == "Done."
    pinned(server.bodies)
    assert editor.report().edits >= 3

"""LangChain's own agent with leyline's middleware, and its chat model alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("langchain", reason="needs pip install 'leyline-kv[langchain]'")
pytest.importorskip("langchain_openai", reason="needs pip install 'leyline-kv[langchain]'")

# These harnesses leave loops and sockets to the garbage collector, which is run here and not in some later test.
pytestmark = [
    pytest.mark.usefixtures("collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

POLICY = "truncate_older_than(n=1, max_chars=60)"


def look() -> str:
    """Look at the file."""
    return "a line of output\n" * 40


def model(server: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="m", base_url=server.url, api_key="k")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_its_own_agent_edits_once_and_stays(server: Any, pinned: Any, asynchronous: bool) -> None:
    from langchain.agents import create_agent

    from leyline.harness.adapters.langchain import LeylineMiddleware

    server.tool = "look"
    middleware = LeylineMiddleware(POLICY)
    agent = create_agent(model(server), [look], system_prompt="You fix code.", middleware=[middleware])
    asked = {"messages": [{"role": "user", "content": "Fix a.py"}]}
    state = asyncio.run(agent.ainvoke(asked)) if asynchronous else agent.invoke(asked)
    assert state["messages"][-1].content == "Done."
    pinned(server.bodies)
    assert None not in server.routed
    assert len(set(server.routed)) == 1, "one session, one replica"
    report = middleware.leyline.report()
    assert (report.requests, report.cached_tokens) == (len(server.bodies), 40 * len(server.bodies))
    assert all("removed" not in str(message.content) for message in state["messages"]), "the agent's own state is whole"


def test_a_chat_model_alone(server: Any) -> None:
    from leyline.harness.adapters.langchain import chat_openai

    server.turns = 0
    history: list[Any] = [("user", "Fix a.py")]
    chat = chat_openai(POLICY, model="m", base_url=server.url, api_key="k")
    for _ in range(3):
        chat.invoke(history)
        history += [("assistant", "I look."), ("user", look())]
    chat.invoke(history)
    assert "characters removed" in str(server.bodies[-1]["messages"][2])

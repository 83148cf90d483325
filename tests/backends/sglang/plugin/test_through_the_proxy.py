"""The proxy in front of a real server with the plug-in: the server finds the edits, the account has the receipts."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from sgl_rig import KINDS, Servers

for _name in ("starlette", "aiohttp", "prometheus_client"):
    pytest.importorskip(_name, reason="the proxy needs pip install 'leyline-kv[proxy]'")

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]


def said(answer: httpx.Response, stream: bool) -> str:
    if not stream:
        return str(answer.json()["choices"][0]["message"]["content"])
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", KINDS[:1])
def test_edits_are_found_and_spliced(servers: Servers, kind: str, stream: bool) -> None:
    from leyline.harness import Editor
    from leyline.harness.proxy import ProxySettings, make_app

    async def main(policy: str) -> Any:
        app = make_app(Editor(policy, splice=True), ProxySettings(servers.plugin(kind).url))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy", timeout=120) as client:
            try:
                messages: list[dict[str, Any]] = [{"role": "user", "content": f"Fix it, {stream}."}]
                for k in range(6):
                    body = {"model": "default", "messages": messages, "max_tokens": 3, "temperature": 0}
                    body |= {"stream": stream}
                    answer = await client.post("/v1/chat/completions", json=body)
                    assert answer.status_code == 200, answer.text
                    assert not stream or '"leyline"' not in answer.text
                    messages.append({"role": "assistant", "content": said(answer, stream)})
                    messages.append({"role": "user", "content": f"{k}: " + "output of a tool, " * 12})
                return (await client.get("/sessions")).json()
            finally:
                await app.close()

    sessions = asyncio.run(main("truncate_older_than(n=2, max_chars=60)"))
    assert sessions["splices"] is True
    (turns,) = sessions["conversations"].values()
    assert [turn["edits"] for turn in turns] == [0, 0, 0, 1, 1, 1]
    assert turns[0]["held_tokens"] == 0
    assert all(turn["held_tokens"] for turn in turns[1:]), "the server did not know the session again"
    assert all(turn["fallback"] is None for turn in turns), turns
    for turn in turns[3:]:
        assert turn["found"] >= 1
        assert turn["spliced_tokens"] > 0, turn
        total = turn["cached_tokens"] + turn["uncached_tokens"]
        assert total == turn["prompt_tokens"]


@pytest.mark.parametrize("dialect", ["responses", "messages"])
@pytest.mark.parametrize("kind", KINDS[:1])
def test_callers_of_the_other_dialects_are_spliced_too(servers: Servers, kind: str, dialect: str) -> None:
    """Translated to chat completions on the way, streamed: the answer comes back in the caller's dialect."""
    from leyline.harness import Editor
    from leyline.harness.proxy import ProxySettings, make_app

    async def main() -> Any:
        settings = ProxySettings(servers.plugin(kind).url, chat_upstream=True)
        app = make_app(Editor("truncate_older_than(n=2, max_chars=60)", splice=True), settings)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://proxy", timeout=120) as client:
            try:
                history: list[dict[str, Any]] = [{"role": "user", "content": f"Fix it, {dialect}."}]
                for k in range(5):
                    body: dict[str, Any] = {"model": "default", "temperature": 0, "stream": True}
                    body |= {"messages": history, "max_tokens": 3} if dialect == "messages" else {"input": history}
                    body |= {} if dialect == "messages" else {"max_output_tokens": 3}
                    answer = await client.post(f"/v1/{dialect}", json=body)
                    assert answer.status_code == 200, answer.text
                    found = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
                    assert found[-1]["type"] in ("message_stop", "response.incomplete"), found[-1]
                    texts = [event["delta"] for event in found if event["type"].endswith(("block_delta", "text.delta"))]
                    said = "".join(text if isinstance(text, str) else text["text"] for text in texts)
                    history.append({"role": "assistant", "content": said})
                    history.append({"role": "user", "content": f"{k}: " + "output of a tool, " * 12})
                return (await client.get("/sessions")).json()
            finally:
                await app.close()

    (turns,) = asyncio.run(main())["conversations"].values()
    assert [turn["edits"] for turn in turns] == [0, 0, 0, 1, 1]
    for turn in turns[3:]:
        assert turn["fallback"] is None
        assert turn["spliced_tokens"] > 0, turn

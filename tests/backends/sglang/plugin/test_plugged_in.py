"""The recorded agent of every way in, in front of a real server with the plug-in: it finds the edits by itself."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sgl_rig import KINDS, Servers

sys.path.insert(0, str(Path(__file__).parents[3] / "harness" / "matrix"))

from clients import on_transport, through_proxy, wrapped
from harnesses import HARNESSES
from recorded import POLICY, TURNS, Server, serve

from leyline.directives.receipt import receipt_entry
from leyline.harness import Editor

pytestmark = [
    pytest.mark.sglang,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
OWN = {
    "wrap": wrapped("chat", False, splice=True),
    "wrap-stream": wrapped("chat", True, splice=True),
    "transport": on_transport("chat", False, splice=True),
    "proxy": through_proxy("chat", False),
}
# These ask the server themselves whether it splices.
ADAPTERS = [
    *("mini-swe-agent", "langchain-middleware", "openai-agents-chat", "pydantic-ai", "litellm-callback", "inspect-ai")
]
RAW = {*OWN, "mini-swe-agent", "litellm-callback"}  # what is handed the response as it came reads the receipt
WAYS = OWN | {name: HARNESSES[name] for name in ADAPTERS}


def play(way: Callable[[Server, str | None], Editor | None], upstream: str) -> tuple[Server, Editor]:
    server = Server(upstream)
    try:
        editor = way(server, POLICY)
        assert editor is not None
        return server, editor
    finally:
        server.stop()


def receipts(server: Server) -> list[dict[str, Any]]:
    found = [receipt_entry(one["choices"][0]["meta_info"]["leyline"]) for one in server.served]
    return [dict(entry) for entry in found if entry is not None]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS[:1])
def test_the_server_finds_and_splices_each_edit(servers: Servers, kind: str, way: str) -> None:
    server, editor = play(WAYS[way], servers.plugin(kind).url)
    turns = editor.report().turns
    assert len(server.raw) == len(turns) == TURNS
    first, *edited = [k for k, turn in enumerate(turns) if turn.edits]
    assert len(edited) == TURNS - 3
    for k, (turn, said) in enumerate(zip(turns, receipts(server), strict=True)):
        # Behind the first edit the server holds less than a page: the output that it cuts was the last one there.
        assert k == first or said.get("fallback") is None, (k, said)
        assert (said["spliced_tokens"] > 0) == (k in edited), (k, said)
        cached = said["prefix_tokens"] + said["spliced_tokens"]
        assert (turn.prompt_tokens, turn.cached_tokens) == (said["prompt_tokens"], cached)
        if way in RAW:
            assert turn.receipt is not None
            assert (turn.receipt.spliced_tokens, turn.receipt.lineage) == (said["spliced_tokens"], said.get("lineage"))
    lineages = [said.get("lineage") for said in receipts(server)]
    assert not any(lineages[: first + 1])
    assert all(lineages[edited[0] :])


def told(served: list[dict[str, Any]]) -> list[Any]:
    """Each answer's tokens with their logprobs."""
    found = [one["choices"][0]["logprobs"]["content"] for one in served]
    return [[(token["bytes"], token["logprob"]) for token in answer] for answer in found]


def answers(served: list[dict[str, Any]]) -> list[Any]:
    """The same, as exactly as a prefill in other chunks gives them again."""
    return [[(data, pytest.approx(logprob, abs=1e-3)) for data, logprob in answer] for answer in told(served)]


@pytest.mark.parametrize("way", [wrapped, on_transport, through_proxy], ids=["wrap", "transport", "proxy"])
@pytest.mark.parametrize("kind", KINDS[:1])
def test_a_forget_answers_as_an_honest_prefill_does(servers: Servers, kind: str, way: Any) -> None:
    """And an amortized session does until its first edit."""
    url = servers.plugin(kind).url
    settings = {} if way is through_proxy else {"splice": True}
    server, _ = play(way("chat", False, mode="forget", **settings), url)
    plain = [{"messages": body["messages"], "cache_salt": "nobody else's"} for body in server.bodies]
    honest = [serve(body, url) for body in plain]
    assert told(server.served) == answers(honest)
    assert all(said["spliced_tokens"] == 0 and said.get("fallback") is None for said in receipts(server))
    reused = [said["prefix_tokens"] for said in receipts(server)]
    assert all(reused[1:]), "the prefix before each edit is the honest cache's"

    amortized, editor = play(way("chat", False, **settings), url)
    first = 1 + next(k for k, turn in enumerate(editor.report().turns) if turn.edits)  # it has nothing to move
    assert told(amortized.served)[:first] == answers(honest)[:first]
    shorter = zip(receipts(amortized), receipts(server), strict=True)
    assert all(a["prefilled_tokens"] < b["prefilled_tokens"] for a, b in itertools.islice(shorter, first, None))

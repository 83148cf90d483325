"""One agent of twelve turns through every way in: the same edits, each made once, and nothing else changed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from clients import CLIENTS, KINDS
from harnesses import HARNESSES
from recorded import ASKED, CACHED, PNG, POLICY, PROMPT, TURNS, Line, Server, answer_of, items_of, lines_of, output_of

from leyline.harness import Editor

Play = Callable[[Server, str | None], Editor | None]
# Some harnesses leave loops and sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
NO_IMAGE = {"mini-swe-agent"}  # its first prompt is a template of text
NO_USAGE = {"openai-agents-filter"}  # it does not learn what became of a request
WAYS = CLIENTS | HARNESSES


def whole(turn: int, *, image: bool) -> list[Line]:
    """The history of a request as the agent keeps it."""
    lines: list[Line] = [("user", ASKED), *([("image", PNG[-20:])] if image else [])]
    for earlier in range(turn):
        said = answer_of(earlier)
        lines += [("assistant", said.text), *(("call", c.id, c.command) for c in said.calls)]
        lines += [("result", c.id, output_of(c.command)) for c in said.calls]
    return lines


def cut(lines: list[Line]) -> list[Line]:
    """The same with what the policy cuts: every output but the two newest, and none that the model has not answered."""
    last = max((k for k, line in enumerate(lines) if line[0] == "assistant"), default=-1)
    results = [k for k, line in enumerate(lines) if line[0] == "result"]
    old = {k for k in results[: max(0, len(results) - 2)] if k < last}
    return [(*line[:2], "cut") if k in old else line for k, line in enumerate(lines)]


def marked(lines: list[Line]) -> list[Line]:
    """A cut output by the word `cut`, and the text of which it is a shorter one left out."""
    return [(*line[:2], "cut") if line[0] == "result" and "characters removed" in line[2] else line for line in lines]


_BARE: dict[str, Server] = {}


def play(way: str, servers: list[Server], policy: str | None) -> tuple[Server, Editor | None]:
    client = way.partition("-")[2] if way in CLIENTS else None
    if policy is None and client in _BARE:
        return _BARE[client], None  # what the bare client sends is the same for each way
    server = Server()
    servers.append(server)
    editor = WAYS[way](server, policy)
    if policy is None and client is not None:
        _BARE[client] = server
    return server, editor


@pytest.mark.parametrize("way", WAYS)
def test_the_same_edits_each_made_once_and_nothing_else(way: str, servers: list[Server]) -> None:
    bare, _ = play(way, servers, None)
    plain, _ = play(way, servers, "keep_all")
    assert [json.loads(raw) for raw in plain.raw] == bare.bodies, "append-only traffic is that of the harness alone"
    if not way.startswith(("mini", "litellm", "langchain", "openai", "pydantic", "inspect", "google")):
        assert plain.raw == bare.raw, "byte for byte"
    edited, editor = play(way, servers, POLICY)
    image = way not in NO_IMAGE
    assert len(bare.raw) == len(edited.raw) == TURNS
    texts: dict[str, str] = {}
    for turn, (before, after) in enumerate(zip(bare.bodies, edited.bodies, strict=True)):
        assert lines_of(before) == whole(turn, image=image)
        assert marked(lines_of(after)) == cut(whole(turn, image=image)), f"turn {turn}"
        assert {**before, "messages": 0, "input": 0} == {**after, "messages": 0, "input": 0}
        for given, sent in zip(items_of(before), items_of(after), strict=True):
            assert given == sent or "characters removed" in json.dumps(sent)
        for line in lines_of(after):
            if line[0] == "result" and "characters removed" in line[2]:
                assert texts.setdefault(line[1], line[2]) == line[2], "an edit once made stays"
    assert editor is not None
    pinned(edited.bodies, editor, counted=way not in NO_USAGE)


def pinned(bodies: list[dict[str, Any]], editor: Editor, *, counted: bool) -> None:
    """The prefix is broken once for each edit, and never else; each request has its account and its receipt."""
    turns = editor.report().turns
    assert [turn.turn for turn in turns] == list(range(TURNS)), "one conversation, each answer counted"
    assert {turn.conversation for turn in turns} == {turns[0].conversation}
    assert sum(turn.edits for turn in turns) == sum(line[-1] == "cut" for line in cut(whole(TURNS - 1, image=False)))
    for (before, after), turn in zip(itertools.pairwise(bodies), turns[1:], strict=True):
        old, new = lines_of(before), lines_of(after)
        changed = sum(a != b for a, b in zip(old, new, strict=False))
        assert changed == turn.edits
        assert (turn.broke is None) == (not changed)
    for turn in turns if counted else ():
        assert (turn.prompt_tokens, turn.cached_tokens) == (PROMPT, CACHED)
        assert turn.receipt is not None
        assert (turn.receipt.prefix_tokens, turn.receipt.prefilled_tokens) == (CACHED, PROMPT - CACHED)


@pytest.mark.parametrize("way", [*(f"wrap-{dialect}" for dialect in KINDS), *HARNESSES])
def test_what_is_redacted_is_nowhere_in_a_request(way: str, servers: list[Server]) -> None:
    """Arguments of calls too, which some harnesses keep apart from the text."""
    server, _ = play(way, servers, "redact(pattern='part_0a')")
    image = way not in NO_IMAGE
    for turn, (raw, body) in enumerate(zip(server.raw, server.bodies, strict=True)):
        assert b"part_0a" not in raw
        assert [line[:-1] for line in lines_of(body)] == [line[:-1] for line in whole(turn, image=image)]

"""Sessions on a backend that checks every script it is given against the prompt."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from openai.types.chat import ChatCompletionMessage

from leyline.backends.contract import BackendError, Sampling, TokenRenderer
from leyline.directives import Fallback, Message, Mode, Rendered
from leyline.harness.session.inputs import InputError
from leyline.harness.session.session import Session
from leyline.policies import PolicyError

LONG = "x" * 400
TRUNCATE = "truncate_older_than(n=1, max_chars=20)"


def opening() -> list[Message]:
    return [{"role": "system", "content": "You help."}, {"role": "user", "content": "Go."}]


def ask(number: int) -> Message:
    function = {"name": "view", "arguments": f'{{"n": {number}}}'}
    return {
        "role": "assistant",
        "content": f"look {number}",
        "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
    }


def output(number: int, text: str = LONG) -> Message:
    return {"role": "tool", "tool_call_id": f"c{number}", "content": f"{number}{text}"}


def play(session: Session, turns: int, history: list[Message] | None = None) -> list[Message]:
    """Append-only history of a harness that never edits."""
    history = opening() if history is None else history
    for _ in range(turns):
        history.append(session.turn(history).message)
        history.append(output(int(history[-1]["content"].split()[1])))
    return history


def decode(ids: Sequence[int] | None) -> str:
    return "".join(map(chr, ids or ()))


def test_the_first_turn_sends_everything_and_no_script(scripted: Callable[..., Any]) -> None:
    backend = scripted(["hello"])
    session = Session(backend, session_id="s", tenant="t", seam=3, purge=True)
    turn = session.turn(opening(), sampling=Sampling(max_tokens=7))
    _, request = backend.requests[0]
    assert (request.session_id, request.tenant, request.seam, request.purge) == ("s", "t", 3, True)
    assert request.source is None
    assert not request.script
    assert request.sampling.max_tokens == 7
    assert decode(turn.input_ids) == "[system|You help.][user|Go.][assistant|"
    assert turn.input_messages == tuple(opening())
    assert turn.turn_index == 0
    assert {"policy", "render", "backend", "prefill"} <= set(turn.timings)


def test_an_append_only_conversation_costs_nothing_but_its_tail(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(4)])
    session = Session(backend)
    play(session, 4)
    assert session.totals.edits == session.totals.spliced_tokens == 0
    for earlier, later in zip(session.turns, session.turns[1:], strict=False):
        assert not later.script
        # Only the end of the answer, the tool output and the new generation prompt are computed.
        assert later.receipt.prefilled_tokens < len(LONG) + 40
        assert later.receipt.prefix_tokens > earlier.receipt.prompt_tokens


def test_generated_answers_keep_their_exact_tokens(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(0), "done"])
    session = Session(backend)
    play(session, 1, history := opening())
    assert "LOOK 0" in decode(session.turn(history).input_ids)


def test_old_outputs_are_cut_once_and_the_rest_is_moved(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(5)])
    session = Session(backend, TRUNCATE)
    play(session, 5)
    assert [len(turn.edits) for turn in session.turns] == [0, 0, 1, 1, 1]
    assert [len(turn.script) for turn in session.turns] == [0, 0, 1, 1, 1]
    assert [turn.edits[0].message_index for turn in session.turns[2:]] == [3, 5, 7]
    assert session.turns[-1].receipt.spliced_tokens > 0
    assert session.turns[-1].input_messages[3]["content"].count("characters removed") == 1
    totals = session.totals
    assert totals.prompt_tokens == sum(len(turn.input_ids or ()) for turn in session.turns)
    assert totals.prefix_tokens + totals.spliced_tokens + totals.prefilled_tokens == totals.prompt_tokens
    assert totals.hit_rate == (totals.prefix_tokens + totals.spliced_tokens) / totals.prompt_tokens
    assert totals.to_dict()["edits"] == 3


def test_the_lineage_of_the_last_receipt_goes_back(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(4)])
    session = Session(backend, TRUNCATE)
    play(session, 4)
    assert [request.lineage for _, request in backend.requests] == [None, None, None, "L1"]
    assert backend.requests[3][1].lineage_start == session.turns[2].receipt.approximate_from


def test_an_honest_session_forgets_and_carries_no_lineage(scripted: Callable[..., Any]) -> None:
    amortised, honest = (scripted([ask(k) for k in range(5)]) for _ in range(2))
    first, second = Session(amortised, TRUNCATE), Session(honest, TRUNCATE, honest=True)
    play(first, 5)
    play(second, 5)
    assert [turn.input_ids for turn in first.turns] == [turn.input_ids for turn in second.turns]
    assert second.totals.spliced_tokens == 0
    assert {d.mode for turn in second.turns for d in turn.script} == {Mode.FORGET}
    assert all(request.honest and request.lineage is None for _, request in honest.requests)


def test_fallbacks_are_counted_by_reason(scripted: Callable[..., Any]) -> None:
    session = Session(scripted([ask(k) for k in range(4)], splice=False), TRUNCATE)
    play(session, 4)
    assert session.totals.fallbacks == {"backend_has_no_splice": 2}
    assert session.totals.spliced_tokens == 0


class Forgetful:
    """A template that prints old answers otherwise than they were generated, as Qwen3's does with old thinking."""

    def __init__(self, inner: TokenRenderer) -> None:
        self.inner = inner

    def render(
        self, messages: Sequence[Message], tools: Any = None, pinned: Mapping[int, Sequence[int]] | None = None
    ) -> Rendered:
        return self.inner.render(messages, tools, None)


def test_an_edit_that_nobody_declared_is_seen_on_the_turn_and_in_the_receipt(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(3)])
    backend.renderer = Forgetful(backend.renderer)
    session = Session(backend)
    play(session, 3)
    first, second, third = session.turns
    assert (first.undeclared, first.receipt.fallback) == ((), None)
    assert (second.undeclared, third.undeclared) == ((2,), (4,))
    assert second.receipt.fallback is Fallback.UNDECLARED_EDIT
    assert "message 2" in str(second.receipt.detail)
    assert [d.mode for d in second.script] == [Mode.FORGET]
    assert session.totals.fallbacks == {"undeclared_edit": 2}


def test_the_reason_of_a_backend_stands_before_that_of_an_undeclared_edit(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(2)], splice=False)
    backend.renderer = Forgetful(backend.renderer)
    session = Session(backend)
    play(session, 2)
    assert session.turns[1].undeclared == (2,)
    assert session.turns[1].receipt.fallback is Fallback.BACKEND_HAS_NO_SPLICE


def test_a_server_that_renders_by_itself_gets_edited_messages(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(4)], tokens=False)
    session = Session(backend, TRUNCATE)
    play(session, 4)
    assert session.turns[-1].input_ids is None
    assert [len(turn.edits) for turn in session.turns] == [0, 0, 1, 1]
    assert "removed" in backend.requests[-1][0][3]["content"]
    assert [request.edits for _, request in backend.requests] == [0, 0, 1, 1]
    assert all(request.prompt is None and not request.script for _, request in backend.requests)


@pytest.mark.parametrize("failure", ["error", "interrupt"])
def test_a_request_that_failed_leaves_the_session_as_it_was(
    scripted: Callable[..., Any], lost_server: BackendError, failure: str
) -> None:
    error: BaseException = lost_server if failure == "error" else KeyboardInterrupt()
    clean, broken = scripted([ask(0), ask(1), ask(2)]), scripted([ask(0), ask(1), error, ask(2)])
    expected, session = Session(clean, TRUNCATE), Session(broken, TRUNCATE)
    play(expected, 3)
    history = play(session, 2)
    before = (session.ledger.to_dict(), session.turns, session.totals)
    with pytest.raises(type(error)):
        session.turn(history)
    assert (session.ledger.to_dict(), session.turns, session.totals) == before
    retried = session.turn(history)
    assert retried.input_ids == expected.turns[2].input_ids
    assert retried.script == expected.turns[2].script


@dataclass
class BreaksPairs:
    name: str = "breaks_pairs"

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return [message for message in messages if not (turn == 2 and message.get("tool_calls"))]


class Reminder:
    """A policy that ends the first turn with a reminder, always the same dict, with another text each turn."""

    name = "reminder"

    def __init__(self) -> None:
        self.note: Message = {"role": "user", "content": ""}

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        self.note["content"] = f"reminder {turn}"
        return [*messages, self.note] if turn == 0 else list(messages)


def test_what_a_policy_returned_stays_though_the_policy_changes_it(scripted: Callable[..., Any]) -> None:
    session = Session(scripted([ask(k) for k in range(3)]), Reminder())
    play(session, 3)
    assert [turn.input_messages[2]["content"] for turn in session.turns] == ["reminder 0"] * 3
    assert [len(turn.script) for turn in session.turns] == [0, 0, 0]


def test_a_policy_that_breaks_a_pair_leaves_the_session_as_it_was(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(3)])
    session = Session(backend, BreaksPairs())
    history = play(session, 2)
    before = session.ledger.to_dict()
    with pytest.raises(PolicyError, match="breaks_pairs"):
        session.turn(history)
    assert session.ledger.to_dict() == before
    assert len(backend.requests) == 2


def test_the_callers_messages_are_neither_changed_nor_kept(scripted: Callable[..., Any]) -> None:
    session = Session(scripted([ask(k) for k in range(3)]), TRUNCATE)
    history = play(session, 3)
    twin = copy.deepcopy(history)
    kept = copy.deepcopy(session.turns[-1].input_messages)
    assert all("removed" not in str(m["content"]) for m in history)
    history[1]["content"] = "overwritten"
    assert session.turns[-1].input_messages == kept
    assert history[2:] == twin[2:]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ("abc", "messages is a str; give the history as a list of messages"),
        (7, "messages is a int; give the history as a list of messages"),
        ({"role": "user", "content": "Go."}, "messages is a dict; give the history as a list of messages"),
        ([1], "message 0 is a int; give a dict with role and content"),
        ([*opening(), {"content": "hi"}], "message 2 is without a role; give a dict with role and content"),
    ],
)
@pytest.mark.parametrize("method", ["turn", "prewarm"])
def test_what_is_no_history_is_refused_in_one_line(
    scripted: Callable[..., Any], method: str, messages: Any, reason: str
) -> None:
    backend = scripted(["hi"])
    with pytest.raises(InputError) as refused:
        getattr(Session(backend), method)(messages)
    assert str(refused.value) == f"Session.{method}: {reason}"
    assert backend.requests == backend.prewarmed == []


@pytest.mark.parametrize("inside", [False, True])
def test_the_openai_clients_models_are_messages_too(scripted: Callable[..., Any], inside: bool) -> None:
    plain, models = (Session(scripted([ask(k) for k in range(3)]), TRUNCATE) for _ in range(2))
    history: list[Any] = opening()
    play(plain, 3)
    for k in range(3):
        history += [ChatCompletionMessage.model_validate(models.turn(history).message), output(k)]
        if inside:
            history[-2] = {**history[-2].model_dump(), "tool_calls": history[-2].tool_calls}
    assert [turn.input_ids for turn in models.turns] == [turn.input_ids for turn in plain.turns]
    assert [len(turn.edits) for turn in models.turns] == [0, 0, 1]


@pytest.mark.parametrize("setting", [{"seam": -1}, {"seam": "x"}, {"seam": 65_537}, {"purge": 1}, {"honest": "no"}])
def test_a_setting_that_cannot_be_used_is_refused_at_once(
    scripted: Callable[..., Any], setting: dict[str, Any]
) -> None:
    name, value = next(iter(setting.items()))
    with pytest.raises(InputError, match=f"^Session: {name} is {value!r}; give .*$"):
        Session(scripted([]), **setting)


@pytest.mark.parametrize("tools", ["view", {"type": "function"}, ["view"]])
def test_what_are_no_tools_is_refused_at_once(scripted: Callable[..., Any], tools: Any) -> None:
    with pytest.raises(
        InputError, match=r"^Session: tools is .*; give a list of OpenAI tool definitions, each a dict$"
    ):
        Session(scripted([]), tools=tools)


def test_tools_stay_the_same_on_every_turn(scripted: Callable[..., Any]) -> None:
    tools: list[dict[str, Any]] = [{"type": "function", "function": {"name": "view", "description": "old"}}]
    session = Session(scripted([]), tools=tools)
    tools[0]["function"]["description"] = "new"
    assert session.tools == [{"type": "function", "function": {"name": "view", "description": "old"}}]


def test_a_mode_that_is_not_known_is_refused_with_those_that_are(scripted: Callable[..., Any]) -> None:
    with pytest.raises(PolicyError, match=r"^Session: mode 'x' is not known; use 'amortize', 'forget' or 'auto'$"):
        Session(scripted([]), mode="x")
    assert Session(scripted([]), mode="forget").mode is Mode.FORGET


def test_what_the_harness_itself_drops_is_an_edit_too(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(4)])
    session = Session(backend)
    history = play(session, 3)
    del history[2:4]
    turn = session.turn(history)
    assert len(turn.script) == 1
    assert turn.receipt.spliced_tokens > len(LONG)
    assert turn.edits == ()


def test_unedit_gives_the_original_back(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(5)])
    session = Session(backend, TRUNCATE)
    history = play(session, 3)
    assert session.unedit(3)
    turn = session.turn(history)
    assert turn.input_messages[3] == history[3]
    assert "removed" in turn.input_messages[5]["content"]


def test_prewarm_sends_the_next_prompt_without_its_unknown_end(scripted: Callable[..., Any]) -> None:
    backend = scripted([ask(k) for k in range(4)])
    session = Session(backend, TRUNCATE)
    history = play(session, 3)
    before = session.ledger.to_dict()
    session.prewarm(history[:-1])
    assert session.ledger.to_dict() == before
    ahead = backend.prewarmed[0]
    turn = session.turn(history)
    assert ahead.prompt is not None
    assert turn.input_ids is not None
    known = len(ahead.prompt.ids)
    assert ahead.prompt.ids == turn.input_ids[:known]
    assert known > len(turn.input_ids) - len(LONG) - 40
    assert ahead.script == turn.script


def test_prewarm_of_a_server_that_renders_by_itself_does_nothing(scripted: Callable[..., Any]) -> None:
    backend = scripted(["hi"], tokens=False)
    Session(backend).prewarm(opening())
    assert backend.prewarmed == []


def test_text_is_passed_on_as_it_comes(scripted: Callable[..., Any]) -> None:
    pieces: list[str] = []
    Session(scripted(["hello"])).turn(opening(), on_text=pieces.append)
    assert pieces == ["hello"]


def test_totals_count_the_prefix_under_a_name_of_its_own(scripted: Callable[..., Any]) -> None:
    """`Usage.cached_tokens` has the spliced ones too; the old name still works, and trajectories keep it."""
    session = Session(scripted([ask(k) for k in range(4)]), TRUNCATE)
    play(session, 4)
    totals = session.totals
    assert totals.prefix_tokens == sum(turn.receipt.prefix_tokens for turn in session.turns) > 0
    assert totals.spliced_tokens > 0
    told = totals.to_dict()
    assert told["cached_tokens"] == told["prefix_tokens"] == totals.prefix_tokens
    with pytest.warns(DeprecationWarning, match="called prefix_tokens now"):
        assert totals.cached_tokens == totals.prefix_tokens

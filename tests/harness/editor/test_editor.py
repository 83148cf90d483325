"""The editor by itself: a harness that makes its own requests, in every dialect."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import leyline
from leyline.dialects import DialectError
from leyline.directives import Fallback, Mode, Receipt
from leyline.harness.editor import Editor
from leyline.harness.session.inputs import InputError
from leyline.harness.session.ledger import LedgerError
from leyline.policies import PolicyError, keep_all

CUT = "truncate_older_than(n=1, max_chars=40)"
USER = {"role": "user", "content": "Fix the bug."}
MARK = {"type": "ephemeral"}


@leyline.rule(roles="tool")
def sometimes(message: dict[str, Any], ctx: Any) -> dict[str, Any] | None:
    """Asks for an edit in some turns only, as a policy may."""
    return leyline.truncate(message, max_chars=50) if ctx.turn % 3 == 0 and ctx.newer_tool_messages >= 2 else None


def step(number: int, text: str = "x") -> list[dict[str, Any]]:
    function = {"name": "view", "arguments": "{}"}
    call = {"id": f"c{number}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": f"{number}{text * 900}"},
    ]


def history(steps: int) -> list[dict[str, Any]]:
    return [USER, *(message for number in range(steps) for message in step(number))]


def sizes(messages: Sequence[dict[str, Any]]) -> list[int]:
    return [len(m["content"]) for m in messages if m["role"] == "tool"]


class Model:
    """Plans and serves turns, and fails where an edit that was once sent is not sent again."""

    def __init__(self, editor: Editor) -> None:
        self.editor, self.cut = editor, set[int]()
        self.sent: list[dict[str, Any]] = []

    def turn(self, given: list[dict[str, Any]], session: str | None = None) -> list[dict[str, Any]]:
        before = copy.deepcopy(given)
        plan = self.editor.plan(given, session=session)
        plan.served()
        assert given == before
        now = sizes(plan.messages)
        grown = [k for k in self.cut if now[k] > 300]
        assert not grown, f"outputs {grown} grew back: {now}"
        self.cut |= {k for k, length in enumerate(now) if length < 300}
        self.sent = plan.messages
        return plan.messages


def conversations(editor: Editor) -> set[str]:
    return {turn.conversation for turn in editor.report().turns}


def test_without_an_edit_the_list_that_was_given_is_sent() -> None:
    editor, given = Editor(CUT), history(1)
    plan = editor.plan(given)
    assert plan.messages is given
    assert not plan.edited
    assert [origin.index for origin in plan.view] == list(range(len(given)))


def test_an_edit_is_made_once_and_stays() -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(9):
        model.turn(history(steps))
    assert model.cut
    turns = editor.report().turns
    assert sum(turn.edits for turn in turns) == len(editor.pinned())
    assert [turn.broke is not None for turn in turns] == [turn.edits > 0 for turn in turns]
    assert len(conversations(editor)) == 1


def test_the_view_says_where_each_message_came_from() -> None:
    editor = Editor("then(keep_last(n=2), append_erratum)")
    given = history(4)
    plan = editor.plan(given)
    kept = [origin.index for origin in plan.view]
    assert all(plan.messages[k] is given[index] for k, index in enumerate(kept) if not plan.view[k].edited)
    assert kept == sorted(kept)
    assert len(kept) < len(given)


def test_what_was_not_served_is_not_remembered() -> None:
    editor = Editor(CUT)
    editor.plan(history(3))
    assert editor.last is None
    editor.plan(history(3)).served()
    assert editor.last is not None
    assert editor.last.edits == 2


def test_served_again_counts_once_and_adds_what_came_later() -> None:
    editor = Editor()
    plan = editor.plan(history(0))
    plan.served()
    plan.served({"type": "message_start", "message": {"usage": {"input_tokens": 10, "cache_read_input_tokens": 90}}})
    plan.served({"type": "message_delta", "usage": {"output_tokens": 7}})
    report = editor.report()
    assert report.requests == len(report.turns) == 1
    turn = report.turns[0]
    assert (turn.prompt_tokens, turn.cached_tokens, turn.completion_tokens) == (100, 90, 7)
    assert report.hit_rate == 0.9


# Conversations: the id and the head together.


def test_a_side_call_under_the_same_id_does_not_cost_the_conversation_its_edits() -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(9):
        model.turn(history(steps), session="t")
        editor.plan([{"role": "user", "content": "Title?"}], session="t").served()
        editor.plan([{"role": "system", "content": "s"}, {"role": "user", "content": "Sub-task"}], session="t").served()
    assert model.cut
    assert conversations(editor) == {"id t", "id t #2", "id t #3"}


@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_a_reminder_that_changes_at_the_end_is_no_other_conversation(role: str) -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(9):
        model.turn([*history(steps), {"role": role, "content": f"{9 - steps} steps left"}])
    assert model.cut
    assert len(conversations(editor)) == 1


def test_a_reminder_inside_the_last_output_is_no_other_conversation() -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(1, 9):
        given = history(steps)
        given[-1] = {**given[-1], "content": given[-1]["content"] + f"\n{9 - steps} steps left"}
        model.turn(given)
    assert model.cut
    assert len(conversations(editor)) == 1


def test_a_system_message_with_the_time_in_it_keeps_the_edits() -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(1, 9):
        model.turn([{"role": "system", "content": f"It is {steps} o'clock."}, *history(steps)])
    assert model.cut
    assert len(conversations(editor)) == 1


@pytest.mark.parametrize("place", ["message", "part"])
def test_a_mark_that_moves_is_no_content(place: str) -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(9):
        given = copy.deepcopy(history(steps))
        if place == "message":
            given[-1]["cache_control"] = MARK
        else:
            given[-1]["content"] = [{"type": "text", "text": given[-1]["content"], "cache_control": MARK}]
        plan = editor.plan(given)
        plan.served()
        marked = [k for k, message in enumerate(plan.messages) if "cache_control" in json.dumps(message)]
        assert marked == [len(plan.messages) - 1]
    assert editor.pinned()
    assert len(conversations(editor)) == 1
    assert not model.cut


@pytest.mark.parametrize("policy", [CUT, "keep_last(n=2)", "clear_over(trigger=200, keep=1, at_least=0)"])
def test_its_own_edited_history_handed_back_is_the_same_conversation(policy: str) -> None:
    editor = Editor(policy)
    given = [USER]
    for number in range(7):
        plan = editor.plan(given)
        plan.served()
        again = editor.plan(plan.messages)
        assert not again.edits, "what was edited was edited again"
        given = [*plan.messages, *step(number)]
    assert len(conversations(editor)) == 1
    assert all(turn.broke is None or "policy" in turn.broke for turn in editor.report().turns)
    assert any(turn.edits for turn in editor.report().turns)


@pytest.mark.parametrize("session", [None, "t"])
def test_a_harness_that_prunes_an_old_output_itself_keeps_the_other_edits(session: str | None) -> None:
    editor = Editor(sometimes)
    model = Model(editor)
    for steps in range(9):
        given = history(steps)
        if steps > 5:
            given[2] = {**given[2], "content": "[pruned]"}
        model.turn(given, session)
    assert len(conversations(editor)) == 1
    assert editor.report().turns[6].broke == "message 2 changed by the harness"


def test_a_note_that_is_handed_back_is_not_put_in_again() -> None:
    class Note:
        name = "note"

        def transform(self, messages: Sequence[dict[str, Any]], turn: int) -> list[dict[str, Any]]:
            return [*messages, {"role": "user", "content": "Be brief."}] if turn == 0 else list(messages)

    editor = Editor(Note())
    given = [USER]
    for number in range(3):
        plan = editor.plan(given)
        plan.served()
        given = [*plan.messages, *step(number)]
    assert [m["content"] for m in given].count("Be brief.") == 1


def test_a_second_attempt_is_a_conversation_of_its_own() -> None:
    editor = Editor(CUT)
    other = [USER, *step(0), {"role": "assistant", "content": "another way"}, {"role": "user", "content": "on"}]
    editor.plan(history(3)).served()
    editor.plan(other).served()
    editor.plan(history(4)).served()
    assert [turn.conversation for turn in editor.report().turns] == ["#1", "#2", "#1"]


def test_two_models_are_two_conversations() -> None:
    editor = Editor()
    for model in ("a", "b", "a"):
        editor.plan({"model": model, "messages": history(1)}).served()
    assert [turn.conversation for turn in editor.report().turns] == ["#1", "#2", "#1"]


def test_the_limit_is_a_setting_and_what_is_forgotten_is_said() -> None:
    editor = Editor(CUT, max_conversations=2)

    def serve(task: str) -> None:
        editor.plan([{"role": "user", "content": task}, *step(0), *step(1)]).served()

    serve("a")
    serve("b")
    with pytest.warns(UserWarning, match=r"forgot conversation '#1'.*max_conversations"):
        serve("c")
    serve("a")  # said once
    report = editor.report()
    assert report.forgotten == 2
    assert "2 conversations forgotten; raise max_conversations" in str(report)
    assert [turn.conversation for turn in report.turns] == ["#1", "#2", "#3", "#4"]


def test_the_report_keeps_its_sums_and_lists_the_last_turns() -> None:
    editor = Editor(CUT, keep_turns=3)
    for steps in range(8):
        plan = editor.plan(history(steps))
        plan.served({"usage": {"prompt_tokens": 100, "completion_tokens": 1, "prompt_cache_hit_tokens": 50}})
    report = editor.report()
    assert (len(report.turns), report.requests, report.prompt_tokens, report.cached_tokens) == (3, 8, 800, 400)
    assert report.edits == 6
    assert "5 earlier requests left out" in str(report)


# Every dialect.


def messages_body(steps: int) -> dict[str, Any]:
    made: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    for number in range(steps):
        thinking = {"type": "thinking", "thinking": "hm", "signature": f"s{number}"}
        use = {"type": "tool_use", "id": f"c{number}", "name": "view", "input": {"path": "a"}}
        result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": f"{number}" + "x" * 900}
        made += [{"role": "assistant", "content": [thinking, use]}, {"role": "user", "content": [result]}]
    last = made[-1]["content"] if steps else [{"type": "text", "text": "Fix the bug."}]
    made[-1]["content"] = [{**last[0], "cache_control": MARK}]
    return {"model": "m", "max_tokens": 9, "system": "s", "messages": made}


def responses_body(steps: int) -> dict[str, Any]:
    made: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    for number in range(steps):
        made.append({"type": "reasoning", "id": f"r{number}", "summary": [], "encrypted_content": "x"})
        made.append({"type": "function_call", "call_id": f"c{number}", "name": "view", "arguments": "{}"})
        made.append({"type": "function_call_output", "call_id": f"c{number}", "output": f"{number}" + "x" * 900})
    return {"model": "m", "instructions": "s", "input": made}


@pytest.mark.parametrize("make", [messages_body, responses_body], ids=["messages", "responses"])
def test_the_other_dialects_are_edited_in_their_own_form(make: Any) -> None:
    editor = Editor(CUT)
    for steps in range(6):
        body = make(steps)
        plan = editor.plan(body)
        plan.served()
        assert plan.body is not None
        sent = json.dumps(plan.body)
        assert sent.count("characters removed") == max(0, steps - 1)
        if steps < 2:
            assert plan.body == body
        assert sent.count('"signature"') + sent.count('"encrypted_content"') == steps
        assert sent.count("cache_control") == (1 if make is messages_body else 0)
    assert [turn.edits for turn in editor.report().turns] == [0, 0, 1, 1, 1, 1]
    assert conversations(editor) == {"#1"}


def test_redact_reaches_the_system_field_and_the_instructions() -> None:
    policy = "redact(pattern='sk-[0-9]+')"
    body = {"model": "m", "system": "key sk-1", "messages": [{"role": "user", "content": "use sk-1"}]}
    assert "sk-1" not in json.dumps(Editor(policy).plan(body).body)
    told = {"model": "m", "instructions": "key sk-1", "input": "use sk-1"}
    sent = Editor(policy).plan(told).body
    assert sent is not None
    assert "sk-1" not in json.dumps(sent)
    assert sent["instructions"] == "key [redacted]"


def test_a_bare_history_is_known_by_its_items() -> None:
    for body in (messages_body(3), responses_body(3)):
        items = body.get("messages") or body["input"]
        plan = Editor(CUT).plan(items)
        assert "characters removed" in json.dumps(plan.messages)
        assert plan.view[-1].index == len(items) - 1


def test_what_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(DialectError, match="previous_response_id"):
        Editor(CUT).plan({"input": "go on", "previous_response_id": "r1"})


# Settings, threads, audit, un-edit, save and load.


def test_audit_edits_nothing_and_says_what_it_would() -> None:
    editor, twin = Editor(CUT, audit=True), Editor(CUT)
    for steps in range(5):
        given = history(steps)
        plan, edited = editor.plan(given), twin.plan(given)
        assert plan.messages is given
        assert plan.would == edited.messages
        assert not plan.edited
        for each in (plan, edited):
            each.served()
    assert [t.edits for t in editor.report().turns] == [t.edits for t in twin.report().turns]
    assert [t.shed for t in editor.report().turns] == [t.shed for t in twin.report().turns]
    assert {turn.broke for turn in editor.report().turns} == {None}
    assert "audit mode" in str(editor.report())


def test_unedit_gives_the_original_back_for_good() -> None:
    editor = Editor(CUT)
    for steps in range(4):
        editor.plan(history(steps)).served()
    assert editor.unedit(2)
    assert not editor.unedit(2)
    plan = editor.plan(history(5))
    plan.served()
    assert sizes(plan.messages)[0] > 900
    assert sizes(plan.messages)[1] < 300
    assert plan.record.broke == "message 2 changed by unedit"
    with pytest.raises(InputError, match="no conversation 'nobody'"):
        editor.unedit(2, "nobody")


def test_a_restart_re_applies_the_very_same_edits(tmp_path: Path) -> None:
    file = tmp_path / "ledger.json"
    first = Editor(sometimes)
    for steps in range(7):
        sent = first.plan(history(steps), session="t")
        sent.served()
    first.plan(history(1)).served()
    first.save(file)
    second = Editor(keep_all())
    second.load(file)
    plan = second.plan(history(6), session="t")
    assert plan.messages == sent.messages
    assert plan.record.conversation == "id t"
    second.plan([{"role": "user", "content": "new"}]).served()
    assert conversations(second) == {"#2"}, "a loaded name is not given twice"


def test_a_store_keeps_every_turn_that_was_served() -> None:
    store: dict[str, str] = {}
    first = Editor(sometimes, store=store, max_conversations=1)
    for steps in range(7):
        sent = first.plan(history(steps))
        sent.served()
    plan = Editor(keep_all(), store=store).plan(history(6))
    assert plan.messages == sent.messages
    with pytest.warns(UserWarning, match="forgot"):
        first.plan([{"role": "user", "content": "other"}]).served()
    assert list(store) == ["#2"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"version": 9}', '{"version": 1, "conversations": [{"version": 1}]}']
)
def test_a_file_that_is_no_ledger_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "ledger.json"
    with pytest.raises(LedgerError, match="give a file"):
        Editor().load(file)
    file.write_text(text)
    with pytest.raises(LedgerError) as error:
        Editor().load(file)
    assert "\n" not in str(error.value)


def test_many_threads_keep_their_own_edits() -> None:
    editor = Editor(CUT)
    failed: list[str] = []

    def play(name: str) -> None:
        for steps in range(8):
            given = [{"role": "user", "content": f"task {name}"}, *history(steps)[1:]]
            plan = editor.plan(given)
            plan.served({"usage": {"prompt_tokens": 10}})
            if sum(length < 300 for length in sizes(plan.messages)) != max(0, steps - 1):
                failed.append(name)

    threads = [threading.Thread(target=play, args=(str(k),)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    report = editor.report()
    assert (report.requests, report.prompt_tokens, len(conversations(editor))) == (64, 640, 8)


def test_an_event_loop_goes_on_while_a_turn_is_planned() -> None:
    class Slow:
        name = "slow"

        def transform(self, messages: Sequence[dict[str, Any]], turn: int) -> list[dict[str, Any]]:
            entered.set()
            assert loop_went_on.wait(20), "the loop stood still"
            return list(messages)

    entered, loop_went_on = threading.Event(), threading.Event()

    async def play() -> None:
        task = asyncio.create_task(Editor(Slow()).aplan(history(1)))
        while not entered.is_set():
            await asyncio.sleep(0)
        loop_went_on.set()
        plan = await task
        plan.served()

    asyncio.run(play())


def test_a_policy_that_fails_is_named() -> None:
    class Broken:
        name = "broken"

        def transform(self, messages: Sequence[dict[str, Any]], turn: int) -> list[dict[str, Any]]:
            raise ValueError("oh")

    with pytest.raises(PolicyError, match="policy broken failed"):
        Editor(Broken()).plan(history(1))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_conversations": 0}, "Editor: max_conversations is 0"),
        ({"keep_turns": "x"}, "Editor: keep_turns is 'x'"),
        ({"purge": True}, "needs splice=True"),
        ({"seam": -1}, "Editor: seam is -1"),
        ({"mode": "x"}, "mode 'x' is not known"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_at_once(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(leyline.LeylineError, match=said):
        Editor(CUT, **settings)


def test_directives_stand_beside_the_messages(scripted: Any) -> None:
    editor = Editor(CUT, renderer=scripted([]).renderer, splice=True)
    for steps in range(3):
        plan = editor.plan({"model": "m", "messages": history(steps), "custom_params": {"mine": 1}})
        plan.served()
    assert plan.body is not None
    assert plan.body["custom_params"].keys() == {"mine", "leyline"}
    assert plan.body["return_meta_info"] is True
    assert plan.request_fields["custom_params"]["leyline"] == plan.body["custom_params"]["leyline"]
    assert plan.record.unit == "tokens"
    assert editor.mode is Mode.AMORTIZE


class Rewriting:
    """A template that prints an answer otherwise as soon as two messages stand behind it, as Qwen3's does."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def render(self, messages: Sequence[dict[str, Any]], tools: Any = None, pinned: Any = None) -> Any:
        old = [
            {**message, "content": "shorter"}
            if message["role"] == "assistant" and index < len(messages) - 2
            else message
            for index, message in enumerate(messages)
        ]
        return self.inner.render(old, tools, pinned)


def test_a_template_that_rewrites_old_messages_is_named_in_the_record_and_the_receipt(scripted: Any) -> None:
    editor = Editor("keep_all", renderer=Rewriting(scripted([]).renderer), splice=True)
    first = editor.plan(history(1))
    first.served()
    second = editor.plan(history(2))
    assert (first.record.undeclared, second.record.undeclared) == ((), (1,))
    told = replace(second.record, receipt=Receipt.plain(10, 5)).receipt
    assert told is not None
    assert told.fallback is Fallback.UNDECLARED_EDIT


BUILT_IN = [
    "keep_all",
    CUT,
    "drop_stale",
    "drop_failed",
    "dedupe",
    "keep_last(n=10)",
    "clear_over(trigger=3000, keep=3, at_least=100)",
    "redact(pattern='sk-[a-z]+')",
    "append_erratum",
]


@pytest.mark.parametrize("policy", BUILT_IN)
def test_a_turn_of_200_messages_costs_milliseconds(policy: str) -> None:
    """Processor time of this thread, so that a busy machine is not measured; bounds leave room for a slow one."""
    editor, given = Editor(policy), history(100)
    for steps in (90, 99, 100):
        editor.plan(history(steps)).served()
    costs = []
    for _ in range(15):
        started = time.thread_time()
        editor.plan(given)
        costs.append(time.thread_time() - started)
    assert min(costs) < (0.0015 if policy == "keep_all" else 0.003) * 2


def test_a_plan_has_the_record_of_its_request_once_a_response_came() -> None:
    plan = Editor("keep_all").plan([{"role": "user", "content": "hi"}])
    plan.served()
    assert plan.turn is None
    plan.served({"usage": {"prompt_tokens": 9, "completion_tokens": 1}})
    plan.served({"choices": []})
    assert plan.turn is not None
    assert plan.turn.prompt_tokens == 9

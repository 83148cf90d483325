"""Rules: their context, their settings, their errors."""

import copy

import pytest

from leyline.directives import Mode
from leyline.policies import DROP, PolicyError, policy_edits, rule, truncate


@rule(roles="tool")
def cut(message, ctx, max_chars: int = 200):
    """Cut outputs that two newer ones follow."""
    if ctx.newer_tool_messages >= 2:
        return truncate(message, max_chars=max_chars)
    return None


def test_settings(native):
    history = (
        native().step(("view", {}, "x" * 300)).step(("view", {}, "x" * 300)).step(("view", {}, "x" * 300)).messages
    )
    assert list(cut.changes(history, 3)) == [3]
    assert len(cut(max_chars=10).transform(history, 3)[3]["content"]) < len(cut.transform(history, 3)[3]["content"])
    assert str(cut(max_chars=10, mode="forget")) == "cut(max_chars=10, mode='forget')"
    assert {e.mode for e in cut(mode="forget").edits(history, 3)} == {Mode.FORGET}
    assert cut(max_chars=10)(mode="forget").settings == {"max_chars": 10}


def test_unknown_setting_names_the_known_ones():
    with pytest.raises(PolicyError, match=r"cut: no setting 'max_char'; Did you mean 'max_chars'\? It takes max_chars"):
        cut(max_char=3)


def test_missing_setting():
    @rule
    def needs(message, ctx, size):
        return None

    with pytest.raises(PolicyError, match=r"needs: needs size; write needs\(size=...\)"):
        needs.transform([], 0)
    assert needs(size=1).transform([], 0) == []


def test_context(native, text):
    seen = []

    @rule(roles="tool")
    def look(message, ctx):
        seen.append((ctx.index, ctx.turn, ctx.tool_name, dict(ctx.arguments), ctx.failed, ctx.newer_messages))

    look.transform(native().step(("view", {"path": "a"}, "Error: no"), ("eval", {}, "ok")).messages, 1)
    look.transform(text().step("ls", "a", 2).messages, 7)
    assert seen == [
        (3, 1, "view", {"path": "a"}, True, 1),
        (4, 1, "eval", {}, False, 0),
        (3, 7, "bash", {"command": "ls"}, True, 0),
    ]


def test_roles_in_a_text_only_history(text):
    messages = text().step("ls", "a").messages

    def indices(**options):
        found = []
        rule(**options)(lambda message, ctx: found.append(ctx.index)).transform(messages, 1)
        return found

    assert indices(roles="tool") == [3]
    assert indices(roles="user") == [1]
    assert indices(roles=["system", "assistant"]) == [0, 2]
    assert indices() == [0, 1, 2, 3]


def test_a_rule_cannot_change_the_history(native):
    @rule
    def vandal(message, ctx):
        message["content"] = "gone"
        ctx.messages[0]["content"] = "gone"

    messages = native().step(("view", {}, "x")).messages
    before = copy.deepcopy(messages)
    assert vandal.transform(messages, 1) == before
    assert messages == before


def test_dropping_whole_exchanges(native):
    @rule(roles=["assistant", "tool"])
    def forget_first(message, ctx):
        return DROP if ctx.index in (2, 3) else None

    messages = native().step(("view", {}, "x")).step(("view", {}, "y")).messages
    assert forget_first.transform(messages, 2) == messages[:2] + messages[4:]
    assert len(policy_edits(forget_first, messages, 2)) == 2


@pytest.mark.parametrize("index", [2, 3])
def test_half_a_pair_names_the_rule_and_the_fix(native, text, index):
    @rule
    def half(message, ctx):
        return DROP if ctx.index == index else None

    for history in (native().step(("view", {}, "x")), text().step("ls", "x")):
        history.step(*[("view", {}, "x")] if type(history) is native else ("ls", "x"))
        with pytest.raises(
            PolicyError, match=r"policy half drops the tool (call|result).*drop or keep a call together"
        ):
            policy_edits(half, history.messages, 2)


@pytest.mark.parametrize("verdict", ["text", 3, {"content": "no role"}, ["list"]])
def test_wrong_verdict(verdict, native):
    @rule(roles="user")
    def wrong(message, ctx):
        return verdict

    with pytest.raises(PolicyError, match=r"rule wrong returned .* for message 1; return a message, DROP, or None"):
        wrong.transform(native().messages, 0)


def test_failing_rule(native):
    @rule(roles="user")
    def broken(message, ctx):
        return message["no such key"]

    with pytest.raises(PolicyError, match="rule broken failed on message 1: KeyError: 'no such key'"):
        broken.transform(native().messages, 0)


def test_a_rule_that_exits(native):
    @rule(roles="user")
    def exits(message, ctx):
        raise SystemExit("bye")

    with pytest.raises(PolicyError, match="rule exits failed on message 1: SystemExit: bye"):
        exits.transform(native().messages, 0)


def test_wrong_role_and_wrong_signature():
    with pytest.raises(PolicyError, match="unknown role 'tools'; Did you mean 'tool'"):
        rule(roles="tools")(lambda message, ctx: None)
    with pytest.raises(PolicyError, match=r"a rule takes \(message, ctx\)"):
        rule(lambda message: None)

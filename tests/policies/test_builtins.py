"""What each built-in does, message by message."""

import json

import pytest

from leyline.directives import Mode
from leyline.policies import (
    PolicyError,
    append_erratum,
    clear_over,
    dedupe,
    drop_failed,
    drop_stale,
    keep_last,
    load_policy,
    redact,
    truncate_older_than,
)

LONG = "x" * 400


NEXT = {"role": "assistant", "content": "Next."}


def outputs(policy, messages):
    """The outputs as a policy leaves them, once the model has answered all of them."""
    return [m["content"] for m in policy.transform([*messages, NEXT], 9) if m["role"] == "tool"]


def test_truncate_counts_observations_only(native, text):
    messages = native().step(*[("view", {"path": p}, LONG) for p in "abc"]).messages
    assert [len(c) < 400 for c in outputs(truncate_older_than(n=1, max_chars=20), messages)] == [True, True, False]
    messages = text().step("cat a", LONG).step("cat b", LONG).messages
    assert list(truncate_older_than(n=1, max_chars=20).changes(messages, 2)) == [3]
    assert list(truncate_older_than(n=0, max_chars=20).changes(messages, 2)) == [3, 5]


def test_truncate_counts_the_parts_of_an_output_together(native):
    many = [{"type": "text", "text": "x" * 150}] * 20
    messages = native().step(("view", {}, many), ("view", {}, many[:1])).messages
    policy = truncate_older_than(n=0, max_chars=200)
    assert [sum(len(part["text"]) for part in parts) for parts in outputs(policy, messages)] == [235, 150]
    once = policy.transform([*messages, NEXT], 2)
    assert once != [*messages, NEXT]
    assert policy.edits(once, 2) == []


@pytest.mark.parametrize(
    ("later", "stub"),
    [
        (("edit", {"path": "a.py", "line": 1, "new_code": ""}, "Edited"), "a later edit of that file"),
        (("view", {"path": "a.py", "start": 1, "end": 50}, LONG), "a later view"),
        (("view", {"path": "a.py"}, LONG), "a later view"),
        (("bash", {"command": "sed -i s/a/b/ a.py"}, ""), "a later edit of that file"),
        (("view", {"path": "a.py", "start": 12, "end": 50}, LONG), None),
        (("view", {"path": "b.py"}, LONG), None),
        (("edit", {"path": "b.py", "line": 1, "new_code": ""}, "Edited"), None),
        (("edit", {"path": "a.py", "line": 999, "new_code": ""}, "Error: a.py has 50 lines"), None),
        (("grep", {"pattern": "a.py"}, LONG), None),
    ],
)
def test_stale_view(native, later, stub):
    messages = native().step(("view", {"path": "a.py", "start": 10, "end": 20}, LONG)).step(later).messages
    expected = LONG if stub is None else f"[view of a.py: superseded by {stub}]"
    assert outputs(drop_stale(), messages)[0] == expected


FIRST = [
    {"start": 1, "end": 50},
    {"start_line": 1, "end_line": 50},
    {"line_start": "1", "line_end": "50"},
    {"view_range": [1, 50]},
    {"offset": 1, "limit": 50},
    {"limit": 50, "offset": None},
    {"end": 50.0},
]
ELSEWHERE = [
    {"start": 900, "end": 950},
    {"start_line": 900, "end_line": 950},
    {"line_start": 2},
    {"view_range": [2, -1]},
    {"offset": 900, "limit": 50},
    {"limit": 49},
    {"start": 1, "end": 49},
]
WHOLE = [{}, {"start": 1}, {"view_range": [1, -1]}, {"end_line": None}, {"offset": 0}, {"start": None, "end": None}]
UNKNOWN = [
    {"page": 1},
    {"start": 1, "end": 50, "encoding": "utf-8"},
    {"file": "other"},
    {"view_range": "1-50"},
    {"view_range": [1]},
    {"start": "top"},
    {"start": 1e999},
    {"end": float("nan")},
    {"start": -5},
    {"end": 0},
    {"start": 1, "end": -1},
    {"offset": 1, "limit": "all"},
    {"start": 50, "end": 1},
    {"offset": 1, "limit": 0},
    {"offset": 3, "limit": -3},
    {"start": 1, "limit": 50},
]


def superseded(native, first, later, name="view"):
    made = [(name, {"path": "a.py", **arguments}, LONG) for arguments in (first, later)]
    return 3 in drop_stale().changes(native().step(made[0]).step(made[1]).messages, 2)


@pytest.mark.parametrize("first", FIRST)
def test_a_view_is_superseded_by_one_that_covers_it(native, first):
    assert all(superseded(native, first, later) for later in FIRST + WHOLE)
    assert not any(superseded(native, first, later) for later in ELSEWHERE + UNKNOWN)


def test_a_view_of_the_whole_file(native):
    assert all(superseded(native, first, later) for first in WHOLE for later in WHOLE)
    assert not any(superseded(native, first, later) for first in WHOLE for later in FIRST + ELSEWHERE + UNKNOWN)


@pytest.mark.parametrize("arguments", UNKNOWN)
def test_only_an_edit_supersedes_a_view_of_an_unknown_part(native, arguments):
    assert not any(superseded(native, arguments, later) for later in [arguments, *FIRST, *WHOLE])
    history = native().step(("view", {"path": "a.py", **arguments}, LONG))
    history.step(("edit", {"path": "a.py", "line": 1, "new_code": ""}, "Edited"))
    assert list(drop_stale().changes(history.messages, 2)) == [3]
    assert list(append_erratum().changes(history.messages, 2)) == [5]


def test_stale_test_runs(native, text):
    messages = native().step(("eval", {}, LONG)).step(("eval", {}, LONG)).messages
    assert outputs(drop_stale(), messages) == ["[test run: superseded by a later test run]", LONG]
    history = text().step("pytest a.py", LONG, 1).step("pytest b.py", LONG, 1).step("pytest a.py", LONG)
    changed = drop_stale().changes(history.messages, 3)
    assert list(changed) == [3]
    history.step("pytest", LONG)
    assert list(drop_stale().changes(history.messages, 4)) == [3, 5, 7]


def test_the_arguments_of_a_test_tool_are_part_of_the_run(native):
    def stale(first, later):
        history = native().step(("run_tests", first, LONG)).step(("run_tests", later, LONG))
        return 3 in drop_stale().changes(history.messages, 2)

    assert stale({"path": "a.py"}, {"path": "a.py"})
    assert stale({"path": "a.py", "keys": ["x"]}, {"path": None})
    assert not stale({"path": "a.py"}, {"path": "b.py"})
    assert not stale({}, {"path": "a.py"})


def test_a_run_that_shows_less_replaces_nothing(text):
    history = text().step("pytest tests", LONG, 1)
    for command in ("pytest tests --lf", "cd tests && pytest", "pytest tests > log 2>&1", "pytest tests | grep FAILED"):
        history.step(command, LONG, 1)
        assert drop_stale().changes(history.messages, 2) == {}
        assert append_erratum().changes(history.messages, 2) == {}
    history.step("pytest tests -q", LONG, 1)
    assert list(drop_stale().changes(history.messages, 2)) == [3, 5, 9, 11]


@pytest.mark.parametrize("key", ["cwd", "workdir", "working_directory"])
@pytest.mark.parametrize("command", ["cat a.py", "pytest a.py"])
def test_the_directory_that_a_shell_is_given_counts(native, key, command):
    history = native().step(("bash", {"command": command, key: "one"}, LONG))
    history.step(("bash", {"command": command, key: "two"}, LONG)).step(("bash", {"command": command}, LONG))
    assert drop_stale().changes(history.messages, 3) == {}
    history.step(("bash", {"command": f"cd one && {command}"}, LONG))
    assert list(drop_stale().changes(history.messages, 4)) == [3]


def test_failed_call_goes_when_the_retry_works(native, text):
    failed = ("view", {"path": "n.py"}, "Error: no file n.py")
    worked = ("view", {"path": "m.py"}, LONG)
    messages = native().step(failed).messages
    assert drop_failed().changes(messages, 1) == {}
    messages = native().step(failed).step(("grep", {"pattern": "x"}, "y")).step(worked).messages
    assert drop_failed().changes(messages, 3) == {2: None, 3: None}
    assert drop_failed(within=1).changes(messages, 3) == {}
    assert list(drop_failed(how="stub").changes(messages, 3)) == [3]
    messages = native().step(failed, ("eval", {}, "ok")).step(worked).messages
    assert drop_failed().changes(messages, 2)[3]["content"] == "Error: no file n.py"
    history = text().step("python fix.py", LONG, 1).step("ls", "").step("python fix.py", "").step("pytest", LONG, 1)
    history.step("pytest", "")
    assert drop_failed().changes(history.messages, 5) == {2: None, 3: None}


def test_refused_reply_is_a_failed_call(text):
    history = text()
    history.messages.append({"role": "assistant", "content": "```bash\nls\n```\n```bash\npwd\n```"})
    history.messages.append({"role": "user", "content": "Please always provide EXACTLY ONE action in triple backticks"})
    history.step("ls", "a.py")
    assert drop_failed().changes(history.messages, 2) == {2: None, 3: None}


def test_dedupe(native):
    messages = native().step(("grep", {}, LONG)).step(("grep", {}, LONG)).step(("grep", {}, "short")).messages
    assert outputs(dedupe(), messages) == ["[same output as a later call]", LONG, "short"]
    assert outputs(dedupe(keep="first"), messages) == [LONG, "[same output as an earlier call]", "short"]
    assert outputs(dedupe(min_chars=500), messages) == [LONG, LONG, "short"]


def picture(data, caption=LONG):
    parts = [{"type": "text", "text": caption}] if caption else []
    return [*parts, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]


@pytest.mark.parametrize("caption", [LONG, "Tab 1.", ""])
def test_dedupe_looks_at_images(native, caption):
    made = [("screenshot", {}, picture(data, caption)) for data in "ABA"]
    messages = native().step(*made).messages
    note = "[same output as a later call]"
    assert outputs(dedupe(), messages) == [note, picture("B", caption), picture("A", caption)]
    assert dedupe().changes(dedupe().transform([*messages, NEXT], 2), 2) == {}
    assert dedupe(keep="first").changes(native().step(*made[:2]).messages, 1) == {}


def test_dedupe_takes_text_in_parts_for_the_same_text(native):
    messages = native().step(("grep", {}, LONG), ("grep", {}, [{"type": "text", "text": LONG}])).messages
    assert outputs(dedupe(), messages)[0] == "[same output as a later call]"


def test_clear_over_counts_and_clears_images(native):
    history = native()
    for k in range(10):
        history.step(("screenshot", {}, picture(f"{k}", "")))
    policy = clear_over(trigger=8000, keep=3, at_least=2000)
    assert sorted(policy.changes(history.messages, 10)) == [3, 5, 7, 9, 11]  # when the eighth took it over 8000
    once = policy.transform(history.messages, 10)
    assert once[3]["content"] == "[output cleared to save context]"
    assert policy.transform(once, 10) == once


def test_keep_last_keeps_what_the_user_said(native):
    history = native().step(("eval", {}, "1"))
    history.messages.append({"role": "user", "content": "go on"})
    history.step(("eval", {}, "2"), ("eval", {}, "2")).step(("eval", {}, "3"))
    kept = keep_last(n=1).transform(history.messages, 3)
    assert [m["role"] for m in kept] == ["system", "user", "user", "assistant", "tool"]


def test_clear_over_clears_rarely_and_much(native):
    history = native()
    policy = clear_over(trigger=1000, keep=2, at_least=400)
    new_clears, before = [], set()
    for _ in range(30):
        history.step(("eval", {}, LONG))
        cleared = set(policy.changes(history.messages, 1))
        assert before <= cleared
        new_clears.append(len(cleared - before))
        before = cleared
    batches = [n for n in new_clears if n]
    assert len(batches) <= 5
    assert min(batches) >= 5


def test_redact_reaches_arguments_and_keeps_them_json(native):
    secret = {"path": "a", "name": "sk-1", "deep": [{"sk-2": 'quote " and sk-3'}]}
    messages = native().step(("edit", secret, "ok sk-4")).messages
    policy = redact(r"sk-\w+")
    result = policy.transform(messages, 1)
    assert "sk-" not in json.dumps(result)
    arguments = json.loads(result[2]["tool_calls"][0]["function"]["arguments"])
    assert arguments == {"path": "a", "name": "[redacted]", "deep": [{"[redacted]": 'quote " and [redacted]'}]}
    assert result[2]["tool_calls"][0]["id"] == "call_2_0"
    assert {e.mode for e in policy.edits(messages, 1, Mode.AMORTIZE)} == {Mode.FORGET}


def test_redact_across_json_punctuation_empties_the_arguments(native):
    messages = native().step(("login", {"user": "a", "password": "b"}, "ok")).messages
    result = redact(r'"password": "[^"]*"').transform(messages, 1)
    assert result[2]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_redact_until_nothing_is_left():
    assert redact("ab", replacement="").transform([{"role": "user", "content": "aabbc"}], 0)[0]["content"] == "c"


def test_erratum_only_touches_the_newest(native):
    history = native().step(("view", {"path": "a.py"}, LONG)).step(("eval", {}, LONG))
    history.step(("edit", {"path": "a.py", "line": 1, "new_code": ""}, "Edited"))
    changed = append_erratum().changes(history.messages, 3)
    assert {i: m["content"] for i, m in changed.items()} == {
        7: "Edited\n[Erratum: out of date now: the earlier view of a.py]"
    }


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("truncate_older_than(n=-1)", ["truncate_older_than", "n must be", "at least 0", "-1"]),
        ("truncate_older_than(n='two')", ["n must be a whole number", "'two'"]),
        ("truncate_older_than(max_chars=True)", ["max_chars", "True"]),
        ("keep_last(n=0)", ["keep_last", "at least 1"]),
        ("clear_over(trigger=0)", ["clear_over", "trigger"]),
        ("dedupe(keep='middle')", ["dedupe", "keep", "'first', 'last'"]),
        ("drop_failed(how='hide')", ["drop_failed", "how", "'drop', 'stub'"]),
        ("redact(pattern='(')", ["redact", "not a regular expression", "'('"]),
        ("redact(pattern='a*')", ["redact", "matches nothing at all"]),
        ("redact(pattern='red')", ["redact", "replacement", "matches the pattern"]),
        ("redact(pattern='sk', mode='amortize')", ["redact", "forget"]),
        ("redact", ["redact", "pattern"]),
        ("keep_all(mode='remember')", ["keep_all", "'amortize', 'forget' or 'auto'"]),
        ("protect(keep_all)", ["protect", "tools=", "files=", "last="]),
        ("protect(keep_all, tools=[3])", ["protect", "tools", "list of names"]),
        ("when(keep_all, every=0)", ["when", "every", "at least 1"]),
        ("with_mode(redact('x'), 'amortize')", ["with_mode", "redact", "'forget'"]),
        ("then()", ["then", "at least one"]),
        ("then(3)", ["then", "3 is not a policy"]),
    ],
)
def test_wrong_settings_name_policy_setting_and_fix(spec, words):
    with pytest.raises(PolicyError) as caught:
        load_policy(spec)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)

"""The names of tools in the harnesses in use, and what their calls do."""

import json

import pytest

from leyline.policies import TOOLS, PolicyError, load_policy, policy_edits
from leyline.policies.reading.effects import effect_of
from leyline.policies.reading.tools import KINDS, kind_of, shell_command

FILE = "".join(f"{k}\tline {k}\n" for k in range(1, 60))
BAD = "Exit code 1\n=== FAILURES ===\n" + "E  assert 1 == 2\n" * 30


def history(*steps):
    messages = [{"role": "user", "content": "Fix it."}]
    for k, (name, arguments, output) in enumerate(steps):
        made = {"id": f"c{k}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [made]},
            {"role": "tool", "tool_call_id": f"c{k}", "content": output},
        ]
    return messages


def edited(spec, messages):
    return sorted(e.message_index for e in policy_edits(load_policy(spec), messages, len(messages) // 2))


VIEWS = [
    ("view", {"path": "/r/a.py"}),
    ("Read", {"file_path": "/r/a.py"}),
    ("read_file", {"absolute_path": "/r/a.py"}),
    ("read_file", {"target_file": "/r/a.py", "should_read_entire_file": True, "explanation": "why"}),
    ("view_file", {"AbsolutePath": "/r/a.py", "StartLine": 1, "EndLine": 60}),
    ("open", {"path": "/r/a.py"}),
    ("str_replace_editor", {"command": "view", "path": "/r/a.py"}),
    ("str_replace_editor", {"command": "view", "path": "/r/a.py", "view_range": [1, 20], "security_risk": "LOW"}),
    ("str_replace_based_edit_tool", {"command": "view", "path": "/r/a.py"}),
    ("text_editor_20250124", {"command": "view", "path": "/r/a.py"}),
    ("mcp__files__read_text_file", {"path": "/r/./a.py"}),
    ("Bash", {"command": "cat /r/a.py"}),
    ("execute_bash", {"command": "cd /r && cat a.py"}),
    ("run_shell_command", {"command": "cat a.py", "directory": "/r"}),
    ("shell", {"command": ["bash", "-lc", "cat a.py"], "workdir": "/r"}),
    ("local_shell", {"command": ["cat", "/r/a.py"]}),
    ("exec_command", {"cmd": "cat /r/a.py"}),
]
EDITS = [
    ("edit", {"path": "/r/a.py", "line": 3, "new_code": "x"}),
    ("Edit", {"file_path": "/r/a.py", "old_string": "a", "new_string": "b"}),
    ("Write", {"file_path": "/r/a.py", "content": "x"}),
    ("MultiEdit", {"file_path": "/r/a.py", "edits": []}),
    ("multi_replace_string_in_file", {"replacements": [{"filePath": "/r/a.py", "oldString": "a"}]}),
    ("write_file", {"path": "/r/a.py", "content": "x"}),
    ("edit_file", {"target_file": "/r/a.py", "code_edit": "x"}),
    ("create_file", {"path": "/r/a.py", "file_text": "x"}),
    ("replace_in_file", {"path": "/r/a.py", "diff": "x"}),
    ("str_replace_editor", {"command": "str_replace", "path": "/r/a.py", "old_str": "a", "new_str": "b"}),
    ("str_replace_editor", {"command": "undo_edit", "path": "/r/a.py"}),
    ("str_replace_based_edit_tool", {"command": "insert", "path": "/r/a.py", "insert_line": 1}),
    ("apply_patch", {"input": "*** Begin Patch\n*** Update File: /r/a.py\n@@\n-a\n+b\n*** End Patch"}),
    ("shell", {"command": ["apply_patch", "*** Begin Patch\n*** Update File: a.py\n*** End Patch"], "workdir": "/r"}),
    ("Bash", {"command": "sed -i s/a/b/ /r/a.py"}),
    ("execute_command", {"command": "echo x > /r/a.py"}),
    ("move_file", {"source": "/r/a.py", "destination": "/r/b.py"}),
]
NEITHER = [
    ("Edit", {"file_path": "/r/b.py"}),
    ("str_replace_editor", {"command": "view", "path": "/r/b.py"}),
    ("Bash", {"command": "ls /r"}),
    ("Grep", {"pattern": "a", "path": "/r/a.py"}),
    ("execute_bash", {"command": "sed -i s/a/b/ /r/a.py", "is_input": "true"}),
    ("think", {"thought": "I edit /r/a.py"}),
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v[0])
def test_a_view_is_stale_once_its_file_is_edited(view):
    for edit in EDITS:
        assert edited("drop_stale", history((*view, FILE), (*edit, "done"))) == [2], edit
    for other in NEITHER:
        assert edited("drop_stale", history((*view, FILE), (*other, "done"))) == [], other
    for edit in EDITS:  # a failed edit supersedes nothing
        assert edited("drop_stale", history((*view, FILE), (*edit, "Error: no such file"))) == [], edit


def test_a_view_that_stops_at_a_number_of_lines_covers_none_behind_it():
    far = ("Read", {"file_path": "a.py", "offset": 3000, "limit": 50}, FILE)
    near = ("Read", {"file_path": "a.py", "offset": 10, "limit": 50}, FILE)
    whole = ("Read", {"file_path": "a.py"}, FILE)
    assert edited("drop_stale", history(far, whole)) == []
    assert edited("drop_stale", history(near, whole)) == [2]
    assert edited("drop_stale", history(whole, whole)) == [2]


SHELLS = [
    "bash",
    "Bash",
    "execute_bash",
    "shell",
    "local_shell",
    "run_shell_command",
    "terminal",
    "execute_command",
    "run_in_terminal",
]
RUNS = [
    "python -m pytest -q",
    "cd /r && python -m pytest -q 2>&1 | tail -20; echo done",
    "uv run pytest tests",
    "npm run test",
    "cargo test",
    "./gradlew test",
    "python manage.py test app",
    "CI=1 npx jest",
    "go test ./...",
    "make check",
]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_failing_test_run_is_no_failed_call(shell):
    for run in RUNS:
        messages = history((shell, {"command": run}, BAD), (shell, {"command": "ls"}, "a.py"))
        assert edited("drop_failed", messages) == [], run
        messages = history((shell, {"command": run}, BAD), (shell, {"command": run}, "1 passed"))
        assert edited("drop_failed", messages) == [], run


@pytest.mark.parametrize("shell", SHELLS)
def test_a_retry_in_a_shell_is_the_same_program(shell):
    failed = (shell, {"command": "pip install x"}, "Exit code 1\nno network " * 9)
    assert edited("drop_failed", history(failed, (shell, {"command": "ls"}, "a.py"))) == []
    assert edited("drop_failed", history(failed, (shell, {"command": "pip install y"}, "ok"))) == [1, 2]


def test_a_command_that_cannot_be_split_is_not_retried_by_any_other():
    failed = ("Bash", {"command": "echo 'oops"}, "Exit code 2\nunexpected EOF " * 9)
    assert edited("drop_failed", history(failed, ("Bash", {"command": "ls"}, "a.py"))) == []


def test_a_retry_in_an_editor_is_the_same_command():
    def editor(command, output):
        return ("str_replace_editor", {"command": command, "path": "a.py"}, output)

    failed = editor("str_replace", "ERROR: No replacement was performed.")
    assert edited("drop_failed", history(failed, editor("view", FILE))) == []
    assert edited("drop_failed", history(failed, editor("str_replace", "edited"))) == [1, 2]


def test_a_failing_run_of_a_test_tool_stays():
    failed = ("run_tests", {}, "Error: 3 tests failed\n" * 9)
    assert edited("drop_failed", history(failed, ("run_tests", {}, "ok"))) == []


def test_the_table_is_a_users_to_extend(monkeypatch):
    messages = history(("peek", {"path": "a.py"}, FILE), ("poke", {"path": "a.py"}, "done"))
    assert edited("drop_stale", messages) == []
    spec = "drop_stale(tools={'peek': 'view', 'Poke': 'edit'})"
    assert edited(spec, messages) == [2]
    assert edited(str(load_policy(spec)), messages) == [2]
    assert edited("append_erratum(tools={'peek': 'view', 'poke': 'edit'})", messages) == [4]
    monkeypatch.setitem(TOOLS, "peek", "view")
    monkeypatch.setitem(TOOLS, "poke", "edit")
    assert edited("drop_stale", messages) == [2]


def test_a_name_can_be_taken_out_of_the_table():
    messages = history(("Read", {"file_path": "a.py"}, FILE), ("Edit", {"file_path": "a.py"}, "done"))
    assert edited("drop_stale(tools={'Edit': 'other'})", messages) == []


@pytest.mark.parametrize(
    ("tools", "words"),
    [("'view'", "must say what tools are"), ("{'x': 'viewer'}", "the kind 'viewer'; use shell, view")],
)
def test_a_wrong_table_is_refused(tools, words):
    with pytest.raises(PolicyError, match=words):
        load_policy(f"drop_stale(tools={tools})")


def test_protecting_the_shell_protects_it_by_any_name():
    messages = [*history(("Bash", {"command": "ls"}, "x" * 900)), {"role": "assistant", "content": "Next."}]
    assert edited("truncate_older_than(n=0, max_chars=9)", messages) == [2]
    assert edited("protect(truncate_older_than(n=0, max_chars=9), tools=['bash'])", messages) == []


def test_every_name_of_the_table_has_a_kind():
    assert set(TOOLS.values()) <= set(KINDS)
    assert all(name == name.lower() for name in TOOLS)


def test_odd_arguments_are_no_commands():
    for command in (None, 5, [], [1], {"a": 1}, ["ls", None]):
        assert shell_command({"command": command}) == ""
        assert effect_of("bash", {"command": command}).program == ""
    assert kind_of("", {}) == "other"
    assert shell_command({"command": ["/bin/bash", "-c", "ls -l"]}) == "ls -l"
    assert shell_command({"command": ["echo", "a b"]}) == "echo 'a b'"

"""Which outputs say that their call failed."""

import json

import pytest

from leyline.policies.reading.failures import has_failed

LONG = "How errors are told. " * 40


@pytest.mark.parametrize(
    ("name", "arguments", "output"),
    [
        ("view", {"path": "docs/errors.md"}, "Error handling\n==============\n" + LONG),
        ("view", {"path": "app.log"}, "ERROR: connection lost\n" * 40),
        ("Read", {"file_path": "app.log"}, "Traceback (most recent call last)\n" + LONG),
        ("view", {"path": "codes.md"}, "Exit code 1\n" + LONG),
        ("view", {"path": "codes.md"}, "exit status: 2"),
        ("Grep", {"pattern": "Error"}, "Error: a\nError: b\nError: c\nError: d\n"),
        ("bash", {"command": "cat app.log"}, "Traceback (most recent call last)\n" + LONG),
        ("bash", {"command": "cat errors.md"}, "Error handling\n" + LONG),
        ("bash", {"command": "grep -n Error app.log"}, "Error: a\nError: b\nError: c\nError: d\n"),
        ("bash", {"command": "cat codes.md"}, "Exit code 1 means that the file is missing.\n" + LONG),
        ("bash", {"command": "x"}, "<returncode>0</returncode>\nError: none"),
        ("fetch_page", {}, "Error handling in Python\n" + LONG),
        ("bash", {"command": "make"}, "done\n[The command completed with exit code 0.]"),
    ],
)
def test_what_has_worked(name, arguments, output):
    assert not has_failed({"role": "tool", "content": output}, name, arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "output"),
    [
        ("view", {"path": "n.py"}, "Error: no file n.py"),
        ("Read", {"file_path": "n.py"}, "<tool_use_error>File does not exist.</tool_use_error>"),
        ("edit", {"path": "a.py"}, "Error: a.py has 40 lines\n" + LONG),
        ("search_things", {}, "Error executing tool search_things: timed out"),
        ("bash", {"command": "x"}, "<returncode>1</returncode>\nno"),
        ("Bash", {"command": "x"}, "Exit code 127\nx: not found"),
        ("bash", {"command": "x"}, "[exit status: 2]\nno"),
        ("execute_bash", {"command": "x"}, "no\n[The command completed with exit code 1.]\n[cwd: /r]"),
        ("run_shell_command", {"command": "x"}, "Command: x\nOutput: no\nExit Code: 1\nSignal: (none)"),
        ("shell", {"command": ["x"]}, json.dumps({"output": "no", "metadata": {"exit_code": 1}})),
        ("bash", {"command": "python x.py"}, "Traceback (most recent call last):\n" + LONG),
        ("bash", {"command": "cat n.py"}, "<returncode>1</returncode>\ncat: n.py: No such file"),
    ],
)
def test_what_has_failed(name, arguments, output):
    assert has_failed({"role": "tool", "content": output}, name, arguments)


def test_the_flag_of_the_harness_decides():
    for text in ("Error: no", "fine"):
        assert has_failed({"role": "tool", "content": text, "is_error": True}, "view")
        assert not has_failed({"role": "tool", "content": text, "is_error": False}, "edit")
        assert has_failed({"role": "tool", "content": text, "status": "error"}, "edit")

"""`leyline run`: what it prints, what it keeps, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.mock import tool_call
from leyline.harness import read_trajectory

FIELDS = {
    "tasks",
    "solved",
    "unscored",
    "hit_rate",
    "prompt_tokens",
    "cached_tokens",
    "spliced_tokens",
    "prefilled_tokens",
    "edits",
    "fallbacks",
    "rows",
}
POLICY = "truncate_older_than(n=1, max_chars=20)"


def test_a_folder_is_solved_over_http(leyline: Any, server: Any, folder: Path, fix: Any, tmp_path: Path) -> None:
    server.answers = list(fix)
    out = tmp_path / "kept"
    done = leyline(
        "run", folder, "--backend", "openai", "--base-url", server.url, "--model", "m", "--json", "--policy", POLICY,
        "--out", out,
    )  # fmt: skip
    assert done.code == 0, done.err
    assert set(done.json) >= FIELDS
    assert (done.json["tasks"], done.json["solved"], done.json["complete"]) == (1, 1, True)
    assert done.json["edits"] >= 2
    assert done.json["fallbacks"] == {"backend_has_no_splice": done.json["edits"]}
    row = done.json["rows"][0]
    assert row["outcome"] == "solved"
    assert "+    return x * 2" in row["patch"]
    for name in ("prompt_tokens", "cached_tokens", "spliced_tokens", "prefilled_tokens", "edits"):
        assert done.json[name] == sum(each[name] for each in done.json["rows"])
    cached = done.json["cached_tokens"] + done.json["spliced_tokens"]
    assert done.json["hit_rate"] == cached / done.json["prompt_tokens"]
    trajectory = read_trajectory(row["trajectory"])
    assert Path(row["trajectory"]).parent == out
    assert trajectory.outcome == "solved"
    assert [turn["tool"]["name"] for turn in trajectory.turns] == ["eval", "view", "edit", "eval", "submit"]
    for line in ("view(path='code_under_test.py'", "cached", "prefilled", "1 edit", "solved", str(out)):
        assert line in done.err
    assert "removed ...]" in json.dumps(server.requests[-1]["messages"]), "the model must have read the edited history"
    assert folder.joinpath("code_under_test.py").read_text().endswith("x + 1\n"), "the user's own file was changed"


def test_without_json_it_prints_the_patch_and_two_lines(leyline: Any, server: Any, folder: Path, fix: Any) -> None:
    server.answers = list(fix)
    done = leyline("run", folder, "--backend", "openai", "--base-url", server.url, "--model", "m")
    assert done.code == 0
    assert done.out.startswith("diff --git a/code_under_test.py")
    assert "solved 1 of 1" in done.out
    assert "hit rate" in done.out


def test_a_repository_with_a_request(leyline: Any, server: Any, folder: Path, fix: Any, tmp_path: Path) -> None:
    request = tmp_path / "request.md"
    request.write_text("double() adds one; it should double.")
    server.answers = list(fix)
    done = leyline(
        "run", folder, "--description", request, "--test-command", "python -m pytest -q -p no:cacheprovider test.py",
        "--backend", "openai", "--base-url", server.url, "--model", "m", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["solved"] == 1
    assert "double() adds one" in json.dumps(server.requests[0]["messages"])


def test_without_tests_there_is_a_patch_and_no_verdict(leyline: Any, server: Any, folder: Path, fix: Any) -> None:
    command = ("run", folder, "--description", "double() adds one.", *served(server))
    server.answers = [fix[1], fix[2], fix[4]]
    done = leyline(*command, "--json")
    assert done.code == 0, done.err
    row = done.json["rows"][0]
    assert (row["outcome"], row["solved"], row["reason"]) == ("unscored", None, "submitted; no tests were given")
    assert "+    return x * 2" in row["patch"]
    assert (done.json["tasks"], done.json["solved"], done.json["unscored"]) == (1, 0, 1)
    server.answers = [fix[4]]
    done = leyline(*command)
    assert done.out.startswith("1 task without tests, so without a verdict in ")
    assert "unscored (submitted; no tests were given)" in done.err
    assert "failed" not in done.out + done.err
    server.answers = [fix[1]]
    done = leyline(*command, "--json", "--turns", 1)
    row = done.json["rows"][0]
    assert (row["outcome"], row["solved"], done.json["unscored"]) == ("limit", None, 1)


def test_a_test_command_that_does_not_start_is_no_verdict(
    leyline: Any, server: Any, folder: Path, fix: Any, tmp_path: Path
) -> None:
    server.answers = [fix[2], fix[4]]
    out = tmp_path / "kept"
    tested = ("--description", "double() adds one.", "--test-command", "true && nosuchcmd", "--out", out)
    done = leyline("run", folder, *tested, *served(server))
    assert done.code == 2
    assert "the test command does not start, with the files as they were at first either: " in done.error
    assert "not found" in done.error
    (kept,) = out.glob("*.jsonl")
    assert read_trajectory(kept).outcome == "error"
    assert "+    return x * 2" in kept.with_suffix(".patch").read_text()


def test_a_task_that_is_not_solved_is_no_error(leyline: Any, server: Any, folder: Path) -> None:
    server.answers = ["not even a tool call"] and [{"role": "assistant", "content": "Hm."}, tool_call("submit")]
    done = leyline("run", folder, "--backend", "openai", "--base-url", server.url, "--model", "m", "--json")
    assert (done.code, done.json["solved"], done.json["rows"][0]["outcome"]) == (0, 0, "failed")
    assert "no valid tool call" in done.err


def test_a_server_that_fails_half_way_keeps_what_was_done(
    leyline: Any, server: Any, tmp_path: Path, fix: Any, make_task: Any
) -> None:
    for name in ("a", "b", "c"):
        make_task(tmp_path / "many" / name)
    refused = (400, "no such tool")
    server.answers = [*fix, tool_call("eval"), refused, *fix]
    done = leyline("run", tmp_path / "many", "--backend", "openai", "--base-url", server.url, "--model", "m", "--json")
    assert done.code == 1
    assert [row["outcome"] for row in done.json["rows"]] == ["solved", "error", "solved"]
    assert "no such tool" in done.json["rows"][1]["reason"]


def test_it_can_stop_at_the_first_solved_task(
    leyline: Any, server: Any, tmp_path: Path, fix: Any, make_task: Any
) -> None:
    for name in ("a", "b", "c"):
        make_task(tmp_path / "many" / name)
    server.answers = [tool_call("submit"), *fix]
    done = leyline("run", tmp_path / "many", *served(server, "--first-solved", "--json"))
    assert (done.code, done.json["complete"]) == (0, True)
    assert [row["outcome"] for row in done.json["rows"]] == ["failed", "solved"]


def served(server: Any, *rest: object) -> tuple[object, ...]:
    return ("--backend", "openai", "--base-url", server.url, "--model", "m", *rest)


def test_a_bad_key_is_one_line(leyline: Any, server: Any, folder: Path) -> None:
    server.answers = [(401, "Incorrect API key provided")] * 5
    done = leyline("run", folder, *served(server, "--api-key", "sk-wrong"))
    assert done.code == 2
    assert "key" in done.error
    assert "sk-wrong" not in done.err


def test_a_context_overflow_ends_the_task_and_says_so(leyline: Any, server: Any, folder: Path) -> None:
    server.answers = [(400, "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens.")]
    done = leyline("run", folder, *served(server, "--json"))
    assert (done.code, done.json["rows"][0]["outcome"]) == (0, "limit")
    assert "context" in done.json["rows"][0]["reason"]


def test_a_refused_connection_is_one_line(leyline: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    done = leyline("run", folder, "--backend", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    assert done.code == 2
    assert "cannot connect" in done.error


RULES = """
from leyline import DROP, MessageEdit, rule
from leyline.policies import BasePolicy


@rule(roles="tool")
def orphan(message, ctx):
    return DROP


@rule(roles="tool")
def crash(message, ctx):
    return message["no such field"]


class Far(BasePolicy):
    def transform(self, messages, turn):
        return list(messages)

    def edits(self, messages, turn, mode="amortize"):
        return [MessageEdit(99)]
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("orphan", "drops the tool result in message 3 but keeps its call in message 2"),
        ("crash", "rule crash failed on message 3"),
        ("Far", "edit of message 99: the history has"),
    ],
)
def test_a_policy_that_fails_is_one_line_and_loses_nothing(
    leyline: Any, server: Any, tmp_path: Path, fix: Any, make_task: Any, name: str, says: str
) -> None:
    rules = tmp_path / "rules.py"
    rules.write_text(RULES)
    server.answers = list(fix)
    make_task(tmp_path / "task")
    out = tmp_path / "kept"
    done = leyline("run", tmp_path / "task", *served(server, "--policy", f"{rules}:{name}", "--out", out))
    assert done.code == 2
    assert says in done.error
    trajectory = read_trajectory(out / "task.jsonl")
    assert trajectory.outcome == "error"
    # A result is not dropped before the model has seen it, so that an orphan shows a turn later.
    assert len(trajectory.turns) == {"Far": 0, "orphan": 2}.get(name, 1)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--suite", "micro", "--policy", "truncate_older_then"], "Did you mean 'truncate_older_than'"),
        (["--suite", "micro", "--policy", "truncate_older_than(n=-1)"], "n must be"),
        (["--suite", "micro", "--policy", "truncate_older_than(size=3)"], "no setting 'size'"),
        (["--suite", "micro", "--policy", "missing.py:rule"], "no such file"),
        (["--suite", "micro", "--model", "no-such-model"], "no model 'no-such-model'"),
        (["--suite", "micro", "--model", "."], "config.json"),
        (["--suite", "macro"], "unknown suite 'macro'"),
        (["--suite", "micro", "--level", "huge"], "unknown level 'huge'"),
        (["--suite", "micro", "--split", "half"], "unknown split 'half'"),
        (["--suite", "micro", "--backend", "cloud"], "unknown backend 'cloud'"),
        (["--suite", "micro", "--backend", "openai"], "no API key"),
        (["--suite", "micro", "--backend", "openai", "--base-url", "localhost:8000"], "http://"),
        (["--suite", "micro", "--backend", "sglang"], "--base-url"),
        ([], "--suite micro"),
        (["nowhere"], "nowhere is not a folder"),
        (["."], "no test.py"),
        (["."], "with --description"),
        ([".", "--test-command", "true"], "--test-command is for a repository"),
        ([".", "--description", " "], "the request is empty"),
        ([".", "--description", "do it", "--test-command", ""], "the test command is empty"),
        ([".", "--description", "do it", "--test-command", " \n"], "the test command is empty"),
        ([".", "--description", "do it", "--test-command", "# later\n"], "the test command is empty"),
        ([".", "--description", "do it", "--test-command", "nosuchcmd -q"], "the sandbox has no 'nosuchcmd'"),
        ([".", "--description", "do it", "--test-command", "A=1 nosuchcmd"], "the sandbox has no 'nosuchcmd'"),
        ([".", "--description", "do it", "--test-command", "pytest 'unclosed"], "the shell cannot read the test"),
        ([".", "--suite", "micro"], "either a path or --suite"),
        (["--suite", "micro", "--base-url", "http://x"], "--base-url needs --backend openai or sglang"),
        (["--suite", "micro", "--description", "do it"], "--description is for a repository, not for --suite"),
        (["--suite", "micro", "--test-command", "true"], "--test-command is for a repository, not for --suite"),
        ([".", "--description", "do it", "--tasks", "3"], "--tasks is for generated tasks, not for a path"),
        ([".", "--seed", "3"], "--seed is for generated tasks, not for a path"),
    ],
)
def test_what_is_wrong_is_one_line(
    leyline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    done = leyline("run", *arguments)
    assert done.code == 2
    assert says in done.error
    assert done.out == ""


@pytest.mark.parametrize("arguments", [["--mode", "blur"], ["--tasks", "0"], ["--seam", "-1"], ["--no-such-option"]])
def test_options_that_do_not_parse_are_usage_errors(leyline: Any, arguments: list[str]) -> None:
    done = leyline("run", "--suite", "micro", *arguments)
    assert done.code == 2
    assert arguments[0] in done.err
    assert "Traceback" not in done.err


def test_an_unwritable_folder_is_one_line(leyline: Any, server: Any, folder: Path, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    done = leyline("run", folder, *served(server, "--out", taken / "kept"))
    assert done.code == 2
    assert "--out" in done.error


def test_a_full_disk_is_one_line(leyline: Any, server: Any, tmp_path: Path, fix: Any, make_task: Any) -> None:
    resource = pytest.importorskip("resource", reason="no resource limits on this system")
    for name in ("a", "b"):
        make_task(tmp_path / "many" / name)
    out = tmp_path / "kept"
    # The second task's agent looks at a file that does not fit into its trajectory.
    (tmp_path / "many" / "b" / "code_under_test.py").write_text("# " + "x" * 70_000 + "\n")
    server.answers = [*fix, tool_call("view", path="code_under_test.py", start=1, end=2), *fix]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, limits[1]))
        done = leyline("run", tmp_path / "many", *served(server, "--json", "--out", out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 2
    assert f"cannot write {out / 'b.jsonl'}: File too large" in done.error
    assert (done.json["tasks"], done.json["solved"], done.json["complete"]) == (1, 1, False)
    assert read_trajectory(out / "a.jsonl").outcome == "solved"
    cut = read_trajectory(out / "b.jsonl")
    assert (cut.outcome, cut.turns[0]["output"]["tool_calls"][0]["function"]["name"]) == (None, "view")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_kill_keeps_what_was_done(
    server: Any, tmp_path: Path, fix: Any, make_task: Callable[[Path], Path], stop: signal.Signals
) -> None:
    for name in ("a", "b"):
        make_task(tmp_path / "many" / name)
    server.answers = [*fix, fix[2], 30.0, tool_call("submit")]
    (tmp_path / "tmp").mkdir()
    command = [
        sys.executable,
        "-c",
        "from leyline.cli import main; main()",
        "run",
        str(tmp_path / "many"),
        *map(str, served(server, "--json")),
    ]
    environment = {**os.environ, "LEYLINE_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "tmp")}
    out = tmp_path / "kept"
    with subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while len(server.requests) < 7 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(stop)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr.splitlines()[-1] == "leyline: interrupted"
    assert "Traceback" not in stderr
    assert list((tmp_path / "tmp").glob("leyline-*")) == []
    told = json.loads(stdout)
    assert (told["tasks"], told["solved"], told["complete"]) == (1, 1, False)
    assert read_trajectory(out / "a.jsonl").outcome == "solved"
    cut = read_trajectory(out / "b.jsonl")
    assert cut.outcome == "interrupted"
    assert len(cut.turns) == 1
    assert "+    return x * 2" in (out / "b.patch").read_text()


def test_ctrl_c_in_the_first_task_still_gives_a_script_its_object(
    leyline: Any, server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leyline.harness.session.session.Session.turn", stop)
    done = leyline("run", folder, *served(server, "--json"))
    assert done.code == 130
    assert (done.json["tasks"], done.json["solved"], done.json["complete"]) == (0, 0, False)
    assert done.json["rows"] == []
    assert set(done.json) >= FIELDS
    done = leyline("run", folder, *served(server))
    assert (done.code, done.out) == (130, "")


@pytest.mark.parametrize("mode", ["amortize", "forget"])
def test_the_bundled_agent_runs_in_process(leyline: Any, tmp_path: Path, mode: str) -> None:
    pytest.importorskip("torch", reason="the local backend needs torch")
    done = leyline(
        "run", "--suite", "micro", "--tasks", 1, "--turns", 4, "--mode", mode, "--json",
        "--policy", "truncate_older_than(n=1, max_chars=40)",
    )  # fmt: skip
    assert done.code == 0, done.err
    told = done.json
    assert set(told) >= FIELDS
    assert told["prompt_tokens"] == told["cached_tokens"] + told["spliced_tokens"] + told["prefilled_tokens"]
    assert told["edits"] > 0
    assert told["fallbacks"] == {}
    assert (told["spliced_tokens"] > 0) == (mode == "amortize")
    assert Path(told["rows"][0]["trajectory"]).is_relative_to(tmp_path / "cache")


@pytest.mark.shared
def test_a_folder_of_debug_gyms_own(leyline: Any, server: Any) -> None:
    folder = Path(__file__).parents[3] / "shared" / "mini_nightmare" / "config"
    if not folder.is_dir():
        pytest.skip("the debug-gym folders are not here")
    server.answers = [
        tool_call("eval"),
        tool_call("view", path="config_code.py", start=1, end=40),
        tool_call("grep", pattern="_cache"),
        tool_call("bash", command="python -c 'import config_code; print(config_code.ConfigManager().api.version)'"),
        tool_call("edit", path="config_code.py", line=27, new_code=""),
        tool_call("eval"),
        tool_call("submit"),
    ]
    policy = "truncate_older_than(n=2, max_chars=200)"
    done = leyline("run", folder, *served(server, "--json", "--policy", policy))
    assert done.code == 0, done.err
    assert (done.json["solved"], done.json["rows"][0]["task"]) == (1, "config")
    assert done.json["edits"] >= 2
    outputs = [m["content"] for m in server.requests[-1]["messages"] if m["role"] == "tool"]
    assert "2 passed" in outputs[-1]
    assert outputs[3] == "v1"
    assert "-                self._cache[name] = nested" in done.json["rows"][0]["patch"]

"""Where nothing keeps an agent's commands from a person's files, `run` and `eval` do not start unless told to."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.mock import tool_call
from leyline.harness.sandbox import consent
from leyline.harness.sandbox.isolation import NO_SANDBOX, Isolation, isolation
from leyline.harness.sandbox.sandbox import Sandbox
from leyline.suites.swebench.swebench_suite import SwebenchSuite


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = os.environ.pop(NO_SANDBOX, None)
    isolation.cache_clear()
    yield
    os.environ.pop(NO_SANDBOX, None)
    if before is not None:
        os.environ[NO_SANDBOX] = before
    isolation.cache_clear()


@pytest.fixture
def open_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consent, "isolation", functools.cache(lambda: Isolation(net=True, reason="no mounts here")))


@pytest.mark.usefixtures("open_system")
def test_an_unconfined_system_is_told_in_one_line(leyline: Any, folder: Path, tmp_path: Path) -> None:
    for command in (
        ("run", folder, "--backend", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "m"),
        ("eval", "micro", "--tasks", 1, "--backend", "mock", "--model", "mock", "--out", tmp_path / "run"),
        ("eval", folder, "--dry-run", "--backend", "mock", "--model", "mock", "--out", tmp_path / "run"),
    ):
        done = leyline(*command)
        assert done.code == 2
        assert "from your files (no mounts here): they could read your home" in done.error
        assert done.error.endswith("add --no-sandbox to run them all the same")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("open_system")
def test_with_the_flag_it_runs(leyline: Any, server: Any, folder: Path, fix: Any, tmp_path: Path) -> None:
    server.answers = list(fix)
    done = leyline(
        "run", folder, "--backend", "openai", "--base-url", server.url, "--model", "m", "--json", "--no-sandbox",
        "--out", tmp_path / "kept",
    )  # fmt: skip
    assert (done.code, done.json["solved"]) == (0, 1), done.err


@pytest.mark.usefixtures("open_system")
def test_commands_in_containers_need_no_flag(monkeypatch: pytest.MonkeyPatch, leyline: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(SwebenchSuite, "in_container", True)
    done = leyline("eval", "swebench", "--option", f"dataset={tmp_path / 'none.jsonl'}", "--dry-run")
    assert "--no-sandbox" not in done.error


def test_the_flag_holds_in_the_processes_that_are_started(tmp_path: Path) -> None:
    assert os.environ.get(NO_SANDBOX) is None
    consent.allow_unconfined()
    assert os.environ[NO_SANDBOX] == "1"
    found = isolation()
    assert (found.user, found.mounts, found.reason) == (False, False, "switched off")
    assert consent.refusal() is None
    (tmp_path / "work").mkdir()
    (tmp_path / "file").write_text("seen")
    assert Sandbox(tmp_path / "work", tmp_path / "home").run("cat ../file").output == "seen"


def test_protected_files_of_a_repository_decide(leyline: Any, server: Any, tmp_path: Path) -> None:
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "check.sh").write_text("test -e done.txt\n")
    cheat = tool_call("bash", command="echo true > check.sh")
    solved = {}
    for options in ((), ("--protect", "/check.sh")):
        server.answers = [cheat, tool_call("submit")]
        done = leyline(
            "run", repo, "--description", "Write done.txt.", "--test-command", "sh check.sh", "--backend", "openai",
            "--base-url", server.url, "--model", "m", "--json", "--out", tmp_path / f"kept{len(options)}", *options,
        )  # fmt: skip
        assert done.code == 0, done.err
        solved[options[:1]] = done.json["solved"]
    assert solved == {(): 1, ("--protect",): 0}
    done = leyline("run", "--suite", "micro", "--protect", "x")
    assert "--protect is for a repository" in done.error

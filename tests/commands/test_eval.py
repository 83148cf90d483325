"""`leyline eval`: what its dry run says, and what is wrong in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--model", "nope"], "no model 'nope'; give a model folder, or one of the bundled"),
        (["--arms", "keep_all,backend=mock,model=m,options.script=none.json"], "cannot read the script none.json"),
        (["--arms", "keep_all", "--filter", "nothing-like-it"], "no task is left: look at --filter"),
        (["--base-url", "http://localhost:9"], "--base-url needs --backend sglang or openai"),
        (["--option", "levels=5"], "micro has no level '5'"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(leyline: Any, arguments: list[str], says: str) -> None:
    for more in (["--dry-run"], []):
        done = leyline("eval", "micro", *arguments, *more)
        assert (done.code, done.out) == (2, "")
        assert says in done.error


def test_a_dry_run_refuses_other_settings_of_a_recorded_arm(leyline: Any, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('["Hm."]')
    arm = f"a=keep_all,backend=mock,model=m,options.script={tmp_path / 'script.json'}"
    command = ("eval", "micro", "--arms", arm, "--tasks", 1, "--workers", 0, "--out", tmp_path / "run")
    assert leyline(*command, "--turns", 1).code == 0
    done = leyline(*command, "--turns", 1, "--dry-run")
    assert "trials 1, 1 of them recorded in " in done.out
    done = leyline(*command, "--turns", 2, "--dry-run")
    assert (done.code, done.out) == (2, "")
    assert "arm 'a' is recorded for micro-short-seen-1000000 with other settings" in done.error


def test_a_dry_run_needs_no_server(leyline: Any, tmp_path: Path) -> None:
    server = ("--backend", "openai", "--base-url", "http://127.0.0.1:9/v1", "--model", "m")
    done = leyline("eval", "micro", *server, "--arms", "keep_all", "--dry-run", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "trials 20, 0 of them recorded in " in done.out

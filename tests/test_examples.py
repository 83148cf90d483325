"""The examples run, offline, and say what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leyline import load_policy

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, cwd: Path) -> str:
    # One thread: where other work keeps the cores busy, two that wait for each other take minutes.
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_edit_a_session(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the local backend needs torch")
    kept, forgot, amortised = (line.split() for line in run("edit_a_session.py", tmp_path).splitlines()[1:])
    assert int(kept[-3]) == int(forgot[-3]) == 0 < int(amortised[-3])
    assert int(amortised[-2]) < int(forgot[-2]), "splicing must prefill less than forgetting"


def test_test_a_harness(tmp_path: Path) -> None:
    assert run("test_a_harness.py", tmp_path).startswith("solved in 3 turns, 1 edit")


def test_rules() -> None:
    trace = 'Running\nTraceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\nNameError: f\n'
    call = {"id": "1", "type": "function", "function": {"name": "view", "arguments": json.dumps({"path": "a.py"})}}
    history = [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": trace + "x" * 500},
        {"role": "assistant", "content": "", "tool_calls": [{**call, "id": "2"}]},
        {"role": "tool", "tool_call_id": "2", "content": trace},
    ]
    cut = load_policy(f"{EXAMPLES / 'rules.py'}:cut_tracebacks").transform(history, 2)
    assert cut[1]["content"].startswith("Running\n[traceback cut]\nNameError: f\n")
    assert cut[3] == history[3]
    both = load_policy(f"then('{EXAMPLES / 'rules.py'}:cut_tracebacks', '{EXAMPLES / 'rules.py'}:shorten_views(n=1)')")
    assert len(both.transform(history, 2)[1]["content"]) < 260

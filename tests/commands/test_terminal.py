"""Text of models, tools and files never reaches a terminal as it is."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import leyline.commands
from leyline.commands.terminal import safe
from leyline.evals.trials.record import TrialOutcome, TrialRecord

EVIL = "\x1b]0;title\x07\x1b[2J\x1b[Hfine\x00\r\x9b2J\u202egone"
RAW = re.compile(rb"\x1b\]|\x1b\[(?!\?25|[0-9;]*[mKAG]|2K|1A)|\x07|\x00|\xc2\x9b|\xe2\x80\xae")


def test_controls_are_shown_and_text_stays() -> None:
    assert safe("a\tb\nc é 漢 👩‍💻") == "a\tb\nc é 漢 👩‍💻"
    assert safe(EVIL + "\ud800") == r"\x1b]0;title\x07\x1b[2J\x1b[Hfine\x00\x0d\x9b2J\u202egone\ud800"
    for code in [*range(32), *range(127, 160)]:
        assert safe(chr(code)).isprintable() or chr(code) in "\t\n"


def test_every_command_prints_through_one_place() -> None:
    folder = Path(leyline.commands.__file__).parent
    for file in [*folder.glob("*.py"), folder.parent / "cli.py"]:
        if file.name != "terminal.py":
            found = re.findall(
                r"typer\.echo|(?<![\w.])print\(|sys\.(?:stdout|stderr)\.write|\\033|\\x1b", file.read_text()
            )
            assert not found, f"{file.name} writes to the terminal by itself: use leyline.commands.terminal"


def on_terminal(*arguments: str, folder: Path) -> tuple[int, bytes]:
    """Exit code and all that a command sends to its terminal."""
    process, terminal = pty.fork()
    if process == 0:  # pragma: no cover - the child
        os.chdir(folder)
        os.environ.update(TERM="xterm", COLUMNS="200", OMP_NUM_THREADS="1")
        os.execv(sys.executable, [sys.executable, "-c", "from leyline.cli import main; main()", *arguments])
    got = b""
    try:
        while data := os.read(terminal, 65536):
            got += data
    except OSError:  # how a closed terminal ends on Linux
        pass
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), got


def trace(folder: Path) -> Path:
    call = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    output = {"role": "tool", "tool_call_id": "1", "content": EVIL * 40}
    history = [{"role": "user", "content": "go"}, answer, output, answer, output, {"role": "assistant", "content": "x"}]
    path = folder / "t.jsonl"
    path.write_text(json.dumps({"id": EVIL, "messages": history}) + "\n")
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["policy", "test", "truncate_older_than(n=1, max_chars=60)", "--trace", "t.jsonl"], b"new edit"),
        (["policy", "test", "keep_all", "--trace", "t.jsonl", "--id", "none"], b"holds no trajectory"),
        (["replay", "t.jsonl", "--id", "none"], b"no trajectory"),
        (["replay", "folder", "--policy", "keep_all", "--workers", "1"], b"passed over"),
        (["run", f"no-such-{EVIL[:9]}"], b"not a folder"),
        ([f"no-such-{EVIL[:9]}"], b"No such command"),
    ],
)
def test_commands_on_a_terminal(tmp_path: Path, arguments: list[str], said: bytes) -> None:
    trace(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "bad\x1b[2J.jsonl").write_text("{}\n")
    (tmp_path / "folder" / "good.jsonl").write_text((tmp_path / "t.jsonl").read_text())
    _, got = on_terminal(*arguments, folder=tmp_path)
    assert said in got, got[-500:]
    assert not RAW.search(got), RAW.findall(got)


def test_the_live_table_of_an_eval(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from leyline.commands.eval_progress import LiveProgress

    monkeypatch.setenv("FORCE_COLOR", "1")
    progress = LiveProgress()
    progress.notes([EVIL])
    values = {"suite": "s", "task": EVIL, "arm": "a", "seed": 0, "digest": "d"}
    record = TrialRecord(**values, outcome=TrialOutcome.ERROR, detail=EVIL)
    progress.begin([], [record], 1)
    progress.trial(record)
    progress.end()
    got = capsys.readouterr().err.encode()
    assert b"fine" in got
    assert not RAW.search(got), RAW.findall(got)

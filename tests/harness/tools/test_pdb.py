"""The debugger as a tool: what a program prints does not make it wait for ever."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leyline.harness.sandbox.sandbox import CommandLimits, Sandbox
from leyline.harness.tools import ToolBox, pdb
from leyline.harness.workspace.workspace import DiskWorkspace

FALSE_PROMPT = "import sys, time\nsys.stdout.write('(Pdb) ')\nsys.stdout.flush()\ntime.sleep(1000)\n"


@pytest.fixture
def tools() -> Iterator[ToolBox]:
    with DiskWorkspace.from_files({"test.py": FALSE_PROMPT}) as workspace:
        box = Sandbox(workspace.root, workspace.home, limits=CommandLimits(seconds=100))
        with ToolBox(workspace, sandbox=box, entry=["python", "test.py"], names=("pdb",)) as tools:
            yield tools


def test_a_false_prompt_does_not_block_a_large_command(tools: ToolBox, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.call("pdb", {"command": "c"})  # runs to the sleep, behind what looks like a prompt
    monkeypatch.setattr(pdb, "SECONDS", 1.0)
    told = tools.call("pdb", {"command": f"p {'x' * 1_000_000}"}).text
    assert "[stopped: the program does not read the command within 1 s; the session is closed]" in told
    assert told.endswith("[the session has ended; the next command starts a new one]")


def test_a_large_command_is_read_whole(tools: ToolBox) -> None:
    assert tools.call("pdb", {"command": f"p len('{'x' * 300_000}')"}).text.endswith("300000")


def test_a_program_that_has_ended_is_told(tools: ToolBox) -> None:
    assert "[the session has ended" in tools.call("pdb", {"command": "import os; os._exit(3)"}).text

"""pdb: the Python debugger on the task's tests, kept alive between calls."""

from __future__ import annotations

import re
import time
from pathlib import PurePath

from leyline.harness.sandbox.process import Process, capped, uninterrupted
from leyline.harness.sandbox.sandbox import Sandbox
from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult, argument

PROMPT = "(Pdb) "
_AT_PROMPT = re.compile(r"\(Pdb\) \Z")
SECONDS = 20.0  # for the answer to one command
SESSION_SECONDS = 600.0


class Debugger:
    """One debugger process. It stops at the first line of the program and answers command by command."""

    def __init__(self, sandbox: Sandbox, entry: tuple[str, ...]) -> None:
        program = entry[1:] if PurePath(entry[0]).name.startswith("python") else entry
        self._limits = sandbox.limits
        argv = ["python", "-u", "-m", "pdb", *program]
        self._process: Process = sandbox.start(argv, stdin=True, seconds=SESSION_SECONDS)
        self._relative = sandbox.relative
        self._disk = sandbox.disk
        self.alive = True

    def answer(self, command: str | None) -> str:
        """Send one command (None: only wait for the first prompt) and return what the debugger says to it."""
        left = b"" if command is None else f"{command}\n".encode("utf-8", "replace")
        deadline = time.monotonic() + SECONDS
        text = b""
        while time.monotonic() < deadline:
            try:
                left = left[self._process.send(left) :]
            except OSError:
                self.close()
                return "(the program has ended)"
            text += self._process.read(0.01 if left else 0.1)
            if len(text) > 4 * self._limits.output:
                text = text[: 2 * self._limits.output] + text[-2 * self._limits.output :]
            if not left and text.endswith(PROMPT.encode()):
                break
            if self._process.exit_code() is not None:
                while data := self._process.read(0):
                    text += data
                self.close()
                break
            over = self._process.over(self._limits.processes, self._limits.memory)
            if over or self._disk.full(self._limits.disk):
                self.close()
                text += f"\n[stopped: over the limit of {over or 'disk'}]".encode()
                break
        else:
            self.close()
            what = "the program does not read the command" if left else "no prompt"
            text += f"\n[stopped: {what} within {SECONDS:g} s; the session is closed]".encode()
        shown = _AT_PROMPT.sub("", text.decode("utf-8", "replace")).rstrip("\n")
        return self._relative(capped(shown, self._limits.output))

    def close(self) -> None:
        if self.alive:
            self.alive = False
            self._process.kill()


def run(context: Context, arguments: Arguments) -> ToolResult:
    command = str(arguments["command"])
    if context.sandbox is None or not context.entry:
        return ToolResult.failure("this task has nothing to debug")
    if "\n" in command.strip() or "\0" in command:
        return ToolResult.failure("pdb takes one command a call")
    command = command.strip()
    session = context.state.get("pdb")
    started = ""
    if not isinstance(session, Debugger) or not session.alive or command in ("restart", "run"):
        if isinstance(session, Debugger):
            session.close()
        with uninterrupted():
            session = Debugger(context.sandbox, context.entry)
            context.state["pdb"] = session
            context.closers.append(session.close)
        started = session.answer(None)
        if command in ("restart", "run") or not session.alive:
            return ToolResult(_told(started, session), meta={"kind": "pdb", "command": command})
    text = session.answer(command)
    return ToolResult(
        _told("\n".join(filter(None, (started, text))), session), meta={"kind": "pdb", "command": command}
    )


def _told(text: str, session: Debugger) -> str:
    ended = "" if session.alive else "[the session has ended; the next command starts a new one]"
    return "\n".join(part for part in (text, ended) if part) or "(no output)"


PDB = Tool(
    "pdb",
    "Debug the tests with pdb: b file:line, c, n, s, p x, w, restart. The session lasts over calls.",
    {"command": argument("string", "One pdb command.")},
    run,
)

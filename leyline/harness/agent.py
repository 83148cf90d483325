"""The agent loop: a task, a toolbox and a session in; an outcome out."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from leyline.backends.contract import BackendError, ContextOverflowError
from leyline.directives import JsonMapping, JsonObject, LeylineError, Message
from leyline.harness.session.session import Session
from leyline.harness.session.totals import Totals
from leyline.harness.trajectory import AgentOutcome, TrajectoryError, TrajectoryWriter

NO_CALL = "Error: no valid tool call."


class ToolOutput(Protocol):
    """What a tool call gave: the text for the model, and whether the agent is done with the task."""

    @property
    def text(self) -> str: ...
    @property
    def done(self) -> bool: ...


class Toolbox(Protocol):
    """Runs tool calls. A call that cannot be honoured gives a text that says so; it does not raise."""

    def call(self, name: str, arguments: Mapping[str, object]) -> ToolOutput: ...


class Assignment(Protocol):
    """What to do and how to tell that it is done."""

    @property
    def messages(self) -> Sequence[Message]:
        """The opening of the conversation: system and user message."""

    def solved(self) -> bool | None:
        """Whether what the agent left passes, None where nothing can tell; asked once, after it submitted."""


@dataclass(frozen=True)
class Limits:
    """Where a run ends by itself: model calls, and wall seconds (looked at between turns). None is no limit."""

    turns: int | None = 40
    seconds: float | None = None


@dataclass(frozen=True)
class Event:
    """Live progress. `data` holds, by kind:

    turn: messages (int); text: text (a piece of the answer); receipt: turn (SessionTurn);
    tool_call: name, arguments; tool_result: name, output, seconds; end: outcome, reason.
    """

    kind: Literal["turn", "text", "receipt", "tool_call", "tool_result", "end"]
    turn: int
    data: JsonMapping


@dataclass(frozen=True)
class AgentResult:
    """How a run ended. `messages` is the unedited history; `reason` is one line, empty when solved.

    final: an error that every further request to that server would meet (`BackendError.final`).
    outcome "unscored": the agent submitted, and the task has nothing that could tell whether it is solved.
    """

    outcome: AgentOutcome
    reason: str
    turns: int
    messages: list[Message]
    totals: Totals
    seconds: float
    final: bool = False


def run_agent(
    task: Assignment,
    toolbox: Toolbox,
    session: Session,
    *,
    limits: Limits | None = None,
    trajectory: TrajectoryWriter | None = None,
    on_event: Callable[[Event], None] | None = None,
    prewarm: bool = False,
) -> AgentResult:
    """Run until the agent submits or a limit is reached.

    A backend that fails gives the outcome "error" with its reason. KeyboardInterrupt and every other error, a policy's
    among them, are raised again after the trajectory is closed with "interrupted" or "error".
    prewarm: send the known part of the next turn ahead while a tool runs.
    """
    run = _Run(task, toolbox, session, limits or Limits(), trajectory, on_event or (lambda event: None), prewarm)
    final = False
    try:
        outcome, reason = run.loop()
    except KeyboardInterrupt:
        with contextlib.suppress(TrajectoryError):  # a full disk must not hide why the run ended
            run.finish("interrupted", "interrupted by the user")
        raise
    except ContextOverflowError as error:
        outcome, reason = "limit", f"context: {error}"
    except BackendError as error:
        outcome, reason = "error", str(error)
        final = error.final
    except Exception as error:
        with contextlib.suppress(TrajectoryError):
            run.finish("error", str(error) if isinstance(error, LeylineError) else f"{type(error).__name__}: {error}")
        raise
    return replace(run.finish(outcome, reason), final=final)


@dataclass
class _Run:
    task: Assignment
    toolbox: Toolbox
    session: Session
    limits: Limits
    trajectory: TrajectoryWriter | None
    on_event: Callable[[Event], None]
    prewarm: bool

    def __post_init__(self) -> None:
        self.messages: list[Message] = list(self.task.messages)
        self.turn = 0
        self.written = 0  # messages that the trajectory already holds
        self.started = time.monotonic()

    def loop(self) -> tuple[AgentOutcome, str]:
        while True:
            if self.limits.turns is not None and self.turn >= self.limits.turns:
                return "limit", f"turns: {self.turn}"
            if self.limits.seconds is not None and time.monotonic() - self.started >= self.limits.seconds:
                return "limit", f"time: over {self.limits.seconds:g} s"
            calls = self.think()
            if self.act(calls):
                solved = self.task.solved()
                if solved is None:
                    return "unscored", "submitted; no tests were given"
                return ("solved", "") if solved else ("failed", "submitted, but the tests do not pass")
            self.turn += 1

    def think(self) -> list[JsonMapping]:
        """One model call; returns the tool calls it asks for."""
        self.emit("turn", messages=len(self.messages))
        answer = self.session.turn(self.messages, on_text=lambda text: self.emit("text", text=text))
        if self.trajectory is not None:
            self.trajectory.turn(answer, self.messages[self.written :])
        self.messages.append(answer.message)
        self.written = len(self.messages)
        self.emit("receipt", turn=answer)
        return list(answer.message.get("tool_calls") or [])

    def act(self, calls: Sequence[Mapping[str, object]]) -> bool:
        """Run the calls in order and add their outputs to the history; true once one of them ends the task."""
        if not calls:
            self.observe(None, "", None, NO_CALL)
            return False
        ahead = _Ahead(self.session, self.messages[:]) if self.prewarm else None
        done = False
        try:
            for call in calls:
                done = done or self.run_call(call)
        except Exception:  # another run may use the backend next; an interrupt ends everything, and waits for nothing
            if ahead is not None:
                ahead.join()
            raise
        if ahead is not None:
            ahead.wait()
        return done

    def run_call(self, call: Mapping[str, object]) -> bool:
        name, arguments = _parse(call)
        self.emit("tool_call", name=name, arguments=arguments)
        started = time.monotonic()
        output = self.toolbox.call(name, arguments) if arguments is not None else None
        self.observe(call, name, arguments, output.text if output else NO_CALL, time.monotonic() - started)
        return output is not None and output.done

    def observe(self, call: JsonMapping | None, name: str, arguments: Any, text: str, seconds: float = 0.0) -> None:
        """An observation: into the history, the trajectory and the progress."""
        call_id = call.get("id") if call else None
        role = {"role": "tool", "tool_call_id": call_id} if call else {"role": "user"}
        self.messages.append({**role, "content": text})
        if self.trajectory is not None:
            self.trajectory.tool(self.turn, name, arguments, text, seconds, call_id=call_id)
        self.emit("tool_result", name=name, output=text, seconds=seconds)

    def finish(self, outcome: AgentOutcome, reason: str) -> AgentResult:
        totals, seconds = self.session.totals, time.monotonic() - self.started
        try:
            if self.trajectory is not None:
                self.trajectory.end(outcome, reason=reason, totals=totals.to_dict(), seconds=seconds)
        finally:
            self.emit("end", outcome=outcome, reason=reason)
        return AgentResult(outcome, reason, len(self.session.turns), self.messages, totals, seconds)

    def emit(self, kind: Any, **data: Any) -> None:
        self.on_event(Event(kind, self.turn, data))


class _Ahead:
    """A prewarm in a thread of its own. An interrupt does not wait for it, nor does the end of the program."""

    def __init__(self, session: Session, messages: Sequence[Message]) -> None:
        self._session, self._messages = session, messages
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="leyline-prewarm", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._session.prewarm(self._messages)
        except LeylineError:
            pass  # a hint that fails is no reason to stop
        except BaseException as error:  # raised again where somebody waits
            self._error = error

    def join(self) -> None:
        """Wait until it is done: a backend serves one request of a session at a time."""
        self._thread.join()

    def wait(self) -> None:
        """`join`. Raises what the prewarm raised."""
        self.join()
        if self._error is not None:
            raise self._error


def _parse(call: JsonMapping) -> tuple[str, JsonObject | None]:
    """Name and arguments of a call; arguments are None where they are not a JSON object."""
    function = call.get("function") or {}
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            arguments = None
    return str(function.get("name") or ""), arguments if isinstance(arguments, dict) else None

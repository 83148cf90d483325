"""Trajectories: what a run did, as JSON lines written while it happens.

Format `leyline-trajectory/1`, one event a line:

- `header`: format, task, model, policy, mode, seed, versions, and whatever else the caller adds;
- `turn`: the messages added to the unedited history, the edits, the exact model input, directives, receipt, usage,
  output and timings of one model call;
- `tool`: one tool call of the turn named, with its output and seconds;
- `end`: outcome and reason.

Every line is JSON to strict readers too: a number that JSON does not have is the text "NaN", "Infinity" or "-Infinity".
A run that is killed leaves a file without an `end`, perhaps with a torn last line; both are read.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, get_args

from leyline.directives import JsonObject, LeylineError, Message, MessageEdit
from leyline.harness.session.session import SessionTurn

FORMAT = "leyline-trajectory/1"
AgentOutcome = Literal["solved", "failed", "unscored", "error", "interrupted", "limit"]
OUTCOMES: tuple[str, ...] = get_args(AgentOutcome)
_GZIP = b"\x1f\x8b"
_SYNC_SECONDS = 5.0  # at most this much of a run is lost to a power cut; a killed process loses nothing


class TrajectoryError(LeylineError):
    """A file is not a trajectory, is damaged before its last line, or cannot be written."""


class TrajectoryWriter:
    """Writes one trajectory; every event is in the operating system's hands when the call returns.

    An existing file is replaced. Not for use by several threads. Raises TrajectoryError where the file cannot be
    written, such as on a full disk; it is then closed, and what was written before can be read.
    """

    def __init__(self, path: str | Path, **header: object) -> None:
        self.path = Path(path)
        self._failure: str | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise TrajectoryError(f"cannot write {path}: {error.strerror or error}") from None
        self._synced = time.monotonic()
        self._write({"type": "header", "format": FORMAT, "time": time.time(), **header})

    def turn(self, turn: SessionTurn, messages_added: Sequence[Message]) -> None:
        self._write(
            {
                "type": "turn",
                "turn": turn.turn_index,
                "messages_added": list(messages_added),
                "edits": [edit_to_dict(edit) for edit in turn.edits],
                "input": {"messages": list(turn.input_messages), "ids": turn.input_ids},
                "directives": [
                    {"start": d.start, "end": d.end, "replacement": d.replacement, "mode": d.mode} for d in turn.script
                ],
                "undeclared": list(turn.undeclared),
                "receipt": turn.receipt.to_dict(),
                "usage": {name: getattr(turn.usage, name) for name in turn.usage.__slots__},
                "output": turn.message,
                "finish_reason": turn.finish_reason,
                "timings": dict(turn.timings),
            }
        )

    def tool(
        self, turn: int, name: str, arguments: object, output: str, seconds: float, *, call_id: str | None = None
    ) -> None:
        self._write(
            {
                "type": "tool",
                "turn": turn,
                "call_id": call_id,
                "name": name,
                "arguments": arguments,
                "output": output,
                "seconds": seconds,
            }
        )

    def end(self, outcome: str, **more: object) -> None:
        """Write the last event and close the file. `outcome` is one of OUTCOMES."""
        if outcome not in OUTCOMES:
            raise TrajectoryError(f"outcome {outcome!r} is not one of {', '.join(OUTCOMES)}")
        self._write({"type": "end", "outcome": outcome, "time": time.time(), **more})
        self.close()

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._failed(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _write(self, event: Mapping[str, object]) -> None:
        if self._file.closed:
            raise TrajectoryError(self._failure or f"{self.path} has ended: open a new trajectory")
        line = strict_json(event) + "\n"
        try:
            self._file.write(line)
            self._file.flush()
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._file.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> TrajectoryError:
        """Close the file: only its last line may be torn, so nothing may come behind it."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._failure = f"cannot write {self.path}: {error.strerror or error}; free some space or use another folder"
        return TrajectoryError(self._failure)


@dataclass(frozen=True)
class Trajectory:
    """A trajectory as read. In each turn `tools` lists its tool calls, and `tool` is the first of them or None.

    end: the last event, or None where the run was killed. torn: whether an unfinished last line was left out.
    """

    header: JsonObject
    turns: list[JsonObject] = field(default_factory=list)
    end: JsonObject | None = None
    torn: bool = False

    @property
    def outcome(self) -> str | None:
        return str(self.end["outcome"]) if self.end else None

    def messages(self) -> list[Message]:
        """The unedited history as the harness kept it, with the model's last answer and the outputs of its calls."""
        history: list[Message] = []
        for turn in self.turns:
            history += [*turn["messages_added"], turn["output"]]
        for tool in self.turns[-1]["tools"] if self.turns else ():
            role = (
                {"role": "tool", "tool_call_id": tool["call_id"]}
                if tool["name"] or tool["call_id"]
                else {"role": "user"}
            )
            history.append({**role, "content": tool["output"]})
        return history

    def inputs(self) -> list[list[Message]]:
        """The messages that the model read, turn by turn."""
        return [turn["input"]["messages"] for turn in self.turns]


def read_trajectory(path: str | Path) -> Trajectory:
    """Read a trajectory, finished or not, gzip too. Events of unknown type are passed over. Raises TrajectoryError."""
    try:
        data = Path(path).read_bytes()
        lines = (gzip.decompress(data) if data.startswith(_GZIP) else data).split(b"\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TrajectoryError(f"{path} is a damaged gzip file ({error}); copy it again") from None
    except OSError as error:
        raise TrajectoryError(f"cannot read {path}: {error.strerror or error}") from None
    rest = lines.pop()  # a whole line ends in a newline, so anything here is torn
    events = [_event(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not events or events[0].get("type") != "header" or events[0].get("format") != FORMAT:
        raise TrajectoryError(f"{path} is not a {FORMAT} file: its first line must be a header that names the format")
    trajectory = Trajectory(events[0], torn=bool(rest.strip()))
    end = None
    for event in events[1:]:
        kind = event.get("type")
        if kind == "turn":
            trajectory.turns.append({**event, "tool": None, "tools": []})
        elif kind == "tool" and trajectory.turns:
            turn = trajectory.turns[-1]
            turn["tools"].append(event)
            turn["tool"] = turn["tool"] or event
        elif kind == "end":
            end = event
    return Trajectory(trajectory.header, trajectory.turns, end, trajectory.torn)


def strict_json(value: object, **options: Any) -> str:
    """`value` as JSON text, whatever it holds; `options` are further arguments of `json.dumps`.

    Numbers that JSON does not have become "NaN", "Infinity" and "-Infinity", objects their text. Of what is nested too
    deep to be written, all below the hundredth level becomes "...".
    """
    options = {"ensure_ascii": False, "default": str, "allow_nan": False, **options}
    try:
        return json.dumps(value, **options)
    except (ValueError, RecursionError):  # only now, because it hardly ever happens, and events are large
        return json.dumps(_writable(value, 100), **options)


def _writable(value: object, levels: int) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)
    if not isinstance(value, Mapping | list | tuple):
        return value
    if levels == 0:
        return "..."
    if isinstance(value, Mapping):
        return {_writable(key, 1): _writable(part, levels - 1) for key, part in value.items()}
    return [_writable(part, levels - 1) for part in value]


def edit_to_dict(edit: MessageEdit) -> JsonObject:
    """A message edit as JSON; `replacement` is null for a drop."""
    return {
        "message_index": edit.message_index,
        "replacement": edit.replacement,
        "mode": edit.mode.value,
        "insert": edit.insert,
    }


def _event(line: bytes, where: str) -> JsonObject:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        raise TrajectoryError(f"{where}: not JSON; the file is damaged") from None
    if not isinstance(event, dict):
        raise TrajectoryError(f"{where}: an event must be a JSON object")
    return event

"""Recorded trajectories, in the forms they come in.

- `.jsonl` or `.jsonl.gz`: one object a line with `messages`, and if known `instance_id` (or `id`, `task_id`) and
  `exit_status`; or one list of messages a line;
- `.json`: a list of messages, an object with `messages` (mini-swe-agent's `.traj.json`), or a list of such objects;
- SWE-agent's `.traj`: an object with `history`;
- a `leyline-trajectory/1` file, as `leyline run` writes it;
- sessions of Claude Code (`.jsonl`) and Codex (`rollout-*.jsonl`), logs of Inspect (`.eval`, or one JSON object).

Messages of Anthropic's API, items of the Responses API and calls that an export kept as JSON text are read as plain
ones. Recordings of other harnesses are refused by name.

Where a record names no task, the file's name does. A byte order mark at a file's start is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leyline.directives import JsonObject, Message
from leyline.evals.replay import foreign
from leyline.evals.replay.foreign import TraceError as TraceError
from leyline.evals.replay.lines import as_json, is_zip, lines, parsed
from leyline.harness.trajectory import FORMAT, TrajectoryError, read_trajectory
from leyline.policies.reading.plain import foreign as not_plain

_IDS = ("instance_id", "id", "task_id", "task")
_SUFFIXES = (".json", ".jsonl", ".gz", ".traj", ".eval")
_OF_FOLDERS = (".traj", ".traj.json", ".jsonl", ".jsonl.gz", ".eval")
_PROBED = 1 << 26  # bytes; of a larger file in a folder only the first trajectory is looked at
_KEPT_OF_HISTORY = ("role", "content", "tool_calls", "name")  # SWE-agent adds bookkeeping that no model reads


@dataclass(frozen=True)
class Recording:
    """One recorded conversation.

    id: the task's name, or the place in the file where it has none. messages: the unedited history.
    exit_status: how it ended, or None where the file does not say. meta: whatever else the record holds.
    """

    id: str
    messages: list[Message]
    exit_status: str | None = None
    meta: JsonObject = field(default_factory=dict)

    @property
    def tools(self) -> list[dict[str, object]] | None:
        """The tool definitions that the model was given, where the record holds them as `tools`."""
        found = self.meta.get("tools")
        return list(found) if isinstance(found, list) and all(isinstance(tool, dict) for tool in found) else None


def iter_trajectories(path: str | Path) -> Iterator[Recording]:
    """The trajectories of a file, in order, read as they are needed. Raises TraceError."""
    path = Path(path)
    if path.is_dir():
        raise TraceError(f"{path} is a folder; name one trajectory file in it")
    found = False
    for trajectory in _read(path):
        found = True
        yield trajectory
    if not found:
        raise TraceError(f"{path} holds no trajectory: it is empty")


def load_trajectories(path: str | Path) -> list[Recording]:
    """All trajectories of a file. Raises TraceError."""
    return list(iter_trajectories(path))


def trace_files(paths: Sequence[str | Path], *, passed: list[TraceError] | None = None) -> list[Path]:
    """The trajectory files that are named: files as they are, folders for what they hold.

    A folder is searched by the suffixes of the known forms, then for `.json`; what is no trajectory (predictions, a
    run's records, a run that ended before the model answered) is passed over. passed: takes why, one error a file.
    Raises TraceError for a name that is not there and for a folder without a trajectory.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += _of_folder(path, [] if passed is None else passed)
        elif path.exists():
            files.append(path)
        else:
            raise TraceError(f"there is no {path}; give a trajectory file or a folder of them")
    return files


def _of_folder(folder: Path, passed: list[TraceError]) -> list[Path]:
    found: list[Path] = []
    first: TraceError | None = None
    for suffixes in (_OF_FOLDERS, (".json",)):
        named = {f for suffix in suffixes for f in folder.rglob(f"*{suffix}") if f.is_file()}
        for file in sorted(named):
            try:
                _probe(file)
            except TraceError as error:
                first = first or error
                passed.append(error)
            else:
                found.append(file)
        if found:
            return found
    if first is not None:
        raise TraceError(f"{folder} holds no trajectory: {first}")
    raise TraceError(f"{folder} holds no trajectory file ({', '.join((*_OF_FOLDERS, '.json'))})")


def _probe(file: Path) -> None:
    """Raise TraceError unless the file can be read."""
    trajectories = iter_trajectories(file)
    next(trajectories)
    if file.stat().st_size <= _PROBED:
        for _ in trajectories:
            pass


def pick_trajectory(path: str | Path, *, index: int | None = None, id: str | None = None) -> Recording:
    """The trajectory number `index` (from 0), or the one with this id; the first if neither is given.

    Reads no further than it has to. Raises TraceError, which says what the file holds.
    """
    if index is not None and id is not None:
        raise TraceError("give either an index or an id, not both")
    names: list[str] = []
    for number, trajectory in enumerate(iter_trajectories(path)):
        if trajectory.id == id or (id is None and number == (index or 0)):
            return trajectory
        names.append(trajectory.id)
    if id is None:
        last = len(names) - 1
        held = f"{last + 1} trajectories; give an index from 0 to {last}" if last else "1 trajectory; its index is 0"
        raise TraceError(f"{path} holds {held}")
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise TraceError(f"{path} holds no trajectory {id!r}; it has {shown}")


def _read(path: Path) -> Iterator[Recording]:
    if is_zip(path):
        yield from (_record(record, where, where) for where, record in foreign.read_zip(path))
        return
    numbered = lines(path)
    first = next(numbered, None)
    if first is None:
        return
    number, text = first
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        # A JSON document over several lines; a line-wise file would have failed at this line as well.
        yield from _document(path, "\n".join([text, *(rest for _, rest in numbered)]), number)
        return
    if isinstance(record, dict) and record.get("type") == "header":
        yield _ours(path, record)
        return
    samples = foreign.inspect_samples(record)
    if samples is not None:
        yield from _samples(path, samples)
        return
    if foreign.is_session(record):
        yield from _session(path, [(number, record), *parsed(path, numbered)])
        return
    if isinstance(record, list) and record and not _is_message(record[0]) and foreign.refused(record) is None:
        yield from (_record(item, f"{path}, item {k}", f"item {k}") for k, item in enumerate(record))
        return
    rest = next(numbered, None)
    yield _record(record, f"{path}, line {number}", _stem(path) if rest is None else f"line {number}")
    for number, text in [rest, *numbered] if rest is not None else ():
        yield _record(as_json(text, f"{path}, line {number}"), f"{path}, line {number}", f"line {number}")


def _samples(path: Path, samples: Sequence[object]) -> Iterator[Recording]:
    for k, sample in enumerate(samples):
        where = f"{path}, sample {k}"
        yield _record(foreign.inspect_record(sample, where), where, f"sample {k}")


def _session(path: Path, numbered: Sequence[tuple[int, object]]) -> Iterator[Recording]:
    records = [record for _, record in numbered if isinstance(record, dict)]
    for name, history in foreign.read_session(records, str(path), _stem(path)):
        yield Recording(name, history)


def _document(path: Path, text: str, first_line: int) -> Iterator[Recording]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = first_line + getattr(error, "lineno", 1) - 1
        raise TraceError(f"{path}, line {line}: not JSON ({getattr(error, 'msg', error)})") from None
    samples = foreign.inspect_samples(data)
    if samples is not None:
        yield from _samples(path, samples)
        return
    many = isinstance(data, list) and data and not _is_message(data[0]) and foreign.refused(data) is None
    items = data if many else [data]
    for k, item in enumerate(items):
        alone = len(items) == 1
        yield _record(item, str(path) if alone else f"{path}, item {k}", _stem(path) if alone else f"item {k}")


def _ours(path: Path, header: Mapping[str, object]) -> Recording:
    if header.get("format") != FORMAT:
        raise TraceError(f"{path}: format {header.get('format')!r} is not supported; this release reads {FORMAT}")
    try:
        read = read_trajectory(path)
    except TrajectoryError as error:
        raise TraceError(str(error)) from None
    if not read.turns:
        raise TraceError(f"{path} holds no turn: the run ended before the model answered")
    return Recording(str(header.get("task") or path.stem), read.messages(), read.outcome, dict(header))


def _record(data: object, where: str, name: str) -> Recording:
    known = foreign.refused(data)
    if known is not None and not (isinstance(data, dict) and isinstance(data.get("messages"), list)):
        raise TraceError(f"{where} is {known}")
    record = {"messages": data} if isinstance(data, list) else data
    if isinstance(record, dict) and "messages" not in record and isinstance(record.get("history"), list):
        record = {**record, "messages": [_of_history(entry) for entry in record["history"]]}
    if not isinstance(record, dict) or not isinstance(record.get("messages"), list):
        raise TraceError(f"{where}: no messages; a trajectory is an object with a list `messages`, or such a list")
    messages = foreign.plain_history(record, where)
    for k, message in enumerate(messages):
        if not _is_message(message):
            hint = "it needs a role, and text or parts as content"
            raise TraceError(f"{where}: message {k} is not a chat message; {hint}")
    if (problem := not_plain(messages)) is not None:
        raise TraceError(f"{where}: {problem}")
    info = record.get("info") if isinstance(record.get("info"), dict) else {}
    status = record.get("exit_status", (info or {}).get("exit_status"))
    found = next((str(record[key]) for key in _IDS if isinstance(record.get(key), (str, int))), name)
    meta = {key: value for key, value in record.items() if key not in ("messages", "history", "trajectory")}
    name = found.encode("utf-8", "replace").decode()  # a record must be able to say it
    return Recording(name, messages, None if status is None else str(status), meta)


def _of_history(entry: object) -> Any:
    """A chat message of an entry of SWE-agent's history."""
    if not isinstance(entry, dict):
        return entry
    message = {key: entry[key] for key in _KEPT_OF_HISTORY if entry.get(key) is not None}
    answered = entry.get("tool_call_ids")
    if isinstance(answered, list) and answered and entry.get("role") == "tool":
        message["tool_call_id"] = answered[0]
    return {"content": None, **message}


def _stem(path: Path) -> str:
    """The file's name without the suffixes of the known forms."""
    while path.suffix in _SUFFIXES:
        path = path.with_suffix("")
    return path.name


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), (str, list, type(None)))
    )

"""The append-only file of trial records: written a line at a time, readable after a kill at any point.

A record is one line, appended by one `write` to a file opened with O_APPEND and flushed to the disk before the trial
counts as done. One process at a time holds the writer's lock. A line that a kill tore is cut off by the next writer;
readers skip it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from leyline.directives import LeylineError
from leyline.evals.jsonl import first_problem
from leyline.evals.trials.record import TrialKey, TrialRecord
from leyline.harness.trajectory import strict_json

FILE = "records.jsonl"


class JournalError(LeylineError):
    """The records cannot be written: the directory is in use or not writable."""


@dataclass
class Loaded:
    """What a records file holds.

    records: the one that counts for each key (highest attempt; of equal attempts the first), in order of first sight.
    superseded: records that a redo replaced. duplicates: same key and attempt twice. broken: unreadable whole lines.
    torn: the last line has no end; the trial it belonged to is not recorded.
    """

    records: list[TrialRecord] = field(default_factory=list)
    superseded: int = 0
    duplicates: int = 0
    broken: list[str] = field(default_factory=list)
    torn: bool = False


def load(path: Path | str) -> Loaded:
    """Read a records file or the run directory that holds it. A missing file is an empty one."""
    file = _file(path)
    loaded = Loaded()
    if not file.exists():
        return loaded
    data = file.read_bytes()
    lines = data.split(b"\n")
    if lines[-1]:
        loaded.torn = True
    best: dict[TrialKey, TrialRecord] = {}
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        try:
            record = TrialRecord.model_validate_json(line)
        except ValidationError as error:
            loaded.broken.append(f"{file.name}:{number}: {first_problem(error)}")
            continue
        held = best.get(record.key)
        if held is None or record.attempt > held.attempt:
            loaded.superseded += held is not None
            best[record.key] = record
        elif record.attempt == held.attempt:
            loaded.duplicates += 1
        else:
            loaded.superseded += 1
    loaded.records = list(best.values())
    return loaded


class Journal:
    """The one writer of a run directory's records.

    Raises JournalError if another process is writing there. Use as a context manager; closing releases the lock, and
    so does the death of the process.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.directory / FILE, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"cannot write {self.directory}: {error.strerror}; choose another --out") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._fd)
            message = f"another run is writing {self.directory}: wait for it, or choose another --out"
            raise JournalError(message) from None
        self._mend()
        self.loaded = load(self.directory)
        self._attempts = {record.key: record.attempt for record in self.loaded.records}

    def append(self, record: TrialRecord) -> None:
        """Write one record and wait until it is on the disk. A key that is recorded must come with a higher attempt."""
        held = self._attempts.get(record.key)
        if held is not None and record.attempt <= held:
            raise JournalError(f"trial {record.task}/{record.arm}/{record.seed} is recorded already; use --redo")
        line = _line(record)
        written = os.write(self._fd, line)
        if written != len(line):
            self._mend()
            raise JournalError(f"the disk under {self.directory} is full: free some space and run again")
        os.fsync(self._fd)
        self._attempts[record.key] = record.attempt

    def done(self, key: TrialKey) -> bool:
        return key in self._attempts

    def next_attempt(self, key: TrialKey) -> int:
        return self._attempts[key] + 1 if key in self._attempts else 0

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _mend(self) -> None:
        """Cut a torn last line off. Its trial runs again, so nothing is lost and nothing counts twice."""
        end = os.lseek(self._fd, 0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - 65536)
            block = os.pread(self._fd, keep - start, start)
            newline = block.rfind(b"\n")
            if newline >= 0:
                keep = start + newline + 1
                break
            keep = start
        if keep != end:
            os.ftruncate(self._fd, keep)
            os.fsync(self._fd)


def _line(record: TrialRecord) -> bytes:
    """A record as its line. What UTF-8 does not have, such as half a character in a file's name, is a `?` there."""
    try:
        return record.model_dump_json().encode() + b"\n"
    except PydanticSerializationError:
        return strict_json(record.model_dump(mode="json")).encode("utf-8", "replace") + b"\n"


def merge(parts: Iterable[Loaded]) -> Loaded:
    """Several files as one: of records with one key the highest attempt counts, of equal ones the first."""
    total = Loaded()
    best: dict[TrialKey, TrialRecord] = {}
    for part in parts:
        total.superseded += part.superseded
        total.duplicates += part.duplicates
        total.broken += part.broken
        total.torn |= part.torn
        for record in part.records:
            held = best.get(record.key)
            if held is None or record.attempt > held.attempt:
                total.superseded += held is not None
                best[record.key] = record
            else:
                total.duplicates += 1
    total.records = list(best.values())
    return total


def _file(path: Path | str) -> Path:
    path = Path(path)
    return path / FILE if path.is_dir() else path

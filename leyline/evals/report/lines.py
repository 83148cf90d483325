"""What became of the lines of a record file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lines:
    """What became of the record lines. `total` is the sum of the rest but for `torn`.

    counted: trials of the report. superseded: replaced by a redo. duplicates: the same trial twice. outdated: the same
    trial under an older configuration of its arm. broken: whole lines that are no record. torn: last lines without an
    end, whose trials are not recorded. interrupted: trajectories that no record names.
    """

    total: int = 0
    counted: int = 0
    superseded: int = 0
    duplicates: int = 0
    outdated: int = 0
    broken: int = 0
    torn: int = 0
    interrupted: int = 0

    def __add__(self, other: Lines) -> Lines:
        return Lines(**{name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__})

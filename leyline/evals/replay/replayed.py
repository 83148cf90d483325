"""One replayed trajectory, one JSON line."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from leyline.directives import LeylineError
from leyline.evals.jsonl import read_lines
from leyline.evals.trials.record import TurnRecord

FORMAT: Final = "leyline-replay/1"
Cache = Literal["radix", "splice", "forget"]
CACHES: tuple[Cache, ...] = ("radix", "splice", "forget")


class ReplayError(LeylineError, ValueError):
    """A replay that cannot be made, or records that cannot be read. The message says what to change."""


class ReplayRecord(BaseModel):
    """One trajectory under one policy and one cache. Every number of a replay's tables is a sum over `turns`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["leyline-replay/1"] = FORMAT
    trajectory: str
    policy: str
    cache: Cache = Field(
        description="radix: the edited prompt meets an ordinary prefix cache. splice: AMORTIZE. forget: FORGET."
    )
    backend: str = Field(default="simulated", description="What counted: simulated, or the backend's name and model.")
    tokenizer: str = ""
    page_size: int = 1
    capacity: int | None = None
    chunk: int | None = None
    concurrency: int = 1
    seam: int = 0
    exit_status: str | None = Field(default=None, description="How the recorded run ended; not what this policy does.")
    turns: tuple[TurnRecord, ...] = ()
    stopped: str | None = Field(default=None, description="Why the replay ended before the recording, in one line.")

    def total(self, field: str) -> int:
        """The sum of an integer field or property of the turns."""
        return sum(int(getattr(turn, field) or 0) for turn in self.turns)


def read_records(path: str | Path) -> list[ReplayRecord]:
    """The records of a file, a torn last line left out. Raises ReplayError naming the line."""
    return read_lines(path, ReplayRecord, FORMAT, ReplayError)

"""What one trial leaves behind: a typed record, one JSON line, from which every number of a report is computed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

FORMAT = "leyline-trial/1"


class TrialOutcome(StrEnum):
    """How a trial ended. Only SOLVED counts as solved; every outcome but UNSCORED counts in the denominator.

    UNSCORED: the agent has ended and its patch waits for a verdict (`leyline eval score`), which is then recorded as
    a further attempt of the same trial, with the same turns.
    """

    SOLVED = "solved"
    FAILED = "failed"
    LIMIT = "limit"
    ERROR = "error"
    UNSCORED = "unscored"


class TrialKey(NamedTuple):
    """Identity of a trial: re-running a command skips the keys that are recorded."""

    suite: str
    task: str
    arm: str
    seed: int
    digest: str


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TurnRecord(_Record):
    """One model call. `prompt = prefix + spliced + prefilled`, in tokens; times in seconds."""

    prompt: int = Field(ge=0, description="Tokens of the exact model input.")
    prefix: int = Field(ge=0, description="Tokens found as an honest prefix in the cache.")
    spliced: int = Field(ge=0, description="Tokens reused behind an edit.")
    prefilled: int = Field(ge=0, description="Tokens computed: the net uncached tokens.")
    completion: int = Field(default=0, ge=0, description="Tokens generated.")
    full: int | None = Field(default=None, description="Prompt tokens had nothing been edited, where known.")
    edits: int = Field(default=0, ge=0, description="New message edits of this turn.")
    directives: int = Field(default=0, ge=0, description="Token directives sent.")
    fallback: str | None = Field(default=None, description="Why directives were not honoured.")
    ttft: float | None = Field(default=None, description="Seconds to the first token.")
    prefill_s: float | None = None
    decode_s: float | None = None
    splice_s: float | None = None
    tool_s: float | None = None

    @property
    def balanced(self) -> bool:
        return self.prompt == self.prefix + self.spliced + self.prefilled

    @property
    def shed(self) -> int:
        """Tokens the policy kept out of this prompt."""
        return max(0, self.full - self.prompt) if self.full is not None else 0


class TrialRecord(_Record):
    """One (task, arm, seed). `attempt` grows when a trial is redone; the highest one counts."""

    format: str = FORMAT
    suite: str
    task: str
    arm: str
    seed: int
    digest: str = Field(description="Digest of everything that decides the trial: arm, model, suite, limits.")
    attempt: int = Field(default=0, ge=0)
    outcome: TrialOutcome
    detail: str | None = Field(default=None, description="One line: the error, or what the limit was.")
    final: bool = Field(default=False, description="An error that every other trial there would meet too.")
    turns: tuple[TurnRecord, ...] = ()
    wall_s: float = Field(default=0.0, ge=0, description="From an empty folder to the verdict; loading a model is out.")
    started: float = Field(default=0.0, description="Unix time.")
    energy_j: float | None = Field(default=None, description="Energy the accelerator reported, in joules.")
    approximate: bool = Field(default=False, description="Some turn read KV that a clean prefill would not give.")
    trajectory: str | None = Field(default=None, description="File of the trajectory, relative to the run directory.")
    policy: str = ""
    mode: str = ""
    backend: str = ""
    model: str = ""
    control: bool = Field(default=False, description="The arm is a negative control.")
    artifacts: Mapping[str, str] = Field(default_factory=dict, description="What scoring needs, such as a patch.")
    tags: Mapping[str, str] = Field(default_factory=dict, description="Facts of the task: level, bugs, repository.")
    machine: str = Field(default="", description="Where it ran; a served model computes elsewhere. Empty: not known.")
    versions: Mapping[str, str] = Field(default_factory=dict, description="Releases there.")

    @property
    def key(self) -> TrialKey:
        return TrialKey(self.suite, self.task, self.arm, self.seed, self.digest)

    @property
    def pair(self) -> tuple[str, str, int]:
        """What arms are paired on: (suite, task, seed)."""
        return (self.suite, self.task, self.seed)

    @property
    def solved(self) -> bool:
        return self.outcome is TrialOutcome.SOLVED

    def total(self, field: str) -> int:
        """The sum of an integer field or property of the turns."""
        return sum(int(getattr(turn, field)) for turn in self.turns)

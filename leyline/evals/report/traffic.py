"""The requests of a harness's traffic, as `Editor(records=...)` writes them, as trials: one for each conversation.

Nobody judges a conversation, so there is no verdict. Where text was counted in characters, the tokens that an edit shed
are estimated: as many for each character as the prompt that was sent has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leyline.evals.jsonl import first_problem
from leyline.evals.report.lines import Lines
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord
from leyline.harness.editor.records import FORMAT

FILE = "traffic.jsonl"
SUITE = "traffic"


class TrafficTurn(BaseModel):
    """One request; see `EditorTurn`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: str = Field(pattern=f"^{FORMAT}$")
    writer: str
    number: int = Field(ge=0)
    policy: str
    mode: str
    started: float
    model: str | None = None
    conversation: str
    turn: int
    edits: int = Field(ge=0)
    shed: int
    size: int = Field(default=0, ge=0)
    unit: str = "chars"
    audit: bool = False
    broke: str | None = None
    reread: tuple[str, ...] = ()
    prompt: int | None = Field(default=None, ge=0)
    cached: int | None = Field(default=None, ge=0)
    spliced: int = Field(default=0, ge=0)
    completion: int | None = Field(default=None, ge=0)
    directives: int = Field(default=0, ge=0)
    fallback: str | None = None
    approximate: bool = False

    @property
    def arm(self) -> str:
        return f"{self.policy} (audit)" if self.audit else self.policy

    @property
    def full(self) -> int | None:
        """Tokens of the prompt had nothing been edited; None where nothing tells."""
        if self.prompt is None or self.audit:
            return self.prompt
        if self.unit == "tokens":
            return max(0, self.prompt + self.shed)
        return None if not self.size else round(self.prompt * max(0, self.size + self.shed) / self.size)

    @property
    def broke_by(self) -> str | None:
        """The policy, the harness or unedit; None where the prefix stayed."""
        return None if self.broke is None else self.broke.rpartition(" by ")[2].removeprefix("the ").partition(" ")[0]


@dataclass(frozen=True)
class Traffic:
    """What a file of traffic holds. turns: every request, in order, the last line of each."""

    turns: tuple[TrafficTurn, ...]
    records: tuple[TrialRecord, ...]
    lines: Lines
    problems: tuple[str, ...]


def traffic_file(path: Path) -> Path | None:
    """The file of traffic that a path names or holds; None where it is a run directory or something else."""
    file = path / FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            return file if f'"{FORMAT}"'.encode() in stream.readline(4096) else None
    except OSError:
        return None


def read_traffic(file: Path) -> Traffic:
    """Read a file of traffic. Raises OSError."""
    lines = file.read_bytes().split(b"\n")
    found: dict[tuple[str, int], TrafficTurn] = {}
    problems = []
    read = 0
    for number, line in enumerate(lines[:-1], 1):
        if not line.strip():
            continue
        read += 1
        try:
            turn = TrafficTurn.model_validate_json(line)
        except ValidationError as error:
            problems.append(f"{file.name}:{number}: {first_problem(error)}")
            continue
        found[turn.writer, turn.number] = turn
    turns = tuple(found.values())
    counted = Lines(
        total=read,
        counted=len(turns),
        superseded=read - len(problems) - len(turns),
        broken=len(problems),
        torn=int(bool(lines[-1])),
    )
    return Traffic(turns, _trials(turns), counted, tuple(problems))


def _trials(turns: Sequence[TrafficTurn]) -> tuple[TrialRecord, ...]:
    """A trial for each conversation; conversations of two editors are two, whatever their names."""
    by_conversation: dict[tuple[str, str], list[TrafficTurn]] = {}
    for turn in turns:
        by_conversation.setdefault((turn.writer, turn.conversation), []).append(turn)
    return tuple(_trial(f"{name} {writer[:6]}", held) for (writer, name), held in by_conversation.items())


def _trial(name: str, turns: Sequence[TrafficTurn]) -> TrialRecord:
    first = turns[0]
    return TrialRecord(
        suite=SUITE,
        task=name,
        arm=first.arm,
        seed=0,
        digest=first.writer,
        outcome=TrialOutcome.UNSCORED,
        turns=tuple(_turn(turn) for turn in turns if turn.prompt is not None),
        started=first.started,
        approximate=any(turn.approximate for turn in turns),
        policy=first.policy,
        mode=first.mode,
        backend="harness",
        model=first.model or "",
    )


def _turn(turn: TrafficTurn) -> TurnRecord:
    prompt = turn.prompt or 0
    cached = min(turn.cached or 0, prompt)
    spliced = min(turn.spliced, cached)
    return TurnRecord(
        prompt=prompt,
        prefix=cached - spliced,
        spliced=spliced,
        prefilled=prompt - cached,
        completion=turn.completion or 0,
        full=turn.full,
        edits=turn.edits,
        directives=turn.directives,
        fallback=turn.fallback,
    )

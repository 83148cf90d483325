"""Run directories in, trials by arm out, and an account of every record line that was read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from pydantic import ValidationError

from leyline.directives import JsonObject, LeylineError
from leyline.evals.fidelity.probe import FidelityRecord
from leyline.evals.jsonl import first_problem
from leyline.evals.report.lines import Lines
from leyline.evals.report.traffic import TrafficTurn, read_traffic, traffic_file
from leyline.evals.trials.journal import FILE, load
from leyline.evals.trials.record import TrialRecord

CONFIG = "config.json"
FIDELITY = "fidelity.jsonl"


class ReportError(LeylineError):
    """There is nothing to report on. The message says which directory, and what to name instead."""


@dataclass(frozen=True)
class Run:
    """One run directory.

    label: its name, unique in the report. missing: trials that its configuration asks for and that are not recorded,
    None where there is no configuration. problems: broken lines, one sentence each. fidelity: what `leyline eval
    fidelity` measured there. traffic: the requests, where the records are those of a harness's traffic.
    """

    label: str
    path: Path
    lines: Lines
    missing: int | None = None
    problems: tuple[str, ...] = ()
    config: JsonObject | None = None
    records: tuple[TrialRecord, ...] = ()
    fidelity: tuple[FidelityRecord, ...] = ()
    traffic: tuple[TrafficTurn, ...] = ()


@dataclass(frozen=True)
class Trial:
    """A record and the run it came from."""

    record: TrialRecord
    run: Run

    @property
    def task(self) -> str:
        """The unit of resampling: one task of one suite."""
        return f"{self.record.suite}/{self.record.task}"

    @property
    def pair(self) -> tuple[str, int]:
        return (self.task, self.record.seed)

    @property
    def trajectory(self) -> Path | None:
        return self.run.path / self.record.trajectory if self.record.trajectory else None


@dataclass(frozen=True)
class ArmTrials:
    """One arm as the report counts it. group: arms of one group differ in policy and mode only."""

    label: str
    name: str
    group: tuple[str, ...]
    trials: tuple[Trial, ...]
    facts: dict[str, str] = field(default_factory=dict)
    control: bool = False


@dataclass(frozen=True)
class Data:
    """Everything that a report is computed from."""

    runs: tuple[Run, ...]
    arms: tuple[ArmTrials, ...]

    @property
    def lines(self) -> Lines:
        total = Lines()
        for run in self.runs:
            total += run.lines
        return total


def gather(directories: Sequence[Path]) -> Data:
    """Read run directories and sort their trials into arms.

    An arm that several runs hold is one arm where they share no trial (a run in parts), and one arm for each run where
    they do (a comparison of runs); likewise one for each suite. Raises ReportError.
    """
    if not directories:
        raise ReportError("name at least one run directory, for example: leyline report runs/micro")
    runs = [_read(path, label) for path, label in zip(directories, _labels(directories), strict=True)]
    runs = _without_copies(runs)
    several_suites = len({record.suite for run in runs for record in run.records}) > 1
    arms: dict[str, ArmTrials] = {}
    apart = _apart(runs)
    for run in runs:
        for record in run.records:
            label = record.arm
            if several_suites:
                label += f" [{record.suite}]"
            if record.arm in apart:
                label += f" @ {run.label}"
            group = (record.suite, record.backend, record.model, run.label if record.arm in apart else "")
            trial = Trial(record, run)
            if label in arms:
                arms[label] = replace(arms[label], trials=(*arms[label].trials, trial))
            else:
                facts = {"policy": record.policy, "mode": record.mode, "backend": record.backend, "model": record.model}
                arms[label] = ArmTrials(label, record.arm, group, (trial,), facts, record.control)
    names = dict.fromkeys(name for run in runs for name in _arm_names(run.config))
    order = {name: place for place, name in enumerate(names)}
    return Data(tuple(runs), tuple(sorted(arms.values(), key=lambda arm: order.get(arm.name, len(order)))))


def _read(path: Path, label: str) -> Run:
    if (own := traffic_file(path)) is not None:
        read = read_traffic(own)
        torn = [f"{own.name}: the last line is torn"] if read.lines.torn else []
        return Run(label, own.parent, read.lines, None, (*read.problems, *torn), None, read.records, (), read.turns)
    file = path / FILE if path.is_dir() else path
    if not file.exists() and not (file.parent / FIDELITY).exists():
        raise ReportError(_missing(path))
    try:
        loaded = load(file)
    except OSError as error:
        raise ReportError(f"cannot read {file}: {error.strerror}") from None
    probes, unread = _probes(file.parent / FIDELITY)
    newest, outdated = _newest(loaded.records)
    lines = Lines(
        total=len(loaded.records) + loaded.superseded + loaded.duplicates + len(loaded.broken),
        counted=len(newest),
        superseded=loaded.superseded,
        duplicates=loaded.duplicates,
        outdated=outdated,
        broken=len(loaded.broken),
        torn=int(loaded.torn),
        interrupted=_interrupted(file),
    )
    problems = (*loaded.broken, *([f"{FILE}: the last line is torn"] if loaded.torn else []), *unread)
    config = _config(file.parent)
    missing = _missing_trials(config, newest)
    return Run(label, file.parent, lines, missing, problems, config, tuple(newest), tuple(probes))


def _missing(path: Path) -> str:
    if not path.exists():
        return f"{path} does not exist"
    inside = sorted({str(child.parent) for name in (FILE, FIDELITY) for child in path.glob(f"*/{name}")})
    if inside:
        return f"{path} holds no {FILE}, but these do: {', '.join(inside[:5])}{' ...' if len(inside) > 5 else ''}"
    return f"{path} holds no {FILE}: it is no run directory; `leyline eval SUITE --out {path}` makes one"


def _probes(file: Path) -> tuple[list[FidelityRecord], list[str]]:
    """The probes of a fidelity file, and its lines that are none."""
    if not file.exists():
        return [], []
    found, problems = [], []
    for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
        if line.strip():
            try:
                found.append(FidelityRecord.model_validate_json(line))
            except ValidationError as error:
                problems.append(f"{file.name}:{number}: {first_problem(error)}")
    return found, problems


def _newest(records: Iterable[TrialRecord]) -> tuple[list[TrialRecord], int]:
    """Of records that differ in their digest only, the one that started last."""
    best: dict[tuple[str, str, str, int], TrialRecord] = {}
    count = 0
    for record in records:
        count += 1
        key = (record.suite, record.task, record.arm, record.seed)
        if key not in best or record.started >= best[key].started:
            best[key] = record
    return list(best.values()), count - len(best)


def _without_copies(runs: Sequence[Run]) -> list[Run]:
    """A record that an earlier run holds too, in every field, is a copy of it."""
    seen: set[str] = set()
    kept = []
    for run in runs:
        own = []
        for record in run.records:
            text = record.model_dump_json()
            if text not in seen:
                own.append(record)
            seen.add(text)
        copies = len(run.records) - len(own)
        counted = run.lines.counted if run.traffic else len(own)
        lines = replace(run.lines, counted=counted, duplicates=run.lines.duplicates + copies)
        kept.append(replace(run, lines=lines, records=tuple(own)))
    return kept


def _apart(runs: Sequence[Run]) -> set[str]:
    """Names of arms that are not the same thing in every run, or have one trial in several runs."""
    apart = set()
    facts: dict[str, tuple[str, ...]] = {}
    holder: dict[tuple[str, str, str, int], str] = {}
    for run in runs:
        for record in run.records:
            mine = (record.policy, record.mode, record.backend, record.model)
            key = (record.arm, record.suite, record.task, record.seed)
            if facts.setdefault(record.arm, mine) != mine or holder.setdefault(key, run.label) != run.label:
                apart.add(record.arm)
    return apart


def _labels(directories: Sequence[Path]) -> list[str]:
    """The shortest endings of the paths that tell them apart."""
    parts = [(path if path.is_dir() else path.parent).resolve().parts for path in directories]
    if len(set(parts)) < len(parts):
        twice = next(path for path, n in Counter(str(p) for p in directories).most_common())
        raise ReportError(f"{twice} is named twice: name each run directory once")
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _interrupted(file: Path) -> int:
    """Trajectory files that no record line names: their trials ended without a record."""
    folder = file.parent / "trajectories"
    if not folder.is_dir():
        return 0
    named = set()
    for line in file.read_bytes().split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("trajectory"), str):
            named.add(value["trajectory"])
    return sum(str(path.relative_to(file.parent)) not in named for path in folder.rglob("*.jsonl"))


def _missing_trials(config: dict[str, object] | None, records: Sequence[TrialRecord]) -> int | None:
    """Task x arm x seed of the configuration that no record is of; None where it does not say."""
    if config is None:
        return None
    asked = config.get("config")
    tasks, seeds = config.get("tasks"), asked.get("seeds") if isinstance(asked, dict) else None
    if (
        not isinstance(tasks, list)
        or not isinstance(seeds, list)
        or not all(isinstance(x, str | int) for x in tasks + seeds)
    ):
        return None
    recorded = {(record.task, record.arm, record.seed) for record in records}
    return sum(key not in recorded for key in product(tasks, _arm_names(config), seeds))


def _arm_names(config: dict[str, object] | None) -> list[str]:
    asked = (config or {}).get("config")
    arms = asked.get("arms") if isinstance(asked, dict) else None
    return [str(arm["name"]) for arm in arms or () if isinstance(arm, dict) and "name" in arm]


def _config(folder: Path) -> JsonObject | None:
    try:
        value = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None

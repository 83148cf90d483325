"""From a configuration to the list of trials: which tasks, in which order, with which digest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from leyline.directives.counts import count
from leyline.directives.digest import config_digest
from leyline.evals.trials.arms import Arm
from leyline.evals.trials.config import ConfigError, EvalConfig, SamplingSpec, TrialLimits
from leyline.evals.trials.journal import Journal
from leyline.evals.trials.record import TrialKey, TrialOutcome, TrialRecord
from leyline.models.find import is_named, model_folder
from leyline.models.identity import file_digest, folder_digest
from leyline.policies import load_policy
from leyline.policies.source import policy_sources
from leyline.suites.spec import SuiteSpec
from leyline.suites.suite import Suite, TaskInfo


@dataclass(frozen=True)
class TrialSpec:
    """One trial to run: picklable, and all a worker needs. alone: no other trial runs on the machine meanwhile."""

    suite: SuiteSpec
    task: TaskInfo
    arm: Arm
    seed: int
    limits: TrialLimits
    sampling: SamplingSpec
    digest: str
    attempt: int = 0
    trajectory: str | None = None
    directory: str = "."
    alone: bool = False

    @property
    def key(self) -> TrialKey:
        return TrialKey(self.suite.name, self.task.id, self.arm.name, self.seed, self.digest)

    def record(self, outcome: TrialOutcome, **found: Any) -> TrialRecord:
        """The record of this trial; found: further fields, or better ones."""
        known = {
            "attempt": self.attempt,
            "policy": self.arm.policy,
            "mode": self.arm.mode,
            "backend": self.arm.backend,
            "model": self.arm.model,
            "control": self.arm.control,
            "tags": dict(self.task.tags),
        }
        return TrialRecord(**self.key._asdict(), outcome=outcome, **{**known, **found})


def select(tasks: Sequence[TaskInfo], *, pattern: str | None, cut: str | None, n: int | None) -> list[TaskInfo]:
    """Filter, then slice, then at most n. Raises ConfigError."""
    chosen = list(tasks)
    if pattern is not None:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"filter {pattern!r} is not a regular expression: {error}") from None
        chosen = [task for task in chosen if expression.search(task.id)]
    if cut is not None:
        parts = cut.split(":")
        try:
            numbers = [int(part) if part else None for part in parts]
            chosen = chosen[slice(*numbers)] if len(parts) > 1 else [chosen[int(cut)]]
        except (ValueError, TypeError, IndexError):
            raise ConfigError(
                f"slice {cut!r} is not START:STOP or START:STOP:STEP within {count(len(chosen), 'task')}"
            ) from None
    return chosen[:n]


def planned_trials(config: EvalConfig, suite: Suite, directory: Path) -> list[TrialSpec]:
    """Every trial of the eval, task by task, so that arms stay paired while a run is unfinished. Raises ConfigError."""
    n = config.n or (None if config.filter or config.slice else suite.default_n)
    chosen = select(suite.tasks(), pattern=config.filter, cut=config.slice, n=n)
    if not chosen:
        raise ConfigError("no task is left: look at --filter, --slice and the suite's options")
    specs = []
    models = {arm.name: model_identity(arm) for arm in config.arms}
    policies = {arm.name: policy_sources(load_policy(arm.policy)) for arm in config.arms}
    options = {arm.name: options_content(arm) for arm in config.arms}
    for position, task in enumerate(chosen):
        task_digest = suite.digest(task.id)
        for seed in config.seeds:
            for arm in config.arms:
                digest = config_digest(
                    {
                        "arm": arm.digest(),
                        "model": models[arm.name],
                        "policy": policies[arm.name],
                        "task": task_digest,
                        "limits": config.limits.model_dump(),
                        "sampling": config.sampling.model_dump(),
                        **({"options": options[arm.name]} if options[arm.name] else {}),
                    }
                )
                keep = config.trajectories == "all" or (config.trajectories == "sample" and position < 3)
                name = f"trajectories/{safe_name(arm.name)}/{safe_name(task.id)}-{seed}" if keep else None
                specs.append(
                    TrialSpec(
                        suite=config.suite,
                        task=task,
                        arm=arm,
                        seed=seed,
                        limits=config.limits,
                        sampling=config.sampling,
                        digest=digest,
                        trajectory=name,
                        directory=str(directory),
                        alone=config.workers <= 1 and config.executor == "local",
                    )
                )
    return specs


def check_same(specs: Sequence[TrialSpec], records: Sequence[TrialRecord]) -> None:
    """Raise ConfigError where a planned trial is recorded under another digest: one name for two things."""
    planned = {spec.key[:4]: spec.digest for spec in specs}
    for record in records:
        if planned.get(record.key[:4], record.digest) != record.digest:
            raise ConfigError(
                f"arm {record.arm!r} is recorded for {record.task} with other settings (policy, model, limits, "
                "sampling or task): choose another --out, or another name for the arm"
            )


def outstanding(specs: Sequence[TrialSpec], journal: Journal, redo: str) -> list[TrialSpec]:
    """The trials that are not recorded, or are to be run again, each with its attempt number."""
    recorded = {record.key: record for record in journal.loaded.records}
    todo = []
    for spec in specs:
        record = recorded.get(spec.key)
        if record is not None and not _again(record, redo):
            continue
        attempt = journal.next_attempt(spec.key)
        suffix = f"-{attempt}" if attempt else ""
        name = f"{spec.trajectory}{suffix}.jsonl" if spec.trajectory else None
        todo.append(replace(spec, attempt=attempt, trajectory=name))
    return todo


def model_identity(arm: Arm) -> str:
    """What a trial's digest holds of the model behind an arm.

    A bundled model's hash; the content of a folder; the name on a server, whose files are out of sight; a script.
    """
    if arm.backend == "mock":
        script = Path(str(arm.options.get("script")))
        return config_digest({"script": script.read_text("utf-8") if script.is_file() else str(script)})
    if arm.backend != "local":
        return f"{arm.url}#{arm.model}"
    folder = Path(arm.model).expanduser()
    if folder.is_dir():
        return folder_digest(folder)
    return model_folder(arm.model).name if is_named(arm.model) else arm.model


def options_content(arm: Arm) -> dict[str, str]:
    """The content of the files that an arm's options name, such as a gate: measured again, it allows something else."""
    named = {name: Path(value).expanduser() for name, value in arm.options.items() if isinstance(value, str)}
    return {name: file_digest(file) for name, file in named.items() if name != "script" and file.is_file()}


def _again(record: TrialRecord, redo: str) -> bool:
    return redo == "all" or (redo == "errors" and record.outcome is TrialOutcome.ERROR)


def safe_name(name: str) -> str:
    """A file name that differs wherever `name` does."""
    plain = re.sub(r"[^A-Za-z0-9_.+-]+", "_", name).strip("._") or "x"
    return plain if plain == name else f"{plain[:80]}-{config_digest({'name': name})[:6]}"

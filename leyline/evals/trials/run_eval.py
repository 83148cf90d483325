"""The eval itself: plan, run what is not recorded yet, write each record as it comes."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Protocol, Self

from leyline.directives.counts import count
from leyline.evals.trials.arms import check_arms
from leyline.evals.trials.config import Budget, EvalConfig
from leyline.evals.trials.journal import Journal, load
from leyline.evals.trials.pool import Executor, InlineExecutor, ProcessExecutor
from leyline.evals.trials.record import TrialKey, TrialOutcome, TrialRecord
from leyline.evals.trials.rundir import scratch_space, write_config
from leyline.evals.trials.schedule import TrialSpec, check_same, outstanding, planned_trials
from leyline.evals.trials.scoring import score_suite
from leyline.evals.trials.serving import check_backends, name_served
from leyline.suites import load_suite


class Watcher(Protocol):
    """Is told what happens."""

    def notes(self, lines: Sequence[str]) -> None:
        """What the suite's preflight found, before anything runs."""

    def planning(self) -> None:
        """The tasks are being laid out; some suites take seconds for it."""

    def begin(self, specs: Sequence[TrialSpec], recorded: Sequence[TrialRecord], todo: int) -> None:
        """Every trial of the plan, those of them that are recorded, and how many are to run now."""

    def trial(self, record: TrialRecord) -> None: ...

    def end(self) -> None: ...


@dataclass
class Summary:
    """How a run ended.

    records: of all trials of this configuration, in plan order. planned: how many it asks for. ran: how many ran now.
    stopped: why it ended before its end, or None. interrupted: Ctrl-C was that reason.
    notes: what scoring has to say, one line each.
    """

    directory: Path
    planned: int
    ran: int = 0
    records: list[TrialRecord] = field(default_factory=list)
    stopped: str | None = None
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        return self.planned - len(self.records)


def run_eval(
    config: EvalConfig,
    directory: Path,
    watcher: Watcher,
    *,
    make_executor: Callable[[EvalConfig], Executor] | None = None,
) -> Summary:
    """Run every trial of `config` that `directory` has no record of.

    Raises a LeylineError before any trial runs, for a wrong configuration, a server that does not answer, a suite that
    lacks something or a directory in use; a trial that fails is a record.
    Ctrl-C ends the run at once: finished trials are recorded, those that run are given up and run again next time.
    """
    check_arms(config.arms)
    check_backends(config.arms)
    config = config.model_copy(update={"arms": tuple(name_served(config.arms))})
    suite = load_suite(config.suite)
    watcher.notes([*suite.preflight(), *_notes(config)])
    inline = config.executor == "local" and config.workers == 0
    with Journal(directory) as journal, scratch_space(directory) as scratch, Stop(at_once=inline) as stop:
        watcher.planning()
        specs = planned_trials(config, suite, directory)
        check_same(specs, journal.loaded.records)
        todo = outstanding(specs, journal, config.redo)
        write_config(directory, config, list(dict.fromkeys(spec.task.id for spec in specs)), len(specs))
        keys = {spec.key for spec in specs}
        watcher.begin(specs, [r for r in journal.loaded.records if r.key in keys], len(todo))
        control = Brake(config.budget, stop)
        summary = Summary(directory, len(specs))
        try:
            chosen = executor(config, scratch) if make_executor is None else make_executor(config)
            for record in chosen.run(todo, control):
                journal.append(record)
                control.count(record)
                summary.ran += 1
                watcher.trial(record)
        except KeyboardInterrupt:  # without workers, or the second Ctrl-C
            stop.requested = True
        finally:
            watcher.end()
    summary.interrupted = stop.requested
    if not summary.interrupted:
        summary.notes = score_suite(directory, suite)
    summary.records = recorded(directory, [spec.key for spec in specs])
    summary.stopped = "interrupted" if stop.requested else control.reason
    return summary


def recorded(directory: Path, keys: Sequence[TrialKey]) -> list[TrialRecord]:
    """The records of `keys`, in their order, as far as there are any."""
    found = {record.key: record for record in load(directory).records}
    return [found[key] for key in keys if key in found]


def executor(config: EvalConfig, scratch: Path | None = None) -> Executor:
    """What runs the trials. scratch: where processes on this machine make their temporary files.

    Raises ConfigError where Ray is asked for and not there.
    """
    if config.executor == "ray":
        from leyline.evals.trials.ray_pool import RayExecutor

        return RayExecutor(max(1, config.workers) if "workers" in config.model_fields_set else None)
    return ProcessExecutor(config.workers, scratch=scratch) if config.workers else InlineExecutor()


class Brake:
    """Says when to start nothing more: a budget is spent, errors came in a row, or one that every trial would meet."""

    def __init__(self, budget: Budget, stop: Stop) -> None:
        self._budget, self._stop = budget, stop
        self._started = time.monotonic()
        self._tokens = self._errors = 0
        self.reason: str | None = None

    def more(self) -> bool:
        if self.reason is None:
            self.reason = self._spent()
        return self.reason is None

    def stopped(self) -> bool:
        return self._stop.requested

    def count(self, record: TrialRecord) -> None:
        self._tokens += record.total("prefilled") + record.total("completion")
        self._errors = self._errors + 1 if record.outcome is TrialOutcome.ERROR else 0
        if record.final:
            self.reason = str(record.detail)
        elif self._budget.errors is not None and self._errors >= self._budget.errors:
            row = count(self._errors, "trial")
            self.reason = f"{row} in a row ended in an error, the last one with: {record.detail}"

    def _spent(self) -> str | None:
        budget = self._budget
        if budget.minutes is not None and time.monotonic() - self._started >= budget.minutes * 60:
            return f"the budget of {budget.minutes:g} {'minute' if budget.minutes == 1 else 'minutes'} is spent"
        if budget.tokens is not None and self._tokens >= budget.tokens:
            return f"the budget of {count(budget.tokens, 'token')} is spent"
        return None


class Stop:
    """Ctrl-C as a request: the first one sets `requested`, the second one (or the first, `at_once`) raises as well."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.requested = False
        self._at_once = at_once
        self._before: signal.Handlers | Callable[[int, FrameType | None], object] | int | None = None
        self._installed = False

    def __enter__(self) -> Self:
        try:
            self._before = signal.signal(signal.SIGINT, self._handle)
            self._installed = True
        except ValueError:  # not in the main thread: whoever owns it decides
            pass
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested, True
        if again or self._at_once:
            raise KeyboardInterrupt


def _notes(config: EvalConfig) -> list[str]:
    """What a person should know of the configuration before it runs."""
    notes = []
    if len(config.seeds) > 1 and config.sampling.temperature == 0:
        notes.append(f"temperature is 0: the {len(config.seeds)} seeds give the same answers; set --temperature")
    if any(arm.backend == "openai" for arm in config.arms):
        notes.append("a plain server shares its cache between trials: openings may hit what another trial left there")
    return notes

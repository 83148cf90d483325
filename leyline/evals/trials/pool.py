"""Worker processes that survive each other: a trial that kills its worker costs that trial only."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from leyline.evals.trials.record import TrialKey, TrialOutcome, TrialRecord
from leyline.evals.trials.schedule import TrialSpec

POLL_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1


class Runner(Protocol):
    """Runs trials in one process."""

    def run(self, spec: TrialSpec) -> TrialRecord: ...

    def close(self) -> None: ...


class Control(Protocol):
    """When an executor has to hold back."""

    def more(self) -> bool:
        """Asked before each start; once it is false, what runs is finished and nothing else begins."""

    def stopped(self) -> bool:
        """Once it is true the executor gives out what is finished and ends at once; what runs is given up."""


class Executor(Protocol):
    """Runs trials somewhere and yields their records as they finish, in any order."""

    def run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]: ...


def make_runner() -> Runner:
    from leyline.evals.trials.trial import TrialRunner

    return TrialRunner()


class InlineExecutor:
    """Runs the trials in this process, one after another."""

    def __init__(self, factory: Callable[[], Runner] = make_runner) -> None:
        self._factory = factory

    def run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]:
        runner = self._factory()
        try:
            for spec in specs:
                if control.stopped() or not control.more():
                    return
                yield runner.run(spec)
        finally:
            runner.close()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    spec: TrialSpec | None = None


class ProcessExecutor:
    """A fixed number of spawned processes.

    A worker that dies is replaced and its trial starts again; a trial whose worker died twice is recorded as an error.
    scratch: the folder for the workers' temporary files; None leaves them where the system has them.
    """

    def __init__(
        self, workers: int, factory: Callable[[], Runner] = make_runner, *, scratch: Path | None = None
    ) -> None:
        self._count = workers
        self._factory = factory
        self._scratch = scratch
        self._context = multiprocessing.get_context("spawn")

    def run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]:
        queue = deque(specs)
        deaths: Counter[TrialKey] = Counter()
        workers = [self._start() for _ in range(min(self._count, len(queue)))]
        try:
            while True:
                for worker in workers:
                    if worker.spec is None and queue and control.more():
                        self._give(worker, queue.popleft())
                busy = {worker.pipe: worker for worker in workers if worker.spec is not None}
                stopped = control.stopped()
                if not busy:
                    return
                for pipe in wait(list(busy), 0 if stopped else POLL_SECONDS):
                    worker = busy[pipe]  # type: ignore[index]
                    spec, record = self._take(worker)
                    if record is None:
                        deaths[spec.key] += 1
                        workers[workers.index(worker)] = self._start()
                        if stopped:
                            continue
                        if deaths[spec.key] < 2:
                            queue.appendleft(spec)
                            continue
                        record = died(spec, worker.process.exitcode)
                    yield record
                if stopped:
                    return
        finally:
            for worker in workers:
                worker.pipe.close()
                if worker.spec is not None:
                    worker.process.terminate()
            for worker in workers:
                self._stop(worker)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work, args=(theirs, os.getpid(), self._factory, self._scratch), daemon=False
        )
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, spec: TrialSpec) -> None:
        worker.spec = spec
        try:
            worker.pipe.send(spec)
        except OSError:
            worker.process.join()  # it died between trials; `_take` finds the pipe at its end

    def _take(self, worker: _Worker) -> tuple[TrialSpec, TrialRecord | None]:
        """What a worker sent for its trial; None where it died."""
        spec = worker.spec
        if spec is None:
            raise RuntimeError("an idle worker has no result")
        worker.spec = None
        try:
            record = worker.pipe.recv()
        except (EOFError, OSError):
            worker.pipe.close()
            worker.process.join()
            return spec, None
        if not isinstance(record, TrialRecord):
            raise RuntimeError(f"a worker sent a {type(record).__name__}")
        return spec, record

    def _stop(self, worker: _Worker) -> None:
        worker.process.join(timeout=5)
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join(timeout=5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


def died(spec: TrialSpec, code: int | None) -> TrialRecord:
    """The record of a trial whose process ended under it; `code` as multiprocessing has it, None where unknown."""
    how = (
        f"signal {-code} ({signal.Signals(-code).name})"
        if code is not None and code < 0
        else f"exit code {'unknown' if code is None else code}"
    )
    hint = "; out of memory? try fewer --workers" if code == -signal.SIGKILL else ""
    return spec.record(TrialOutcome.ERROR, detail=f"the worker process ended twice: {how}{hint}")


def _work(pipe: Connection, parent: int, factory: Callable[[], Runner], scratch: Path | None) -> None:
    """A worker's life: trials in, records out, until the pipe closes. Dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which stops us
    signal.signal(signal.SIGTERM, _leave)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
    if scratch is not None:
        os.environ["TMPDIR"] = str(scratch)  # of this process and of those that it starts
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):  # read when torch is imported, which is later
        os.environ[name] = "1"
    runner = factory()
    try:
        while True:
            try:
                spec = pipe.recv()
            except (EOFError, OSError):
                return
            pipe.send(runner.run(spec))
    finally:
        runner.close()


def _leave(number: int, frame: object) -> None:
    """Unwind, so that the trial's folders are removed and its processes ended."""
    raise SystemExit(128 + number)

"""Worker processes that survive each other: a trial that kills its worker costs that trial only."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from leyline.evals.plan import TrialSpec
from leyline.evals.records import Outcome, TrialRecord

_PR_SET_PDEATHSIG = 1


class Runner(Protocol):
    """Runs trials in one process."""

    def run(self, spec: TrialSpec) -> TrialRecord: ...

    def close(self) -> None: ...


class Executor(Protocol):
    """Runs trials somewhere and yields their records as they finish, in any order."""

    def run(self, specs: Sequence[TrialSpec], more: Callable[[], bool]) -> Iterator[TrialRecord]:
        """`more()` is asked before each start; once it is false, what runs is finished and nothing else begins."""


def make_runner() -> Runner:
    from leyline.evals.trial import TrialRunner

    return TrialRunner()


class InlineExecutor:
    """Runs the trials in this process, one after another."""

    def __init__(self, factory: Callable[[], Runner] = make_runner) -> None:
        self._factory = factory

    def run(self, specs: Sequence[TrialSpec], more: Callable[[], bool]) -> Iterator[TrialRecord]:
        runner = self._factory()
        try:
            for spec in specs:
                if not more():
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
    """A fixed number of spawned processes. A worker that dies is replaced, and its trial is recorded as an error."""

    def __init__(self, workers: int, factory: Callable[[], Runner] = make_runner) -> None:
        self._count = workers
        self._factory = factory
        self._context = multiprocessing.get_context("spawn")

    def run(self, specs: Sequence[TrialSpec], more: Callable[[], bool]) -> Iterator[TrialRecord]:
        queue = deque(specs)
        workers = [self._start() for _ in range(min(self._count, len(queue)))]
        try:
            while True:
                for worker in workers:
                    if worker.spec is None and queue and more():
                        self._give(worker, queue.popleft())
                busy = {worker.pipe: worker for worker in workers if worker.spec is not None}
                if not busy:
                    return
                for pipe in wait(list(busy)):
                    worker = busy[pipe]  # type: ignore[index]
                    record = self._take(worker)
                    if not worker.process.is_alive() and queue:
                        workers[workers.index(worker)] = self._start()
                    yield record
        finally:
            for worker in workers:
                self._stop(worker)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, os.getpid(), self._factory), daemon=False)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def _give(self, worker: _Worker, spec: TrialSpec) -> None:
        worker.spec = spec
        try:
            worker.pipe.send(spec)
        except OSError:
            worker.process.join()  # it died between trials; `_take` turns this into a record

    def _take(self, worker: _Worker) -> TrialRecord:
        spec = worker.spec
        if spec is None:
            raise RuntimeError("an idle worker has no result")
        worker.spec = None
        try:
            record = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            return died(spec, worker.process.exitcode)
        if not isinstance(record, TrialRecord):
            raise RuntimeError(f"a worker sent a {type(record).__name__}")
        return record

    def _stop(self, worker: _Worker) -> None:
        worker.pipe.close()
        worker.process.join(timeout=0 if worker.spec is not None else 5)
        if worker.process.is_alive():
            worker.process.terminate()
            worker.process.join(timeout=5)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.process.close()


def died(spec: TrialSpec, code: int | None) -> TrialRecord:
    """The record of a trial whose process ended under it."""
    how = f"signal {-code} ({signal.Signals(-code).name})" if code is not None and code < 0 else f"exit code {code}"
    hint = "; out of memory? try fewer --workers" if code == -signal.SIGKILL else ""
    return TrialRecord(
        suite=spec.suite.name,
        task=spec.task.id,
        arm=spec.arm.name,
        seed=spec.seed,
        digest=spec.digest,
        attempt=spec.attempt,
        outcome=Outcome.ERROR,
        detail=f"the worker process ended: {how}{hint}",
        policy=spec.arm.policy,
        mode=spec.arm.mode,
        backend=spec.arm.backend,
        model=spec.arm.model,
        control=spec.arm.control,
        tags=dict(spec.task.tags),
    )


def _work(pipe: Connection, parent: int, factory: Callable[[], Runner]) -> None:
    """A worker's life: trials in, records out, until the pipe closes. Dies with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which stops us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return
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

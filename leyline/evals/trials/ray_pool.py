"""Workers on a Ray cluster: the machines of `RAY_ADDRESS`, or a local cluster where it is not set.

Every machine needs leyline with the extras the arms need, and whatever the suite reads (task folders, rows). Nothing
is shared otherwise: a trajectory travels back with its record and is written on this side.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leyline.evals.trials.config import ConfigError
from leyline.evals.trials.pool import POLL_SECONDS, Control, Runner, died, make_runner
from leyline.evals.trials.record import TrialKey, TrialRecord
from leyline.evals.trials.schedule import TrialSpec

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


class RayWorker:
    """One worker process: what Ray makes an actor of."""

    def __init__(self, factory: Callable[[], Runner]) -> None:
        os.environ.update(_ENVIRONMENT)
        self._runner = factory()

    def run(self, spec: TrialSpec) -> tuple[TrialRecord, bytes | None]:
        """The record, and the content of the trajectory."""
        with tempfile.TemporaryDirectory(prefix="leyline-ray-") as folder:
            record = self._runner.run(replace(spec, directory=folder))
            kept = Path(folder, record.trajectory) if record.trajectory else None
            return record, kept.read_bytes() if kept is not None else None


class RayExecutor:
    """`workers` actors of one processor each. An actor that dies is replaced and its trial starts again, once."""

    def __init__(self, workers: int, factory: Callable[[], Runner] = make_runner) -> None:
        try:
            import ray
        except ImportError:
            raise ConfigError("--executor ray needs Ray: pip install 'leyline-kv[ray]'") from None
        self._ray: Any = ray
        self._count = workers
        self._factory = factory

    def run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]:
        ray = self._ray
        if ray.is_initialized():
            yield from self._run(specs, control)
            return
        # Ray's sockets lie in its folder, and a socket's path has at most 107 bytes: $TMPDIR may be too long.
        short = "/tmp" if Path("/tmp").is_dir() else None
        with (
            tempfile.TemporaryDirectory(prefix="ray-", dir=short, ignore_cleanup_errors=True) as folder,
            contextlib.redirect_stdout(sys.stderr),  # Ray prints its notices to where a script reads our JSON
        ):
            try:
                self._connect(folder)
                yield from self._run(specs, control)
            finally:
                ray.shutdown()

    def _connect(self, folder: str) -> None:
        address = os.environ.get("RAY_ADDRESS")
        local = {} if address else {"num_cpus": self._count, "include_dashboard": False, "_temp_dir": folder}
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="warning", **local)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"cannot reach a Ray cluster at {address or 'this machine'}: {error}") from None

    def _run(self, specs: Sequence[TrialSpec], control: Control) -> Iterator[TrialRecord]:
        ray = self._ray
        make = ray.remote(num_cpus=1, max_restarts=0)(RayWorker)
        queue = deque(specs)
        deaths: Counter[TrialKey] = Counter()
        idle = [make.remote(self._factory) for _ in range(min(self._count, len(queue)))]
        running: dict[Any, tuple[Any, TrialSpec]] = {}
        try:
            while True:
                while idle and queue and control.more():
                    worker, spec = idle.pop(), queue.popleft()
                    running[worker.run.remote(spec)] = (worker, spec)
                stopped = control.stopped()
                if not running:
                    return
                ready, _ = ray.wait(list(running), num_returns=len(running), timeout=0 if stopped else POLL_SECONDS)
                for future in ready:
                    worker, spec = running.pop(future)
                    try:
                        record, trajectory = ray.get(future)
                    except ray.exceptions.RayActorError:
                        deaths[spec.key] += 1
                        idle.append(make.remote(self._factory))
                        if deaths[spec.key] < 2 and not stopped:
                            queue.appendleft(spec)
                        elif not stopped:
                            yield died(spec, None)
                        continue
                    idle.append(worker)
                    _keep(spec, record, trajectory)
                    yield record
                if stopped:
                    return
        finally:
            for worker in [*idle, *(worker for worker, _ in running.values())]:
                ray.kill(worker)


def _keep(spec: TrialSpec, record: TrialRecord, trajectory: bytes | None) -> None:
    if trajectory is not None and record.trajectory is not None:
        path = Path(spec.directory) / record.trajectory
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(trajectory)
